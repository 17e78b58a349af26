import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { IpAddress } from '../../proto/address.ts';
import { Reader, Writer } from '../../proto/bytes.ts';
import { DecodeError } from '../../proto/errors.ts';
import { decodeAddress, encodeAddress, type LispAddress } from '../../proto/lisp/afi.ts';
import { computeAuthentication, signMessage, verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { type DataHeader, decodeDataHeader, encodeDataHeader } from '../../proto/lisp/data-header.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage, encapsulatedMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf, mapRegister, queriesOf } from '../../proto/lisp/native.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { runs } from '../runs.ts';
import { lispAddress, lispMessage } from './lisp-arbitraries.ts';

test('every message survives encoding and decoding', () => {
  fc.assert(
    fc.property(lispMessage, (message) => {
      assert.deepEqual(decodeLispMessage(encodeLispMessage(message)), message);
    }),
    { numRuns: runs(400) },
  );
});

test('every message decodes from a Buffer inside a larger one, and keeps nothing of it', () => {
  fc.assert(
    fc.property(lispMessage, (message) => {
      const bytes = encodeLispMessage(message);
      const pool = Buffer.alloc(bytes.length + 20, 0xee);
      pool.set(bytes, 7);
      const decoded = decodeLispMessage(pool.subarray(7, 7 + bytes.length));
      pool.fill(0xdd);
      assert.deepEqual(decoded, message);
    }),
    { numRuns: runs(200) },
  );
});

test('a message that is cut short is a DecodeError or a message without its trailer', () => {
  fc.assert(
    fc.property(lispMessage, fc.nat(), (message, cut) => {
      const bytes = encodeLispMessage(message);
      decodesOrDecodeError(bytes.subarray(0, cut % bytes.length));
    }),
    { numRuns: runs(250) },
  );
});

test('counts and lengths beyond the message are refused before anything is read for them', () => {
  for (const text of [
    '200000ff0000000000000000', // 255 records in an empty Map-Reply
    '30000001000000000000000000020000ffff', // an impossible ACT
    '3000000100000000000000000002ffff', // 65535 octets of authentication data
    '10001f0100000000000000000000', // 32 ITR-RLOCs
    '200000010000000000000000000000010020000000000001', // IPv4 EID without an address
    '2000000100000000000000000000000100200000000040030000010000ff', // an AFI list of 255 octets
    '2000000100000000000000000000000100200000000000116162', // a name without end
    '20000001000000000000000000000001ff20000000000000', // 255 locators
    '60000000', // a Map-Referral without a nonce
    '600000ff1122334455667788', // 255 records in an empty Map-Referral
    '6000000111223344556677880000000100000000f0000000', // 15 signatures in no octets
    'f001', // a shared extension without its second half
    '90000000', // type 9
    '',
  ]) {
    assert.throws(() => decodeLispMessage(Buffer.from(text, 'hex')), DecodeError, text);
  }
});

test('the biggest possible messages decode in bounded time', () => {
  const list = Buffer.alloc(65_500, 0);
  list.set(Buffer.from('200000010000000000000000000000010020000000004003000001', 'hex'));
  list.writeUInt16BE(65_500 - 30, 28);
  // The least of three: what the threads of the engine do meanwhile counts as well.
  const spent = [1, 2, 3].map(() => {
    const before = process.cpuUsage();
    const message = decodeLispMessage(list);
    assert.ok(message.type === 'map-reply' && message.records[0]?.eid.kind === 'afi-list');
    return process.cpuUsage(before).user;
  });
  assert.ok(Math.min(...spent) < 500_000, spent.join());
});

test('LCAFs nest eight deep and no deeper', () => {
  const nested = (depth: number): LispAddress =>
    depth === 0
      ? { kind: 'ip', address: '10.0.0.1' as IpAddress }
      : { kind: 'instance-id', iid: depth, iidMaskLength: 0, address: nested(depth - 1) };
  const writer = new Writer();
  encodeAddress(nested(8), writer);
  assert.deepEqual(decodeAddress(new Reader(writer.finish()), 'EID'), nested(8));
  assert.throws(() => encodeAddress(nested(9), new Writer()), { code: 'STAYPUT_ENCODE' });

  const wrapped = new Writer().u16(16387, 'AFI').bytes(Uint8Array.of(0, 0, 2, 0));
  wrapped.lengthPrefixed('length', (inner) => inner.u32(9, 'IID').bytes(writer.finish()));
  assert.throws(() => decodeAddress(new Reader(wrapped.finish()), 'EID'), /more than 8 nested LCAFs/);
});

test('both AFIs of a MAC address are read', () => {
  for (const afi of ['0006', '4005']) {
    const bytes = Buffer.from(`${afi}001122aabbcc`, 'hex');
    assert.deepEqual(decodeAddress(new Reader(bytes), 'EID'), { kind: 'mac', mac: '00:11:22:aa:bb:cc' });
  }
});

test('octets behind the last field of an LCAF are ignored', () => {
  const bytes = Buffer.from('4003000002200010' + '000003e8' + '00010a000001' + 'ffffffffffff' + '0001', 'hex');
  const reader = new Reader(bytes);
  assert.deepEqual(decodeAddress(reader, 'EID'), {
    kind: 'instance-id',
    iid: 1000,
    iidMaskLength: 32,
    address: { kind: 'ip', address: '10.0.0.1' },
  });
  assert.equal(reader.remaining, 2);
});

test('addresses survive encoding and decoding', () => {
  fc.assert(
    fc.property(lispAddress, (address) => {
      const writer = new Writer();
      encodeAddress(address, writer);
      const reader = new Reader(writer.finish());
      assert.deepEqual(decodeAddress(reader, 'address'), address);
      assert.equal(reader.remaining, 0);
    }),
    { numRuns: runs(400) },
  );
});

test('reserved bits are ignored', () => {
  const request = '10000001887766554433221100010a0101020001c0000214002000010a010101';
  const plain = decodeLispMessage(Buffer.from(request, 'hex'));
  const reserved = Buffer.from(request, 'hex');
  reserved.writeUInt32BE(reserved.readUInt32BE(0) | 0x000f_8000, 0);
  reserved.writeUInt8(0x7f, reserved.length - 8);
  assert.deepEqual(decodeLispMessage(reserved), plain);
});

test('a Map-Request or Map-Register with the I flag and no xTR-ID is refused', () => {
  const request = '10100001887766554433221100010a0101020001c0000214802000010a010101';
  assert.throws(() => decodeLispMessage(Buffer.from(request, 'hex')), { code: 'STAYPUT_DECODE', field: 'xTR-ID' });
});

test('what has no encoding is an EncodeError', () => {
  const register = mapRegister({ nonce: nonce(1n), xtrId: '0'.repeat(32) as XtrId, mappings: [] });
  const { xtrId: _, ...withoutXtrId } = register;
  const record = { ttl: 1, eid: { kind: 'none' as const }, maskLength: 0, action: 0, authoritative: false };
  for (const message of [
    { ...withoutXtrId, siteId: 1n },
    { ...register, records: new Array(256).fill({ ...record, mapVersion: 0, locators: [] }) },
    { ...register, records: [{ ...record, mapVersion: 0x1000, locators: [] }] },
    { ...register, records: [{ ...record, mapVersion: 0, ttl: -1, locators: [] }] },
    { ...register, records: [{ ...record, mapVersion: 0, ttl: 1.5, locators: [] }] },
    { ...register, records: [{ ...record, mapVersion: 0, eid: { kind: 'name' as const, name: 'ü' }, locators: [] }] },
  ]) {
    assert.throws(() => encodeLispMessage(message), { code: 'STAYPUT_ENCODE' });
  }
});

test('what is signed verifies, for each algorithm, coverage and length', () => {
  const psk = new TextEncoder().encode('per-site key');
  fc.assert(
    fc.property(
      lispMessage,
      fc.constantFrom(1, 2, 3),
      fc.constantFrom('records' as const, 'payload' as const),
      fc.constantFrom('rfc' as const, 'full' as const),
      (message, algorithm, coverage, length) => {
        if (!('authentication' in message)) return;
        if (algorithm === 3 && message.type.startsWith('info')) return;
        const bytes = signMessage(message, { keyId: 1, algorithm, psk, coverage, length });
        const verification = verifyAuthentication(bytes, psk);
        assert.equal(verification.ok, true);
        const same = Buffer.from(computeAuthentication(bytes, psk, 'records')).equals(
          computeAuthentication(bytes, psk, 'payload'),
        );
        if (!same) assert.deepEqual(verification, { ok: true, coverage });
        assert.deepEqual(verifyAuthentication(bytes, psk.subarray(1)), { ok: false });
      },
    ),
    { numRuns: runs(250) },
  );
});

test('garbage does not verify', () => {
  const psk = new Uint8Array(16);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => !verifyAuthentication(bytes, psk).ok));
});

test('data headers survive encoding and decoding, and short ones are a DecodeError', () => {
  const header = fc
    .record({
      choice: fc.constantFrom('nonce', 'versions', 'neither'),
      first: fc.nat(0xffffff),
      echo: fc.boolean(),
      iid: fc.option(fc.nat(0xffffff), { nil: undefined }),
      status: fc.option(fc.nat(0xff), { nil: undefined }),
      keyId: fc.nat(3),
    })
    .map(
      ({ choice, first, echo, iid, status, keyId }): DataHeader =>
        ({
          ...(choice === 'nonce' ? { nonce: first } : {}),
          ...(choice === 'versions' ? { mapVersions: { source: first >> 12, destination: first & 0xfff } } : {}),
          echoNonce: echo && choice === 'nonce',
          ...(iid === undefined ? {} : { instanceId: iid }),
          ...(status === undefined ? {} : { locatorStatusBits: status }),
          keyId,
        }) as DataHeader,
    );
  fc.assert(
    fc.property(header, (value) => {
      assert.deepEqual(decodeDataHeader(encodeDataHeader(value)), value);
    }),
  );
  assert.throws(() => decodeDataHeader(new Uint8Array(7)), DecodeError);
});

function decodesOrDecodeError(bytes: Uint8Array): void {
  try {
    const message = decodeLispMessage(bytes);
    encodeLispMessage(message);
    mappingsOf(message);
    if (message.type === 'map-request') queriesOf(message);
    if (message.type === 'encapsulated-control') encapsulatedMessage(message);
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    assert.ok(error.offset >= 0 && error.offset <= bytes.length);
  }
}
