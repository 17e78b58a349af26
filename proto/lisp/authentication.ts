/**
 * Message authentication of Map-Register, Map-Notify, Map-Notify-Ack and Info-Request (RFC 9301 5.6), over octets.
 *
 * | Algorithm | MAC                   | RFC length | key                                                   |
 * |-----------|-----------------------|------------|-------------------------------------------------------|
 * | 1         | HMAC-SHA-1            | 12         | the pre-shared key                                    |
 * | 2         | HMAC-SHA-256          | 16         | the pre-shared key                                    |
 * | 3         | HMAC-SHA-256          | 16         | HKDF-SHA-256(IKM = nonce and key, salt = per message) |
 *
 * The MAC is computed with the authentication data zeroed. RFC 9301 covers the message up to its last RLOC-record;
 * lispers.net and OOR cover the whole UDP payload with the xTR-ID trailer. Peers also send the whole digest instead
 * of its RFC length. Both are accepted and reported, so that an answer can be made the same way. Algorithm 0 and
 * unknown ones never verify. The RFC leaves out how its KDF maps to HKDF; ours is without `info` and 32 octets long.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { EncodeError, Reader } from '../bytes.ts';
import { DecodeError } from '../errors.ts';
import { decodeAuthentication } from './authentication-data.ts';
import { decodeEidRecords } from './eid-record.ts';
import { TYPE } from './header.ts';
import type { InfoReply, InfoRequest } from './info-request.ts';
import type { MapNotify, MapNotifyAck } from './map-notify.ts';
import type { MapRegister } from './map-register.ts';
import { encodeLispMessage } from './message.ts';

/** What the MAC is over: RFC 9301, or the whole UDP payload. The same for a message without a trailer. */
export type Coverage = 'records' | 'payload';

export type Verification = { readonly ok: true; readonly coverage: Coverage } | { readonly ok: false };

export type AuthenticatedMessage = MapRegister | MapNotify | MapNotifyAck | InfoRequest | InfoReply;

export interface SigningOptions {
  readonly keyId: number;
  readonly algorithm: number;
  readonly psk: Uint8Array;
  readonly coverage?: Coverage;
  /** The RFC's truncation, or the whole digest as lispers.net and OOR want it. */
  readonly length?: 'rfc' | 'full';
}

/** Encodes `message` with authentication data of its own. @throws EncodeError for an algorithm that has no MAC */
export function signMessage(message: AuthenticatedMessage, options: SigningOptions): Uint8Array {
  const { keyId, algorithm, psk, coverage = 'records' } = options;
  const lengths = MAC_LENGTHS[algorithm];
  const length = options.length === 'full' ? lengths?.at(-1) : lengths?.[0];
  if (length === undefined) throw new EncodeError('algorithm ID', `${algorithm} has no authentication`);
  const bytes = encodeLispMessage({ ...message, authentication: { keyId, algorithm, data: new Uint8Array(length) } });
  const mac = computeAuthentication(bytes, psk, coverage);
  bytes.set(mac.subarray(0, length), DATA_OFFSET);
  return bytes;
}

/**
 * The whole digest for an encoded message, whose present authentication data only matters by its length.
 * @throws DecodeError when the message or its algorithm cannot be authenticated
 */
export function computeAuthentication(message: Uint8Array, psk: Uint8Array, coverage: Coverage): Uint8Array {
  const layout = layoutOf(message);
  return digest(layout, coverage === 'records' ? layout.recordsEnd : message.length, psk);
}

export function verifyAuthentication(message: Uint8Array, psk: Uint8Array): Verification {
  try {
    const layout = layoutOf(message);
    const claimed = layout.data;
    if (!MAC_LENGTHS[layout.algorithm]?.includes(claimed.length)) return { ok: false };
    const matches = (end: number): boolean =>
      timingSafeEqual(claimed, digest(layout, end, psk).subarray(0, claimed.length));
    if (matches(layout.recordsEnd)) return { ok: true, coverage: 'records' };
    if (layout.recordsEnd < message.length && matches(message.length)) return { ok: true, coverage: 'payload' };
    return { ok: false };
  } catch (error) {
    if (error instanceof DecodeError) return { ok: false };
    throw error;
  }
}

interface Layout {
  readonly type: number;
  readonly nonce: Uint8Array;
  readonly algorithm: number;
  readonly data: Uint8Array;
  /** The message with zeroes as authentication data. */
  readonly zeroed: Uint8Array;
  readonly recordsEnd: number;
}

function layoutOf(message: Uint8Array): Layout {
  const reader = new Reader(message);
  const word = reader.u32('header');
  const type = word >>> 28;
  const nonce = reader.bytes(8, 'nonce');
  const { algorithm, data } = decodeAuthentication(reader);
  const zeroed = Uint8Array.from(message).fill(0, DATA_OFFSET, DATA_OFFSET + data.length);
  switch (type) {
    case TYPE.mapRegister:
    case TYPE.mapNotify:
    case TYPE.mapNotifyAck:
      decodeEidRecords(reader, word & 0xff);
      return { type, nonce, algorithm, data, zeroed, recordsEnd: reader.offset };
    case TYPE.info:
      return { type, nonce, algorithm, data, zeroed, recordsEnd: message.length };
    default:
      throw new DecodeError('message type', 0, `${type} carries no authentication`);
  }
}

function digest(layout: Layout, end: number, psk: Uint8Array): Uint8Array {
  const covered = layout.zeroed.subarray(0, end);
  switch (layout.algorithm) {
    case 1:
      return createHmac('sha1', psk).update(covered).digest();
    case 2:
      return createHmac('sha256', psk).update(covered).digest();
    case 3:
      return createHmac('sha256', messageKey(layout, psk)).update(covered).digest();
    default:
      throw new DecodeError('algorithm ID', 13, `${layout.algorithm} has no authentication`);
  }
}

function messageKey(layout: Layout, psk: Uint8Array): Uint8Array {
  const salt = KDF_SALT[layout.type];
  if (salt === undefined) throw new DecodeError('algorithm ID', 13, 'key derivation is not defined for this message');
  return new Uint8Array(hkdfSync('sha256', Buffer.concat([layout.nonce, psk]), salt, '', 32));
}

/** Behind the header, the nonce, key ID, algorithm ID and length. */
const DATA_OFFSET = 16;

/** Accepted lengths per algorithm: that of the RFC first, the whole digest last. */
const MAC_LENGTHS: Readonly<Record<number, readonly number[]>> = { 1: [12, 16, 20], 2: [16, 20, 32], 3: [16, 20, 32] };

const KDF_SALT: Readonly<Record<number, string>> = {
  [TYPE.mapRegister]: 'Map-Register Authentication',
  [TYPE.mapNotify]: 'Map-Notify Authentication',
  [TYPE.mapNotifyAck]: 'Map-Notify-Ack Authentication',
};
