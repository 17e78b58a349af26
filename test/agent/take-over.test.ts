/** An EID that goes from one agent to another, with the map server between them. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { DEFAULT_INSTANCE, eidKey, prefixEid } from '../../proto/eid.ts';
import { A, found, P, talking } from './pair.ts';
import { World } from './world.ts';
import { FakeDataplaneState } from './world-dataplane.ts';

describe('a move to another agent', () => {
  test('a target becomes live when its interface comes up, and everybody is told in the same instant', () => {
    const { world, a, b } = talking();
    const c = world.host('c', { address: '192.0.2.3' });
    c.connect();
    const ticket = c.attach(A, { interface: 'veth0', names: ['db'] });
    assert.equal(c.stateOf(A), 'target@0');
    c.event({ type: 'interface', name: 'veth0', up: false });
    assert.deepEqual(c.answers.get(ticket), { kind: 'attachment', state: 'target', generation: 0, problem: null });
    assert.deepEqual([...(c.dataplane?.watches ?? [])], ['veth0']);
    assert.equal(a.stateOf(A), 'live@1', 'nothing changes for the owner yet');

    c.event({ type: 'interface', name: 'veth0', up: true });
    assert.equal(c.stateOf(A), 'live@2');
    const local = c.dataplane?.locals.get(P(A));
    assert.deepEqual(local, { generation: 2, interface: 'veth0', redirectFrom: a.key });
    assert.ok(c.dataplane?.peers.has(a.key), 'the previous owner is a peer, so that its redirects are accepted');

    assert.equal(a.stateOf(A), 'drain@1');
    assert.equal(a.dataplane?.route(A), c.key);
    assert.equal(a.dataplane?.redirects.get(P(A)), c.key);
    assert.equal(b.dataplane?.route(A), c.key);
    assert.deepEqual(b.dataplane?.peers.get(c.key), ['192.0.2.3:4341']);
    assert.equal(c.stateOf('db'), 'live@2');
    assert.equal(a.stateOf('db'), 'lost@1');
    assert.equal(world.now, 1000, 'no time passed');

    const order = a.dataplane?.types() ?? [];
    assert.ok(order.lastIndexOf('mapping-set') < order.lastIndexOf('local-eid-remove'), 'the new way is known first');
    world.advance(31_000);
    assert.equal(a.stateOf(A), 'lost@1');
    world.advance(90_000);
    assert.equal(c.dataplane?.locals.get(P(A))?.redirectFrom, null);
  });

  test('an EID that was live here for long and is taken back unheard gets what the other owner still forwards', () => {
    const { world, a, b } = talking();
    world.advance(120_000);
    a.lag();
    b.attach(A);
    a.attach(A);
    a.catchUp();
    assert.equal(a.stateOf(A), 'live@3');
    world.advance(60_000);
    a.loseDataplane();
    const fresh = a.attachDataplane(new FakeDataplaneState('two'));
    assert.equal(fresh.locals.get(P(A))?.redirectFrom, b.key);
    assert.ok(fresh.peers.has(b.key));
    world.advance(40_000);
    assert.equal(fresh.locals.get(P(A))?.redirectFrom, null);
  });

  test('what was granted stays owned when it became a target before the answer came', () => {
    const { world, b } = talking();
    b.lag();
    b.attach(A, { names: ['db'] });
    b.attach(A, { interface: 'veth0' });
    assert.equal(b.stateOf(A), 'target@0');
    b.catchUp();
    assert.equal(b.stateOf('db'), 'live@2');
    assert.equal(b.stateOf(A), 'live@2', 'the map server sends everybody here');
    assert.deepEqual(b.dataplane?.locals.get(P(A))?.interface, 'veth0');
    world.advance(200_000);
    assert.equal(b.stateOf(A), 'live@2');
  });

  test('an EID that was lost just before a restart is followed after it', () => {
    const { world, a, b } = talking();
    const c = world.host('c', { address: '192.0.2.3' });
    c.connect();
    b.attach(A);
    Object.assign(a.saved, { cache: a.saved.cache.map((entry) => ({ ...entry, asked: false })) });
    a.restart(false);
    a.attachDataplane();
    a.plug('192.0.2.1');
    a.connect();
    c.attach(A);
    assert.equal(a.dataplane?.route(A), c.key);
  });

  test('what the map server says to be ours is taken, although a crash came before it was written down', () => {
    const { world, a, b } = talking();
    b.attach(A, { names: ['db'] });
    assert.equal(a.stateOf(A), 'drain@1');
    const written = structuredClone(a.saved);
    a.attach(A);
    assert.equal(a.stateOf(A), 'live@3');
    Object.assign(a.saved, written);
    a.restart(false);
    assert.equal(a.stateOf(A), 'lost@1');
    a.attachDataplane();
    a.plug('192.0.2.1');
    a.connect();
    assert.deepEqual([a.stateOf(A), a.stateOf('db')], ['live@3', 'live@3']);
    assert.equal(a.dataplane?.route(A), 'here');
    world.advance(1000);
    assert.equal(b.dataplane?.route(A), a.key);
  });

  test('the answer to a target is not taken for that to its claim', () => {
    const { world } = talking();
    const c = world.host('c', { address: '192.0.2.3' });
    c.connect();
    c.attach(A, { interface: 'veth0' });
    c.event({ type: 'interface', name: 'veth0', up: false });
    c.lag();
    c.event({ type: 'locators', addresses: [] });
    c.plug('192.0.2.3');
    world.server.silent = true;
    c.event({ type: 'interface', name: 'veth0', up: true });
    c.catchUp();
    assert.equal(c.stateOf(A), 'base@0', 'the claim is still to be answered');
    assert.ok(!c.dataplane?.types().includes('local-eid-remove'));
    world.server.silent = false;
    world.advance(6000);
    assert.equal(c.stateOf(A), 'live@2');
  });

  test('an attach to an interface that is already up is answered when it is live', () => {
    const world = new World();
    const a = world.host('a', { address: '192.0.2.1' });
    a.connect();
    const ticket = a.attach(A, { interface: 'veth0' });
    a.event({ type: 'interface', name: 'veth0', up: true });
    assert.deepEqual(a.answers.get(ticket), { kind: 'attachment', state: 'live', generation: 1, problem: null });
  });

  test('a name stays with its EID when only the EID is taken over', () => {
    const { world, a, b } = talking();
    const c = world.host('c', { eids: [A], address: '192.0.2.3' });
    c.connect();
    assert.equal(a.stateOf('db'), 'live@1');
    assert.deepEqual(found(a, a.resolve('db')).targets, [A]);
    a.disconnect();
    a.connect();
    assert.deepEqual(found(b, b.resolve('db')).targets, [A]);
  });

  test('while the claim is on its way, news of the old owner do not undo it', () => {
    const { world, a } = talking();
    const c = world.host('c', { address: '192.0.2.3' });
    c.connect();
    c.miss(A);
    world.server.silent = true;
    c.attach(A, { interface: 'veth0', when: 'now' });
    const stored = world.server.mappings.get(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    assert.ok(stored);
    world.server.push([stored], [c.xtrId]);
    world.pump();
    assert.equal(c.dataplane?.route(A), 'here');
    world.server.silent = false;
    world.advance(7000);
    assert.equal(c.stateOf(A), 'live@2');
    assert.equal(a.stateOf(A), 'drain@1');
  });

  test('the old owner that was away learns it from the answer to its refresh, and stops', () => {
    const { world, a, b } = talking();
    a.disconnect();
    const c = world.host('c', { eids: [A], address: '192.0.2.3' });
    c.connect();
    assert.equal(c.stateOf(A), 'live@2');
    assert.equal(a.stateOf(A), 'live@1');
    a.connect();
    assert.equal(a.stateOf(A), 'drain@1');
    assert.equal(a.dataplane?.redirects.get(P(A)), c.key);
    assert.equal(c.stateOf(A), 'live@2', 'a stale owner takes nothing back');
    assert.equal(b.dataplane?.route(A), c.key);
  });

  test('a lost EID stays lost over a restart and comes back only by attach', () => {
    const { world, a } = talking();
    const c = world.host('c', { eids: [A], address: '192.0.2.3' });
    c.connect();
    a.restart();
    a.attachDataplane();
    a.plug('192.0.2.1');
    a.connect();
    assert.equal(a.stateOf(A), 'lost@1');
    assert.equal(c.stateOf(A), 'live@2');
    a.attach(A);
    assert.equal(a.stateOf(A), 'live@3');
    assert.equal(c.stateOf(A), 'drain@2');
  });

  test('the old side keeps an EID whose interface went down until somebody else has it', () => {
    const world = new World();
    const a = world.host('a', { address: '192.0.2.1' });
    a.connect();
    a.attach(A, { interface: 'veth0' });
    a.event({ type: 'interface', name: 'veth0', up: true });
    assert.equal(a.stateOf(A), 'live@1');
    a.event({ type: 'interface', name: 'veth0', up: false });
    world.advance(120_000);
    assert.equal(a.stateOf(A), 'live@1');
    assert.ok(a.dataplane?.locals.has(P(A)));
  });

  // Attack: the mapping of an earlier generation, to all hosts | 3 | ignored by each
  test('attack: a stale mapping pushed again', () => {
    const { world, a, b } = talking();
    const old = world.server.mappings.get(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    assert.ok(old);
    const c = world.host('c', { eids: [A], address: '192.0.2.3' });
    c.connect();
    world.server.push([old], [a.xtrId, b.xtrId, c.xtrId]);
    world.pump();
    assert.equal(b.dataplane?.route(A), c.key);
    assert.equal(a.dataplane?.route(A), c.key);
    assert.equal(c.stateOf(A), 'live@2');
  });
});
