/** Moves that the two agents settle between themselves before the map server has answered. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { agentEid } from '../../agent/core/remote-mappings.ts';
import { DEFAULT_INSTANCE, eidKey, parseEid, prefixEid } from '../../proto/eid.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { queriesOf } from '../../proto/lisp/native.ts';
import { orderRequest } from '../../proto/lisp/order.ts';
import { minutes } from '../../proto/time.ts';
import { arrive, CLIENT, EID, heard, PREFIX, prepared } from './prepared-move.ts';
import type { Host } from './world.ts';
import { FakeDataplaneState } from './world-dataplane.ts';

describe('before the move', () => {
  test('owner and target are peers with a session, and nothing else has changed', () => {
    const { a, b, c } = prepared();
    assert.ok(a.dataplane?.peers.has(b.key));
    assert.ok(b.dataplane?.peers.has(a.key));
    for (const [host, other] of [
      [a, b],
      [b, a],
    ] as const) {
      assert.ok(host.dataplane?.log.some((command) => command.type === 'probe' && command.publicKey === other.key));
    }
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(c.dataplane?.route(EID), a.key);
  });

  test('a target that fails costs nothing', () => {
    const { world, a, b, c } = prepared();
    b.disconnect();
    b.loseDataplane();
    world.advance(minutes(10));
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(c.dataplane?.route(EID), a.key);
  });
});

test('announced maintenance: the registration is renewed, there is a session with every peer, and targets hear of correspondents', () => {
  const { world, a, b, c } = prepared();
  const d = world.host('d', { eids: ['10.77.0.10'], address: '192.0.2.4' });
  d.connect();
  a.miss('10.77.0.10');
  world.advance(20_000);
  const [sent, done] = [a.sent.length, a.dataplane?.log.length ?? 0];
  a.agent.handleMaintenance(world.now);
  world.pump();
  assert.ok(a.sent.slice(sent).some(({ type }) => type === 'map-register'));
  const asked = a.dataplane?.log.slice(done) ?? [];
  assert.ok(asked.some((command) => command.type === 'correspondents' && command.prefix === PREFIX));
  world.advance(100);
  const probed = (a.dataplane?.log.slice(done) ?? []).flatMap((each) =>
    each.type === 'probe' ? [each.publicKey] : [],
  );
  assert.deepEqual(new Set(probed), new Set([b.key, c.key, d.key]));
  const [calm] = [a.dataplane?.log.length];
  world.advance(100);
  assert.equal(a.dataplane?.log.length, calm, 'once');
});

describe('a move while the map server is there', () => {
  test('has the peers that the former owner introduces vouched for at once', () => {
    const { world, b, c } = prepared();
    const asked = () => b.sent.flatMap((message) => (message.type === 'map-request' ? queriesOf(message) : []));
    arrive(b);
    assert.ok(b.dataplane?.peers.has(c.key));
    assert.ok(asked().some(({ eid }) => eidKey(eid) === eidKey(agentEid(DEFAULT_INSTANCE, c.key))));
    world.advance(minutes(3));
    assert.equal(b.dataplane?.route(CLIENT), c.key);
  });

  test('does not wait for it', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.lag();
    arrive(b);
    assert.equal(a.stateOf(EID), 'drain@1');
    assert.equal(c.dataplane?.route(EID), b.key);
    for (const host of hosts) host.catchUp();
    world.advance(10_000);
    assert.equal(b.stateOf(EID), 'live@2');
    assert.equal(c.dataplane?.mappings.get(PREFIX)?.generation, 2);
  });

  test('is counted once, also when the map server forgets the EID and is told of it again', () => {
    const { world, b } = prepared();
    const moves = () => b.notes.filter((note) => note.type === 'move').length;
    arrive(b);
    world.advance(10_000);
    assert.equal(moves(), 1);
    world.server.mappings.delete(eidKey(parseEid(EID)));
    world.advance(minutes(2));
    assert.equal(b.stateOf(EID), 'live@3');
    assert.equal(moves(), 1);
  });

  test('tells the owner before the last only while that one may still forward', () => {
    for (const [after, told] of [
      [0, 1],
      [minutes(5), 0],
    ] as const) {
      const { world, a, b } = prepared();
      a.attach('10.77.0.20');
      b.miss('10.77.0.20');
      arrive(b);
      world.advance(after);
      const d = world.host('d', { address: '192.0.2.4' });
      d.connect();
      d.attach(EID, { interface: 'veth0' });
      world.advance(2000);
      for (const host of [a, b, d]) host.disconnect();
      arrive(d);
      world.advance(2000);
      assert.equal(b.stateOf(EID), 'drain@2');
      assert.equal(heard(a, 'notice', 'accepted'), told, `after ${after} ms`);
    }
  });

  test('that it refuses is given back', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    world.server.denied.add(eidKey(parseEid(EID)));
    b.connect();
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(a.dataplane?.route(EID), 'here');
    world.server.denied.clear();
    for (const host of [a, c]) host.connect();
    world.advance(20_000);
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(c.dataplane?.route(EID), a.key);
  });

  test('tells a late sender, once', () => {
    const { world, a, b } = prepared();
    arrive(b);
    const late = world.host('late', { eids: ['10.77.0.50'], address: '192.0.2.50' });
    // It resolved the EID long ago, and the map server has lost its subscription.
    late.connect();
    world.server.silent = true;
    a.dataplane?.peers.set(late.key, []);
    world.advance(1500);
    const before = heard(a, 'notice', 'sent');
    a.miss('10.77.0.50');
    world.server.silent = false;
    world.advance(2000);
    a.dataplane?.correspondents.set(PREFIX, [late.key]);
    world.advance(1500);
    assert.equal(heard(a, 'notice', 'sent'), before + 1);
    world.advance(5000);
    assert.equal(heard(a, 'notice', 'sent'), before + 1);
  });

  test('a message that is not acknowledged is said again, and not for ever', () => {
    const { world, a, b } = prepared();
    world.isCut = (from, to) => [from, to].includes(a.key) && [from, to].includes(b.key);
    b.disconnect();
    const before = world.carried.length;
    arrive(b);
    world.advance(9000);
    const said = world.carried.slice(before).filter(({ from }) => from === 'b').length;
    assert.equal(said, 6);
    assert.equal(a.stateOf(EID), 'live@1');
    world.isCut = () => false;
    world.advance(11_000);
    assert.match(a.stateOf(EID), /^drain/);
  });
});

describe('a target behind an interface that is always up', () => {
  test('waits until its workload is seen there, over a restart of agent and data plane', () => {
    const { world, a, c } = prepared();
    c.attach(EID, { interface: 'br0', when: 'seen' });
    c.event({ type: 'interface', name: 'br0', up: true });
    assert.equal(c.stateOf(EID), 'target@0');
    assert.deepEqual(watches(c), [`${PREFIX} br0`]);
    c.restart();
    c.attachDataplane(new FakeDataplaneState('another'));
    c.plug('192.0.2.3');
    c.connect();
    c.event({ type: 'interface', name: 'br0', up: true });
    assert.deepEqual(watches(c), [`${PREFIX} br0`]);
    for (const via of ['br1', 'br0']) {
      assert.equal(c.stateOf(EID), 'target@0');
      c.event({ type: 'workload-seen', prefix: PREFIX, interface: via, by: 'arp' });
    }
    world.advance(1000);
    assert.equal(c.stateOf(EID), 'live@2');
    assert.match(a.stateOf(EID), /^drain/);
    assert.deepEqual(watches(c), []);
  });

  test('does not wait with `now`', () => {
    const { c } = prepared();
    c.attach(EID, { interface: 'br0', when: 'now' });
    assert.equal(c.stateOf(EID), 'live@2');
    assert.equal(c.dataplane?.locals.get(PREFIX)?.interface, 'br0');
  });
});

describe('an order of the map server', () => {
  const order = (host: Host, what: 'attach' | 'detach', via: string | null = null): void => {
    const eid = prefixEid(DEFAULT_INSTANCE, PREFIX);
    host.deliver(orderRequest(nonce(1n << 63n), { what, eid, interface: via }));
  };

  test('is done as if our own operator had asked', () => {
    const { world, a, c } = prepared();
    order(c, 'attach');
    world.pump();
    assert.equal(c.stateOf(EID), 'live@2');
    assert.match(a.stateOf(EID), /^drain/);
    order(c, 'detach');
    world.pump();
    assert.equal(c.stateOf(EID), 'none');
    assert.equal(world.server.mappings.get(eidKey(parseEid(EID))), undefined);
  });

  test('to take an EID behind an interface that is not up waits for it', () => {
    const { world, c } = prepared();
    order(c, 'attach', 'tap0');
    c.event({ type: 'interface', name: 'tap0', up: false });
    assert.equal(c.stateOf(EID), 'target@0');
    c.event({ type: 'interface', name: 'tap0', up: true });
    world.pump();
    assert.equal(c.stateOf(EID), 'live@2');
  });
});

/** What the data plane looks for. */
function watches(host: Host): readonly string[] {
  const watched = new Set<string>();
  for (const command of host.dataplane?.log ?? []) {
    if (command.type === 'workload-watch') watched.add(`${command.prefix} ${command.interface}`);
    if (command.type === 'workload-unwatch') watched.delete(`${command.prefix} ${command.interface}`);
  }
  return [...watched];
}
