/** What an agent brings back after a restart of itself, of its data plane or of its session. */
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { describe, test } from 'node:test';
import type { Ticket } from '../../agent/core/map-requests.ts';
import { StateFolder } from '../../agent/shell/identity.ts';
import { eidKey, parseEid } from '../../proto/eid.ts';
import type { Generation } from '../../proto/mapping.ts';
import { A, B, P, talking } from './pair.ts';
import { World } from './world.ts';
import { FakeDataplaneState } from './world-dataplane.ts';

describe('restarts', () => {
  test('a new session registers with the generations and subscribes to the whole map-cache', () => {
    const { world, a, b } = talking();
    b.disconnect();
    world.server.restart();
    a.plug('198.51.100.7');
    b.connect();
    assert.equal(b.stateOf(B), 'live@1');
    assert.ok(b.sent.every((message) => message.type !== 'map-register' || b.stateOf(B) === 'live@1'));
    assert.equal(world.server.subscribersOf(A), 1);
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['198.51.100.7:4341'], 'what changed meanwhile is learnt');
  });

  test('after a roam, what is in the map-cache is subscribed to again when correspondents have switched', () => {
    const { world, b } = talking();
    world.server.restart();
    b.plug('198.51.100.7');
    b.disconnect();
    world.advance(50);
    b.connect();
    world.advance(200);
    assert.equal(b.stateOf(B), 'live@1', 'registered at once');
    assert.equal(world.server.subscribersOf(A), 0);
    world.advance(100);
    assert.equal(world.server.subscribersOf(A), 1);
  });

  test('a large map-cache is subscribed to again in a bounded window', () => {
    const world = new World();
    const a = world.host('a', { address: '192.0.2.1' });
    const b = world.host('b', { address: '192.0.2.2' });
    a.connect();
    b.connect();
    for (let i = 0; i < 600; i++) a.attach(`10.77.${i >> 8}.${i & 255}`);
    for (let i = 0; i < 600; i++) {
      b.miss(`10.77.${i >> 8}.${i & 255}`);
      world.advance(5);
    }
    b.disconnect();
    world.server.restart();
    b.connect();
    world.advance(10_000);
    assert.equal(world.server.subscribersOf('10.77.0.0'), 1);
    assert.equal(world.server.subscribersOf('10.77.2.87'), 1);
  });

  test('a restarted data plane gets everything, with a larger epoch', () => {
    const { a, b } = talking();
    b.attach('10.77.0.8', { interface: 'veth8' });
    const epoch = b.dataplane?.epoch ?? 0;
    b.loseDataplane();
    const fresh = b.attachDataplane(new FakeDataplaneState('two'));
    assert.ok(fresh.epoch > epoch);
    assert.equal(fresh.route(A), a.key);
    assert.equal(fresh.route(B), 'here');
    assert.ok(fresh.watches.has('veth8'));
    assert.deepEqual(fresh.types().slice(0, 2), ['configure', 'sync-begin']);
    assert.equal(fresh.types().at(-1), 'sync-end');
  });

  test('a re-attached data plane keeps its epoch', () => {
    const { b } = talking();
    const state = b.dataplane;
    assert.ok(state);
    const { epoch } = state;
    b.loseDataplane();
    b.attachDataplane(state);
    assert.equal(state.epoch, epoch);
  });

  test('a restarted agent disturbs nothing: it syncs what the disk knows before any session', () => {
    const { world, a, b } = talking();
    const state = b.dataplane;
    assert.ok(state);
    b.loseDataplane();
    b.restart();
    const mark = state.log.length;
    b.attachDataplane(state);
    assert.equal(state.route(A), a.key);
    assert.equal(state.route(B), 'here');
    assert.deepEqual(state.peers.get(a.key), ['192.0.2.1:4341']);
    const since = state.log.slice(mark).map(({ type }) => type);
    assert.ok(!since.some((type) => type.endsWith('-remove')));
    assert.equal(b.stateOf(B), 'live@1');
    b.plug('192.0.2.2');
    b.connect();
    world.advance(1000);
    assert.equal(b.stateOf(B), 'live@1', 'the generation is the one from disk');
    assert.equal(state.route(A), a.key);
    assert.equal(world.server.subscribersOf(A), 1);
  });

  test('what an agent did not live to write down goes on to be forwarded, and is asked for when the map server is there', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    const b = world.host('b', { eids: [B], address: '192.0.2.2' });
    a.connect();
    b.connect();
    const onDisk = structuredClone(b.saved);
    b.miss(A);
    const state = b.dataplane;
    assert.ok(state);
    Object.assign(b.saved, onDisk);
    b.loseDataplane();
    b.restart(false);
    const mark = state.log.length;
    b.attachDataplane(state);
    world.advance(60_000);
    assert.equal(state.route(A), a.key);
    assert.deepEqual(state.peers.get(a.key), ['192.0.2.1:4341']);
    assert.ok(!state.log.slice(mark).some(({ type }) => type.endsWith('-remove')));
    a.plug('198.51.100.7');
    a.detach(A);
    b.connect();
    world.advance(10_000);
    assert.equal(state.route(A), 'drop', 'the map server has the last word');
  });

  test('a mapping that the data plane has newer than the disk is not taken back', () => {
    const { world, a, b } = talking();
    const c = world.host('c', { address: '192.0.2.3' });
    c.connect();
    const onDisk = structuredClone(b.saved);
    c.attach(A);
    assert.equal(b.dataplane?.route(A), c.key);
    const state = b.dataplane;
    Object.assign(b.saved, onDisk);
    b.loseDataplane();
    b.restart(false);
    b.attachDataplane(state);
    assert.equal(state.route(A), c.key);
    assert.ok(state.peers.has(c.key) && a.stateOf(A).startsWith('drain'));
    b.connect();
    world.advance(10_000);
    assert.equal(state.route(A), c.key);
  });

  test('what the data plane of another agent or process forwards is not taken over', () => {
    const { b } = talking();
    const state = b.dataplane;
    assert.ok(state);
    b.loseDataplane();
    Object.assign(b.saved, { cache: [], dataplane: { process: 'another', epoch: 1 } });
    b.restart(false);
    b.attachDataplane(state);
    assert.equal(state.route(A), 'miss');
  });

  test('what was refused stays refused, with the reason, until it is granted', () => {
    const world = new World();
    const b = world.host('b', { address: '192.0.2.2' });
    world.server.denied.add(eidKey(parseEid(B)));
    b.connect();
    b.attach(B);
    b.loseDataplane();
    b.restart();
    const state = b.attachDataplane(new FakeDataplaneState('two'));
    assert.equal(state.route(B), 'miss', 'its packets are still not taken');
    const own = () => b.agent.ownEids().find(({ key }) => key === eidKey(parseEid(B)));
    assert.match(own()?.problem ?? '', /not granted/);
    world.server.denied.clear();
    b.plug('192.0.2.2');
    b.connect();
    assert.equal(b.stateOf(B), 'live@1');
    assert.equal(own()?.problem, null);
    assert.equal(state.route(B), 'here');
  });

  test('as many EIDs and names as an agent takes, and as much as it gave up, are read again', (t) => {
    const world = new World();
    const a = world.host('a');
    const names = (at: number, count = 16) => Array.from({ length: count }, (_, n) => `n${at}-${n}`);
    const takes = (at: number, names: readonly string[] | null) => {
      const prefix = P(`10.77.${at >> 8}.${at & 255}`);
      const request = { prefix, names, interface: null, when: 'now' } as const;
      return a.agent.attach(request, 0 as Ticket, world.now);
    };
    let eids = 0;
    while (eids < 1024 && takes(eids, names(eids))) eids++;
    while (takes(eids, names(eids, 1))) eids++;
    while (takes(eids, [])) eids++;
    assert.ok(takes(0, null), 'what is attached already needs no room');
    assert.ok(!takes(0, names(0, 17)));
    const { eids: saved, targets, departures } = a.agent.save(world.now);
    assert.equal(saved.length, 8192);
    const generation = 1 as Generation;
    const withdrawals = saved.map((_, at) => ({ eid: eidKey(parseEid(`given-up-${at}`)), generation }));
    const folder = mkdtempSync(joinPath(tmpdir(), 'stayput-eids-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const state = new StateFolder(folder);
    state.writeEids({ eids: saved, withdrawals, targets, departures });
    assert.deepEqual(state.eids(), { eids: saved, withdrawals, targets, departures });
    assert.ok(a.agent.detach(P('10.77.0.0'), world.now));
    assert.ok(takes(eids, names(eids)));
  });

  test('an agent that lost its state folder does not lower the epoch', () => {
    const world = new World();
    const a = world.host('a', { eids: [A] });
    assert.ok(a.attachDataplane().epoch >= 1000, 'it is at least the wall clock');
  });
});
