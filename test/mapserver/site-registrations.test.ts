/** What routers of a site register over UDP, and what becomes of it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { XtrRegistrations } from '../../mapserver/core/lisp/xtr-registrations.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { eidKey, parseEid } from '../../proto/eid.ts';
import { type LispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import type { MapRegister } from '../../proto/lisp/map-register.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import type { Mapping } from '../../proto/mapping.ts';
import { minutes, seconds } from '../../proto/time.ts';
import { type CoreAgent, CoreWorld } from './core-world.ts';
import { addSite, recordsText, SiteXtr } from './site-world.ts';

describe('a registration', () => {
  test('is acknowledged, and agents resolve it', () => {
    const { world, xtr } = paris();
    const agent = world.agent('a');
    assert.equal(xtr.register('10.50.1.0/24'), 'accepted');
    const [notify, ...more] = xtr.notifies();
    assert.deepEqual([recordsText(notify), more], [['10.50.1.0/24 = 192.0.2.1'], []]);
    assert.equal(notify?.nonce, xtr.lastNonce);
    const mapping = resolve(agent);
    assert.deepEqual(placeOf(mapping), ['192.0.2.1:4341']);
    assert.deepEqual([mapping?.tunnelKey, mapping?.generation], [undefined, 1]);
  });

  test('is pushed to agents that wait for it, as is each change', () => {
    const { world, xtr } = paris();
    const agent = world.agent('a');
    agent.subscribe('10.50.1.7');
    xtr.register('10.50.1.0/24');
    assert.deepEqual(agent.pushed().map(placeOf), [['192.0.2.1:4341']]);
    xtr.register('10.50.1.0/24');
    assert.deepEqual(agent.pushed(), [], 'a refresh is no news');
    xtr.register('10.50.1.0/24', { rlocs: ['198.51.100.1'] });
    assert.deepEqual(agent.pushed().map(placeOf), [['198.51.100.1:4341']]);
  });

  test('of more EIDs than one is answered for all of them', () => {
    const { xtr } = paris();
    xtr.register(['10.50.1.0/24', 'fd50::/64']);
    assert.deepEqual(recordsText(xtr.notifies()[0]), ['10.50.1.0/24 = 192.0.2.1', 'fd50::/64 = 192.0.2.1']);
  });

  test('without the M bit is not answered', () => {
    const { xtr } = paris();
    assert.equal(xtr.register('10.50.1.0/24', { flags: { wantMapNotify: false } }), 'accepted');
    assert.deepEqual(xtr.notifies(), []);
  });

  test('keeps RLOCs that agents cannot send to, and gives them back', () => {
    const { world, xtr } = paris();
    const unknown = { kind: 'lcaf' as const, type: 99, flags: 0, rsvd2: 0, body: Uint8Array.of(1, 2, 3) };
    xtr.register('10.50.1.0/24', { rlocs: [unknown, '192.0.2.1'] });
    assert.deepEqual(
      xtr.notifies()[0]?.records[0]?.locators.map(({ locator }) => locator),
      [{ kind: 'ip', address: '192.0.2.1' }, unknown],
    );
    assert.deepEqual(placeOf(resolve(world.agent('a'))), ['192.0.2.1:4341']);
  });

  test('in another instance is for that instance', () => {
    const world = new CoreWorld();
    addSite(world, 'blue', { within: ['10.50.0.0/16'], iid: 1000 });
    const xtr = new SiteXtr(world, '192.0.2.1');
    assert.equal(xtr.register('10.50.1.0/24'), 'site-unknown');
    assert.equal(xtr.register('[1000]10.50.1.0/24'), 'accepted');
    assert.deepEqual(recordsText(xtr.notifies()[0]), ['10.50.1.0/24 = 192.0.2.1']);
    assert.deepEqual(placeOf(resolve(world.agent('a'))), []);
  });

  test('is acknowledged only when its owner is stored', () => {
    const { world, xtr } = paris();
    world.durable = false;
    xtr.register('10.50.1.0/24');
    assert.deepEqual(xtr.notifies(), []);
    world.release();
    assert.equal(xtr.notifies().length, 1);
  });

  test('that the store failed to take is taken with the next refresh', () => {
    const { world, xtr } = paris();
    world.durable = false;
    xtr.register('10.50.1.0/24');
    world.release('failed');
    world.durable = true;
    assert.deepEqual(xtr.notifies(), []);
    xtr.register('10.50.1.0/24');
    assert.equal(xtr.notifies().length, 1);
  });

  test('that ends while the store fails is withdrawn as soon as it does not', () => {
    const { world, xtr, other } = paris();
    xtr.register('10.50.1.0/24');
    world.durable = false;
    xtr.register('10.50.2.0/24');
    xtr.register('10.50.1.0/24', { ttl: 0 });
    other.register('10.50.3.0/24');
    world.release();
    world.release('failed');
    world.durable = true;
    assert.deepEqual(placeOf(resolve(world.agent('a'))), ['192.0.2.1:4341']);
    world.advance(seconds(10));
    assert.deepEqual(placeOf(resolve(world.agent('b'))), []);
  });

  // Attack: RLOCs of two routers that merge, of 40,000 octets each, in ECMs | 2 | those are kept that fit into 4,096 octets
  test('attack: RLOCs that together fit into no message', () => {
    const { world, xtr, other } = paris();
    for (const [i, each] of [xtr, other].entries()) {
      const json = new Uint8Array(40_000).fill(0x61 + i);
      const long: LispAddress = { kind: 'json', binary: false, json, address: NO_ADDRESS };
      const message = each.signed('10.50.1.0/24', { rlocs: [each.peer.address, long], flags: { merge: true } });
      assert.equal(each.send(inEcm(message)), 'accepted');
    }
    const answers = world.datagrams.filter(({ to }) => to.address === other.peer.address);
    assert.deepEqual(
      answers.map(({ message }) => message.type),
      ['encapsulated-control'],
    );
    assert.deepEqual(placeOf(resolve(world.agent('a'))), ['192.0.2.1:4341', '192.0.2.2:4341']);
  });

  // Attack: a router that gives itself another xTR-ID each time, with merge, at a site with --legacy-replay | 1,000 | 256 are remembered of an EID
  test('attack: one EID of very many xTRs', () => {
    const registrations = new XtrRegistrations();
    const content = { ttl: 5, mapVersion: 0, rlocs: [], proxyReply: true, merge: true, securityCapable: false };
    const eid = eidKey(parseEid('10.50.1.0/24'));
    for (let id = 0; id < 1_000; id++) {
      const peer = { address: parseIpAddress('192.0.2.1'), port: 4342 };
      const signing = { keyId: 0, algorithm: 2, psk: new Uint8Array(8) };
      const xtr = { site: 'paris', id: `${id}`, peer, signing, wantsNotify: false };
      registrations.put({ eid, site: 'paris', xtr, content, fingerprint: '' }, minutes(3));
    }
    assert.deepEqual([registrations.of(eid, 'paris').length, registrations.size], [256, 256]);
  });

  test('beyond the limit of the site is left out of the answer', () => {
    const { world, xtr } = paris({ mappingsPerSite: 2 });
    xtr.register(['10.50.1.0/24', '10.50.2.0/24', '10.50.3.0/24']);
    assert.deepEqual(recordsText(xtr.notifies()[0]), ['10.50.1.0/24 = 192.0.2.1', '10.50.2.0/24 = 192.0.2.1']);
    assert.equal(
      world.count('limit', (event) => event.kind === 'limit' && event.limit === 'mappingsPerSite'),
      1,
    );
  });
});

test('a registration with an older map-version is refused, also when the versions have begun anew', () => {
  const { xtr } = paris();
  const version = (mapVersion: number): string => {
    const { records } = decodeLispMessage(xtr.signed('10.50.1.0/24')) as MapRegister;
    return xtr.register('10.50.1.0/24', { flags: { records: records.map((record) => ({ ...record, mapVersion })) } });
  };
  const said = [100, 99, 101, 0, 2_000, 4_000, 1, 4_000, 2].map(version);
  const no = 'outdated';
  const yes = 'accepted';
  // Without a version nothing is known of the one before.
  assert.deepEqual(said, [yes, no, yes, yes, yes, yes, yes, no, yes]);
});

test('a policy that names an EID of a site holds for the agents that talk to it', () => {
  const { world, xtr } = paris();
  const agent = world.agent('a', { eids: ['10.77.1.0/24'] });
  agent.claim('10.77.1.1');
  const set = world.operate({
    kind: 'set-policy',
    text: 'default deny\nallow from 10.77.1.0/24 to 10.50.0.0/16 tcp 22\nallow from *.web to any tcp 80',
    ifVersion: 0,
  });
  assert.ok(set.ok, JSON.stringify(set));
  xtr.register('10.50.1.0/24');
  assert.deepEqual(
    agent.policies.at(-1)?.rules.map(({ destination }) => destination),
    [['10.50.0.0/16']],
  );
  xtr.register('10.50.1.0/24', { ttl: 0 });
});

describe('an end', () => {
  for (const [how, options] of Object.entries({ 'TTL 0': { ttl: 0 }, 'no locator': { rlocs: [] } })) {
    test(`by ${how} is told to agents and acknowledged`, () => {
      const { world, xtr } = paris();
      const agent = world.agent('a');
      xtr.register('10.50.1.0/24');
      agent.subscribe('10.50.1.7');
      xtr.notifies();
      xtr.register('10.50.1.0/24', options);
      assert.deepEqual(recordsText(xtr.notifies()[0]), ['10.50.1.0/24 = withdrawn']);
      assert.deepEqual(withdrawals(agent), [0]);
    });
  }

  test('comes after three minutes without a refresh', () => {
    const { world, xtr } = paris();
    const agent = world.agent('a');
    xtr.register('10.50.1.0/24');
    agent.subscribe('10.50.1.7');
    world.advance(seconds(120));
    xtr.register('10.50.1.0/24');
    world.advance(seconds(179));
    assert.deepEqual(agent.pushed(), []);
    world.advance(seconds(2));
    assert.deepEqual(withdrawals(agent), [0]);
    xtr.register('10.50.1.0/24');
    assert.deepEqual(agent.pushed().map(placeOf), [['192.0.2.1:4341']], 'and it comes again');
  });

  test('comes with the TTL of the record where the T bit says so', () => {
    const { world, xtr } = paris();
    const agent = world.agent('a');
    xtr.register('10.50.1.0/24', { ttl: 10, flags: { useTtl: true } });
    world.advance(minutes(10) - 1);
    assert.deepEqual(placeOf(resolve(agent)), ['192.0.2.1:4341']);
    world.advance(2);
    assert.deepEqual(placeOf(resolve(agent)), []);
  });

  test('comes three minutes after a restart, and not before', () => {
    const { world, xtr } = paris();
    xtr.register('10.50.1.0/24');
    world.advance(seconds(1));
    const after = world.restarted();
    const agent = after.agent('a');
    assert.deepEqual(placeOf(resolve(agent)), ['192.0.2.1:4341']);
    after.advance(minutes(3) - 1);
    assert.deepEqual(placeOf(resolve(agent)), ['192.0.2.1:4341']);
    after.advance(2);
    assert.deepEqual(placeOf(resolve(agent)), []);
  });

  test('that comes after a restart ends what was stored, unless its router merges', () => {
    for (const [merge, left] of [
      [false, []],
      [true, ['192.0.2.1:4341']],
    ] as const) {
      const { world, xtr } = paris();
      xtr.register('10.50.1.0/24', { flags: { merge } });
      world.advance(seconds(10));
      const back = new SiteXtr(world.restarted(), '192.0.2.1', 1);
      back.register('10.50.1.0/24', { nonce: 200n, ttl: 0, flags: { merge } });
      assert.deepEqual(placeOf(resolve(back.world.agent('a'))), left);
    }
  });

  test('comes when the site is removed', () => {
    const { world, xtr } = paris();
    const agent = world.agent('a');
    xtr.register('10.50.1.0/24');
    agent.subscribe('10.50.1.7');
    world.operate({ kind: 'remove-site', name: 'paris' });
    assert.deepEqual(withdrawals(agent), [0]);
    assert.equal(xtr.register('10.50.1.0/24'), 'site-unknown');
  });
});

describe('two xTRs of a site', () => {
  test('that merge make one mapping of their RLOCs, and both hear of it', () => {
    const { world, xtr, other } = paris();
    xtr.register('10.50.1.0/24', { flags: { merge: true } });
    xtr.notifies();
    other.register('10.50.1.0/24', { flags: { merge: true } });
    const both = ['10.50.1.0/24 = 192.0.2.1 192.0.2.2'];
    assert.deepEqual(recordsText(other.notifies()[0]), both);
    assert.deepEqual(recordsText(xtr.notifies()[0]), both);
    const mapping = resolve(world.agent('a'));
    assert.deepEqual(placeOf(mapping), ['192.0.2.1:4341', '192.0.2.2:4341']);
    assert.equal(mapping?.generation, 1);
  });

  test('that merge lose only the RLOCs of the one that goes', () => {
    const { world, xtr, other } = paris();
    for (const each of [xtr, other]) each.register('10.50.1.0/24', { flags: { merge: true } });
    world.advance(seconds(100));
    xtr.register('10.50.1.0/24', { flags: { merge: true } });
    world.advance(seconds(100));
    assert.deepEqual(placeOf(resolve(world.agent('a'))), ['192.0.2.1:4341']);
  });

  test('that do not merge: the latest has it, and the other is told', () => {
    const { world, xtr, other } = paris();
    xtr.register('10.50.1.0/24');
    xtr.notifies();
    other.register('10.50.1.0/24');
    assert.deepEqual(recordsText(xtr.notifies()[0]), ['10.50.1.0/24 = 192.0.2.2']);
    assert.deepEqual(placeOf(resolve(world.agent('a'))), ['192.0.2.2:4341']);
  });

  test('that merge lose nothing in a restart', () => {
    const { world, xtr, other } = paris();
    for (const each of [xtr, other]) each.register('10.50.1.0/24', { flags: { merge: true } });
    world.advance(seconds(10));
    const back = new SiteXtr(world.restarted(), '192.0.2.1', 1);
    back.lastNonce = 200n;
    back.register('10.50.1.0/24', { flags: { merge: true } });
    assert.deepEqual(recordsText(back.notifies()[0]), ['10.50.1.0/24 = 192.0.2.1 192.0.2.2']);
  });
});

describe('an EID that changes hands', () => {
  test('from site to site gets the next generation, and the former router is told until it acknowledges', () => {
    const { world, xtr } = paris();
    addSite(world, 'lyon', { within: ['10.50.0.0/16'], secret: 'another secret' });
    const lyon = new SiteXtr(world, '203.0.113.1');
    lyon.signing = { ...lyon.signing, psk: Buffer.from('another secret') };
    xtr.register('10.50.1.0/24');
    xtr.notifies();
    assert.equal(lyon.register('10.50.1.0/24'), 'accepted');
    assert.equal(world.count('moved'), 1);
    const [told] = xtr.notifies();
    assert.deepEqual(recordsText(told), ['10.50.1.0/24 = 203.0.113.1']);
    world.advance(seconds(3));
    assert.equal(xtr.notifies()[0]?.nonce, told?.nonce);
    assert.equal(told && xtr.ack(told), 'accepted');
    world.advance(minutes(2));
    assert.deepEqual(xtr.notifies(), []);
    assert.equal(resolve(world.agent('a'))?.generation, 2);
  });

  test('from an agent to a site, and back', () => {
    const world = new CoreWorld();
    addSite(world, 'paris', { within: ['10.77.0.0/16'] });
    const xtr = new SiteXtr(world, '192.0.2.1');
    const agent = world.agent('a', { eids: ['10.77.0.5/32'] });
    agent.claim('agent');
    agent.claim('10.77.0.5');
    agent.pushed();
    assert.equal(xtr.register('10.77.0.5'), 'accepted');
    const [lost] = agent.pushed();
    assert.deepEqual([lost?.generation, lost?.tunnelKey, placeOf(lost)], [2, undefined, ['192.0.2.1:4341']]);
    const [stale] = agent.claim('10.77.0.5', 1);
    assert.notEqual(stale?.owner, agent.xtrId, 'at its generation it has lost it');
    xtr.notifies();
    const [won] = agent.claim('10.77.0.5');
    assert.deepEqual([won?.generation, won?.owner], [3, agent.xtrId]);
    assert.equal(xtr.notifies()[0]?.records[0]?.locators.length, 0, 'agents take no plain packets');
    world.advance(minutes(4));
    assert.equal(
      resolve(agent, '10.77.0.5')?.owner,
      agent.xtrId,
      'the end of what the site registered changes nothing',
    );
  });
});

describe('a Map-Notify that is not acknowledged', () => {
  test('is sent seven times, each to both ports', () => {
    const { world, other } = paris();
    const xtr = new SiteXtr(world, '192.0.2.9', 9, 61_000);
    xtr.register('10.50.1.0/24');
    world.datagrams.length = 0;
    other.register('10.50.1.0/24');
    world.advance(minutes(5));
    const ports = world.datagrams.filter(({ to }) => to.address === '192.0.2.9').map(({ to }) => to.port);
    assert.deepEqual(ports, Array(7).fill([4342, 61_000]).flat());
    assert.deepEqual(notifyResults(world), ['unacknowledged']);
  });

  test('by another key goes on', () => {
    const { world, xtr, other } = paris();
    xtr.register('10.50.1.0/24');
    xtr.notifies();
    other.register('10.50.1.0/24');
    const [told] = xtr.notifies();
    const stranger = new SiteXtr(world, '192.0.2.1');
    stranger.signing = { ...stranger.signing, psk: Buffer.from('guessed') };
    assert.equal(told && stranger.ack(told), 'authentication');
    world.advance(seconds(3));
    assert.equal(xtr.notifies().length, 1);
    assert.equal(told && xtr.ack({ ...told, nonce: told.nonce, records: [] }), 'accepted');
    assert.equal(told && xtr.ack(told), 'unexpected');
  });

  // Attack: a router of a site takes its EIDs to and fro and acknowledges nothing | 200 EIDs | 32 Map-Notifies wait for each router, the rest is counted
  test('attack: Map-Notifies that pile up', () => {
    const { world, xtr, other } = paris({ mappingsPerSite: 1_000 });
    const eids = Array.from({ length: 100 }, (_, i) => `10.50.${i}.0/24`);
    for (const each of [xtr, other, xtr, other]) each.register(eids);
    assert.ok(notifyResults(world).every((result) => result === 'overflow'));
    const waiting = world.datagrams.filter(
      ({ to, message }) => to.address === xtr.peer.address && message.type === 'map-notify',
    );
    assert.ok(waiting.length <= 40, `${waiting.length}`);
  });
});

function paris(limits: object = {}): { readonly world: CoreWorld; readonly xtr: SiteXtr; readonly other: SiteXtr } {
  const world = new CoreWorld({ limits });
  addSite(world, 'paris', { within: ['10.50.0.0/16', 'fd50::/32'] });
  return { world, xtr: new SiteXtr(world, '192.0.2.1', 1), other: new SiteXtr(world, '192.0.2.2', 2) };
}

function resolve(agent: CoreAgent, eid = '10.50.1.7'): Mapping | undefined {
  const answer = agent.lookup(eid);
  return answer === undefined ? undefined : mappingsOf(answer)[0];
}

function placeOf(mapping: Mapping | undefined): string[] {
  return (mapping?.locators ?? []).map(({ address, port }) => `${address}:${port}`);
}

function withdrawals(agent: CoreAgent): number[] {
  return agent.pushed().map(({ ttl }) => ttl);
}

function notifyResults(world: CoreWorld): string[] {
  return world.events.flatMap((event) => (event.kind === 'lisp-notify' ? [event.result] : []));
}

function inEcm(payload: Uint8Array): Uint8Array {
  return encodeLispMessage({
    type: 'encapsulated-control',
    ddt: false,
    toEtr: false,
    toMapServer: true,
    forRtr: false,
    relayed: false,
    source: parseIpAddress('192.0.2.1'),
    destination: parseIpAddress('198.51.100.1'),
    hopLimit: 64,
    sourcePort: 4342,
    destinationPort: 4342,
    payload,
  });
}
