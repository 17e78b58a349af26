/** Message authentication codes of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 5.6, RFC 4868, RFC 5869). */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import type { Answer } from './answers.ts';
import { AUTHENTICATION_OFFSET, altered, type Octets, TYPE } from './octets.ts';

export const ALGORITHMS = { sha1: 1, sha256: 2, hkdf: 3 } as const;

export interface SiteKey {
  readonly keyId: number;
  readonly algorithm: number;
  readonly secret: Octets;
}

/** Octets of the code by RFC 9301, and of the whole digest, as deployed implementations send it. */
export function codeLengths(algorithm: number): { readonly rfc: number; readonly whole: number } {
  return algorithm === ALGORITHMS.sha1 ? { rfc: 12, whole: 20 } : { rfc: 16, whole: 32 };
}

/** `message` with its authentication data filled in; the code covers the octets before `end`. */
export function seal(message: Octets, key: SiteKey, end = message.length): Octets {
  const length = ((message[14] ?? 0) << 8) | (message[15] ?? 0);
  const code = codeOf(message, length, key, end).subarray(0, length);
  return altered(message, (copy) => copy.set(code, AUTHENTICATION_OFFSET));
}

/** What the code of an answer covers when it is right: RFC 9301's records, or the whole payload. */
export function codeCovers(answer: Answer, key: SiteKey): 'records' | 'payload' | 'nothing' {
  const { authentication, octets, recordsEnd } = answer;
  const { rfc, whole } = codeLengths(key.algorithm);
  if (authentication.length < rfc || authentication.length > whole) return 'nothing';
  const right = (end: number): boolean =>
    timingSafeEqual(authentication, codeOf(octets, authentication.length, key, end).subarray(0, authentication.length));
  if (right(recordsEnd)) return 'records';
  return right(octets.length) ? 'payload' : 'nothing';
}

function codeOf(message: Octets, length: number, key: SiteKey, end: number): Octets {
  const zeroed = altered(message, (copy) => copy.fill(0, AUTHENTICATION_OFFSET, AUTHENTICATION_OFFSET + length));
  const hash = key.algorithm === ALGORITHMS.sha1 ? 'sha1' : 'sha256';
  return new Uint8Array(createHmac(hash, keyFor(message, key)).update(zeroed.subarray(0, end)).digest());
}

function keyFor(message: Octets, { algorithm, secret }: SiteKey): Octets {
  if (algorithm !== ALGORITHMS.hkdf) return secret;
  const salt = SALTS[(message[0] ?? 0) >>> 4] ?? '';
  return new Uint8Array(hkdfSync('sha256', Buffer.concat([message.subarray(4, 12), secret]), salt, '', 32));
}

const SALTS: Readonly<Record<number, string>> = {
  [TYPE.mapRegister]: 'Map-Register Authentication',
  [TYPE.mapNotify]: 'Map-Notify Authentication',
  [TYPE.mapNotifyAck]: 'Map-Notify-Ack Authentication',
};
