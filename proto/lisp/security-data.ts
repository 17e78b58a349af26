/**
 * Authentication data that precedes the inner header of an ECM or follows the records of a Map-Reply, when S is set.
 *
 * ```
 * ECM, LISP-SEC (RFC 9303 6.1)
 * | AD Type = 1 (8)       | Unassigned (8)   | Requested HMAC ID (16)       |
 * | OTK Length (16)       | Key ID (8)       | OTK Wrapping ID (8)          |
 * | One-Time-Key Preamble (64) | One-Time Key (128)                         |   OTK Length octets
 * | EID-AD                                                                  |
 * ECM, MS-RTR (draft-ermagan-lisp-nat-traversal)
 * | AD Type = 2 (8)       | Reserved (24)                                   |
 * | MS-RTR Key ID (16)    | Authentication Data Length (16) | Data ...      |
 * Map-Reply, LISP-SEC (RFC 9303 6.2)
 * | AD Type = 1 (8)       | Unassigned (24)                                 |
 * | EID-AD                                                                  |
 * | PKT-AD Length (16)    | PKT HMAC ID (16) | PKT HMAC ...                 |
 *
 * EID-AD
 * | EID-AD Length (16)    | KDF ID (16)                                     |   of an ITR nothing more, Length = 4
 * | Record Count (8) | E | Unassigned (7)   | EID HMAC ID (16)              |
 * | Unassigned (8) | EID mask-len (8) | EID-AFI (16) | EID-Prefix ...       |   Record Count times
 * | EID HMAC ...                                                            |
 * ```
 *
 * Lengths count themselves, and an HMAC is what they leave over. Who computes one zeroes it first: the EID HMAC is over
 * the EID-AD (`encodeEidAuthorization`), the PKT HMAC over the whole Map-Reply, at whose end it is.
 */
import { EncodeError, type Reader, Writer } from '../bytes.ts';
import { decodeAddress, encodeAddress, type LispAddress } from './afi.ts';
import { bit, isSet } from './header.ts';

/** What an ECM carries. */
export type EcmSecurity = LispSecRequest | MsRtrAuthentication;

export interface LispSecRequest {
  readonly kind: 'lisp-sec';
  /** 0: the ITR has no preference. */
  readonly requestedHmac: number;
  /** Of the key that wraps the one-time key. */
  readonly keyId: number;
  /** 1 NULL-KEY-WRAP-128, 2 AES-KEY-WRAP-128+HKDF-SHA256. */
  readonly wrapping: number;
  /** Preamble (8 octets) and key (16), wrapped. */
  readonly oneTimeKey: Uint8Array;
  readonly eid: EidAuthorization;
}

/** A map server to an RTR that it shares a key with. */
export interface MsRtrAuthentication {
  readonly kind: 'ms-rtr';
  readonly keyId: number;
  readonly data: Uint8Array;
}

/** What a Map-Reply carries. */
export interface LispSecReply {
  readonly eid: EidAuthorization;
  readonly packetHmac: Hmac;
}

/** EID-AD. */
export interface EidAuthorization {
  /** 1 HKDF-SHA1-128, 2 HKDF-SHA256: how the map server's one-time key comes from the ITR's. */
  readonly kdf: number;
  /** What the map server says; absent in what an ITR sends. */
  readonly authorized?: AuthorizedPrefixes;
}

export interface AuthorizedPrefixes {
  /** E: some ETR of the site cannot do LISP-SEC. */
  readonly unprotectedEtrs: boolean;
  readonly prefixes: readonly { readonly maskLength: number; readonly eid: LispAddress }[];
  readonly hmac: Hmac;
}

export interface Hmac {
  /** 1 HMAC-SHA-1-96, 2 HMAC-SHA-256-128. */
  readonly algorithm: number;
  readonly value: Uint8Array;
}

export function decodeEcmSecurity(reader: Reader): EcmSecurity {
  const type = reader.u8('AD type');
  switch (type) {
    case LISP_SEC: {
      reader.skip(1, 'unassigned');
      const requestedHmac = reader.u16('requested HMAC ID');
      const length = reader.u16('OTK length');
      const keyId = reader.u8('OTK key ID');
      const wrapping = reader.u8('OTK wrapping ID');
      const oneTimeKey = reader.bytes(length, 'one-time key');
      return { kind: 'lisp-sec', requestedHmac, keyId, wrapping, oneTimeKey, eid: decodeEidAuthorization(reader) };
    }
    case MS_RTR: {
      reader.skip(3, 'reserved');
      const keyId = reader.u16('MS-RTR key ID');
      return { kind: 'ms-rtr', keyId, data: reader.bytes(reader.u16('MS-RTR data length'), 'MS-RTR data') };
    }
    default:
      throw reader.fail('AD type', `${type} is unknown`);
  }
}

export function encodeEcmSecurity(security: EcmSecurity, writer: Writer): void {
  switch (security.kind) {
    case 'lisp-sec':
      writer
        .u8(LISP_SEC, 'AD type')
        .u8(0, 'unassigned')
        .u16(security.requestedHmac, 'requested HMAC ID')
        .u16(security.oneTimeKey.length, 'OTK length')
        .u8(security.keyId, 'OTK key ID')
        .u8(security.wrapping, 'OTK wrapping ID')
        .bytes(security.oneTimeKey);
      encodeEidAuthorization(security.eid, writer);
      return;
    case 'ms-rtr':
      writer
        .u8(MS_RTR, 'AD type')
        .u24(0, 'reserved')
        .u16(security.keyId, 'MS-RTR key ID')
        .lengthPrefixed('MS-RTR data length', (data) => data.bytes(security.data));
      return;
    default:
      throw unknownKind(security);
  }
}

export function decodeReplySecurity(reader: Reader): LispSecReply {
  const type = reader.u8('AD type');
  if (type !== LISP_SEC) throw reader.fail('AD type', `${type} is unknown`);
  reader.skip(3, 'unassigned');
  const eid = decodeEidAuthorization(reader);
  const packet = partWithLength(reader, 'PKT-AD length');
  return { eid, packetHmac: { algorithm: packet.u16('PKT HMAC ID'), value: packet.rest() } };
}

export function encodeReplySecurity(security: LispSecReply, writer: Writer): void {
  writer.u8(LISP_SEC, 'AD type').u24(0, 'unassigned');
  encodeEidAuthorization(security.eid, writer);
  const { algorithm, value } = security.packetHmac;
  writer
    .u16(4 + value.length, 'PKT-AD length')
    .u16(algorithm, 'PKT HMAC ID')
    .bytes(value);
}

export function encodeEidAuthorization({ kdf, authorized }: EidAuthorization, writer: Writer): void {
  const body = new Writer().u16(kdf, 'KDF ID');
  if (authorized !== undefined) {
    const { unprotectedEtrs, prefixes, hmac } = authorized;
    body
      .u8(prefixes.length, 'EID-AD record count')
      .u8(bit(unprotectedEtrs, E), 'EID-AD flags')
      .u16(hmac.algorithm, 'EID HMAC ID');
    for (const { maskLength, eid } of prefixes) {
      body.u8(0, 'unassigned').u8(maskLength, 'EID mask-len');
      encodeAddress(eid, body);
    }
    body.bytes(hmac.value);
  }
  writer.u16(2 + body.length, 'EID-AD length').bytes(body.finish());
}

function decodeEidAuthorization(reader: Reader): EidAuthorization {
  const part = partWithLength(reader, 'EID-AD length');
  const kdf = part.u16('KDF ID');
  if (part.remaining === 0) return { kdf };
  const count = part.u8('EID-AD record count');
  const flags = part.u8('EID-AD flags');
  const algorithm = part.u16('EID HMAC ID');
  part.expect(count * SMALLEST_PREFIX, 'EID-AD records');
  const prefixes = Array.from({ length: count }, () => {
    part.skip(1, 'unassigned');
    return { maskLength: part.u8('EID mask-len'), eid: decodeAddress(part, 'EID') };
  });
  return { kdf, authorized: { unprotectedEtrs: isSet(flags, E), prefixes, hmac: { algorithm, value: part.rest() } } };
}

/** What follows a length of 16 bits that counts itself. */
function partWithLength(reader: Reader, field: string): Reader {
  const length = reader.u16(field);
  if (length < 4) throw reader.fail(field, `${length} is less than its header`);
  return reader.part(length - 2, field);
}

function unknownKind(security: never): EncodeError {
  return new EncodeError('authentication data', `unknown kind ${JSON.stringify(security)}`);
}

const LISP_SEC = 1;
const MS_RTR = 2;
const E = 0x80;
const SMALLEST_PREFIX = 4;
