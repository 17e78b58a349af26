/** Map-Requests of plain LISP peers: who is answered where, how often, and who is solicited later. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LispResult } from '../../../mapserver/core/lisp/lisp-server.ts';
import { MapReplies } from '../../../mapserver/core/lisp/map-replies.ts';
import { MapRequests } from '../../../mapserver/core/lisp/map-requests.ts';
import { SiteNotifier } from '../../../mapserver/core/lisp/site-notifier.ts';
import { SubscriptionRequests } from '../../../mapserver/core/lisp/subscription-requests.ts';
import type { UdpPeer } from '../../../mapserver/core/lisp/udp-peer.ts';
import { MappingDatabase } from '../../../mapserver/core/mapping-database.ts';
import type { OwnershipRecord } from '../../../mapserver/core/records.ts';
import { type IpAddress, type IpPrefix, parseIpAddress, parseIpPrefix } from '../../../proto/address.ts';
import { DEFAULT_INSTANCE, type EidKey, eidKey, parseEid, prefixEid } from '../../../proto/eid.ts';
import { DecodeError } from '../../../proto/errors.ts';
import { ipLispAddress, type LispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import type { EncapsulatedControl } from '../../../proto/lisp/ecm.ts';
import { nonce } from '../../../proto/lisp/header.ts';
import { MAP_REQUEST, type MapRequest } from '../../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import {
  decodeLispMessage,
  encapsulatedMessage,
  encodeLispMessage,
  type LispMessage,
} from '../../../proto/lisp/message.ts';
import type { Generation, XtrId } from '../../../proto/mapping.ts';
import { minutes, seconds } from '../../../proto/time.ts';
import { rloc, type SiteOptions, siteContent } from './site-content.ts';

const ITR = parseIpAddress('192.0.2.20');
const ITR6 = parseIpAddress('2001:db8::20');
const STRANGER = parseIpAddress('203.0.113.66');

test('a reply goes to the ITR-RLOC that asks, with its nonce, to the port it asked from', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  assert.equal(
    world.ask(request('10.1.2.3', { itrs: ['192.0.2.99', ITR] }), { address: ITR, port: 40_000 }),
    'accepted',
  );
  const [sent] = world.taken();
  assert.deepEqual(sent?.to, { address: ITR, port: 40_000 });
  assert.equal(sent?.message.type, 'map-reply');
  const reply = sent?.message.type === 'map-reply' ? sent.message : undefined;
  assert.equal(reply?.nonce, 7n);
  assert.equal(reply?.probe, false);
  assert.deepEqual(
    reply?.records.map(({ maskLength, ttl, authoritative }) => ({ maskLength, ttl, authoritative })),
    [{ maskLength: 16, ttl: 1, authoritative: false }],
  );
});

test('of an ECM the answer goes to an ITR-RLOC that may ask, at the inner port', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  const from = { address: parseIpAddress('192.0.2.1'), port: 4342 };
  assert.equal(world.askInEcm(request('10.1.2.3', { itrs: [STRANGER, ITR6, ITR] }), from, 50_001), 'accepted');
  assert.deepEqual(world.taken()[0]?.to, { address: ITR6, port: 50_001 });
});

test('an ITR-RLOC of a family that nothing is listened on is passed over', () => {
  const world = new World({ families: [4] });
  world.site('10.1.0.0/16');
  world.askInEcm(request('10.1.2.3', { itrs: [ITR6, ITR] }), { address: parseIpAddress('192.0.2.1'), port: 4342 });
  assert.deepEqual(world.taken()[0]?.to.address, ITR);
});

test('an ITR behind a NAT is answered where its datagram comes from', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  const from = { address: ITR, port: 61_000, socket: 1 };
  assert.equal(world.askInEcm(request('10.1.2.3', { itrs: ['192.168.1.5'] }), from, 4342), 'accepted');
  assert.deepEqual(world.taken()[0]?.to, from);
});

test('the address behind an ITR-RLOC with keys or a NAT around it is the ITR', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  const keyed: LispAddress = {
    kind: 'security-key',
    algorithm: 5,
    revoked: false,
    keys: [Uint8Array.of(1)],
    address: ipLispAddress(ITR),
  };
  assert.equal(world.ask({ ...request('10.1.2.3'), itrRlocs: [keyed] }), 'accepted');
  assert.equal(world.taken()[0]?.to.address, ITR);
});

test('several EIDs are answered in one reply', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  const records = ['10.1.2.3', '10.77.0.1', 'db'].map((text) => ({
    notify: false,
    ...eidToRecordKey(parseEid(text)),
  }));
  assert.equal(world.ask({ ...request('10.1.2.3'), records }), 'accepted');
  const [sent] = world.taken();
  assert.deepEqual(
    sent?.message.type === 'map-reply' && sent.message.records.map(({ locators, action }) => [locators.length, action]),
    [
      [1, 0],
      [0, 3],
      [0, 1],
    ],
  );
});

test('what is no question is not answered', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  for (const flags of [{ probe: true }, { smr: true }, { dontReply: true }]) {
    assert.equal(world.ask({ ...request('10.1.2.3'), ...flags }), 'unexpected');
  }
  assert.equal(world.ask({ ...request('10.1.2.3'), records: [] }), 'malformed');
  assert.equal(world.ask({ ...request('10.1.2.3'), itrRlocs: [NO_ADDRESS] }), 'refused');
  const record = { notify: false, eid: ipLispAddress(ITR), maskLength: 33 };
  assert.throws(() => world.ask({ ...request('10.1.2.3'), records: [record] }), DecodeError);
  assert.deepEqual(world.taken(), []);
});

test('a site is asked itself when it wants that: in an ECM, by the best of its RLOCs', () => {
  const world = new World();
  const rlocs = [rloc('192.0.2.11', { priority: 2 }), rloc('192.0.2.12'), rloc('192.0.2.13', { reachable: false })];
  world.site('10.1.0.0/16', { proxyReply: false, rlocs });
  const asked = request('10.1.2.3', { itrs: [ITR6, ITR] });
  assert.equal(world.ask(asked, { address: ITR, port: 40_000 }), 'accepted');
  const [sent] = world.taken();
  assert.deepEqual(sent?.to, { address: '192.0.2.12', port: 4342 });
  const ecm = sent?.message as EncapsulatedControl;
  assert.equal(ecm.toEtr, true);
  assert.deepEqual([ecm.source, ecm.sourcePort], [ITR, 40_000]);
  assert.deepEqual([ecm.destination, ecm.destinationPort], ['10.1.2.3', 4342]);
  assert.deepEqual(encapsulatedMessage(ecm), asked);
});

// Attack: a site that answers itself, with RLOCs that are loopback, multicast, broadcast or in the overlay | 4 | nothing is forwarded there
test('attack: has requests forwarded to the map server itself, or to everybody', () => {
  const world = new World();
  const rlocs = ['127.0.0.1', '224.0.0.5', '255.255.255.255', '10.77.0.1'].map((address) => rloc(address));
  world.site('10.1.0.0/16', { proxyReply: false, rlocs });
  assert.equal(world.ask(request('10.1.2.3')), 'accepted');
  assert.deepEqual(world.taken(), []);
});

test('requests that are forwarded are spread over equal RLOCs by their weights', () => {
  const world = new World({ repliesPerSecond: 10_000 });
  const rlocs = [
    rloc('192.0.2.11', { weight: 75 }),
    rloc('192.0.2.12', { weight: 25 }),
    rloc('192.0.2.13', { weight: 0 }),
  ];
  world.site('10.1.0.0/16', { proxyReply: false, rlocs });
  for (let i = 0; i < 1000; i++) {
    world.ask({ ...request(`10.1.${i >> 8}.${i & 255}`), nonce: nonce(BigInt(i) * 0x9e37_79b9_7f4a_7c15n) });
  }
  const counts = new Map<IpAddress, number>();
  for (const { to } of world.taken()) counts.set(to.address, (counts.get(to.address) ?? 0) + 1);
  assert.deepEqual([...counts.keys()].sort(), ['192.0.2.11', '192.0.2.12']);
  assert.ok(Math.abs((counts.get(parseIpAddress('192.0.2.11')) ?? 0) - 750) < 60, `${[...counts]}`);
});

test('a node of the DDT tree is also told whether it was right to ask here', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  world.site('10.2.0.0/16', { proxyReply: false });
  const resolver = { address: parseIpAddress('192.0.2.1'), port: 4342 };
  for (const [eid, expected] of [
    ['10.1.2.3', { maskLength: 16, ttl: 1440, action: 2, authoritative: true }],
    ['10.2.2.3', { maskLength: 16, ttl: 1440, action: 2, authoritative: true }],
    ['10.77.2.3', { maskLength: 16, ttl: 1, action: 3, authoritative: true }],
    ['203.0.113.9', { maskLength: 1, ttl: 0, action: 5, authoritative: false }],
  ] as const) {
    world.askInEcm(request(eid), resolver, 50_000, true);
    const [answer, referral] = world.taken();
    assert.notEqual(answer?.message.type, 'map-referral');
    assert.deepEqual(referral?.to, resolver);
    assert.ok(referral?.message.type === 'map-referral');
    const [{ maskLength, ttl, action, authoritative } = { maskLength: 0 }] = referral.message.records;
    assert.deepEqual({ maskLength, ttl, action, authoritative }, expected, eid);
  }
});

test('who was told of an EID is solicited at once when it changes, and not when plain peers see no change', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  world.ask(request('10.1.2.3'));
  world.ask({ ...request('10.2.2.3', { itrs: [ITR6] }) }, { address: ITR6, port: 4342 });
  world.taken();
  world.site('10.1.0.0/16');
  assert.deepEqual(world.solicited(), [], 'refreshed as it was');
  world.site('10.1.0.0/16', { rlocs: [rloc('192.0.2.77')] });
  assert.deepEqual(world.solicited(), [`${ITR} 10.1.0.0`]);
  world.site('10.1.2.0/24', { rlocs: [rloc('192.0.2.78')] });
  world.advance(seconds(3));
  assert.deepEqual(world.solicited(), [`${ITR} 10.1.0.0`]);
  world.advance(seconds(3));
  assert.deepEqual(world.solicited(), [`${ITR} 10.1.2.0`]);
  world.site('10.2.0.0/16');
  assert.deepEqual(world.solicited(), [`${ITR6} 10.2.0.0`], 'it was told that there is nothing');
});

test('an ITR that asks again is not solicited any more, and is told what is new', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  world.ask(request('10.1.2.3'));
  world.site('10.1.0.0/16', { rlocs: [rloc('192.0.2.77')] });
  world.taken();
  assert.equal(world.ask({ ...request('10.1.2.3'), smrInvoked: true }), 'accepted');
  const [sent] = world.taken();
  assert.deepEqual(
    sent?.message.type === 'map-reply' && sent.message.records[0]?.locators[0]?.locator,
    ipLispAddress(parseIpAddress('192.0.2.77')),
  );
  world.advance(minutes(5));
  assert.deepEqual(world.solicited(), []);
});

test('a change of the mapping around an EID does not concern who was told of the one inside', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  world.site('10.1.2.0/24');
  world.ask(request('10.1.2.3'));
  world.taken();
  world.site('10.1.0.0/16', { rlocs: [rloc('192.0.2.77')] });
  assert.deepEqual(world.solicited(), []);
  world.remove('10.1.2.0/24');
  assert.deepEqual(world.solicited(), [`${ITR} 10.1.2.0`]);
});

// Attack: Map-Requests from, and for, addresses that may not ask | 3 | refused; nothing is sent
test('attack: asks for a reply to somebody else', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  assert.equal(world.ask(request('10.1.2.3', { itrs: [STRANGER] }), { address: STRANGER, port: 4342 }), 'refused');
  assert.equal(world.askInEcm(request('10.1.2.3', { itrs: [STRANGER] }), { address: STRANGER, port: 4342 }), 'refused');
  // The sender may be forged, but it is the only one that is sent something.
  assert.equal(world.ask(request('10.1.2.3', { itrs: [STRANGER] }), { address: ITR, port: 4342 }), 'accepted');
  assert.deepEqual(
    world.taken().map(({ to }) => to.address),
    [ITR],
  );
});

// Attack: the same Map-Request in the name of an ITR that may ask | 100 in a second, then 100 in 100 s | 5 replies at first, then one in 3 s
test('attack: makes the map server flood an ITR with one answer', () => {
  const world = new World();
  world.site('10.1.0.0/16');
  for (let i = 0; i < 100; i++) world.ask(request('10.1.2.3'));
  assert.equal(world.taken().length, 5);
  for (let i = 0; i < 100; i++) {
    world.advance(seconds(1));
    world.ask(request('10.1.2.3'));
  }
  const later = world.taken().length;
  assert.ok(later >= 33 && later <= 34, `${later}`);
});

// Attack: Map-Requests for many EIDs in the name of an ITR that may ask | 10,000 in a second | 2 × `lisp.repliesPerSecond` EIDs are told
test('attack: makes the map server flood an ITR with many answers', () => {
  const world = new World({ repliesPerSecond: 50 });
  const results = new Map<LispResult, number>();
  for (let i = 0; i < 10_000; i++) {
    const result = world.ask(request(`10.1.${i >> 8}.${i & 255}`));
    results.set(result, (results.get(result) ?? 0) + 1);
  }
  assert.deepEqual(Object.fromEntries(results), { accepted: 100, limited: 9_900 });
  assert.equal(world.taken().length, 100);
});

// Attack: Map-Requests with source EIDs of 1,000 octets, for as many EIDs as are remembered | 2,000 | the source EIDs are not kept, nor more than `lisp.rememberedAnswers`
test('attack: makes the map server remember much', () => {
  const world = new World({ repliesPerSecond: 10_000, remembered: 500 });
  const sourceEid: LispAddress = { kind: 'lcaf', type: 99, flags: 0, rsvd2: 0, body: new Uint8Array(1000) };
  for (let i = 0; i < 2_000; i++) {
    world.site(`10.1.${i >> 8}.${i & 255}/32`);
    world.ask({ ...request(`10.1.${i >> 8}.${i & 255}`), sourceEid });
  }
  assert.equal(world.requests.remembered, 500);
  world.taken();
  world.site('10.1.7.207/32', { rlocs: [rloc('192.0.2.77')] });
  const [smr] = world.taken();
  assert.ok(smr !== undefined && encodeLispMessage(smr.message).length < 64);
});

class World {
  now = 1_000;
  readonly requests: MapRequests;
  private readonly database = new MappingDatabase();
  private readonly records = new Map<EidKey, OwnershipRecord>();
  private sent: { readonly to: UdpPeer; readonly message: LispMessage }[] = [];

  constructor({ repliesPerSecond = 100, remembered = 1_000, families = [4, 6] as readonly (4 | 6)[] } = {}) {
    const { database } = this;
    const overlay = { instance: DEFAULT_INSTANCE, prefixes: ['10.77.0.0/16' as IpPrefix] };
    const replies = new MapReplies({
      overlay,
      database,
      sitePrefixes: () => undefined,
      gateways: () => [],
      ttl: minutes(1),
    });
    const notifier = new SiteNotifier({ randomNonce: () => nonce(9n), send: () => {}, outcome: () => {} });
    const limits = { perXtr: 10, total: 10 };
    const recipient = (): undefined => undefined;
    this.requests = new MapRequests({
      settings: {
        requesters: ['192.0.2.0/24' as IpPrefix, '2001:db8::/32' as IpPrefix],
        ttl: minutes(1),
        repliesPerSecond,
        remembered,
        families,
        addresses: [],
      },
      overlay,
      database,
      replies,
      subscriptions: new SubscriptionRequests({ limits, ttl: minutes(10), replies, notifier, recipient }),
      secretsOf: () => [],
      etrsOf: () => [],
      isSiteRloc: () => false,
      randomNonce: () => nonce(9n),
      send: (to, message) => this.sent.push({ to, message }),
      sendEncoded: (to, _kind, bytes) => this.sent.push({ to, message: decodeLispMessage(bytes) }),
    });
  }

  ask(message: MapRequest, from: UdpPeer = { address: ITR, port: 4342 }): LispResult {
    return this.requests.handleRequest({ message, bytes: encodeLispMessage(message), from }, this.now);
  }

  askInEcm(message: MapRequest, from: UdpPeer, innerPort = 4342, ddt = false): LispResult {
    const bytes = encodeLispMessage(message);
    const ecm: EncapsulatedControl = {
      type: 'encapsulated-control',
      ddt,
      toEtr: false,
      toMapServer: false,
      forRtr: false,
      relayed: false,
      source: from.address,
      destination: from.address,
      hopLimit: 64,
      sourcePort: innerPort,
      destinationPort: 4342,
      payload: bytes,
    };
    return this.requests.handleRequest({ message, bytes, from, ecm }, this.now);
  }

  site(prefix: string, options: SiteOptions = {}): void {
    const eid = eidKey(prefixEid(DEFAULT_INSTANCE, parseIpPrefix(prefix)));
    const after: OwnershipRecord = {
      kind: 'eid',
      eid,
      generation: 1 as Generation,
      owner: 'owner' as XtrId,
      site: siteContent(options),
      state: 'live',
      ownerSince: 0,
      ttl: minutes(3),
      locators: [],
      names: [],
      targets: [],
    };
    this.change(eid, after);
  }

  remove(prefix: string): void {
    this.change(eidKey(prefixEid(DEFAULT_INSTANCE, parseIpPrefix(prefix))), undefined);
  }

  advance(by: number): void {
    const end = this.now + by;
    for (let next = this.requests.pollTimeout(); next !== undefined && next <= end; ) {
      this.now = Math.max(next, this.now);
      this.requests.handleTimeout(this.now);
      next = this.requests.pollTimeout();
    }
    this.now = end;
  }

  taken(): typeof this.sent {
    return this.sent.splice(0);
  }

  /** `RLOC EID` of the SMRs since the last call. */
  solicited(): string[] {
    return this.taken().map(({ to, message }) => {
      assert.ok(message.type === 'map-request' && message.smr && to.port === 4342);
      return `${to.address} ${message.sourceEid.kind === 'ip' ? message.sourceEid.address : '?'}`;
    });
  }

  private change(eid: EidKey, after: OwnershipRecord | undefined): void {
    const before = this.records.get(eid);
    this.database.update(before, after);
    if (after === undefined) this.records.delete(eid);
    else this.records.set(eid, after);
    this.requests.follow(before, after);
    this.requests.settle(this.now);
  }
}

function request(eid: string, { itrs = [ITR] as readonly string[] } = {}): MapRequest {
  return {
    ...MAP_REQUEST,
    nonce: nonce(7n),
    sourceEid: NO_ADDRESS,
    itrRlocs: itrs.map((text) => ipLispAddress(parseIpAddress(text))),
    records: [{ notify: false, ...eidToRecordKey(parseEid(eid)) }],
  };
}
