/** Layouts of RFC 9303, octet by octet. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reader, Writer } from '../../proto/bytes.ts';
import { DecodeError } from '../../proto/errors.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import { decodeEcmSecurity, encodeEcmSecurity } from '../../proto/lisp/security-data.ts';

test('what an ITR sends has its wrapped one-time key and an EID-AD with a KDF only', () => {
  const octets = `01000002001807020011223344556677${'00'.repeat(15)}ff00040002`;
  const security = decodeEcmSecurity(new Reader(Buffer.from(octets, 'hex')));
  assert.deepEqual(security, {
    kind: 'lisp-sec',
    requestedHmac: 2,
    keyId: 7,
    wrapping: 2,
    oneTimeKey: Uint8Array.from(Buffer.from(`0011223344556677${'00'.repeat(15)}ff`, 'hex')),
    eid: { kdf: 2 },
  });
  const writer = new Writer();
  encodeEcmSecurity(security, writer);
  assert.equal(Buffer.from(writer.finish()).toString('hex'), octets);
});

test('what a map server sends has the prefixes that the site may claim', () => {
  const eidAd = `001c000201800002001000010a010000${'aa'.repeat(12)}`;
  const octets = `0100000200000000${eidAd}`;
  const security = decodeEcmSecurity(new Reader(Buffer.from(octets, 'hex')));
  assert.ok(security.kind === 'lisp-sec');
  assert.deepEqual(security.eid, {
    kdf: 2,
    authorized: {
      unprotectedEtrs: true,
      prefixes: [{ maskLength: 16, eid: { kind: 'ip', address: '10.1.0.0' } }],
      hmac: { algorithm: 2, value: Uint8Array.from({ length: 12 }, () => 0xaa) },
    },
  });
});

test('a protected Map-Reply ends in the HMAC over itself', () => {
  const negative = '220000018877665544332211' + '0000000f00102000000000010a010000';
  const authentication = `010000000004000100140002${'bb'.repeat(16)}`;
  const message = decodeLispMessage(Buffer.from(negative + authentication, 'hex'));
  assert.ok(message.type === 'map-reply');
  assert.deepEqual(message.security, {
    eid: { kdf: 1 },
    packetHmac: { algorithm: 2, value: Uint8Array.from({ length: 16 }, () => 0xbb) },
  });
  assert.equal(Buffer.from(encodeLispMessage(message)).toString('hex'), negative + authentication);
});

test('unassigned bits are ignored, unknown types and impossible lengths are refused', () => {
  const itr = '01ff000200000000' + '00040002';
  assert.deepEqual(
    decodeEcmSecurity(new Reader(Buffer.from(itr, 'hex'))),
    decodeEcmSecurity(new Reader(Buffer.from(itr.replace('01ff', '0100'), 'hex'))),
  );
  for (const octets of [
    '0300000200000000' + '00040002', // AD type 3
    '0100000200000000' + '00030002', // an EID-AD shorter than its header
    '010000020000000000080002' + 'ff000002', // 255 prefixes in no octets
    '01000002ffff000000040002', // a one-time key of 65535 octets
    '020000000001ffff', // MS-RTR data of 65535 octets
  ]) {
    assert.throws(() => decodeEcmSecurity(new Reader(Buffer.from(octets, 'hex'))), DecodeError, octets);
  }
});
