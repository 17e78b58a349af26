/**
 * LISP messages octet by octet, with any bit and any count that a check wants to be wrong.
 *
 * This shares nothing with `proto/lisp`: a kit that builds and reads messages with the codecs under test would share
 * their mistakes. Layouts: RFC 9301 section 5, RFC 8060 (LCAF), RFC 9437 (publish/subscribe).
 */
import { type IpAddress, ipFamily, ipToBytes } from '../../proto/address.ts';

export type Octets = Uint8Array;

export const TYPE = {
  mapRequest: 1,
  mapReply: 2,
  mapRegister: 3,
  mapNotify: 4,
  mapNotifyAck: 5,
  mapReferral: 6,
  info: 7,
  ecm: 8,
} as const;

export const REQUEST = {
  A: 0x0800_0000,
  M: 0x0400_0000,
  P: 0x0200_0000,
  S: 0x0100_0000,
  p: 0x0080_0000,
  s: 0x0040_0000,
  m: 0x0020_0000,
  I: 0x0010_0000,
  L: 0x0000_4000,
  D: 0x0000_2000,
} as const;

export const REGISTER = {
  P: 0x0800_0000,
  S: 0x0400_0000,
  I: 0x0200_0000,
  E: 0x1000,
  T: 0x0800,
  a: 0x0400,
  m: 0x0200,
  M: 0x0100,
} as const;

export function u8(...values: readonly number[]): Octets {
  return Uint8Array.from(values);
}

export function u16(value: number): Octets {
  return u8((value >>> 8) & 0xff, value & 0xff);
}

export function u32(value: number): Octets {
  return u8((value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}

export function u64(value: bigint): Octets {
  const octets = new Uint8Array(8);
  new DataView(octets.buffer).setBigUint64(0, value);
  return octets;
}

export function join(...parts: readonly Octets[]): Octets {
  return new Uint8Array(Buffer.concat(parts));
}

/** An address with its AFI in front. */
export function ip(address: string): Octets {
  const value = address as IpAddress;
  return join(u16(ipFamily(value) === 4 ? 1 : 2), ipToBytes(value));
}

export const NO_ADDRESS: Octets = u16(0);

/** A distinguished name (RFC 9735). */
export function distinguishedName(text: string): Octets {
  return join(u16(17), Buffer.from(text, 'latin1'), u8(0));
}

export function lcaf(
  type: number,
  body: Octets,
  options: { flags?: number; rsvd2?: number; length?: number } = {},
): Octets {
  const { flags = 0, rsvd2 = 0, length = body.length } = options;
  return join(u16(AFI_LCAF), u8(0, flags, type, rsvd2), u16(length), body);
}

export function inInstance(instance: number, address: Octets): Octets {
  return lcaf(2, join(u32(instance), address));
}

export interface LocatorOptions {
  readonly priority?: number;
  readonly weight?: number;
  readonly multicastPriority?: number;
  readonly multicastWeight?: number;
  /** L 4, p 2, R 1, and the thirteen unused bits above. */
  readonly flags?: number;
}

export function locator(address: Octets, options: LocatorOptions = {}): Octets {
  const { priority = 1, weight = 100, multicastPriority = 255, multicastWeight = 0, flags = 5 } = options;
  return join(u8(priority, weight, multicastPriority, multicastWeight), u16(flags), address);
}

export interface RecordOptions {
  /** Minutes. */
  readonly ttl?: number;
  readonly maskLength?: number;
  readonly locators?: readonly Octets[];
  /** What the count says; the number of locators without it. */
  readonly locatorCount?: number;
  /** ACT (3 bits), A (1), reserved (12). */
  readonly word?: number;
  /** Reserved (4 bits) and Map-Version (12). */
  readonly version?: number;
}

/** An EID-record. `eid` has its AFI in front. */
export function record(eid: Octets, options: RecordOptions = {}): Octets {
  const { ttl = 3, maskLength = hostMask(eid), locators = [], locatorCount = locators.length } = options;
  const { word = 0x1000, version = 0 } = options;
  return join(u32(ttl), u8(locatorCount, maskLength), u16(word), u16(version), eid, ...locators);
}

export interface RequestOptions {
  readonly nonce: bigint;
  readonly flags?: number;
  readonly sourceEid?: Octets;
  readonly itrRlocs: readonly Octets[];
  /** What IRC says; one less than the number of ITR-RLOCs without it. */
  readonly irc?: number;
  readonly eid: Octets;
  readonly maskLength?: number;
  /** Bit N and the reserved ones. */
  readonly recordFlags?: number;
  readonly recordCount?: number;
  /** Further records behind the first. */
  readonly moreRecords?: readonly Octets[];
  /** The EID-record for M. */
  readonly mapData?: Octets;
  readonly trailer?: Octets;
}

export function mapRequest(options: RequestOptions): Octets {
  const { nonce, flags = 0, sourceEid = NO_ADDRESS, itrRlocs, eid } = options;
  const { irc = itrRlocs.length - 1, maskLength = hostMask(eid), recordFlags = 0, moreRecords = [] } = options;
  const { recordCount = 1 + moreRecords.length, mapData = u8(), trailer = u8() } = options;
  const word = ((TYPE.mapRequest << 28) | flags | ((irc & 0x1f) << 8) | recordCount) >>> 0;
  const query = join(u8(recordFlags, maskLength), eid);
  return join(u32(word), u64(nonce), sourceEid, ...itrRlocs, query, ...moreRecords, mapData, trailer);
}

/** A further record of a Map-Request. */
export function query(eid: Octets, maskLength = hostMask(eid)): Octets {
  return join(u8(0, maskLength), eid);
}

export interface AuthenticatedOptions {
  readonly type: number;
  readonly flags: number;
  readonly nonce: bigint;
  readonly keyId: number;
  readonly algorithm: number;
  readonly authentication: Octets;
  /** What the length field says. */
  readonly authenticationLength?: number;
  readonly records: readonly Octets[];
  readonly recordCount?: number;
  readonly trailer?: Octets;
}

/** Map-Register, Map-Notify or Map-Notify-Ack. */
export function authenticatedMessage(options: AuthenticatedOptions): Octets {
  const { type, flags, nonce, keyId, algorithm, authentication, records, trailer = u8() } = options;
  const { authenticationLength = authentication.length, recordCount = records.length } = options;
  const word = ((type << 28) | flags | recordCount) >>> 0;
  const head = join(u32(word), u64(nonce), u8(keyId, algorithm), u16(authenticationLength), authentication);
  return join(head, ...records, trailer);
}

export function xtrTrailer(xtrId: Octets, siteId = 0n): Octets {
  return join(xtrId, u64(siteId));
}

/** Mask length of a host, by the AFI in front; that of the address inside an LCAF 2. */
export function hostMask(address: Octets): number {
  const afi = ((address[0] ?? 0) << 8) | (address[1] ?? 0);
  if (afi === AFI_LCAF && address[4] === 2) return hostMask(address.subarray(12));
  return afi === 1 ? 32 : afi === 2 ? 128 : 0;
}

/** A copy in which `change` was made. */
export function altered(octets: Octets, change: (copy: Octets) => void): Octets {
  const copy = Uint8Array.from(octets);
  change(copy);
  return copy;
}

/** Offset of the authentication data in Map-Register, Map-Notify and Map-Notify-Ack. */
export const AUTHENTICATION_OFFSET = 16;

export const AFI_LCAF = 16387;
