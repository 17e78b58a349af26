/**
 * Authentication field of Map-Register, Map-Notify, Map-Notify-Ack and Info-Request (RFC 9301 5.6).
 *
 * ```
 * |    Key ID     | Algorithm ID  |  Authentication Data Length   |
 * | Authentication Data ...                                       |
 * ```
 *
 * Older peers have one 16-bit Key ID there; their keys 1 and 2 are key 0 with algorithm 1 and 2.
 */
import type { Reader, Writer } from '../bytes.ts';

export interface Authentication {
  readonly keyId: number;
  /** 0 none, 1 HMAC-SHA-1-96, 2 HMAC-SHA-256-128, 3 HMAC-SHA-256-128 with HKDF. */
  readonly algorithm: number;
  readonly data: Uint8Array;
}

export const NO_AUTHENTICATION: Authentication = { keyId: 0, algorithm: 0, data: new Uint8Array(0) };

export function decodeAuthentication(reader: Reader): Authentication {
  const keyId = reader.u8('key ID');
  const algorithm = reader.u8('algorithm ID');
  return { keyId, algorithm, data: reader.bytes(reader.u16('authentication data length'), 'authentication data') };
}

export function encodeAuthentication(authentication: Authentication, writer: Writer): void {
  writer
    .u8(authentication.keyId, 'key ID')
    .u8(authentication.algorithm, 'algorithm ID')
    .u16(authentication.data.length, 'authentication data length')
    .bytes(authentication.data);
}
