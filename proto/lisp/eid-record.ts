/**
 * EID-record with its RLOC-records, as in Map-Reply, Map-Register and Map-Notify (RFC 9301 5.4).
 *
 * ```
 * | Record TTL (32), minutes; 0 = remove, 0xffffffff = receiver decides |
 * | Locator Count (8) | EID mask-len (8) | ACT (3) | A | Reserved (12)  |
 * | Rsvd (4) | Map-Version (12) | EID-Prefix-AFI (16) | EID-Prefix ...  |
 * Locator Count times:
 * | Priority (8) | Weight (8) | M Priority (8) | M Weight (8) |
 * | Unused Flags (13) | L | p | R | Loc-AFI (16) | Locator ...          |
 * ```
 */
import { type Reader, Writer, within } from '../bytes.ts';
import { decodeAddress, encodeAddress, type LispAddress } from './afi.ts';
import { bit, isSet } from './header.ts';

export interface EidRecord {
  /** Minutes. */
  readonly ttl: number;
  readonly eid: LispAddress;
  readonly maskLength: number;
  /** ACT, 0 to 7; means something only without locators. */
  readonly action: number;
  /** A: answered by an ETR, not by a map server for it. */
  readonly authoritative: boolean;
  readonly mapVersion: number;
  readonly locators: readonly RlocRecord[];
}

export interface RlocRecord {
  readonly priority: number;
  readonly weight: number;
  readonly multicastPriority: number;
  readonly multicastWeight: number;
  /** L: the locator belongs to the ETR that sent the record. */
  readonly local: boolean;
  /** p: this is the locator that the reply's probe was sent to. */
  readonly probed: boolean;
  /** R */
  readonly reachable: boolean;
  readonly locator: LispAddress;
}

export const TTL_RECEIVER_DECIDES = 0xffffffff;

export function decodeEidRecords(reader: Reader, count: number): EidRecord[] {
  reader.expect(count * SMALLEST_EID_RECORD, 'EID-records');
  return Array.from({ length: count }, () => decodeEidRecord(reader));
}

export function decodeEidRecord(reader: Reader): EidRecord {
  const ttl = reader.u32('record TTL');
  const locatorCount = reader.u8('locator count');
  const maskLength = reader.u8('EID mask-len');
  const flags = reader.u16('ACT');
  const mapVersion = reader.u16('map-version') & 0xfff;
  const eid = decodeAddress(reader, 'EID');
  return {
    ttl,
    eid,
    maskLength,
    action: flags >> 13,
    authoritative: isSet(flags, AUTHORITATIVE),
    mapVersion,
    locators: decodeRlocRecords(reader, locatorCount),
  };
}

export function encodeEidRecord(record: EidRecord, writer: Writer): void {
  writer
    .u32(record.ttl, 'record TTL')
    .u8(record.locators.length, 'locator count')
    .u8(record.maskLength, 'EID mask-len')
    .u16((within(record.action, 7, 'ACT') << 13) | bit(record.authoritative, AUTHORITATIVE), 'ACT')
    .u16(within(record.mapVersion, 0xfff, 'map-version'), 'map-version');
  encodeAddress(record.eid, writer);
  for (const rloc of record.locators) encodeRlocRecord(rloc, writer);
}

export function decodeRlocRecords(reader: Reader, count: number): RlocRecord[] {
  reader.expect(count * SMALLEST_RLOC_RECORD, 'RLOC-records');
  return Array.from({ length: count }, () => decodeRlocRecord(reader));
}

/** @throws EncodeError */
export function encodeRlocRecords(rlocs: readonly RlocRecord[]): Uint8Array {
  const writer = new Writer();
  for (const rloc of rlocs) encodeRlocRecord(rloc, writer);
  return writer.finish();
}

/** Octets on the wire. @throws EncodeError */
export function encodedRecordSize(record: EidRecord): number {
  const writer = new Writer();
  encodeEidRecord(record, writer);
  return writer.length;
}

function decodeRlocRecord(reader: Reader): RlocRecord {
  const priority = reader.u8('priority');
  const weight = reader.u8('weight');
  const multicastPriority = reader.u8('multicast priority');
  const multicastWeight = reader.u8('multicast weight');
  const flags = reader.u16('locator flags');
  return {
    priority,
    weight,
    multicastPriority,
    multicastWeight,
    local: isSet(flags, LOCAL),
    probed: isSet(flags, PROBED),
    reachable: isSet(flags, REACHABLE),
    locator: decodeAddress(reader, 'locator'),
  };
}

export function encodeRlocRecord(rloc: RlocRecord, writer: Writer): void {
  writer
    .u8(rloc.priority, 'priority')
    .u8(rloc.weight, 'weight')
    .u8(rloc.multicastPriority, 'multicast priority')
    .u8(rloc.multicastWeight, 'multicast weight')
    .u16(bit(rloc.local, LOCAL) | bit(rloc.probed, PROBED) | bit(rloc.reachable, REACHABLE), 'locator flags');
  encodeAddress(rloc.locator, writer);
}

const AUTHORITATIVE = 0x1000;
const LOCAL = 0x0004;
const PROBED = 0x0002;
const REACHABLE = 0x0001;
const SMALLEST_EID_RECORD = 12;
const SMALLEST_RLOC_RECORD = 8;
