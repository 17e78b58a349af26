/** EIDs that Map-Resolvers of others are asked for, in virtual time and over real UDP. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { type LispMapResolver, LispResolutions } from '../../agent/core/lisp-resolutions.ts';
import { Outbox } from '../../agent/core/outbox.ts';
import { LispListener } from '../../agent/shell/lisp-listener.ts';
import { type IpPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, parseEid } from '../../proto/eid.ts';
import { ipLispAddress } from '../../proto/lisp/afi.ts';
import type { EidRecord } from '../../proto/lisp/eid-record.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { MapReply } from '../../proto/lisp/map-reply.ts';
import { MAP_REQUEST, type MapRequest } from '../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../proto/lisp/mapping-record.ts';
import { decodeLispMessage, encapsulatedMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import { waitFor } from '../lab/wait.ts';
import { CoreWorld } from '../mapserver/core-world.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { base64, SECRET, SiteXtr } from '../mapserver/site-world.ts';
import { type Host, World } from './world.ts';

const RESOLVER = '198.51.100.1';
const RLOC = '192.0.2.7';
const FOREIGN = '10.77.50.5';
const RESOLVE: readonly IpPrefix[] = [parseIpPrefix('10.77.50.0/24')];

describe('EIDs that a Map-Resolver of others is asked for', () => {
  test('a packet asks it in an ECM, and the answer is forwarded to plainly until its TTL', () => {
    const { world, host, dataplane } = start();
    host.miss(FOREIGN);
    const [{ message, bytes } = assert.fail()] = asked(host);
    const ecm = decodeLispMessage(bytes);
    assert.ok(ecm.type === 'encapsulated-control');
    assert.deepEqual([ecm.source, ecm.destination, ecm.destinationPort], ['203.0.113.1', FOREIGN, 4342]);
    assert.deepEqual(message.itrRlocs, [ipLispAddress(parseIpAddress('203.0.113.1'))]);
    assert.deepEqual([message.smrInvoked, message.records[0]?.maskLength], [false, 32]);
    assert.ok(!host.sent.some(({ type }) => type === 'map-request'), 'the own map server is not asked');
    assert.equal(host.hear4342(RESOLVER, reply(message, [record('10.77.50.0/25', [RLOC])])), 'resolved');
    assert.equal(dataplane.mappings.get(parseIpPrefix('10.77.50.0/25'))?.to, 'plain');
    world.advance(59_999);
    assert.equal(dataplane.mappings.size, 1);
    world.advance(1);
    assert.equal(dataplane.mappings.size, 0);
    host.miss(FOREIGN);
    assert.equal(asked(host).length, 1);
  });

  test('it is asked again after 1, 2, 4 and 8 s, then not for 30 s', () => {
    const { world, host } = start();
    const at: number[] = [];
    const begin = world.now;
    for (let ms = 0; ms < 60_000; ms += 500) {
      host.miss(FOREIGN);
      for (const _ of asked(host)) at.push(world.now - begin);
      world.advance(500);
      for (const _ of asked(host)) at.push(world.now - begin);
    }
    assert.deepEqual(
      at,
      [0, 1000, 3000, 7000, 15_000, 61_000].filter((each) => each < 60_000),
    );
    world.advance(5000);
    host.miss(FOREIGN);
    assert.equal(asked(host).length, 1, 'later it is asked again');
  });

  test('a negative answer drops, for its TTL', () => {
    const { world, host, dataplane } = start();
    host.miss(FOREIGN);
    answerAsked(host, [record('10.77.0.0/16', [], 15)]);
    assert.equal(dataplane.mappings.get(parseIpPrefix('10.77.50.0/24'))?.to, 'drop', 'as far as it may speak for');
    assert.equal(dataplane.mappings.get(parseIpPrefix('10.77.0.0/16')), undefined);
    world.advance(15 * 60_000);
    assert.equal(dataplane.mappings.size, 0);
  });

  test('more specific prefixes in an answer count, and others do not', () => {
    const { host, dataplane } = start();
    host.miss(FOREIGN);
    const told = ['10.77.50.0/28', '10.77.50.8/29', '10.77.50.128/25', '10.78.0.0/16'];
    answerAsked(
      host,
      told.map((prefix) => record(prefix, [RLOC])),
    );
    assert.deepEqual([...dataplane.mappings.keys()], ['10.77.50.0/28', '10.77.50.8/29']);
  });

  test('an SMR of the resolver or of an RLOC asks again, once in 3 s, and the old mapping goes', () => {
    const { world, host, dataplane } = start();
    host.miss(FOREIGN);
    answerAsked(host, [record('10.77.50.0/25', [RLOC])]);
    for (const from of [RESOLVER, RLOC]) assert.equal(host.hear4342(from, smr('10.77.50.5')), 'solicited');
    assert.deepEqual(asked(host), []);
    world.advance(3000);
    const [{ message } = assert.fail(), ...more] = asked(host);
    assert.deepEqual([message.smrInvoked, more], [true, []]);
    host.hear4342(RESOLVER, reply(message, [record('10.77.50.4/30', [RLOC])]));
    assert.deepEqual([...dataplane.mappings.keys()], ['10.77.50.4/30']);
    assert.equal(host.hear4342(RESOLVER, smr('10.99.0.1')), 'ignored');
  });

  test('the answer is said to who asks for it here', () => {
    const { world, host } = start();
    const [first, second] = [host.resolve(FOREIGN), host.resolve(FOREIGN)];
    assert.equal(host.answers.has(first), false);
    answerAsked(host, [record('10.77.50.0/25', [RLOC])]);
    for (const ticket of [first, second, host.resolve(FOREIGN)]) {
      const answer = host.answers.get(ticket);
      assert.ok(answer?.kind === 'resolution' && answer.resolution.kind === 'found');
      assert.equal(answer.resolution.mapping.locators[0]?.address, RLOC);
    }
    const unanswered = host.resolve('10.77.50.200');
    world.advance(3000);
    const answer = host.answers.get(unanswered);
    assert.ok(answer?.kind === 'resolution' && answer.resolution.kind === 'unavailable');
  });

  test('what the own map server knows of, and what is here, is none of it', () => {
    const { world, host, dataplane } = start(['10.77.50.9']);
    const other = world.host('b', { eids: ['10.77.50.5'], address: '203.0.113.2' });
    other.connect();
    host.miss('10.77.50.6');
    answerAsked(host, [record('10.77.50.5/32', [RLOC]), record('10.77.50.6/32', [RLOC])]);
    assert.equal(dataplane.route(FOREIGN), 'miss');
    host.miss('10.77.50.9');
    assert.deepEqual(asked(host), []);
  });

  // Attack: Map-Replies with another nonce, from another address, of an answered question, or about other EIDs | 5 | ignored or refused; no mapping
  test('attack: Map-Replies that nobody asked for', () => {
    const { host, dataplane } = start();
    host.miss(FOREIGN);
    const [{ message } = assert.fail()] = asked(host);
    const good = [record('10.77.50.0/25', [RLOC])];
    assert.equal(host.hear4342(RESOLVER, reply(message, good, nonce(message.nonce + 1n))), 'ignored');
    assert.equal(host.hear4342('203.0.113.66', reply(message, good)), 'refused');
    assert.equal(host.hear4342(RESOLVER, reply(message, [record('10.77.50.128/25', [RLOC])])), 'ignored');
    assert.equal(host.hear4342(RESOLVER, reply(message, [record('10.99.0.0/16', [RLOC])])), 'ignored');
    assert.equal(dataplane.mappings.size, 0);
    assert.equal(host.hear4342(RESOLVER, reply(message, good)), 'resolved');
    assert.equal(host.hear4342(RESOLVER, reply(message, [record('10.77.50.5/32', ['192.0.2.66'])])), 'ignored');
    assert.equal(dataplane.mappings.size, 1);
  });

  // Attack: a Map-Reply for a prefix that holds an agent's EID, which has a tunnel key | 1 | packets to the agent stay in its tunnel
  test('attack: a Map-Reply about the EID of an agent', () => {
    const { world, host, dataplane } = start();
    const other = world.host('b', { eids: [FOREIGN], address: '203.0.113.2' });
    other.connect();
    world.server.push([...world.server.mappings.values()], [host.xtrId]);
    world.pump();
    assert.equal(dataplane.route(FOREIGN), other.key);
    host.miss('10.77.50.6');
    answerAsked(host, [record('10.77.50.0/24', [RLOC]), record('10.77.50.5/32', [RLOC])]);
    assert.equal(dataplane.route(FOREIGN), other.key);
    world.advance(120_000);
    assert.equal(dataplane.route(FOREIGN), other.key, 'nor does the end of the answer end it');
  });

  // Attack: packets to as many EIDs of a Map-Resolver of others as there are | 10,000 at once | 200 questions
  test('attack: packets to very many EIDs of others', () => {
    const { host } = start();
    for (let i = 0; i < 10_000; i++) host.miss(`10.60.${i >> 8}.${i & 255}`);
    assert.equal(asked(host).length, 200);
  });

  // Attack: packets from a peer with very many EIDs of others as sources | 10,000 at once | 128 questions; own packets still lead to theirs
  test('attack: packets from very many EIDs of others', () => {
    const { host } = start();
    for (let i = 0; i < 10_000; i++) {
      host.event({ type: 'miss', eid: parseIpAddress(`10.60.${i >> 8}.${i & 255}`), reason: 'source' });
    }
    assert.equal(asked(host).length, 128);
    host.miss(FOREIGN);
    assert.equal(asked(host).length, 1);
  });

  // Attack: Map-Replies to a question that is open, with guessed nonces | 10,000 at once | 1,000 are looked at
  test('attack: guessed nonces of Map-Replies', () => {
    const { host } = start();
    host.miss(FOREIGN);
    const [{ message } = assert.fail()] = asked(host);
    const results = Array.from({ length: 10_000 }, (_, i) =>
      host.hear4342(RESOLVER, reply(message, [record('10.77.50.0/25', [RLOC])], nonce(BigInt(i)))),
    );
    assert.equal(results.filter((result) => result === 'ignored').length, 1000);
    assert.equal(results.at(-1), 'limited');
  });
});

test('a map server answers over UDP what a site registered', async () => {
  const overlay = new TestOverlay({ lisp: { listen: ['127.0.0.1:0'], requesters: ['127.0.0.0/8'] } });
  await overlay.start();
  const prefixes = [{ prefix: '10.77.50.0/24', moreSpecifics: true }];
  await overlay.admin('POST', '/v1/sites', { name: 'paris', prefixes, keys: [{ keyId: 0, secret: base64(SECRET) }] });
  const [address = '', port = ''] = overlay.lispAddress.split(':');
  const router = createSocket('udp4');
  router.bind(0, '127.0.0.1');
  await once(router, 'listening');
  const registered = once(router, 'message');
  router.send(new SiteXtr(new CoreWorld(), RLOC).signed('10.77.50.0/24'), Number(port), address);
  await registered;
  const resolver: LispMapResolver = { address: parseIpAddress(address), port: Number(port), resolve: RESOLVE };
  const outbox = new Outbox();
  const forwarded: string[] = [];
  // One that may not ask, so the answer comes where the question came from, as behind a NAT, and not to port 4342.
  const locator = { address: parseIpAddress('203.0.113.9'), port: 4341, priority: 1, weight: 100 };
  const nothing = () => undefined;
  const resolutions = new LispResolutions(
    {
      resolvers: [resolver],
      randomNonce: () => nonce(0x1234_5678_9abc_def0n),
      plainInstance: DEFAULT_INSTANCE,
      instance: DEFAULT_INSTANCE,
      overlay: () => [],
      locators: () => [locator],
      isOwn: () => false,
      remote: { cache: { find: nothing, exact: nothing } },
      table: {
        forwardPlainly: (prefix, _, locators) => forwarded.push(`${prefix} = ${locators.map((each) => each.address)}`),
        drop: (prefix) => forwarded.push(`${prefix} dropped`),
        removeMapping: nothing,
        repeatMapping: nothing,
      },
      outbox,
    },
    0,
  );
  const listener = await LispListener.start((_, bytes) => {
    const message = decodeLispMessage(bytes);
    if (message.type === 'map-reply') resolutions.handleReply(message, 0);
  }, 0);
  assert.ok(resolutions.handleMiss(parseIpAddress(FOREIGN), 'destination', 0));
  const output = outbox.poll();
  assert.ok(output?.to === 'lisp-router');
  listener.send(output.peer, output.bytes);
  await waitFor('the mapping', () => (forwarded.length > 0 ? true : undefined));
  assert.deepEqual(forwarded, [`10.77.50.0/24 = ${RLOC}`]);
  listener.close();
  router.close();
  await overlay.remove();
});

function start(eids: readonly string[] = []) {
  const world = new World();
  const plain = {
    instance: DEFAULT_INSTANCE,
    gateway: false,
    sites: [{ rlocs: [parseIpPrefix('192.0.2.0/24')], eids: [] }],
  };
  const resolve = [...RESOLVE, parseIpPrefix('10.60.0.0/16')];
  let random = 0x7000_0000_0000n;
  const elsewhere = {
    mapServers: [],
    mapResolvers: [{ address: parseIpAddress(RESOLVER), port: 4342, resolve }],
    firstNonce: nonce(0n),
    randomNonce: () => nonce(++random),
  };
  const host = world.host('a', { eids, address: '203.0.113.1', lisp: { plain, elsewhere } });
  host.connect();
  const dataplane = host.dataplane ?? assert.fail();
  return { world, host, dataplane };
}

/** Map-Requests since the last call. */
function asked(host: Host): { message: MapRequest; bytes: Uint8Array }[] {
  return host.datagrams.splice(0).flatMap((bytes) => {
    const outer = decodeLispMessage(bytes);
    const message = outer.type === 'encapsulated-control' ? encapsulatedMessage(outer) : outer;
    return message.type === 'map-request' ? [{ message, bytes }] : [];
  });
}

function answerAsked(host: Host, records: readonly EidRecord[]): void {
  const [{ message } = assert.fail()] = asked(host);
  assert.equal(host.hear4342(RESOLVER, reply(message, records)), 'resolved');
}

function reply(request: MapRequest, records: readonly EidRecord[], answered: Nonce = request.nonce): Uint8Array {
  const message: MapReply = { type: 'map-reply', probe: false, echoNonce: false, nonce: answered, records };
  return encodeLispMessage(message);
}

function record(prefix: string, rlocs: readonly string[], ttl = 1): EidRecord {
  const locators = rlocs.map((rloc) => ({
    priority: 1,
    weight: 100,
    multicastPriority: 255,
    multicastWeight: 0,
    local: true,
    probed: false,
    reachable: true,
    locator: ipLispAddress(parseIpAddress(rloc)),
  }));
  return { ...eidToRecordKey(parseEid(prefix)), ttl, action: 1, authoritative: false, mapVersion: 0, locators };
}

function smr(eid: string): Uint8Array {
  const key = eidToRecordKey(parseEid(eid));
  return encodeLispMessage({
    ...MAP_REQUEST,
    smr: true,
    nonce: nonce(9n),
    sourceEid: key.eid,
    itrRlocs: [ipLispAddress(parseIpAddress(RLOC))],
    records: [{ ...key, notify: false }],
  });
}
