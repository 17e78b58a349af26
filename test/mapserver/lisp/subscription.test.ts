/** LISP routers that ask and subscribe, against the whole core of the map server. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type IpAddress, parseIpAddress } from '../../../proto/address.ts';
import { parseEid } from '../../../proto/eid.ts';
import { xtrIdFromBytes } from '../../../proto/identity.ts';
import { ipLispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import { verifyAuthentication } from '../../../proto/lisp/authentication.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import { nonce } from '../../../proto/lisp/header.ts';
import type { MapNotify } from '../../../proto/lisp/map-notify.ts';
import { MAP_REQUEST, type MapRequest } from '../../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import { encodeLispMessage } from '../../../proto/lisp/message.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import { minutes, seconds } from '../../../proto/time.ts';
import { CoreWorld } from '../core-world.ts';
import { addSite, SECRET, SiteXtr, xtrIdOf } from '../site-world.ts';

const PSK = Buffer.from(SECRET);

test('an ITR of a site is answered, and solicited when the mapping changes', () => {
  const { world, etr, itr } = stage();
  assert.equal(itr.send(encodeLispMessage(request('10.50.1.1', itr))), 'accepted');
  assert.deepEqual(replyTo(world, itr).map(text), ['10.50.1.0/24 1 min: 192.0.2.10']);
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  const [smr] = sentTo(world, itr.peer.address);
  assert.ok(smr?.message.type === 'map-request' && smr.message.smr);
  assert.deepEqual(smr.to, { address: itr.peer.address, port: 4342 });
  assert.equal(itr.send(encodeLispMessage({ ...request('10.50.1.1', itr), smrInvoked: true })), 'accepted');
  assert.deepEqual(replyTo(world, itr).map(text), ['10.50.1.0/24 1 min: 192.0.2.99']);
});

test('who has neither registered nor is configured to ask is refused', () => {
  const { world } = stage();
  const stranger = new SiteXtr(world, '203.0.113.66', 9);
  assert.equal(stranger.send(encodeLispMessage(request('10.50.1.1', stranger))), 'refused');
  assert.deepEqual(sentTo(world, stranger.peer.address), []);
});

test('a subscriber is confirmed, told of each change at once, and told again until it acknowledges', () => {
  const { world, etr, itr } = stage();
  assert.equal(subscribe(itr, '10.50.1.1', 1_000n), 'accepted');
  const confirmed = notified(world, itr);
  assert.deepEqual(confirmed.map(summary), ['1000 10.50.1.0/24 5 min: 192.0.2.10']);
  assert.equal(itr.ack(confirmed[0]!), 'accepted');
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  const [published] = notified(world, itr);
  assert.equal(summary(published!), '1001 10.50.1.0/24 5 min: 192.0.2.99');
  world.advance(seconds(3));
  assert.deepEqual(notified(world, itr).map(summary), ['1001 10.50.1.0/24 5 min: 192.0.2.99']);
  assert.equal(itr.ack(published!), 'accepted');
  world.advance(seconds(30));
  assert.deepEqual(notified(world, itr), []);
});

test('an acknowledgement is of the Map-Notify that it repeats, and of no other with its nonce', () => {
  const { world, etr, itr } = stage();
  etr.register(['10.50.1.0/24', '10.50.2.0/24']);
  subscribe(itr, '10.50.1.1', 1n);
  subscribe(itr, '10.50.2.1', 1n);
  const [heard] = notified(world, itr);
  assert.equal(itr.ack({ ...heard!, records: [] }), 'unexpected', 'it could be of both');
  assert.equal(itr.ack(heard!), 'accepted');
  world.advance(seconds(3));
  const again = notified(world, itr);
  assert.deepEqual(again.map(summary), ['1 10.50.2.0/24 5 min: 192.0.2.10'], 'the other was lost');
  assert.equal(itr.ack(heard!), 'unexpected', 'the network repeats what was said');
  assert.equal(itr.ack(again[0]!), 'accepted');
  world.advance(seconds(60));
  assert.deepEqual(notified(world, itr), []);
});

test('a change that comes before the last was acknowledged replaces it', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.1.1', 1n);
  itr.ack(notified(world, itr)[0]!);
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.98'] });
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  assert.deepEqual(
    notified(world, itr).map(({ nonce: value }) => value),
    [2n, 3n],
  );
  world.advance(seconds(4));
  assert.deepEqual(
    notified(world, itr).map(({ nonce: value }) => value),
    [3n],
  );
});

test('a change of one EID is told again with that of another, until it is acknowledged', () => {
  const { world, etr, itr } = stage();
  etr.register(['10.50.1.0/24', '10.50.2.0/24']);
  subscribe(itr, '10.50.0.0/16', 1n);
  itr.ack(notified(world, itr)[0]!);
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.98'] });
  notified(world, itr);
  etr.register('10.50.2.0/24', { rlocs: ['192.0.2.99'] });
  const [both] = notified(world, itr);
  assert.equal(summary(both!), '3 10.50.1.0/24 5 min: 192.0.2.98, 10.50.2.0/24 5 min: 192.0.2.99');
  itr.ack(both!);
  etr.register('10.50.2.0/24', { rlocs: ['192.0.2.97'] });
  assert.deepEqual(notified(world, itr).map(summary), ['4 10.50.2.0/24 5 min: 192.0.2.97']);
});

test('a subscriber is told of all that changes at once', () => {
  const { world, etr, itr } = stage(50);
  const eids = Array.from({ length: 40 }, (_, i) => `10.50.${i}.0/24`);
  etr.register(eids);
  for (const [i] of eids.entries()) {
    subscribe(itr, `10.50.${i}.1`, 1n);
    for (const notify of notified(world, itr)) itr.ack(notify);
  }
  etr.register(eids, { rlocs: ['192.0.2.99'] });
  assert.deepEqual(
    notified(world, itr).map(summary),
    eids.map((eid) => `2 ${eid} 5 min: 192.0.2.99`),
  );
});

test('a withdrawal is published with TTL 0, with what answers instead', () => {
  const { world, etr, itr } = stage();
  etr.register('10.50.0.0/16', { rlocs: ['192.0.2.11'] });
  subscribe(itr, '10.50.1.1', 1n);
  itr.ack(notified(world, itr)[0]!);
  etr.register('10.50.1.0/24', { ttl: 0 });
  assert.deepEqual(notified(world, itr).map(summary), [
    '2 10.50.1.0/24 0 min:, 10.50.0.0/16 5 min: 192.0.2.11, 10.50.200.0/24 5 min: 198.51.100.20',
  ]);
});

test('a more specific mapping is published to who subscribed to a prefix around it', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.0.0/16', 1n);
  notified(world, itr);
  etr.register('10.50.2.0/24', { rlocs: ['192.0.2.11'] });
  assert.deepEqual(notified(world, itr).map(summary), ['2 10.50.2.0/24 5 min: 192.0.2.11']);
});

test('what is not registered is answered negatively, and told when it is', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.9.9', 1n);
  assert.deepEqual(
    notified(world, itr).map(({ records }) => records[0]?.locators.length),
    [0],
  );
  etr.register('10.50.9.0/24');
  assert.deepEqual(notified(world, itr).map(summary), ['2 10.50.9.0/24 5 min: 192.0.2.10']);
});

test('a subscription ends when its xTR asks for that, and recorded requests start nothing', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.1.1', 5n);
  assert.equal(subscribe(itr, '10.50.1.1', 5n), 'replay');
  const ends = { ...request('10.50.1.1', itr, true), nonce: nonce(6n), itrRlocs: [NO_ADDRESS] };
  assert.equal(itr.send(encodeLispMessage(ends)), 'accepted');
  notified(world, itr);
  assert.equal(subscribe(itr, '10.50.1.1', 6n), 'replay');
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  assert.deepEqual(notified(world, itr), []);
});

test('an xTR-ID that no site has spoken with is of the site at the ITR-RLOC', () => {
  const { world, itr } = stage();
  assert.equal(subscribe(itr, '10.50.1.1', 1n, xtrIdOf(77)), 'accepted');
  assert.deepEqual(
    notified(world, itr).map(({ nonce: value }) => value),
    [1n],
  );
});

test('a subscription without an xTR-ID is dropped, one of no site refused', () => {
  const { world, itr } = stage();
  const { xtrId: _, siteId: __, ...without } = request('10.50.1.1', itr, true);
  assert.equal(itr.send(encodeLispMessage(without)), 'malformed');
  const asker = new SiteXtr(world, '192.0.2.200', 9);
  assert.equal(subscribe(asker, '10.50.1.1', 1n), 'accepted');
  const [record] = replyTo(world, asker);
  assert.deepEqual([record?.action, record?.locators.length], [5, 0]);
});

test('a router whose key was taken away may not ask from its address any more, and is not told of changes', () => {
  const { world, etr, itr } = stage();
  const key = { keyId: 1, algorithm: 2 as const, secret: Buffer.from('the next secret').toString('base64') };
  world.operate({ kind: 'add-site-key', name: 'paris', key });
  etr.signing = { keyId: 1, algorithm: 2, psk: Buffer.from('the next secret') };
  assert.equal(etr.register('10.50.1.0/24'), 'accepted');
  assert.equal(itr.register('10.50.200.0/24', { rlocs: ['192.0.2.77'] }), 'accepted');
  assert.equal(subscribe(itr, '10.50.1.1', 1n), 'accepted');
  sentTo(world, itr.peer.address);
  world.operate({ kind: 'remove-site-key', name: 'paris', keyId: 0 });
  assert.equal(subscribe(itr, '10.50.1.1', 2n), 'refused');
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  assert.deepEqual(sentTo(world, itr.peer.address), []);
});

// Attack: subscriptions with the xTR-ID of another, to an address that may not ask | 2 | refused; nothing is sent there
test('attack: has the publications for an xTR sent to somebody else', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.1.1', 1n);
  itr.ack(notified(world, itr)[0]!);
  const victim = parseIpAddress('203.0.113.66');
  const forged = { ...request('10.50.1.1', itr, true), nonce: nonce(2n), itrRlocs: [ipLispAddress(victim)] };
  const attacker = new SiteXtr(world, '203.0.113.77', 9);
  assert.equal(attacker.send(encodeLispMessage(forged)), 'refused');
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  assert.deepEqual(sentTo(world, victim), []);
  assert.deepEqual(
    notified(world, itr).map(({ nonce: value }) => value),
    [2n],
  );
});

// Attack: another site's router registers with the xTR-ID of a subscriber | 1 | publications stay signed with the key of the subscriber's site
test('attack: claims the xTR-ID of a subscriber', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.1.1', 1n);
  itr.ack(notified(world, itr)[0]!);
  addSite(world, 'rome', { within: ['10.60.0.0/16'], secret: 'of rome' });
  const other = new SiteXtr(world, '198.51.100.99', 2);
  other.signing = { keyId: 0, algorithm: 2, psk: Buffer.from('of rome') };
  assert.equal(other.register('10.60.1.0/24'), 'accepted');
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  const [published] = notified(world, itr);
  assert.equal(itr.ack(published!), 'accepted');
});

// Attack: a subscriber that never acknowledges | 1 subscription, 10 changes | 7 Map-Notifies, then the subscription is gone, and the xTR told once
test('attack: subscribes and never acknowledges', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.1.1', 1n);
  world.advance(minutes(10));
  const heard = notified(world, itr);
  assert.equal(heard.length, 8);
  assert.deepEqual([heard.at(-1)?.records[0]?.action, heard.at(-1)?.nonce], [5, 1n]);
  for (let i = 0; i < 10; i++) etr.register('10.50.1.0/24', { rlocs: [`192.0.2.${100 + i}`] });
  assert.deepEqual(notified(world, itr), []);
});

// Attack: subscriptions in the name of an ITR, each with an xTR-ID that is made up | 500 | 32 wait for it, the rest ends at once; those of its own xTR-ID are not disturbed
test('attack: subscribes an ITR under very many xTR-IDs', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, '10.50.1.1', 1n);
  itr.ack(notified(world, itr)[0]!);
  const attacker = new SiteXtr(world, '203.0.113.77', 9);
  for (let i = 0; i < 500; i++) {
    const forged = { ...request(`10.50.${i >> 8}.${i & 255}`, itr, true), xtrId: madeUp(i), nonce: nonce(7n) };
    assert.equal(attacker.send(encodeLispMessage(forged)), 'accepted');
  }
  notified(world, itr);
  world.advance(seconds(3));
  assert.equal(notified(world, itr).length, 32);
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  assert.ok(notified(world, itr).some(({ nonce: value }) => value === 2n));
});

function stage(perXtr = 10): { world: CoreWorld; etr: SiteXtr; itr: SiteXtr } {
  const world = new CoreWorld({ lisp: { subscriptions: { ttl: minutes(10), perXtr, total: 100 } } });
  addSite(world, 'paris', { within: ['10.50.0.0/16'] });
  const etr = new SiteXtr(world, '192.0.2.10', 1);
  const itr = new SiteXtr(world, '198.51.100.20', 2);
  assert.equal(etr.register('10.50.1.0/24'), 'accepted');
  // An xTR of the same site; without `requesters`, that is what lets it ask.
  assert.equal(itr.register('10.50.200.0/24'), 'accepted');
  world.datagrams.length = 0;
  return { world, etr, itr };
}

function request(eid: string, { peer, xtrId }: SiteXtr, notify = false): MapRequest {
  return {
    ...MAP_REQUEST,
    nonce: nonce(5n),
    sourceEid: NO_ADDRESS,
    itrRlocs: [ipLispAddress(peer.address)],
    records: [{ notify, ...eidToRecordKey(parseEid(eid)) }],
    ...(xtrId === undefined || !notify ? {} : { xtrId, siteId: 0n }),
  };
}

function subscribe(xtr: SiteXtr, eid: string, value: bigint, xtrId: XtrId | undefined = xtr.xtrId): string {
  const asked = { ...request(eid, xtr, true), nonce: nonce(value) };
  return xtr.send(encodeLispMessage(xtrId === undefined ? asked : { ...asked, xtrId }));
}

function madeUp(id: number): XtrId {
  return xtrIdFromBytes(
    new Uint8Array(16)
      .fill(0xee)
      .fill(id & 255, 0, 1)
      .fill(id >> 8, 1, 2),
  );
}

function sentTo(world: CoreWorld, address: IpAddress): CoreWorld['datagrams'][number][] {
  const mine = world.datagrams.filter(({ to }) => to.address === address);
  const others = world.datagrams.filter(({ to }) => to.address !== address);
  world.datagrams.splice(0, world.datagrams.length, ...others);
  return mine;
}

function replyTo(world: CoreWorld, { peer }: SiteXtr): readonly EidRecord[] {
  const [sent] = sentTo(world, peer.address);
  assert.equal(sent?.message.type, 'map-reply');
  return sent?.message.type === 'map-reply' ? sent.message.records : [];
}

/** Authentic Map-Notifies to the xTR since the last call. */
function notified(world: CoreWorld, { peer }: SiteXtr): MapNotify[] {
  return sentTo(world, peer.address).flatMap(({ message, bytes }) => {
    if (message.type !== 'map-notify') return [];
    assert.ok(verifyAuthentication(bytes, PSK).ok);
    return [message];
  });
}

function summary({ nonce: value, records }: MapNotify): string {
  return `${value} ${records.map(text).join(', ')}`;
}

function text({ eid, maskLength, ttl, locators }: EidRecord): string {
  const addresses = locators.map(({ locator }) => (locator.kind === 'ip' ? ` ${locator.address}` : ' ?'));
  return `${eid.kind === 'ip' ? eid.address : '?'}/${maskLength} ${ttl} min:${addresses.join('')}`;
}
