/** Moves that the two agents settle between themselves while the map server is away. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { eidKey, parseEid } from '../../proto/eid.ts';
import { minutes } from '../../proto/time.ts';
import { arrive, CLIENT, EID, PREFIX, prepared } from './prepared-move.ts';
import { World } from './world.ts';
import { FakeDataplaneState } from './world-dataplane.ts';

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

  test('that nobody will settle is given up at the map server, over sessions and restarts', () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    b.loseDataplane();
    world.isCut = () => true;
    for (const host of [a, c]) host.connect();
    world.server.silent = true;
    world.advance(minutes(2));
    assert.equal(a.stateOf(EID), 'lost@1');
    assert.ok(world.server.mappings.has(eidKey(parseEid(EID))), 'it is not answered');
    a.restart();
    a.plug('192.0.2.1');
    world.server.silent = false;
    a.connect();
    assert.ok(!world.server.mappings.has(eidKey(parseEid(EID))));
    assert.equal(c.dataplane?.route(EID), 'drop');
    assert.deepEqual(a.saved.withdrawals, []);
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
