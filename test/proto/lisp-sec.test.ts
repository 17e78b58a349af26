/** LISP-SEC: one-time keys on their way to the map server, and Map-Replies on their way back. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { ipLispAddress } from '../../proto/lisp/afi.ts';
import { nonce } from '../../proto/lisp/header.ts';
import {
  authorizePrefixes,
  chosenHmac,
  chosenKdf,
  deriveMapServerKey,
  protectMapReply,
  unwrapOneTimeKey,
  verifyMapReply,
  wrapOneTimeKey,
} from '../../proto/lisp/lisp-sec.ts';
import type { MapReply } from '../../proto/lisp/map-reply.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';

const OTK = hex('00112233445566778899aabbccddeeff');
const PSK = Buffer.from('secret');
const NONCE = nonce(0x1122334455667788n);
const EID = { eid: ipLispAddress(parseIpAddress('10.1.0.0')), maskLength: 16 };

test('keys that are derived as RFC 5869 says, by HMAC alone', () => {
  // HKDF: PRK = HMAC(salt, IKM) with as many zeroes as the hash has octets for no salt; T(1) = HMAC(PRK, info | 1).
  const hkdf = (hash: string, length: number, material: Uint8Array): string => {
    const prk = createHmac(hash, Buffer.alloc(length)).update(material).digest();
    return createHmac(hash, prk).update(Uint8Array.of(1)).digest().subarray(0, 16).toString('hex');
  };
  assert.equal(toHex(deriveMapServerKey(OTK, 1)), hkdf('sha1', 20, OTK));
  assert.equal(toHex(deriveMapServerKey(OTK, 2)), hkdf('sha256', 32, OTK));
});

test('a one-time key is unwrapped with the key and the nonce that it was wrapped with', () => {
  const wrapped = wrapOneTimeKey(OTK, NONCE, PSK);
  assert.equal(wrapped.length, 24);
  assert.deepEqual(unwrapOneTimeKey(wrapped, NONCE, PSK), OTK);
  assert.equal(unwrapOneTimeKey(wrapped, nonce(1n), PSK), undefined);
  assert.equal(unwrapOneTimeKey(wrapped, NONCE, Buffer.from('other')), undefined);
  assert.equal(unwrapOneTimeKey(wrapped.subarray(8), NONCE, PSK), undefined);
  for (let i = 0; i < 24; i++) {
    const changed = Uint8Array.from(wrapped);
    changed[i]! ^= 1;
    assert.equal(unwrapOneTimeKey(changed, NONCE, PSK), undefined);
  }
});

// Made by another implementation: HKDF and RFC 3394 written down in Python over OpenSSL's AES.
test('our reading of the key wrap and of both derivations, as octets', () => {
  assert.equal(toHex(wrapOneTimeKey(OTK, NONCE, PSK)), 'a41b7566d74b386c0fdfa6ef9ee5288440aa4d7345494ce0');
  assert.equal(toHex(deriveMapServerKey(OTK, 1)), '4f7515141f08ee8bd1fbde1b24339e26');
  assert.equal(toHex(deriveMapServerKey(OTK, 2)), 'a2f377ef8248cf00616538ff2ed3b979');
});

test('a reply is verified with the one-time key alone, and no octet of it can be changed', () => {
  for (const [kdf, hmac] of [
    [1, 1],
    [2, 2],
  ] as const) {
    const bytes = protectedReply(kdf, hmac);
    const reply = decodeLispMessage(bytes) as MapReply;
    assert.ok(verifyMapReply(bytes, reply, OTK));
    assert.ok(!verifyMapReply(bytes, reply, hex('00'.repeat(16))));
    for (let i = 4; i < bytes.length; i++) {
      const changed = Uint8Array.from(bytes);
      changed[i]! ^= 1;
      const verifies = (): boolean => verifyMapReply(changed, decodeLispMessage(changed) as MapReply, OTK);
      try {
        assert.ok(!verifies(), `octet ${i}`);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'STAYPUT_DECODE', `octet ${i}`);
      }
    }
  }
});

test('what a map server is asked for and does not know becomes what everybody has to know', () => {
  assert.deepEqual([0, 1, 2, 3].map(chosenHmac), [2, 1, 2, 2]);
  assert.deepEqual([0, 1, 2, 3].map(chosenKdf), [2, 1, 2, 2]);
});

function protectedReply(kdf: number, hmac: number): Uint8Array {
  const authorization = authorizePrefixes(OTK, kdf, hmac, { unprotectedEtrs: false, prefixes: [EID] });
  const record = { ...EID, ttl: 1, action: 3, authoritative: false, mapVersion: 0, locators: [] };
  const reply: MapReply = { type: 'map-reply', probe: false, echoNonce: false, nonce: NONCE, records: [record] };
  return protectMapReply(reply, authorization, hmac, deriveMapServerKey(OTK, kdf));
}

function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, 'hex'));
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
