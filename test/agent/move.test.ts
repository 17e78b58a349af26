/** Moves that the two agents settle between themselves, with and without the map server, and what is not believed. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { agentEid } from '../../agent/core/remote-mappings.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, parseEid, prefixEid } from '../../proto/eid.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapNotify, queriesOf, solicitMapRequest } from '../../proto/lisp/native.ts';
import { orderRequest } from '../../proto/lisp/order.ts';
import { asTarget, type Generation, type Mapping } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { FakeDataplaneState, type Host, World } from './world.ts';

const EID = '10.77.0.5';
const PREFIX = parseIpPrefix(EID);
const CLIENT = '10.77.0.9';

/** `a` has the EID, `b` is prepared to take it, `c` talks to it. Everybody is connected. */
function prepared() {
  const world = new World();
  const a = world.host('a', { address: '192.0.2.1' });
  const b = world.host('b', { address: '192.0.2.2' });
  const c = world.host('c', { eids: [CLIENT], address: '192.0.2.3' });
  for (const host of [a, b, c]) host.connect();
  a.attach(EID);
  c.miss(EID);
  a.miss(CLIENT);
  a.dataplane?.correspondents.set(PREFIX, [c.key]);
  b.attach(EID, { interface: 'veth0' });
  b.event({ type: 'interface', name: 'veth0', up: false });
  world.advance(2000);
  assert.equal(b.stateOf(EID), 'target@0');
  return { world, a, b, c, hosts: [a, b, c] };
}

function arrive(host: Host): void {
  host.event({ type: 'interface', name: 'veth0', up: true });
}

/** What `from` says of who has the EID. */
function says(world: World, from: Host, to: Host, mapping: Partial<Mapping>, kind = nonce(77n)): void {
  tells(world, from, to, [{ ...mappingOf(from), ...mapping }], kind);
}

function tells(world: World, from: Host, to: Host, mappings: readonly Mapping[], kind = nonce(78n)): void {
  const message = mapNotify({ nonce: kind, xtrId: from.xtrId, mappings });
  to.hear(from.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
  world.pump();
}

function heard(host: Host, kind: string, result: string): number {
  return host.notes.filter((note) => note.type === 'peer-message' && note.kind === kind && note.result === result)
    .length;
}

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

describe('a move while the map server is away', () => {
  test('takes effect at both ends and at the correspondent in the same instant, and is settled later', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    assert.equal(a.stateOf(EID), 'drain@1');
    assert.equal(b.stateOf(EID), 'base@0');
    assert.equal(a.dataplane?.redirects.get(PREFIX), b.key);
    assert.equal(b.dataplane?.locals.get(PREFIX)?.redirectFrom, a.key);
    assert.equal(c.dataplane?.route(EID), b.key);
    assert.equal(b.dataplane?.route(EID), 'here');
    assert.equal(b.dataplane?.route(CLIENT), c.key, 'answers find their way');
    assert.ok(b.dataplane?.peers.has(c.key));

    for (const host of hosts) host.connect();
    world.advance(10_000);
    assert.equal(b.stateOf(EID), 'live@2');
    assert.equal(a.stateOf(EID), 'drain@1');
    assert.equal(c.dataplane?.mappings.get(PREFIX)?.generation, 2);
    assert.equal(c.dataplane?.route(EID), b.key);
    world.advance(60_000);
    assert.match(a.stateOf(EID), /^lost/);
  });

  test('is gone on with by a former owner that is started again before it is settled', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    assert.equal(a.stateOf(EID), 'drain@1');
    world.advance(5000);
    a.loseDataplane();
    a.restart();
    assert.equal(a.stateOf(EID), 'drain@1');
    const fresh = a.attachDataplane(new FakeDataplaneState('two'));
    assert.equal(fresh.redirects.get(PREFIX), b.key);
    assert.ok(fresh.peers.has(b.key));
    world.advance(60_000);
    assert.equal(a.stateOf(EID), 'drain@1', 'until the map server knows');
    a.plug('192.0.2.1');
    for (const host of hosts) host.connect();
    world.advance(10_000);
    assert.equal(b.stateOf(EID), 'live@2');
    assert.equal(c.dataplane?.route(EID), b.key);
    world.advance(60_000);
    assert.equal(a.stateOf(EID), 'lost@1');
  });

  test('is taken back from a new owner that vanished, if the workload is still behind its interface', () => {
    const { world, a, b, c, hosts } = prepared();
    a.attach(EID, { interface: 'veth0' });
    a.event({ type: 'interface', name: 'veth0', up: true });
    world.advance(1000);
    for (const host of hosts) host.disconnect();
    arrive(b);
    assert.match(a.stateOf(EID), /^drain/);
    b.loseDataplane();
    world.isCut = () => true;
    for (const host of [a, c]) host.connect();
    world.advance(60_000);
    assert.match(a.stateOf(EID), /^drain/, 'it may come back');
    world.advance(60_000);
    assert.match(a.stateOf(EID), /^live/);
    assert.equal(a.dataplane?.route(EID), 'here');
    assert.equal(c.dataplane?.route(EID), a.key);
  });

  test('ends when the new owner vanished and nobody knows where the workload is, and says what to do', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    b.loseDataplane();
    world.isCut = () => true;
    world.advance(minutes(10));
    assert.equal(a.stateOf(EID), 'drain@1', 'without the map server nobody could tell');
    for (const host of [a, c]) host.connect();
    world.advance(minutes(2));
    assert.equal(a.stateOf(EID), 'lost@1');
    const own = a.agent.ownEids().find(({ key }) => key === eidKey(parseEid(EID)));
    assert.match(own?.problem ?? '', /attach it where its workload is/);
    assert.equal(c.dataplane?.route(EID), 'drop', 'nobody is sent to a host that does not have it');
    a.attach(EID);
    assert.match(a.stateOf(EID), /^live/);
    assert.equal(c.dataplane?.route(EID), a.key);
  });

  test('is waited for as long as the new owner repeats that it has it', () => {
    const { world, a, b, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    a.connect();
    world.advance(minutes(10));
    assert.equal(a.stateOf(EID), 'drain@1');
  });

  test('asks the data plane for correspondents at a bounded rate, however many are not settled', () => {
    const world = new World();
    const a = world.host('a', { address: '192.0.2.1' });
    const b = world.host('b', { address: '192.0.2.2' });
    for (const host of [a, b]) host.connect();
    // More than are asked about at once. Each is claimed again every ten seconds, which is what takes the time here.
    const eids = Array.from({ length: 100 }, (_, at) => `10.77.1.${at}`);
    for (const eid of eids) a.attach(eid);
    for (const eid of eids) b.attach(eid, { interface: 'veth0' });
    world.advance(2000);
    for (const host of [a, b]) host.disconnect();
    arrive(b);
    world.advance(minutes(1));
    assert.equal(a.stateOf('10.77.1.7'), 'drain@1');
    const before = a.dataplane?.types().filter((type) => type === 'correspondents').length ?? 0;
    world.advance(minutes(10));
    const after = a.dataplane?.types().filter((type) => type === 'correspondents').length ?? 0;
    assert.ok(after - before > eids.length && after - before < eids.length * 15, `${after - before}`);
    world.advance(minutes(60));
    const seldom = (a.dataplane?.types().filter((type) => type === 'correspondents').length ?? 0) - after;
    assert.ok(seldom <= eids.length * 13, `${seldom}`);
  });

  test('is undone when the new owner detaches before it is settled', () => {
    const { world, a, b, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    assert.equal(a.stateOf(EID), 'drain@1');
    b.detach(EID);
    assert.equal(a.stateOf(EID), 'live@1', 'nobody else would ever have it');
    for (const host of hosts) host.connect();
    world.advance(10_000);
    assert.equal(a.stateOf(EID), 'live@1');
  });

  test('can be taken back by attaching before it is settled', () => {
    const { world, a, b } = prepared();
    b.disconnect();
    arrive(b);
    assert.equal(a.stateOf(EID), 'drain@1', 'yielded, and the map server does not know');
    a.attach(EID);
    world.advance(1000);
    assert.equal(a.stateOf(EID), 'live@1', 'the map server is listened to again');
    b.connect();
    world.advance(10_000);
    assert.equal(b.stateOf(EID), 'live@2', 'whose claim came last');
    assert.equal(a.stateOf(EID), 'drain@1');
  });

  test('is not undone by a map server that does not know yet', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    a.connect();
    c.connect();
    world.advance(2000);
    assert.equal(c.dataplane?.route(EID), b.key);
    assert.equal(
      world.server.mappings.get(eidKey(parseEid(EID)))?.owner,
      a.xtrId,
      'who asks is sent to the former owner',
    );
    b.connect();
    world.advance(10_000);
    assert.equal(c.dataplane?.mappings.get(PREFIX)?.generation, 2);
    assert.equal(c.dataplane?.route(EID), b.key);
    assert.equal(b.stateOf(EID), 'live@2');
  });

  test('goes on to redirect for as long as it is not settled', () => {
    const { world, a, b, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    a.dataplane?.redirects.clear();
    world.advance(minutes(5));
    assert.equal(a.dataplane?.redirects.get(PREFIX), b.key);
    assert.equal(a.stateOf(EID), 'drain@1');
    for (const host of hosts) host.connect();
    world.advance(60_000);
    assert.match(a.stateOf(EID), /^lost/);
  });

  for (const who of ['a', 'b'] as const) {
    test(`survives a restart of the ${who === 'a' ? 'former' : 'new'} owner's agent`, () => {
      const { world, a, b, c, hosts } = prepared();
      for (const host of hosts) host.disconnect();
      arrive(b);
      const host = { a, b }[who];
      const state = host.dataplane;
      host.restart();
      host.attachDataplane(state ?? undefined);
      host.plug(who === 'a' ? '192.0.2.1' : '192.0.2.2');
      if (who === 'b') arrive(b);
      world.advance(20_000);
      assert.ok(!a.stateOf(EID).startsWith('live'));
      assert.equal(b.dataplane?.route(EID), 'here');
      for (const each of hosts) each.connect();
      world.advance(10_000);
      assert.equal(b.stateOf(EID), 'live@2');
      assert.equal(c.dataplane?.route(EID), b.key);
    });
  }

  for (const how of ['detached', 'only prepared again'] as const) {
    test(`goes back to the former owner when it is ${how} at the new one before it is settled`, () => {
      const { world, a, b, c, hosts } = prepared();
      for (const host of hosts) host.disconnect();
      arrive(b);
      if (how === 'detached') b.detach(EID);
      else b.attach(EID, { interface: 'veth1' });
      assert.equal(a.stateOf(EID), 'live@1');
      for (const host of hosts) host.connect();
      world.advance(20_000);
      assert.equal(a.stateOf(EID), 'live@1');
      assert.equal(c.dataplane?.route(EID), a.key);
    });
  }

  test('is taken back by attaching at the former owner again', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    a.attach(EID);
    for (const host of [b, c, a]) host.connect();
    world.advance(10_000);
    assert.equal(a.stateOf(EID), 'live@3');
    for (const host of [b, c]) assert.equal(host.dataplane?.route(EID), a.key);
  });

  test('works after a restart of the owner too: it knows who may take the EID', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    const state = a.dataplane;
    a.restart();
    a.attachDataplane(state ?? undefined);
    a.plug('192.0.2.1');
    world.advance(minutes(10));
    arrive(b);
    assert.equal(a.stateOf(EID), 'drain@1');
    assert.equal(c.dataplane?.route(EID), b.key);
  });

  test('goes on to a second target: the last one has it, and nobody else claims it', () => {
    const { world, a, b, c, hosts } = prepared();
    const d = world.host('d', { address: '192.0.2.4' });
    d.connect();
    d.attach(EID, { interface: 'veth0' });
    d.event({ type: 'interface', name: 'veth0', up: false });
    world.advance(2000);
    const all = [...hosts, d];
    for (const host of all) host.disconnect();
    arrive(b);
    b.dataplane?.correspondents.set(PREFIX, [c.key]);
    arrive(d);
    world.advance(2000);
    assert.equal(d.stateOf(EID), 'base@0');
    assert.equal(b.stateOf(EID), 'drain@0');
    assert.equal(a.dataplane?.redirects.get(PREFIX), d.key);
    assert.equal(c.dataplane?.route(EID), d.key);
    for (const host of [b, a, c, d]) host.connect();
    world.advance(60_000);
    assert.equal(d.stateOf(EID), 'live@2');
    for (const host of [a, b, c]) assert.equal(host.dataplane?.route(EID), d.key);
  });
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

/** What the data plane looks for. */
function watches(host: Host): readonly string[] {
  const watched = new Set<string>();
  for (const command of host.dataplane?.log ?? []) {
    if (command.type === 'workload-watch') watched.add(`${command.prefix} ${command.interface}`);
    if (command.type === 'workload-unwatch') watched.delete(`${command.prefix} ${command.interface}`);
  }
  return [...watched];
}

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

describe('what is not believed', () => {
  // Attack: a claim of another host's EID, from an authenticated peer that the map server did not name | 1 | refused
  // and counted; the owner keeps the EID
  test('attack: a claim inside the tunnel by somebody who is no target', () => {
    const { world, a, c } = prepared();
    says(world, c, a, {});
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(heard(a, 'claim', 'refused'), 1);
  });

  // Attack: a target's claims at generations 0, 2 and 2^40 of an EID at 1 | 3 | refused and counted; the owner keeps
  // the EID
  test("attack: a claim at a generation that is not the owner's", () => {
    const { world, a, b } = prepared();
    for (const generation of [0, 2, 2 ** 40]) says(world, b, a, { generation: generation as Generation });
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(heard(a, 'claim', 'refused'), 3);
  });

  // Attack: a claim from a target whose agent address the map server has withdrawn | 1 | not believed; the owner keeps
  // the EID
  test('attack: a claim by a target that was removed', () => {
    const { world, a, b } = prepared();
    const agent = [...world.server.mappings.values()].find(
      (mapping) => mapping.owner === b.xtrId && eidKey(mapping.eid).includes('fd53'),
    );
    assert.ok(agent !== undefined);
    world.server.push([{ ...agent, ttl: 0, locators: [] }], [a.xtrId]);
    world.pump();
    says(world, b, a, {});
    assert.equal(a.stateOf(EID), 'live@1');
  });

  // Attack: claims with the xTR-ID of one agent and the key of another | 2 | refused as malformed and counted
  test('attack: a claim in the name of another agent', () => {
    const { world, a, b, c } = prepared();
    says(world, c, a, { owner: b.xtrId, tunnelKey: c.key });
    says(world, c, a, { owner: c.xtrId, tunnelKey: b.key });
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(heard(a, 'notice', 'malformed'), 2);
  });

  // Attack: notices that an EID has moved, from agents that do not own it | 3 | the route stays; the map server is
  // asked at most once
  test('attack: a notice of a move by somebody who is not the owner', () => {
    const { world, a, b, c } = prepared();
    const requests = (): number => c.sent.filter(({ type }) => type === 'map-request').length;
    const before = requests();
    says(world, b, c, {}, nonce(1n));
    says(world, b, c, { owner: c.xtrId, tunnelKey: c.key }, nonce(2n));
    world.host('e', { address: '192.0.2.5' });
    says(world, b, c, { owner: a.xtrId, tunnelKey: a.key }, nonce(3n));
    assert.equal(c.dataplane?.route(EID), a.key);
    assert.ok(requests() <= before + 1);
  });

  // Attack: a notice at generation 1 of an EID at 2, and one that gives away the receiver's own EID | 2 | the routes
  // stay
  test("attack: a notice of an old generation, or about the receiver's own EID", () => {
    const { world, a, b, c } = prepared();
    a.detach(EID);
    a.attach(EID);
    world.advance(1000);
    const generation = c.dataplane?.mappings.get(PREFIX)?.generation;
    assert.equal(generation, 2);
    says(world, a, c, { owner: b.xtrId, tunnelKey: b.key });
    assert.equal(c.dataplane?.route(EID), a.key);
    says(world, a, c, { eid: parseEid(CLIENT), owner: b.xtrId, tunnelKey: b.key, generation: 9 as Generation });
    assert.equal(c.dataplane?.route(CLIENT), 'here');
  });

  // Attack: a notice with generation 2^50 | 1 | no generation is taken from it; the map server's word holds after a
  // moment
  test('attack: a generation made up to keep the next owner out', () => {
    const { world, a, b, c } = prepared();
    says(world, a, c, { owner: b.xtrId, tunnelKey: b.key, generation: (2 ** 50) as Generation });
    assert.equal(c.dataplane?.mappings.get(PREFIX)?.generation, 1);
    world.advance(10_000);
    assert.equal(c.dataplane?.route(EID), a.key, 'what the map server says holds after a moment');
  });

  // Attack: handovers from agents that do not own the EID | 2 | refused and counted; no peer is added
  test('attack: a handover that nobody waits for', () => {
    const { world, a, b, c } = prepared();
    a.disconnect();
    const before = a.dataplane?.peers.size;
    says(world, c, a, { owner: a.xtrId, tunnelKey: a.key });
    says(world, b, a, { owner: a.xtrId, tunnelKey: a.key });
    assert.equal(heard(a, 'handover', 'refused'), 2);
    assert.equal(a.dataplane?.peers.size, before);
    assert.equal(a.stateOf(EID), 'live@1');
  });

  // Attack: introductions of a rival target and its claims, with the map server there and away | 2 | the claims are
  // refused and counted; the new owner keeps the EID
  test('attack: a former owner who names an accomplice after the move', () => {
    const { world, a, b, hosts } = prepared();
    const d = world.host('d', { address: '192.0.2.4' });
    d.connect();
    arrive(b);
    assert.equal(b.stateOf(EID), 'live@2');
    const locators = [{ address: parseIpAddress('192.0.2.4'), port: 4341, priority: 1, weight: 1 }];
    const rival = asTarget({ ...mappingOf(d), locators });
    const name = (): void => {
      tells(world, a, b, [mappingOf(b), { ...rival, generation: 2 as Generation }, agentOf(world, d)]);
      says(world, d, b, { generation: 2 as Generation });
    };
    name();
    assert.equal(b.stateOf(EID), 'live@2');
    for (const host of hosts) host.disconnect();
    name();
    assert.equal(b.stateOf(EID), 'live@2');
    assert.equal(heard(b, 'claim', 'refused'), 2);
  });

  // Attack: a claim by a target that only the former owner had named | 1 | refused and counted once the map server is
  // back
  test('attack: a target named while the map server was away, used later', () => {
    const { world, a, b, hosts } = prepared();
    const d = world.host('d', { address: '192.0.2.4' });
    d.connect();
    for (const host of hosts) host.disconnect();
    arrive(b);
    const locators = [{ address: parseIpAddress('192.0.2.4'), port: 4341, priority: 1, weight: 1 }];
    tells(world, a, b, [mappingOf(b), asTarget({ ...mappingOf(d), locators }), agentOf(world, d)]);
    b.connect();
    world.advance(1000);
    assert.equal(b.stateOf(EID), 'live@2');
    says(world, d, b, { generation: 2 as Generation });
    assert.equal(b.stateOf(EID), 'live@2');
    assert.equal(heard(b, 'claim', 'refused'), 1);
  });

  // Attack: a handover two minutes after the move | 1 | refused and counted
  test('attack: an introduction by an owner of long ago', () => {
    const { world, a, b } = prepared();
    arrive(b);
    world.advance(minutes(2));
    says(world, a, b, { owner: b.xtrId, tunnelKey: b.key });
    assert.equal(heard(b, 'handover', 'refused'), 1);
  });

  // Attack: a mapping of somebody else's EID, at generation 2^50, brought by a handover | 1 | gives way to the map
  // server's word
  test('attack: false locators of others from a former owner', () => {
    const { world, a, b, c, hosts } = prepared();
    const e = world.host('e', { eids: ['10.77.0.66'], address: '192.0.2.5' });
    e.connect();
    for (const host of hosts) host.disconnect();
    arrive(b);
    const said = { ...mappingOf(c), eid: parseEid('10.77.0.66'), generation: (2 ** 50) as Generation };
    tells(world, a, b, [mappingOf(b), said]);
    assert.equal(b.dataplane?.route('10.77.0.66'), c.key, 'better than nothing');
    b.connect();
    world.advance(10_000);
    assert.equal(b.dataplane?.route('10.77.0.66'), e.key);
  });

  // Attack: a mapping of one address inside a prefix that another agent owns, brought by a handover | 1 | withdrawn as
  // soon as the map server names the prefix
  test("attack: an EID made up inside somebody else's prefix", () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    const inside = parseEid('10.77.1.66');
    tells(world, a, b, [mappingOf(b), { ...mappingOf(c), eid: inside }]);
    assert.equal(b.dataplane?.route('10.77.1.66'), c.key);
    world.server.silent = true;
    b.connect();
    const asked = b.sent.findLast(
      (message) =>
        message.type === 'map-request' && queriesOf(message).some(({ eid }) => eidKey(eid) === eidKey(inside)),
    );
    assert.ok(asked?.type === 'map-request');
    const prefix = { ...mappingOf(a), eid: prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.77.1.0/24')) };
    b.deliver(mapNotify({ nonce: asked.nonce, mappings: [prefix, agentOf(world, a)] }));
    world.pump();
    assert.equal(b.dataplane?.mappings.has(parseIpPrefix('10.77.1.66')), false);
    assert.equal(b.dataplane?.mappings.get(parseIpPrefix('10.77.1.0/24'))?.to, a.key);
  });

  // Attack: octets that are no LISP message, an introduction of oneself, and a claim upon it | 4 | nothing changes
  test('attack: garbage inside the tunnel, and a target without locators', () => {
    const { world, a, c } = prepared();
    a.hear(c.key, Buffer.from('not LISP').toString('base64'));
    a.hear(c.key, '');
    says(world, c, a, asTarget({ ...mappingOf(c), locators: [] }));
    says(world, c, a, {});
    assert.equal(a.stateOf(EID), 'live@1');
  });

  // Attack: packets from 5000 sources that nobody owns | 5000 | bounded; the host's own packets are still resolved at
  // once
  test('attack: invented inner sources to exhaust the resolution', () => {
    const { world, a } = prepared();
    for (let i = 0; i < 5000; i++) {
      const eid = parseIpAddress(`10.77.${100 + (i >> 8)}.${i & 255}`);
      a.event({ type: 'miss', eid, reason: 'source' });
      world.pump();
    }
    const asked = a.sent.length;
    a.miss('10.77.0.200');
    assert.equal(a.sent.length, asked + 1);
  });

  // Attack: solicitations of a Map-Request for one EID | 5000 | answered by 1000 to 1100 requests; the route stays and
  // own packets are still resolved
  test('attack: a flood of solicitations (SMR)', () => {
    const { world, a, b, c } = prepared();
    const itr = 'fd53:7461:7970:7574::1' as never;
    const message = solicitMapRequest({ nonce: nonce(5n), eid: parseEid(CLIENT), itr });
    const before = a.sent.length;
    for (let i = 0; i < 5000; i++) {
      a.hear(b.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
      world.pump();
    }
    const asked = a.sent.length;
    assert.ok(asked - before >= 1000 && asked - before <= 1100, `${asked - before}`);
    assert.equal(a.dataplane?.route(CLIENT), c.key);
    a.miss('10.77.0.200');
    assert.equal(a.sent.length, asked + 1, 'our own packets are still resolved');
  });
});

/** Its agent address, as the map server has it. */
function agentOf(world: World, host: Host): Mapping {
  const mapping = world.server.mappings.get(eidKey(agentEid(DEFAULT_INSTANCE, host.key)));
  assert.ok(mapping !== undefined);
  return mapping;
}

function mappingOf(host: Host): Mapping {
  return {
    eid: parseEid(EID),
    ttl: minutes(10),
    action: 'no-action',
    generation: 1 as Generation,
    owner: host.xtrId,
    tunnelKey: host.key,
    locators: [],
    names: [],
    targets: [],
  };
}
