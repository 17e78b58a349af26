/** What an agent registers, and what it believes of the answers. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { Locators } from '../../agent/core/locators.ts';
import { isTakenOver } from '../../agent/core/registrar.ts';
import { DEFAULT_INSTANCE, eidKey, nameEid, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf } from '../../proto/identity.ts';
import { mapNotify } from '../../proto/lisp/native.ts';
import type { Generation } from '../../proto/mapping.ts';
import { A, B, found, ip, P, talking } from './pair.ts';
import { World } from './world.ts';

describe('registration', () => {
  test('an attached EID with its name is registered with the locators and becomes live', () => {
    const world = new World();
    const a = world.host('a', { eids: [`${A} db`], address: '192.0.2.1' });
    assert.equal(a.stateOf(A), 'base@0');
    assert.equal(a.dataplane?.route(A), 'here', 'it is usable before the map server has answered');
    a.connect();
    assert.equal(a.stateOf(A), 'live@1');
    assert.equal(a.stateOf('db'), 'live@1');
    const stored = world.server.mappings.get(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    assert.deepEqual(stored?.locators, [{ address: '192.0.2.1', port: 4341, priority: 1, weight: 100 }]);
    assert.deepEqual(stored?.names, ['db']);
    assert.deepEqual(world.server.mappings.get(eidKey(nameEid(DEFAULT_INSTANCE, 'db')))?.targets, [A]);
    assert.ok(world.server.mappings.has(eidKey(prefixEid(DEFAULT_INSTANCE, P(agentAddressOf(a.key))))));
  });

  test('nothing is registered before the locators are known', () => {
    const world = new World();
    const a = world.host('a', { eids: [A] });
    a.connect();
    assert.deepEqual(a.sent, []);
    a.plug('192.0.2.1');
    assert.equal(a.stateOf(A), 'live@1');
  });

  test('a new locator is registered at once with the known generation', () => {
    const { world, a, b } = talking();
    const before = a.sent.length;
    a.plug('198.51.100.7');
    assert.equal(a.stateOf(A), 'live@1');
    assert.ok(a.sent.length > before);
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['198.51.100.7:4341'], 'the peer was told in the same instant');
    assert.equal(world.now, 1000, 'no time passed');
  });

  test('the address seen by the map server is added when it is not ours, and forgotten after a roam', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.168.1.5' });
    a.connect('203.0.113.9');
    const locators = () =>
      a.agent.snapshot(world.now).locators.map(({ address, priority }) => `${address} ${priority}`);
    assert.deepEqual(locators(), ['192.168.1.5 1', '203.0.113.9 2']);
    a.plug('192.168.2.5');
    assert.deepEqual(locators(), ['192.168.2.5 1']);
    a.connect('127.0.0.1');
    assert.deepEqual(locators(), ['192.168.2.5 1'], 'loopback is not a locator');
  });

  test('interfaces are preferred as configured, and equal ones carry their weights', () => {
    const locators = new Locators(4341, [
      { interface: 'lte0', priority: 9 },
      { interface: 'eth1', weight: 25 },
      { address: ip('203.0.113.9'), weight: 50 },
    ]);
    const local = (address: string, name: string) => ({ address: ip(address), interface: name, defaultRoute: true });
    locators.handleLocal(
      [local('198.51.100.3', 'lte0'), local('198.51.100.1', 'eth0'), local('198.51.100.2', 'eth1')],
      [],
    );
    assert.deepEqual(
      locators.list().map(({ address, priority, weight }) => `${address} ${priority} ${weight}`),
      ['203.0.113.9 1 50', '198.51.100.1 1 100', '198.51.100.2 1 25', '198.51.100.3 9 100'],
    );
  });

  test('a platform that names an address of the overlay itself, or of an agent in it, names no locator', () => {
    const locators = new Locators(4341, []);
    const overlay = [P('10.77.0.0/16')];
    locators.handleLocal([{ address: ip('10.0.0.5'), interface: 'eth0', defaultRoute: true }], overlay);
    const before = locators.list();
    assert.equal(locators.handlePlatform([ip('10.77.0.5'), ip('fd53:7461:7970:7574::1')], overlay), false);
    assert.deepEqual(locators.list(), before);
  });

  test('public addresses that the platform names come after those of interfaces, and go with the place', () => {
    const locators = new Locators(4341, []);
    const at = (address: string) => [{ address: ip(address), interface: 'eth0', defaultRoute: true }];
    const listed = () => locators.list().map(({ address, priority }) => `${address} ${priority}`);
    locators.handlePlatform([ip('203.0.113.9')], []);
    assert.deepEqual(listed(), [], 'without an interface they lead nowhere');
    locators.handleLocal(at('10.0.0.5'), []);
    assert.deepEqual(listed(), ['10.0.0.5 1', '203.0.113.9 2']);
    assert.equal(locators.handlePlatform([ip('203.0.113.9')], []), false, 'nothing new');
    assert.equal(locators.handlePlatform([ip('10.0.0.5'), ip('127.0.0.1')], []), true);
    assert.deepEqual(listed(), ['10.0.0.5 1'], 'neither twice, nor one that cannot be');
    locators.handlePlatform([ip('203.0.113.9')], []);
    locators.handleLocal(at('10.9.0.5'), []);
    assert.deepEqual(listed(), ['10.9.0.5 1'], 'it was that of the place before');
  });

  test('an uplink through which nobody answers is registered as the last resort, and the host counts as moved', () => {
    const locators = new Locators(4341, [{ interface: 'lte0', priority: 9 }]);
    const local = (address: string, name: string, silent: boolean) => ({
      ...{ address: ip(address), interface: name },
      ...{ defaultRoute: true, silent },
    });
    const told = (eth: boolean, lte: boolean) =>
      locators.handleLocal([local('198.51.100.1', 'eth0', eth), local('198.51.100.3', 'lte0', lte)], []);
    const listed = () => locators.list().map(({ address, priority }) => `${address} ${priority}`);
    assert.deepEqual(told(false, false), { moved: false, changed: true });
    assert.deepEqual(told(true, false), { moved: true, changed: true });
    assert.deepEqual(listed(), ['198.51.100.3 9', '198.51.100.1 254']);
    assert.deepEqual(locators.localAddresses(), ['198.51.100.3'], 'the session with the map server does not use it');
    assert.deepEqual(told(true, true), { moved: true, changed: true });
    assert.deepEqual(listed(), ['198.51.100.1 254', '198.51.100.3 254']);
    assert.deepEqual(told(true, true), { moved: false, changed: false });
    assert.deepEqual(told(false, false), { moved: true, changed: true });
    assert.deepEqual(listed(), ['198.51.100.1 1', '198.51.100.3 9']);
  });

  test('a policy that denies an EID is told to who attached it, and packets for it are not taken', () => {
    const world = new World();
    const a = world.host('a', { address: '192.0.2.1' });
    a.connect();
    world.server.denied.add(eidKey(prefixEid(DEFAULT_INSTANCE, P('10.77.9.9'))));
    const ticket = a.attach('10.77.9.9');
    const answer = a.answers.get(ticket);
    assert.equal(answer?.kind, 'attachment');
    assert.match(answer?.kind === 'attachment' ? (answer.problem ?? '') : '', /not granted/);
    assert.equal(a.dataplane?.route('10.77.9.9'), 'miss');
    world.server.denied.clear();
    world.advance(60_000);
    assert.equal(a.stateOf('10.77.9.9'), 'live@1', 'a later grant is found by the refresh');
  });

  test('an EID of another agent stays reachable when taking it over is denied', () => {
    const { world, a, b } = talking();
    world.server.denied.add(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    b.attach(A);
    assert.equal(b.stateOf(A), 'base@0');
    b.miss(A);
    assert.equal(b.dataplane?.route(A), a.key);
    world.server.denied.clear();
    a.plug('198.51.100.7');
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['198.51.100.7:4341'], 'and is followed');
  });

  test('an EID that was never here is not taken before it is granted, and its owner stays reachable until then', () => {
    const { a, b } = talking();
    b.miss(A);
    b.lag();
    const ticket = b.attach(A);
    assert.equal(b.stateOf(A), 'base@0');
    assert.equal(b.dataplane?.route(A), a.key, 'it may still be refused');
    assert.equal(b.answers.get(ticket), undefined);
    b.catchUp();
    assert.equal(b.stateOf(A), 'live@2');
    assert.equal(b.dataplane?.route(A), 'here');
    assert.equal(b.dataplane?.locals.get(P(A))?.redirectFrom, a.key);
  });

  test('an attempt that is refused, also a repeated one, never takes a packet of the owner', () => {
    const { world, a, b } = talking();
    b.miss(A);
    world.server.denied.add(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    const taken = () => b.dataplane?.log.filter((each) => each.type === 'local-eid-set' && each.prefix === P(A)).length;
    for (const via of [null, null, 'veth0']) {
      b.attach(A, via === null ? {} : { interface: via, when: 'now' });
      world.advance(61_000);
      assert.equal(b.dataplane?.route(A), a.key);
    }
    b.attach(A, { interface: 'veth0', when: 'up' });
    b.event({ type: 'interface', name: 'veth0', up: true });
    assert.equal(b.stateOf(A), 'base@0');
    assert.equal(b.dataplane?.route(A), a.key);
    assert.equal(taken(), 0);
  });

  test('what was here before, or has its workload here, is taken without waiting for the grant', () => {
    const { a, b } = talking();
    b.attach(A);
    assert.equal(a.stateOf(A), 'drain@1');
    a.lag();
    a.attach(A);
    assert.equal(a.dataplane?.route(A), 'here');
    b.lag();
    b.attach('10.77.0.8', { interface: 'veth0', when: 'now' });
    assert.equal(b.dataplane?.route('10.77.0.8'), 'here');
  });

  test('an answer that a session did not bring comes with the next one', () => {
    const { b } = talking();
    b.lag();
    b.attach(A);
    b.disconnect();
    assert.notEqual(b.dataplane?.route(A), 'here');
    b.connect();
    assert.equal(b.stateOf(A), 'live@2');
    assert.equal(b.dataplane?.route(A), 'here');
    b.disconnect();
    b.attach('10.77.0.8');
    assert.equal(b.dataplane?.route('10.77.0.8'), 'here', 'nobody is there to grant it');
  });

  test('a name that stayed here goes on to mean its EID while that is to come back', () => {
    const { world, a, b } = talking();
    b.attach(A);
    assert.equal(a.stateOf('db'), 'live@1');
    a.attach(A, { interface: 'veth0' });
    world.advance(61_000);
    assert.deepEqual(found(b, b.resolve('db')).targets, [A]);
    a.disconnect();
    b.attach(A, { names: ['db'] });
    a.connect();
    assert.equal(a.stateOf('db'), 'lost@1', 'and is registered, so that a new owner is heard of');
  });

  test('a name that an EID is attached without is given up', () => {
    const { world, a } = talking();
    a.attach(A, { names: ['web'] });
    assert.equal(world.server.mappings.has(eidKey(nameEid(DEFAULT_INSTANCE, 'db'))), false);
    assert.deepEqual(found(a, a.resolve('web')).targets, [A]);
  });

  test('a name is not claimed for an EID that is denied', () => {
    const { world, a, b } = talking();
    world.server.denied.add(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    world.server.denied.add(eidKey(nameEid(DEFAULT_INSTANCE, 'db')));
    b.attach(A, { names: ['db'] });
    world.server.denied.delete(eidKey(nameEid(DEFAULT_INSTANCE, 'db')));
    world.advance(60_000);
    assert.deepEqual(found(b, b.resolve('db')).targets, [A]);
    assert.equal(a.stateOf('db'), 'live@1');
    world.server.denied.clear();
    world.advance(120_000);
    assert.deepEqual([b.stateOf(A), b.stateOf('db')], ['live@2', 'live@2'], 'but with a later grant');
  });

  test('a name that was claimed for an EID waits with it when that becomes a target', () => {
    const { world, b } = talking();
    b.disconnect();
    b.attach(A, { names: ['db'] });
    b.attach(A, { interface: 'veth0' });
    b.connect();
    assert.deepEqual([b.stateOf(A), b.stateOf('db')], ['target@0', 'none']);
    assert.deepEqual(found(b, b.resolve('db')).targets, [A], 'which the owner has');
    b.event({ type: 'interface', name: 'veth0', up: true });
    world.advance(1000);
    assert.deepEqual([b.stateOf(A), b.stateOf('db')], ['live@2', 'live@2']);
  });

  test('detach withdraws the EID and the names that only it had', () => {
    const { world, a, b } = talking();
    a.detach(A);
    assert.equal(world.server.mappings.has(eidKey(prefixEid(DEFAULT_INSTANCE, P(A)))), false);
    assert.equal(world.server.mappings.has(eidKey(nameEid(DEFAULT_INSTANCE, 'db'))), false);
    assert.equal(a.dataplane?.route(A), 'miss');
    assert.equal(b.dataplane?.route(A), 'drop', 'correspondents are told');
  });

  test('a detach while the map server is away is made up for later', () => {
    const { world, a } = talking();
    a.disconnect();
    a.detach(A);
    assert.ok(world.server.mappings.has(eidKey(prefixEid(DEFAULT_INSTANCE, P(A)))));
    a.connect();
    assert.equal(world.server.mappings.has(eidKey(prefixEid(DEFAULT_INSTANCE, P(A)))), false);
  });

  test('a detach while the map server is away is made up for over a restart, once', () => {
    const key = eidKey(prefixEid(DEFAULT_INSTANCE, P(A)));
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    a.connect();
    a.disconnect();
    a.detach('10.77.0.5');
    a.restart();
    a.connect();
    assert.ok(world.server.mappings.has(key), 'nothing is said before the locators are known');
    a.plug('192.0.2.1');
    assert.ok(!world.server.mappings.has(key));
    assert.deepEqual(a.saved.withdrawals, []);
  });

  test('everything that is detached while the map server is away is given up later, however much it is', () => {
    const world = new World();
    const eids = Array.from({ length: 300 }, (_, at) => `10.77.${at >> 8}.${at & 255}`);
    const a = world.host('a', { eids, address: '192.0.2.1' });
    a.connect();
    a.disconnect();
    for (const eid of eids) a.detach(eid);
    a.restart();
    a.plug('192.0.2.1');
    a.connect();
    assert.deepEqual(owned(world, eids), []);
    assert.deepEqual(a.saved.withdrawals, []);
  });

  test('what is detached while too many registrations are unanswered is given up later', () => {
    const world = new World();
    const eids = Array.from({ length: 40 }, (_, at) => `10.77.0.${at}`);
    const a = world.host('a', { eids, address: '192.0.2.1' });
    a.connect();
    world.server.silent = true;
    for (let sent = 0; sent < 2048; sent++) a.attach(B);
    for (const eid of eids.slice(1)) a.detach(eid);
    const first = a.sent.at(-1);
    assert.ok(first?.type === 'map-register');
    a.deliver(mapNotify({ nonce: first.nonce, mappings: [] }));
    a.detach('10.77.0.0');
    world.server.silent = false;
    a.disconnect();
    a.connect();
    assert.deepEqual(owned(world, eids), []);
  });

  test('when more was given up than is remembered, the oldest is forgotten and that is noted', () => {
    const { a } = talking();
    a.disconnect();
    const generation = 1 as Generation;
    const withdrawals = Array.from({ length: 8192 }, (_, at) => {
      return { eid: eidKey(nameEid(DEFAULT_INSTANCE, `n${at}`)), generation };
    });
    Object.assign(a.saved, { withdrawals });
    a.restart(false);
    const limits = () => a.notes.filter((note) => note.type === 'limit' && note.what === 'withdrawals').length;
    assert.equal(limits(), 0);
    a.detach(A);
    assert.equal(limits(), 2, 'the EID and its name');
    const saved = a.saved.withdrawals.map(({ eid }) => eid);
    assert.equal(saved.length, 8192);
    assert.equal(saved[0], withdrawals[2]?.eid);
    assert.ok(saved.includes(eidKey(prefixEid(DEFAULT_INSTANCE, P(A)))));
  });

  test('what is detached while its claim is on its way is given up when the claim is granted', () => {
    const { world, a } = talking();
    a.lag();
    a.attach('10.77.0.9', { names: ['nine'] });
    a.detach('10.77.0.9');
    assert.ok(world.server.mappings.has(eidKey(prefixEid(DEFAULT_INSTANCE, P('10.77.0.9')))));
    a.catchUp();
    assert.equal(world.server.mappings.has(eidKey(prefixEid(DEFAULT_INSTANCE, P('10.77.0.9')))), false);
    assert.equal(world.server.mappings.has(eidKey(nameEid(DEFAULT_INSTANCE, 'nine'))), false);
  });

  test('attaching takes an EID back that was lost a moment ago without being heard of', () => {
    const { world, a, b } = talking();
    a.lag();
    b.attach(A, { names: ['db'] });
    assert.equal(b.stateOf(A), 'live@2');
    a.attach(A);
    a.catchUp();
    assert.equal(a.stateOf(A), 'live@3');
    assert.equal(a.stateOf('db'), 'live@3');
    assert.equal(b.stateOf(A), 'drain@2');
    assert.equal(b.dataplane?.route(A), a.key);
    assert.equal(a.dataplane?.route(A), 'here');
    world.advance(60_000);
    assert.equal(a.stateOf(A), 'live@3');
  });

  test('the answer to a detach says nothing of the EID that was attached again', () => {
    const { a, b } = talking();
    a.lag();
    b.attach(A);
    a.detach(A);
    a.attach(A);
    a.catchUp();
    assert.equal(a.stateOf(A), 'live@3');
    assert.equal(b.dataplane?.route(A), a.key);
    assert.deepEqual(
      a.notes.filter((note) => note.type === 'registration' && note.result !== 'accepted'),
      [],
    );
  });

  test('the answer to a target says nothing of the claim that its interface caused a moment later', () => {
    const { world, a } = talking();
    a.lag();
    a.attach('10.77.0.9', { interface: 'tap0' });
    a.event({ type: 'interface', name: 'tap0', up: true });
    a.catchUp();
    world.pump();
    assert.equal(a.stateOf('10.77.0.9'), 'live@1');
    assert.deepEqual(
      a.notes.filter((note) => note.type === 'registration' && note.result !== 'accepted'),
      [],
    );
  });

  test('an EID that was taken over while it was detached is followed from then on', () => {
    const { world, a, b } = talking();
    a.lag();
    b.attach(A);
    a.detach(A);
    a.catchUp();
    assert.equal(a.dataplane?.route(A), b.key);
    const c = world.host('c', { address: '192.0.2.3' });
    c.connect();
    c.attach(A);
    assert.equal(a.dataplane?.route(A), c.key);
  });

  test('a registration that is not answered is sent again', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    world.server.silent = true;
    a.connect();
    world.server.silent = false;
    world.advance(7000);
    assert.equal(a.stateOf(A), 'live@1');
  });
});

test('an EID of the host itself that another agent has was taken over; one of a workload went, a name follows', () => {
  const lost = { kind: 'address', state: 'lost', interface: null } as const;
  assert.equal(isTakenOver(lost), true);
  assert.equal(isTakenOver({ ...lost, state: 'drain' }), true);
  assert.equal(isTakenOver({ ...lost, state: 'live' }), false);
  assert.equal(isTakenOver({ ...lost, interface: 'veth0' }), false);
  assert.equal(isTakenOver({ ...lost, kind: 'name' }), false);
  assert.equal(isTakenOver({ ...lost, kind: 'agent' }), false, 'nobody can detach or attach it');
});

/** Those of these EIDs that the map server has. */
function owned(world: World, eids: readonly string[]): readonly string[] {
  return eids.filter((eid) => world.server.mappings.has(eidKey(prefixEid(DEFAULT_INSTANCE, P(eid)))));
}
