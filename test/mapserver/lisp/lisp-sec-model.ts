/**
 * An ITR and an ETR that do LISP-SEC (RFC 9303), written down from the RFC with HMAC and AES alone: it shares no code with
 * `proto/lisp`, so that both would have to misread the RFC in the same way.
 */
import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto';

/** What an ITR says in its ECM; the numbers are those of the RFC's registries. */
export interface ItrRequest {
  readonly otk: Buffer;
  readonly nonce: bigint;
  readonly psk: Buffer;
  readonly keyId?: number;
  readonly requestedHmac?: number;
  readonly kdf?: number;
  readonly wrapping?: number;
  /** Instead of the wrapped key. */
  readonly oneTimeKey?: Buffer;
}

/** ECM with S around a Map-Request. `inner`: IPv4 header, UDP header and the Map-Request. */
export function securedEcm(inner: Buffer, request: ItrRequest): Buffer {
  const { otk, nonce, psk, keyId = 0, requestedHmac = 0, kdf = 0, wrapping = 2 } = request;
  const key = request.oneTimeKey ?? wrapped(otk, wrappingKey(nonce, psk));
  const head = Buffer.concat([word(0x8800_0000), Buffer.of(1, 0), u16(requestedHmac), u16(key.length)]);
  return Buffer.concat([head, Buffer.of(keyId, wrapping), key, u16(4), u16(kdf), inner]);
}

/** IPv4 and UDP without checksum. */
export function ipv4Udp(source: string, destination: string, sourcePort: number, payload: Buffer): Buffer {
  const udp = Buffer.concat([u16(sourcePort), u16(4342), u16(8 + payload.length), u16(0), payload]);
  const header = Buffer.concat([Buffer.of(0x45, 0), u16(20 + udp.length), word(0), Buffer.of(64, 17), u16(0)]);
  const whole = Buffer.concat([header, octets(source), octets(destination)]);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += whole.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  whole.writeUInt16BE(~sum & 0xffff, 10);
  return Buffer.concat([whole, udp]);
}

export interface EtrRequest {
  readonly keyId: number;
  readonly requestedHmac: number;
  /** MS-OTK. */
  readonly key: Buffer;
  /** As they came, to be given on. */
  readonly eidAd: Buffer;
  readonly inner: Buffer;
}

/** An ECM as an ETR gets it that shares `psk` with the map server. @throws when it is none that it can answer */
export function readEtrRequest(ecm: Buffer, nonce: bigint, psk: Buffer): EtrRequest {
  const first = ecm.readUInt32BE(0);
  assert.equal(first >>> 28, 8);
  assert.ok((first & 0x0800_0000) !== 0, 'S is set');
  assert.equal(ecm[4], 1, 'AD type LISP-SEC');
  const requestedHmac = ecm.readUInt16BE(6);
  const length = ecm.readUInt16BE(8);
  const keyId = ecm[10] ?? -1;
  assert.equal(ecm[11], 2, 'AES key wrap');
  const key = unwrapped(ecm.subarray(12, 12 + length), wrappingKey(nonce, psk));
  const eidAdEnd = 12 + length + ecm.readUInt16BE(12 + length);
  return { keyId, requestedHmac, key, eidAd: ecm.subarray(12 + length, eidAdEnd), inner: ecm.subarray(eidAdEnd) };
}

/** A Map-Reply with S: `reply` is without authentication data, with S set already. */
export function etrReply(reply: Buffer, request: EtrRequest): Buffer {
  const hmac = request.requestedHmac === 1 ? 1 : 2;
  const length = HMACS[hmac].length;
  const packetAd = Buffer.concat([u16(4 + length), u16(hmac), Buffer.alloc(length)]);
  const bytes = Buffer.concat([reply, Buffer.of(1, 0, 0, 0), request.eidAd, packetAd]);
  digest(hmac, request.key, bytes).copy(bytes, bytes.length - length);
  return bytes;
}

export interface ItrVerdict {
  readonly ok: boolean;
  readonly unprotectedEtrs: boolean;
  /** `10.50.1.0/24` */
  readonly prefixes: readonly string[];
}

/** What an ITR makes of a Map-Reply whose records end at `recordsEnd`. */
export function verdictOf(bytes: Buffer, recordsEnd: number, otk: Buffer): ItrVerdict {
  assert.equal(bytes[recordsEnd], 1, 'AD type LISP-SEC');
  const eidAd = bytes.subarray(recordsEnd + 4, recordsEnd + 4 + bytes.readUInt16BE(recordsEnd + 4));
  const packetAd = bytes.subarray(recordsEnd + 4 + eidAd.length);
  const eidHmac = eidAd.readUInt16BE(6);
  const prefixes: string[] = [];
  let at = 8;
  for (let i = 0; i < (eidAd[4] ?? 0); i++) {
    assert.equal(eidAd.readUInt16BE(at + 2), 1, 'IPv4');
    prefixes.push(`${[...eidAd.subarray(at + 4, at + 8)].join('.')}/${eidAd[at + 1]}`);
    at += 8;
  }
  const zeroedEid = Buffer.concat([eidAd.subarray(0, at), Buffer.alloc(eidAd.length - at)]);
  const packetHmac = packetAd.readUInt16BE(2);
  const zeroed = Buffer.concat([
    bytes.subarray(0, bytes.length - packetAd.length + 4),
    Buffer.alloc(packetAd.length - 4),
  ]);
  const msOtk = hkdf(eidAd.readUInt16BE(2), otk);
  const ok =
    digest(eidHmac, otk, zeroedEid).equals(eidAd.subarray(at)) &&
    digest(packetHmac, msOtk, zeroed).equals(packetAd.subarray(4));
  return { ok, unprotectedEtrs: ((eidAd[5] ?? 0) & 0x80) !== 0, prefixes };
}

/** RFC 9437 section 7.1. */
export function pubSubKey(otk: Buffer, nonce: bigint): Buffer {
  return hkdf(2, Buffer.concat([otk, u64(nonce)]));
}

function wrappingKey(nonce: bigint, psk: Buffer): Buffer {
  return hkdf(2, Buffer.concat([u64(nonce), Buffer.from('OTK-Key-Wrap'), psk]));
}

/** 128 bits by RFC 5869, without salt and info. 1: SHA-1, 2: SHA-256. */
function hkdf(id: number, material: Buffer): Buffer {
  const [hash, length] = id === 1 ? ['sha1', 20] : ['sha256', 32];
  assert.ok(id === 1 || id === 2, `KDF ${id}`);
  const prk = createHmac(hash as string, Buffer.alloc(length as number))
    .update(material)
    .digest();
  return createHmac(hash as string, prk)
    .update(Buffer.of(1))
    .digest()
    .subarray(0, 16);
}

/** RFC 3394 section 2.2.1, index based. */
function wrapped(plain: Buffer, key: Buffer): Buffer {
  let a: Buffer = Buffer.alloc(8, 0xa6);
  const r = [plain.subarray(0, 8), plain.subarray(8, 16)];
  for (let j = 0; j < 6; j++) {
    for (let i = 0; i < 2; i++) {
      const b = aes(createCipheriv('aes-128-ecb', key, null).setAutoPadding(false), Buffer.concat([a, r[i]!]));
      a = xored(b.subarray(0, 8), 2 * j + i + 1);
      r[i] = b.subarray(8);
    }
  }
  return Buffer.concat([a, ...r]);
}

/** RFC 3394 section 2.2.2. */
function unwrapped(cipher: Buffer, key: Buffer): Buffer {
  assert.equal(cipher.length, 24);
  let a: Buffer = cipher.subarray(0, 8);
  const r = [cipher.subarray(8, 16), cipher.subarray(16, 24)];
  for (let j = 5; j >= 0; j--) {
    for (let i = 1; i >= 0; i--) {
      const block = Buffer.concat([xored(a, 2 * j + i + 1), r[i]!]);
      const b = aes(createDecipheriv('aes-128-ecb', key, null).setAutoPadding(false), block);
      a = b.subarray(0, 8);
      r[i] = b.subarray(8);
    }
  }
  assert.ok(a.equals(Buffer.alloc(8, 0xa6)), 'the key is wrapped with this key and nonce');
  return Buffer.concat(r);
}

function aes(cipher: { update(block: Buffer): Buffer; final(): Buffer }, block: Buffer): Buffer {
  return Buffer.concat([cipher.update(block), cipher.final()]);
}

function xored(block: Buffer, step: number): Buffer {
  const result = Buffer.from(block);
  result[7]! ^= step;
  return result;
}

const HMACS = { 1: { hash: 'sha1', length: 12 }, 2: { hash: 'sha256', length: 16 } } as const;

function digest(id: number, key: Buffer, bytes: Buffer): Buffer {
  assert.ok(id === 1 || id === 2, `HMAC ${id}`);
  const { hash, length } = HMACS[id];
  return createHmac(hash, key).update(bytes).digest().subarray(0, length);
}

function octets(address: string): Buffer {
  return Buffer.from(address.split('.').map(Number));
}

function word(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value);
  return buffer;
}

function u16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 255);
}

function u64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(value);
  return buffer;
}
