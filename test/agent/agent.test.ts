import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { Locators } from '../../agent/core/locators.ts';
import type { Ticket } from '../../agent/core/map-requests.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, nameEid, parseEid, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf } from '../../proto/identity.ts';
import type { Generation, TunnelKey } from '../../proto/mapping.ts';
import { FakeDataplaneState, type Host, World } from './world.ts';

const A = '10.77.0.5';
const B = '10.77.0.6';
const P = (text: string) => parseIpPrefix(text);
const ip = parseIpAddress;

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

describe('resolution', () => {
  test('a miss is resolved, subscribed to and forwarded', () => {
    const { world, a, b } = talking();
    assert.equal(b.dataplane?.route(A), a.key);
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['192.0.2.1:4341']);
    assert.equal(world.server.subscribersOf(A), 1);
  });

  // Attack: mappings with locators that are loopback, link-local, broadcast or inside the overlay | 5 | left out of
  // the forwarding table
  test('attack: locators that would turn a host against itself', () => {
    const { world, a, b } = talking();
    const key = eidKey(prefixEid(DEFAULT_INSTANCE, P(A)));
    const stored = world.server.mappings.get(key);
    assert.ok(stored);
    const at = (address: string) => ({ address: parseIpAddress(address), port: 53, priority: 1, weight: 100 });
    const locators = ['127.0.0.1', '169.254.169.254', '255.255.255.255', '::1', '10.77.0.6', '192.0.2.9'].map(at);
    world.server.push([{ ...stored, locators }], [b.xtrId]);
    world.pump();
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['192.0.2.9:53']);
  });

  test('an EID that nobody has is dropped until it is registered', () => {
    const { world, a, b } = talking();
    b.miss('10.77.0.9');
    assert.equal(b.dataplane?.route('10.77.0.9'), 'drop');
    a.attach('10.77.0.9');
    assert.equal(b.dataplane?.route('10.77.0.9'), a.key, 'the registration is pushed');
    b.miss('10.77.0.10');
    world.advance(61_000);
    assert.equal(b.dataplane?.route('10.77.0.10'), 'miss', 'a negative entry ends with its TTL');
  });

  test('a repeated miss is answered from the map-cache', () => {
    const { a, b } = talking();
    const sent = b.sent.length;
    b.dataplane?.mappings.clear();
    b.miss(A);
    assert.equal(b.dataplane?.route(A), a.key);
    assert.equal(b.sent.length, sent);
  });

  test('a name is resolved to its addresses, our own asked for once, since there may be more at it', () => {
    const { a, b } = talking();
    assert.deepEqual(found(b, b.resolve('db')).targets, [A]);
    assert.deepEqual(found(a, a.resolve('db')).targets, [A]);
    const sent = a.sent.length;
    assert.deepEqual(found(a, a.resolve('db')).targets, [A]);
    assert.deepEqual(found(a, a.resolve(A)).names, ['db']);
    assert.equal(a.sent.length, sent);
  });

  test('a mapping is asked for again before its TTL ends, and stays', () => {
    const { world, a, b } = talking();
    for (let minute = 0; minute < 30; minute++) {
      world.advance(60_000);
      assert.equal(b.dataplane?.route(A), a.key);
    }
    assert.equal(found(b, b.resolve(A)).generation, 1);
  });

  test('without the map server the map-cache goes on, and what is not in it is unavailable', () => {
    const { world, a, b } = talking();
    b.disconnect();
    world.advance(3_600_000);
    b.miss(A);
    assert.equal(b.dataplane?.route(A), a.key);
    const ticket = b.resolve(A);
    const answer = b.answers.get(ticket);
    assert.ok(answer?.kind === 'resolution' && answer.resolution.kind === 'found' && answer.resolution.stale);
    const unknown = b.resolve('10.77.0.99');
    assert.equal(b.answers.has(unknown), false);
    world.advance(2000);
    assert.deepEqual(b.answers.get(unknown), { kind: 'resolution', resolution: { kind: 'unavailable' } });
  });

  test('a request that was not answered is asked again', () => {
    const { world, a, b } = talking();
    world.server.silent = true;
    b.miss('10.77.0.9');
    a.attach('10.77.0.9');
    world.server.silent = false;
    world.advance(1000);
    assert.notEqual(b.dataplane?.route('10.77.0.9'), 'miss');
  });

  test('the map-cache is bounded and forgets negative entries first', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    const b = world.host('b', { eids: [B], address: '192.0.2.2', cacheLimit: 32 });
    a.connect();
    b.connect();
    b.miss(A);
    for (let i = 0; i < 200; i++) b.miss(`10.77.1.${i}`);
    assert.ok(b.agent.cached().length <= 32);
    assert.ok((b.dataplane?.mappings.size ?? 0) <= 32);
    assert.equal(b.dataplane?.route(A), a.key);
  });

  test('what leaves the map-cache is not subscribed to any more', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    const b = world.host('b', { eids: [B], address: '192.0.2.2', cacheLimit: 32 });
    a.connect();
    b.connect();
    b.miss(A);
    for (let i = 0; i < 200; i++) b.miss(`10.77.1.${i}`);
    world.advance(5000);
    assert.ok(world.server.subscriptionsOf(b) <= 32, `${world.server.subscriptionsOf(b)} subscriptions`);
    world.advance(300_000);
    assert.equal(world.server.subscriptionsOf(b), 1, 'negative entries end');
    a.plug('198.51.100.7');
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['198.51.100.7:4341'], 'what is in use is followed');
  });
});

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

describe('peers', () => {
  test('an unknown peer is authorised by the map server', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    const b = world.host('b', { eids: [B], address: '192.0.2.2' });
    a.connect();
    b.connect();
    a.event({ type: 'unknown-peer', publicKey: b.key });
    assert.deepEqual(a.dataplane?.peers.get(b.key), ['192.0.2.2:4341']);
  });

  // Attack: unknown keys | 2000 | none becomes a peer; fewer than 100 questions to the map server
  test('attack: handshakes from keys that nobody vouches for', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    a.connect();
    for (let i = 0; i < 2000; i++) {
      const publicKey = Buffer.alloc(32, `stranger ${i}`).toString('base64') as TunnelKey;
      a.event({ type: 'unknown-peer', publicKey });
    }
    assert.equal(a.dataplane?.peers.size, 0);
    assert.ok(a.sent.length < 100, 'strangers do not make us flood the map server');
  });

  // Attack: a pushed mapping with a newer generation and a foreign tunnel key | 1 | refused and noted; the route stays
  test('attack: a mapping whose owner does not follow from its key', () => {
    const { world, a, b } = talking();
    const stored = world.server.mappings.get(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    assert.ok(stored);
    world.server.push([{ ...stored, generation: 9 as Generation, tunnelKey: b.key }], [b.xtrId]);
    world.pump();
    assert.equal(b.dataplane?.route(A), a.key);
    assert.ok(b.notes.some(({ type }) => type === 'mapping-refused'));
  });

  test('a peer goes when its last mapping goes', () => {
    const { world, a, b } = talking();
    a.detach(A);
    world.advance(700_000);
    assert.equal(b.dataplane?.peers.has(a.key), false);
  });

  test('a conflict is looked into', () => {
    const { world, a, b } = talking();
    const key = eidKey(prefixEid(DEFAULT_INSTANCE, P(A)));
    const stored = world.server.mappings.get(key);
    assert.ok(stored);
    const c = world.host('c', { address: '192.0.2.3' });
    world.server.mappings.set(key, { ...stored, generation: 2 as Generation, owner: c.xtrId, tunnelKey: c.key });
    b.event({ type: 'conflict', eid: parseIpAddress(A), publicKey: c.key });
    assert.equal(b.dataplane?.route(A), c.key);
    assert.equal(a.stateOf(A), 'live@1');
  });

  test('a probe is answered, or given up', () => {
    const { world, a, b } = talking();
    const first = b.probe(a.key);
    b.event({ type: 'probe-result', token: 1, rttUs: 321 });
    assert.deepEqual(b.answers.get(first), { kind: 'probe', rttUs: 321 });
    const second = b.probe(a.key);
    world.advance(6000);
    assert.deepEqual(b.answers.get(second), { kind: 'probe', rttUs: null });
  });
});

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

  test('an agent that lost its state folder does not lower the epoch', () => {
    const world = new World();
    const a = world.host('a', { eids: [A] });
    assert.ok(a.attachDataplane().epoch >= 1000, 'it is at least the wall clock');
  });
});

/** a has 10.77.0.5 (`db`), b has 10.77.0.6 and has resolved a's. */
function talking(): { world: World; a: Host; b: Host } {
  const world = new World();
  const a = world.host('a', { eids: [`${A} db`], address: '192.0.2.1' });
  const b = world.host('b', { eids: [B], address: '192.0.2.2' });
  a.connect();
  b.connect();
  b.miss(A);
  return { world, a, b };
}

function found(host: Host, ticket: Ticket) {
  const answer = host.answers.get(ticket);
  assert.ok(answer?.kind === 'resolution' && answer.resolution.kind === 'found', JSON.stringify(answer));
  return answer.resolution.mapping;
}
