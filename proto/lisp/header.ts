/**
 * What the control messages of RFC 9301 share: the message type, the nonce and the xTR-ID trailer.
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * | Type  |     flags of the message            |  Record Count   |   word 0
 * |                             Nonce                             |   64 bits
 *
 * trailer, when the I flag is set (RFC 9301 5.6, RFC 9437):
 * |                            xTR-ID                             |   128 bits
 * |                            Site-ID                            |   64 bits; lispers.net leaves it out
 * ```
 */
import { EncodeError, type Reader, type Writer } from '../bytes.ts';
import { xtrIdFromBytes, xtrIdToBytes } from '../identity.ts';
import type { XtrId } from '../mapping.ts';

/** UDP, of control messages (RFC 9301 section 5). */
export const LISP_CONTROL_PORT = 4342;

/** 64 bits that tie an answer to its request. */
export type Nonce = bigint & { readonly __brand: 'Nonce' };

/** The low 64 bits of `value`. */
export function nonce(value: bigint): Nonce {
  return BigInt.asUintN(64, value) as Nonce;
}

/** The same message with another nonce: in each of them it follows word 0. */
export function withNonce(message: Uint8Array, value: Nonce): Uint8Array {
  const copy = Uint8Array.from(message);
  new DataView(copy.buffer).setBigUint64(4, value);
  return copy;
}

export interface XtrTrailer {
  readonly xtrId?: XtrId;
  /** Only together with an xTR-ID. */
  readonly siteId?: bigint;
}

export function decodeNonce(reader: Reader): Nonce {
  return reader.u64('nonce') as Nonce;
}

/** @throws DecodeError when the xTR-ID is not there */
export function decodeXtrTrailer(reader: Reader): { xtrId: XtrId; siteId?: bigint } {
  const xtrId = xtrIdFromBytes(reader.bytes(16, 'xTR-ID'));
  return reader.remaining < 8 ? { xtrId } : { xtrId, siteId: reader.u64('site ID') };
}

export function encodeXtrTrailer(trailer: XtrTrailer, writer: Writer): void {
  if (trailer.xtrId === undefined) {
    if (trailer.siteId !== undefined) throw new EncodeError('site ID', 'needs an xTR-ID');
    return;
  }
  writer.bytes(xtrIdToBytes(trailer.xtrId));
  if (trailer.siteId !== undefined) writer.u64(trailer.siteId, 'site ID');
}

/** `mask` when the flag is set. */
export function bit(flag: boolean, mask: number): number {
  return flag ? mask : 0;
}

export function isSet(word: number, mask: number): boolean {
  return (word & mask) !== 0;
}

/** Word 0: the type in the first four bits. */
export function encodeWord0(type: number, flags: readonly number[], writer: Writer): void {
  let word = type << 28;
  for (const flag of flags) word |= flag;
  writer.u32(word >>> 0, 'header');
}

export const TYPE = {
  mapRequest: 1,
  mapReply: 2,
  mapRegister: 3,
  mapNotify: 4,
  mapNotifyAck: 5,
  mapReferral: 6,
  info: 7,
  encapsulatedControl: 8,
  sharedExtension: 15,
} as const;
