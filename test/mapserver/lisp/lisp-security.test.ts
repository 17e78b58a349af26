/** Answers and publications that an ITR can verify (LISP-SEC), by a model of ITR and ETR that shares no code with ours. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { IpAddress } from '../../../proto/address.ts';
import { parseEid } from '../../../proto/eid.ts';
import { ipLispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import { signMessage, verifyAuthentication } from '../../../proto/lisp/authentication.ts';
import { encodedRecordSize } from '../../../proto/lisp/eid-record.ts';
import { nonce } from '../../../proto/lisp/header.ts';
import type { MapNotify } from '../../../proto/lisp/map-notify.ts';
import type { MapReply } from '../../../proto/lisp/map-reply.ts';
import { MAP_REQUEST, type MapRequest } from '../../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import { encodeLispMessage } from '../../../proto/lisp/message.ts';
import { minutes, seconds } from '../../../proto/time.ts';
import { CoreWorld } from '../core-world.ts';
import { addSite, SiteXtr } from '../site-world.ts';
import {
  etrReply,
  type ItrRequest,
  type ItrVerdict,
  ipv4Udp,
  pubSubKey,
  readEtrRequest,
  securedEcm,
  verdictOf,
} from './lisp-sec-model.ts';

const ETR_SECRET = Buffer.from('what paris shares with the map server');
const ITR_SECRET = Buffer.from('what rome shares with the map server');
const OTK = Buffer.alloc(16, 7);
const SECURED = { proxyReply: false, securityCapable: true };

test('what the map server answers for a site is protected by the one-time key that the ITR has wrapped for its own', () => {
  const { world, itr } = stage();
  assert.equal(ask(itr, '10.50.1.1'), 'accepted');
  const { verdict, reply } = replyTo(world, itr);
  assert.deepEqual(verdict, { ok: true, unprotectedEtrs: false, prefixes: ['10.50.1.0/24'] });
  assert.equal(reply.records[0]?.locators.length, 1);
});

test('that there is nothing is said verifiably', () => {
  const { world, itr } = stage();
  ask(itr, '10.50.7.7');
  const { verdict, reply } = replyTo(world, itr);
  assert.ok(verdict.ok && reply.records[0]?.locators.length === 0);
});

test('a site that answers itself is asked for an answer that the ITR can verify, with whatever keys and algorithms', () => {
  const bytes = (length: number): fc.Arbitrary<Buffer> =>
    fc.uint8Array({ minLength: length, maxLength: length }).map((each) => Buffer.from(each));
  fc.assert(
    fc.property(
      fc.record({
        otk: bytes(16),
        value: fc.bigInt({ min: 1n, max: 0xffff_ffff_ffff_ffffn }),
        kdf: fc.integer({ min: 0, max: 3 }),
        requestedHmac: fc.integer({ min: 0, max: 3 }),
        length: fc.integer({ min: 17, max: 32 }),
        sourcePort: fc.integer({ min: 1, max: 65_535 }),
      }),
      ({ otk, value, kdf, requestedHmac, length, sourcePort }) => {
        const { world, etr, itr } = stage();
        const registered = `10.50.128.128/${length}`;
        const prefix = eidToRecordKey(parseEid(masked(registered)));
        etr.register(masked(registered), { flags: SECURED });
        world.datagrams.length = 0;
        const request = { otk, nonce: value, kdf, requestedHmac };
        const asked = mapRequest(itr, '10.50.128.128', value);
        assert.equal(ask(itr, '10.50.128.128', request, sourcePort), 'accepted');
        assert.deepEqual(sentTo(world, itr.peer.address), [], 'the ETR answers, nobody else');
        const [toEtr] = sentTo(world, etr.peer.address);
        const read = readEtrRequest(Buffer.from(toEtr?.bytes ?? []), value, ETR_SECRET);
        assert.equal(read.keyId, 0);
        assert.equal(read.requestedHmac, requestedHmac);
        assert.deepEqual(read.inner.subarray(28), Buffer.from(encodeLispMessage(asked)), 'the request is as it was');
        assert.equal(read.inner.readUInt16BE(20), sourcePort);
        assert.ok(!read.key.equals(otk), 'the ETR does not see the key of the ITR');
        const record = { ...prefix, ttl: 5, action: 0, authoritative: true, mapVersion: 0, locators: [] };
        const plain = Buffer.from(
          encodeLispMessage({
            type: 'map-reply',
            probe: false,
            echoNonce: false,
            nonce: nonce(value),
            records: [record],
          }),
        );
        plain[0]! |= 0x02;
        const reply = etrReply(plain, read);
        const verdict = { ok: true, unprotectedEtrs: false, prefixes: [masked(registered)] };
        assert.deepEqual(verdictOf(reply, plain.length, otk), verdict);
        const changed = Buffer.from(reply);
        changed[20]! ^= 1;
        assert.equal(verdictOf(changed, plain.length, otk).ok, false, 'nobody can change it on the way');
        const wider = Buffer.from(read.eidAd);
        wider[9]!--;
        const claimed = etrReply(plain, { ...read, eidAd: wider });
        assert.equal(verdictOf(claimed, plain.length, otk).ok, false, 'no ETR can claim more than it registered');
      },
    ),
    { numRuns: 60 },
  );
});

test('the E bit says that other routers of the site cannot protect their answers; then one that can is asked', () => {
  const { world, etr, itr } = stage();
  const other = new SiteXtr(world, '192.0.2.11', 3);
  other.signing = etr.signing;
  const flags = { proxyReply: false, merge: true };
  other.register('10.50.2.0/24', { flags });
  etr.register('10.50.2.0/24', { flags: { ...flags, securityCapable: true } });
  world.datagrams.length = 0;
  for (let value = 1n; value <= 5n; value++) ask(itr, '10.50.2.2', { nonce: value });
  assert.deepEqual(sentTo(world, other.peer.address), []);
  const asked = sentTo(world, etr.peer.address);
  assert.equal(asked.length, 5);
  const { eidAd } = readEtrRequest(Buffer.from(asked[0]?.bytes ?? []), 1n, ETR_SECRET);
  assert.equal((eidAd[5] ?? 0) & 0x80, 0x80);
});

test('where no router of the site can, the ITR is told so verifiably', () => {
  const { world, etr, itr } = stage();
  etr.register('10.50.2.0/24', { flags: { proxyReply: false } });
  world.datagrams.length = 0;
  ask(itr, '10.50.2.2');
  assert.deepEqual(sentTo(world, etr.peer.address), []);
  const { verdict, reply } = replyTo(world, itr);
  assert.deepEqual(verdict, { ok: true, unprotectedEtrs: true, prefixes: ['10.50.2.0/24'] });
  assert.equal(reply.records[0]?.locators.length, 0);
});

test('after a restart there is no answer until a router of the site has said whether it can', () => {
  for (const [flags, asked] of [
    [SECURED, 1],
    [{ proxyReply: false }, 0],
    [{ proxyReply: false, merge: true }, 0],
  ] as const) {
    const before = stage();
    before.etr.register('10.50.2.0/24', { flags });
    const world = before.world.restarted();
    const itr = anew(before.itr, world);
    itr.register('10.60.1.0/24');
    world.datagrams.length = 0;
    assert.equal(ask(itr, '10.50.2.2', { nonce: 6n }), 'accepted');
    assert.deepEqual(world.datagrams, []);
    const etr = anew(before.etr, world);
    etr.register('10.50.2.0/24', { flags });
    world.datagrams.length = 0;
    ask(itr, '10.50.2.2', { nonce: 7n });
    assert.equal(sentTo(world, etr.peer.address).length, asked);
    assert.equal(sentTo(world, itr.peer.address).length, 1 - asked);
  }
});

test('a router is asked by no key that its site has not any more', () => {
  const { world, etr, itr } = stage();
  etr.register('10.50.2.0/24', { flags: SECURED });
  const psk = Buffer.from('the next secret of paris');
  const key = { keyId: 1, algorithm: 2 as const, secret: psk.toString('base64') };
  world.operate({ kind: 'add-site-key', name: 'paris', key });
  world.operate({ kind: 'remove-site-key', name: 'paris', keyId: 0 });
  world.datagrams.length = 0;
  ask(itr, '10.50.2.2');
  assert.deepEqual(sentTo(world, etr.peer.address), []);
  assert.equal(replyTo(world, itr).verdict.unprotectedEtrs, true);
  etr.signing = { keyId: 1, algorithm: 2, psk };
  etr.register('10.50.2.0/24', { flags: SECURED });
  world.datagrams.length = 0;
  ask(itr, '10.50.2.2', { nonce: 6n });
  const [toEtr] = sentTo(world, etr.peer.address);
  assert.equal(readEtrRequest(Buffer.from(toEtr?.bytes ?? []), 6n, psk).keyId, 1);
});

test('one router with the P bit is enough for the map server to answer', () => {
  const { world, etr, itr } = stage();
  const other = new SiteXtr(world, '192.0.2.11', 3);
  other.signing = etr.signing;
  etr.register('10.50.2.0/24', { flags: { ...SECURED, merge: true } });
  other.register('10.50.2.0/24', { flags: { proxyReply: true, merge: true } });
  world.datagrams.length = 0;
  ask(itr, '10.50.2.2');
  assert.equal(replyTo(world, itr).verdict.ok, true);
});

test('a router that begins to do LISP-SEC is asked from then on, and one that ends it no more', () => {
  const { world, etr, itr } = stage();
  etr.register('10.50.2.0/24', { flags: { proxyReply: false } });
  etr.register('10.50.2.0/24', { flags: SECURED });
  world.datagrams.length = 0;
  ask(itr, '10.50.2.2');
  assert.equal(sentTo(world, etr.peer.address).length, 1);
  etr.register('10.50.2.0/24', { flags: { proxyReply: false } });
  world.datagrams.length = 0;
  ask(itr, '10.50.2.2', { nonce: 6n });
  assert.equal(replyTo(world, itr).verdict.unprotectedEtrs, true);
});

// Attack: one-time keys wrapped with a wrong key, sent in the clear, or cut | 3 | dropped and counted; nothing is sent
test('attack: asks for answers protected by a key that the map server cannot know', () => {
  const { world, itr } = stage();
  assert.equal(ask(itr, '10.50.1.1', { psk: Buffer.from('guessed') }), 'authentication');
  assert.equal(ask(itr, '10.50.1.1', { wrapping: 1 }), 'authentication');
  assert.equal(ask(itr, '10.50.1.1', { oneTimeKey: OTK }), 'authentication');
  assert.deepEqual(sentTo(world, itr.peer.address), []);
});

test('a subscription by a one-time key is published by a key that only the ITR and the map server can know', () => {
  const { world, etr, itr } = stage();
  assert.equal(subscribe(itr, 1_000n), 'accepted');
  const key = pubSubKey(OTK, 1_000n);
  const [confirmed] = notified(world, itr, key);
  assert.equal(confirmed?.nonce, 1_000n);
  assert.equal(itr.ack(confirmed!), 'authentication', "the site's key is not what it is acknowledged by");
  assert.equal(acknowledge(itr, confirmed!, key), 'accepted');
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  const [published] = notified(world, itr, key);
  assert.equal(published?.nonce, 1_001n);
  assert.equal(acknowledge(itr, published!, key), 'accepted');
  world.advance(seconds(60));
  assert.deepEqual(sentTo(world, itr.peer.address), []);
});

test('who subscribes again with another key or nonce is told by the key that follows from these', () => {
  const { world, itr } = stage();
  subscribe(itr, 1_000n);
  const other = Buffer.alloc(16, 8);
  world.datagrams.length = 0;
  assert.equal(subscribe(itr, 1_001n, { otk: other }), 'accepted');
  assert.equal(notified(world, itr, pubSubKey(other, 1_001n)).length, 1);
});

// Attack: ends or takes over a subscription that was made with a one-time key, without having one | 2 | refused as not authentic; publications go on
test('attack: changes a subscription that it cannot prove to be its own', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, 1_000n);
  const key = pubSubKey(OTK, 1_000n);
  acknowledge(itr, notified(world, itr, key)[0]!, key);
  const forged = subscription(itr, 0xffff_ffff_ffff_0000n);
  assert.equal(itr.send(encodeLispMessage(forged)), 'authentication');
  assert.equal(itr.send(encodeLispMessage({ ...forged, itrRlocs: [NO_ADDRESS] })), 'authentication');
  assert.deepEqual(sentTo(world, itr.peer.address), []);
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  assert.equal(notified(world, itr, key)[0]?.nonce, 1_001n);
});

// Attack: subscribes with the largest nonce, without a one-time key, while no subscription with one lasts | 3 | later ones with a one-time key are accepted; those that were recorded stay refused
test('attack: keeps a router that proves its requests from subscribing', () => {
  const { world, itr } = stage();
  const forged = encodeLispMessage(subscription(itr, 0xffff_ffff_ffff_ffffn));
  assert.equal(itr.send(forged), 'accepted');
  world.datagrams.length = 0;
  assert.equal(subscribe(itr, 1_000n), 'accepted');
  assert.equal(notified(world, itr, pubSubKey(OTK, 1_000n))[0]?.nonce, 1_000n);
  world.advance(minutes(3));
  world.datagrams.length = 0;
  assert.equal(itr.send(forged), 'accepted', 'it is not acknowledged and has ended');
  world.datagrams.length = 0;
  assert.equal(subscribe(itr, 1_000n), 'replay');
  assert.equal(subscribe(itr, 1_001n), 'accepted');
  assert.equal(notified(world, itr, pubSubKey(OTK, 1_001n))[0]?.nonce, 1_001n);
  assert.equal(itr.send(encodeLispMessage({ ...subscription(itr, 2_000n), itrRlocs: [NO_ADDRESS] })), 'authentication');
});

// Attack: a router of another site asks for a subscription under the xTR-ID of one that was made with a one-time key, with a one-time key of its own site | 2 | refused, also when it has registered with this xTR-ID; publications go on
test('attack: takes a subscription over with the key of another site', () => {
  const { world, etr, itr } = stage();
  subscribe(itr, 1_000n);
  const key = pubSubKey(OTK, 1_000n);
  acknowledge(itr, notified(world, itr, key)[0]!, key);
  const psk = Buffer.from('what oslo shares with the map server');
  addSite(world, 'oslo', { within: ['10.70.0.0/16'], secret: psk.toString() });
  const other = new SiteXtr(world, '203.0.113.77', 9);
  other.signing = { ...other.signing, psk };
  assert.equal(other.register('10.70.1.0/24'), 'accepted');
  other.xtrId = itr.xtrId;
  world.datagrams.length = 0;
  subscribe(other, 2_000n, { psk });
  const [refusal] = sentTo(world, other.peer.address);
  assert.ok(refusal?.message.type === 'map-reply');
  assert.equal(refusal.message.records[0]?.action, 5);
  assert.equal(other.register('10.70.1.0/24'), 'accepted');
  world.datagrams.length = 0;
  assert.equal(subscribe(other, 3_000n, { psk }), 'authentication');
  etr.register('10.50.1.0/24', { rlocs: ['192.0.2.99'] });
  assert.equal(notified(world, itr, key)[0]?.nonce, 1_001n);
  assert.deepEqual(sentTo(world, other.peer.address), []);
});

test('once it is unanswered for long enough, it ends, and its router may subscribe without a one-time key', () => {
  const { world, itr } = stage();
  subscribe(itr, 1_000n);
  world.advance(minutes(3));
  world.datagrams.length = 0;
  assert.equal(itr.send(encodeLispMessage(subscription(itr, 2_000n))), 'accepted');
  assert.equal(notified(world, itr, ITR_SECRET).length, 1);
});

/** Paris registers, a router of Rome asks. */
function stage(): { world: CoreWorld; etr: SiteXtr; itr: SiteXtr } {
  const world = new CoreWorld();
  addSite(world, 'paris', { within: ['10.50.0.0/16'], secret: ETR_SECRET.toString() });
  addSite(world, 'rome', { within: ['10.60.0.0/16'], secret: ITR_SECRET.toString() });
  const etr = new SiteXtr(world, '192.0.2.10', 1);
  etr.signing = { ...etr.signing, psk: ETR_SECRET };
  const itr = new SiteXtr(world, '198.51.100.20', 2);
  itr.signing = { ...itr.signing, psk: ITR_SECRET };
  assert.equal(etr.register('10.50.1.0/24'), 'accepted');
  assert.equal(itr.register('10.60.1.0/24'), 'accepted');
  world.datagrams.length = 0;
  return { world, etr, itr };
}

/** The same router with another map server; its nonces go on. */
function anew({ peer, xtrId, signing, lastNonce }: SiteXtr, world: CoreWorld): SiteXtr {
  return Object.assign(new SiteXtr(world, peer.address), { xtrId, signing, lastNonce });
}

function mapRequest({ peer }: SiteXtr, eid: string, value: bigint): MapRequest {
  const records = [{ notify: false, ...eidToRecordKey(parseEid(eid)) }];
  const itrRlocs = [ipLispAddress(peer.address)];
  return { ...MAP_REQUEST, nonce: nonce(value), sourceEid: NO_ADDRESS, itrRlocs, records };
}

function subscription(itr: SiteXtr, value: bigint): MapRequest {
  const asked = mapRequest(itr, '10.50.1.1', value);
  assert.ok(itr.xtrId !== undefined);
  return { ...asked, records: asked.records.map((each) => ({ ...each, notify: true })), xtrId: itr.xtrId, siteId: 0n };
}

function ask(itr: SiteXtr, eid: string, change: Partial<ItrRequest> = {}, port = 4342): string {
  const request = { otk: OTK, nonce: 5n, psk: ITR_SECRET, ...change };
  return itr.send(inEcm(itr, mapRequest(itr, eid, request.nonce), request, port));
}

function subscribe(itr: SiteXtr, value: bigint, change: Partial<ItrRequest> = {}): string {
  const request = { otk: OTK, nonce: value, psk: ITR_SECRET, ...change };
  return itr.send(inEcm(itr, subscription(itr, value), request));
}

function inEcm(itr: SiteXtr, message: MapRequest, request: ItrRequest, port = 4342): Buffer {
  return securedEcm(ipv4Udp(itr.peer.address, '10.50.1.1', port, Buffer.from(encodeLispMessage(message))), request);
}

function replyTo(world: CoreWorld, { peer }: SiteXtr): { verdict: ItrVerdict; reply: MapReply } {
  const [sent] = sentTo(world, peer.address);
  assert.ok(sent?.message.type === 'map-reply');
  const end = 12 + sent.message.records.reduce((sum, record) => sum + encodedRecordSize(record), 0);
  return { verdict: verdictOf(Buffer.from(sent.bytes), end, OTK), reply: sent.message };
}

function notified(world: CoreWorld, { peer }: SiteXtr, key: Uint8Array): MapNotify[] {
  return sentTo(world, peer.address).flatMap(({ message, bytes }) => {
    if (message.type !== 'map-notify') return [];
    assert.ok(verifyAuthentication(bytes, key).ok, 'it is signed by this key');
    return [message];
  });
}

function acknowledge(itr: SiteXtr, notify: MapNotify, psk: Uint8Array): string {
  return itr.send(signMessage({ ...notify, type: 'map-notify-ack' }, { ...itr.signing, psk }));
}

function sentTo(world: CoreWorld, address: IpAddress): CoreWorld['datagrams'][number][] {
  const mine = world.datagrams.filter(({ to }) => to.address === address);
  const others = world.datagrams.filter(({ to }) => to.address !== address);
  world.datagrams.splice(0, world.datagrams.length, ...others);
  return mine;
}

/** `10.50.128.128/17` without the bits that are beyond its length. */
function masked(prefix: string): string {
  const [address = '', length = '32'] = prefix.split('/');
  const bits = address.split('.').reduce((sum, each) => sum * 256 + Number(each), 0);
  const kept = Number((BigInt(bits) >> BigInt(32 - Number(length))) << BigInt(32 - Number(length)));
  const parts = [24, 16, 8, 0].map((shift) => Math.floor(kept / 2 ** shift) % 256);
  return `${parts.join('.')}/${length}`;
}
