/**
 * What is derived from an agent's tunnel public key: its xTR-ID and its agent address.
 * The one place besides `lisp/authentication.ts` where proto uses node:crypto.
 */
import { createHash } from 'node:crypto';
import { type IpAddress, type IpPrefix, ipFromBytes } from './address.ts';
import { DecodeError } from './errors.ts';
import type { TunnelKey, XtrId } from './mapping.ts';

/** The unique-local /64 of all agent addresses: `fd` followed by "Stayput" in ASCII. */
export const AGENT_PREFIX = 'fd53:7461:7970:7574::/64' as IpPrefix;

/** @throws DecodeError unless `text` is base64 of 32 octets */
export function parseTunnelKey(text: string): TunnelKey {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== 32 || bytes.toString('base64') !== text) {
    throw new DecodeError('tunnel key', 0, 'a tunnel key is 32 octets in base64');
  }
  return text as TunnelKey;
}

/** @throws DecodeError unless `text` is 32 hex digits */
export function parseXtrId(text: string): XtrId {
  if (!/^[0-9a-f]{32}$/.test(text)) throw new DecodeError('xTR-ID', 0, 'an xTR-ID is 32 lower-case hex digits');
  return text as XtrId;
}

/** A point with which anybody has the same secret (RFC 7748, 6.1): no key of anybody. Every way to write it counts. */
export function isOfSmallOrder(key: TunnelKey): boolean {
  const digits = Buffer.from(key, 'base64').reverse().toString('hex');
  const coordinate = BigInt.asUintN(255, BigInt(`0x${digits}`)) % FIELD;
  return SMALL_ORDER.has(coordinate);
}

export function tunnelKeyToBytes(key: TunnelKey): Uint8Array {
  return new Uint8Array(Buffer.from(key, 'base64'));
}

/** @throws DecodeError unless there are 32 octets */
export function tunnelKeyFromBytes(bytes: Uint8Array): TunnelKey {
  return parseTunnelKey(Buffer.from(bytes).toString('base64'));
}

export function xtrIdToBytes(id: XtrId): Uint8Array {
  return new Uint8Array(Buffer.from(id, 'hex'));
}

/** @throws DecodeError unless there are 16 octets */
export function xtrIdFromBytes(bytes: Uint8Array): XtrId {
  return parseXtrId(Buffer.from(bytes).toString('hex'));
}

/** First 128 bits of SHA-256 over a label and the key. */
export function xtrIdOf(key: TunnelKey): XtrId {
  return digest('stayput xtr-id', key).subarray(0, 16).toString('hex') as XtrId;
}

/** Of a site of LISP routers, which has no tunnel key: as that of an agent, over its name. */
export function siteXtrIdOf(name: string): XtrId {
  const hash = createHash('sha256').update('stayput site').update(name);
  return hash.digest().subarray(0, 16).toString('hex') as XtrId;
}

/** AGENT_PREFIX with the first 64 bits of SHA-256 over another label and the key. */
export function agentAddressOf(key: TunnelKey): IpAddress {
  const bytes = Buffer.concat([
    Buffer.from('fd53746179707574', 'hex'),
    digest('stayput agent address', key).subarray(0, 8),
  ]);
  return ipFromBytes(bytes);
}

function digest(label: string, key: TunnelKey): Buffer {
  return createHash('sha256').update(label).update(Buffer.from(key, 'base64')).digest();
}

/** Of Curve25519. */
const FIELD = 2n ** 255n - 19n;
/** The u-coordinates of the orders 1, 2, 4 and 8, on the curve and its twist (https://cr.yp.to/ecdh.html#validate). */
const SMALL_ORDER: ReadonlySet<bigint> = new Set([
  0n,
  1n,
  FIELD - 1n,
  325606250916557431795983626356110631294008115727848805560023387167927233504n,
  39382357235489614581723060781553021112529911719440698176882885853963445705823n,
]);
