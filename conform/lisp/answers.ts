/**
 * Reads what a target sends, leniently: whatever has a place is taken apart, also what should not be there, so that a
 * check can name it. Only what does not fit into the datagram is a `Malformed`.
 */
import { type IpAddress, type IpPrefix, ipFromBytes, ipPrefix, isIpAddress } from '../../proto/address.ts';
import { Deviation } from '../check.ts';
import type { Octets } from './octets.ts';
import { AFI_LCAF, TYPE } from './octets.ts';

export interface Answer {
  readonly type: number;
  readonly word: number;
  readonly nonce: bigint;
  readonly keyId: number;
  readonly algorithm: number;
  readonly authentication: Octets;
  readonly records: readonly AnswerRecord[];
  /** ITR-RLOCs of a Map-Request. */
  readonly itrRlocs: readonly Address[];
  /** End of the last record. */
  readonly recordsEnd: number;
  /** What follows the last record. */
  readonly trailer: Octets;
  readonly octets: Octets;
}

export interface AnswerRecord {
  /** Minutes. */
  readonly ttl: number;
  readonly maskLength: number;
  readonly action: number;
  readonly authoritative: boolean;
  readonly version: number;
  readonly eid: Address;
  readonly locators: readonly AnswerLocator[];
  /** N, of a record in a Map-Request. */
  readonly subscribes: boolean;
}

export interface AnswerLocator {
  readonly priority: number;
  readonly weight: number;
  readonly local: boolean;
  readonly probed: boolean;
  readonly reachable: boolean;
  readonly address: Address;
  /** The RLOC-record. */
  readonly octets: Octets;
}

export interface Address {
  readonly afi: number;
  /** Of an IP address, inside an LCAF 2 too; otherwise hexadecimal. */
  readonly text: string;
  readonly instance: number;
  /** With the AFI. */
  readonly octets: Octets;
}

/** @throws Deviation when the datagram does not hold what it says */
export function readAnswer(octets: Octets): Answer {
  const cursor = new Cursor(octets);
  const word = cursor.u32();
  const type = word >>> 28;
  if (type === TYPE.ecm) return { ...EMPTY, type, word, octets, trailer: octets.subarray(4) };
  const nonce = cursor.u64();
  if (type === TYPE.mapRequest) return readRequest(cursor, word, nonce, octets);
  const authenticated = AUTHENTICATED.has(type);
  const keyId = authenticated ? cursor.u8() : 0;
  const algorithm = authenticated ? cursor.u8() : 0;
  const authentication = authenticated ? cursor.take(cursor.u16()) : EMPTY.octets;
  const count = type === TYPE.info ? 0 : word & 0xff;
  const records = Array.from({ length: count }, () => readRecord(cursor));
  return {
    type,
    word,
    nonce,
    keyId,
    algorithm,
    authentication,
    records,
    itrRlocs: [],
    recordsEnd: cursor.offset,
    trailer: octets.subarray(cursor.offset),
    octets,
  };
}

/** Address and what is left behind it. @throws Deviation */
export function readAddressAt(octets: Octets, at: number): { readonly address: Address; readonly end: number } {
  const cursor = new Cursor(octets, at);
  return { address: readAddress(cursor, 0), end: cursor.offset };
}

/** What a record is about; undefined when that is no IP prefix. */
export function prefixOf({ eid, maskLength }: AnswerRecord): IpPrefix | undefined {
  if (!isIpAddress(eid.text) || maskLength > (eid.text.includes(':') ? 128 : 32)) return undefined;
  return ipPrefix(eid.text as IpAddress, maskLength);
}

export function describeAnswer({ type, records }: Answer): string {
  const name = Object.entries(TYPE).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
  return records.length === 0 ? name : `${name} of ${records.map(describeRecord).join(', ')}`;
}

export function describeRecord({ eid, maskLength, ttl, action, locators }: AnswerRecord): string {
  const rlocs = locators.map(({ address }) => address.text).join(' ');
  return `${eid.text}/${maskLength} (TTL ${ttl}, ${locators.length === 0 ? `action ${action}` : rlocs})`;
}

function readRequest(cursor: Cursor, word: number, nonce: bigint, octets: Octets): Answer {
  readAddress(cursor, 0);
  const itrRlocs = Array.from({ length: ((word >>> 8) & 0x1f) + 1 }, () => readAddress(cursor, 0));
  const records = Array.from({ length: word & 0xff }, (): AnswerRecord => {
    const subscribes = (cursor.u8() & 0x80) !== 0;
    const maskLength = cursor.u8();
    const eid = readAddress(cursor, 0);
    return { ttl: 0, maskLength, action: 0, authoritative: false, version: 0, eid, locators: [], subscribes };
  });
  const rest = { recordsEnd: cursor.offset, trailer: octets.subarray(cursor.offset), octets };
  return { ...EMPTY, type: TYPE.mapRequest, word, nonce, records, itrRlocs, ...rest };
}

function readRecord(cursor: Cursor): AnswerRecord {
  const ttl = cursor.u32();
  const locatorCount = cursor.u8();
  const maskLength = cursor.u8();
  const word = cursor.u16();
  const version = cursor.u16() & 0xfff;
  const eid = readAddress(cursor, 0);
  const locators = Array.from({ length: locatorCount }, (): AnswerLocator => {
    const start = cursor.offset;
    const priority = cursor.u8();
    const weight = cursor.u8();
    cursor.u16();
    const flags = cursor.u16();
    const address = readAddress(cursor, 0);
    return {
      priority,
      weight,
      local: (flags & 4) !== 0,
      probed: (flags & 2) !== 0,
      reachable: (flags & 1) !== 0,
      address,
      octets: cursor.since(start),
    };
  });
  return {
    ttl,
    maskLength,
    action: word >>> 13,
    authoritative: (word & 0x1000) !== 0,
    version,
    eid,
    locators,
    subscribes: false,
  };
}

function readAddress(cursor: Cursor, instance: number): Address {
  const start = cursor.offset;
  const afi = cursor.u16();
  if (afi !== AFI_LCAF) {
    const length = LENGTHS[afi];
    if (afi === 17) cursor.untilZero();
    else if (length === undefined) throw new Deviation(`an address of AFI ${afi} at octet ${start}`);
    else cursor.take(length);
    const octets = cursor.since(start);
    const text = afi === 1 || afi === 2 ? (ipFromBytes(octets.subarray(2)) as IpAddress) : hex(octets);
    return { afi, text, instance, octets };
  }
  cursor.u16();
  const type = cursor.u8();
  cursor.u8();
  const length = cursor.u16();
  const bodyStart = cursor.offset;
  cursor.take(length);
  const octets = cursor.since(start);
  if (type !== 2) return { afi, text: hex(octets), instance, octets };
  const inner = new Cursor(octets, bodyStart - start);
  const address = readAddressIn(inner, inner.u32());
  return { ...address, octets };
}

function readAddressIn(cursor: Cursor, instance: number): Address {
  return readAddress(cursor, instance);
}

function hex(octets: Octets): string {
  return Buffer.from(octets).toString('hex');
}

class Cursor {
  offset: number;
  private readonly octets: Octets;

  constructor(octets: Octets, offset = 0) {
    this.octets = octets;
    this.offset = offset;
  }

  take(length: number): Octets {
    if (this.offset + length > this.octets.length) {
      throw new Deviation(`a message of ${this.octets.length} octets that needs ${this.offset + length}`);
    }
    this.offset += length;
    return this.since(this.offset - length);
  }

  since(start: number): Octets {
    return this.octets.subarray(start, this.offset);
  }

  u8(): number {
    return this.take(1)[0] ?? 0;
  }

  u16(): number {
    return this.u8() * 256 + this.u8();
  }

  u32(): number {
    return this.u16() * 65536 + this.u16();
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  untilZero(): void {
    while (this.u8() !== 0);
  }
}

const AUTHENTICATED: ReadonlySet<number> = new Set([TYPE.mapRegister, TYPE.mapNotify, TYPE.mapNotifyAck, TYPE.info]);
const LENGTHS: Readonly<Record<number, number>> = { 0: 0, 1: 4, 2: 16, 6: 6, 16389: 6 };
const EMPTY = {
  nonce: 0n,
  keyId: 0,
  algorithm: 0,
  authentication: new Uint8Array(),
  records: [],
  itrRlocs: [],
  recordsEnd: 0,
  trailer: new Uint8Array(),
  octets: new Uint8Array(),
};
