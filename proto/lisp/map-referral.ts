/**
 * Map-Referral of LISP-DDT (RFC 8111 6.4): where to ask on for an EID.
 *
 * ```
 * |Type=6 |                Reserved               | Record Count  |
 * |                             Nonce                             |   of the Map-Request
 * Record Count times:
 * | Record TTL (32), minutes                                      |
 * | Referral Count (8) | EID mask-len (8) | ACT (3) | A | I | Rsvd (11) |
 * | SigCnt (4) | Map-Version (12) | EID-Prefix-AFI (16) | EID-Prefix ... |
 * | referral, as an RLOC-record (eid-record.ts)                   |   Referral Count times
 * | Original Record TTL (32)                                      |   SigCnt times, to the signature
 * | Signature Expiration (32)                                     |
 * | Signature Inception (32)                                      |
 * | Key Tag (16)          | Sig Length (16)                       |
 * | Sig-Algorithm (8)     | Reserved (24)                         |
 * | Signature ...                                                 |
 * ```
 */
import { type Reader, type Writer, within } from '../bytes.ts';
import { decodeAddress, encodeAddress, type LispAddress } from './afi.ts';
import { decodeRlocRecords, encodeRlocRecord, type RlocRecord } from './eid-record.ts';
import { bit, decodeNonce, encodeWord0, isSet, type Nonce, TYPE } from './header.ts';

export interface MapReferral {
  readonly type: 'map-referral';
  readonly nonce: Nonce;
  readonly records: readonly ReferralRecord[];
}

export interface ReferralRecord {
  /** Minutes. */
  readonly ttl: number;
  readonly eid: LispAddress;
  readonly maskLength: number;
  /** ACT, 0 to 7, by REFERRAL_ACTIONS. */
  readonly action: number;
  /** A: the DDT node is authoritative for the EID-prefix. */
  readonly authoritative: boolean;
  /** I: the referral set may lack some. */
  readonly incomplete: boolean;
  readonly mapVersion: number;
  /** DDT nodes or map servers. */
  readonly referrals: readonly RlocRecord[];
  /** At most 15. */
  readonly signatures: readonly ReferralSignature[];
}

export interface ReferralSignature {
  readonly originalTtl: number;
  /** Seconds since 1970, as the inception. */
  readonly expiration: number;
  readonly inception: number;
  readonly keyTag: number;
  /** 1 RSA-SHA1, 2 RSA-SHA256. */
  readonly algorithm: number;
  readonly signature: Uint8Array;
}

/** By their ACT codes. */
export const REFERRAL_ACTIONS = [
  'node-referral',
  'ms-referral',
  'ms-ack',
  'ms-not-registered',
  'delegation-hole',
  'not-authoritative',
] as const;

export function decodeMapReferral(reader: Reader): MapReferral {
  const word = reader.u32('header');
  const nonce = decodeNonce(reader);
  const count = word & 0xff;
  reader.expect(count * SMALLEST_RECORD, 'referral records');
  return { type: 'map-referral', nonce, records: Array.from({ length: count }, () => decodeRecord(reader)) };
}

export function encodeMapReferral(referral: MapReferral, writer: Writer): void {
  encodeWord0(TYPE.mapReferral, [within(referral.records.length, 0xff, 'record count')], writer);
  writer.u64(referral.nonce, 'nonce');
  for (const record of referral.records) encodeRecord(record, writer);
}

function decodeRecord(reader: Reader): ReferralRecord {
  const ttl = reader.u32('record TTL');
  const referralCount = reader.u8('referral count');
  const maskLength = reader.u8('EID mask-len');
  const flags = reader.u16('ACT');
  const version = reader.u16('map-version');
  const eid = decodeAddress(reader, 'EID');
  const referrals = decodeRlocRecords(reader, referralCount);
  const signatureCount = version >>> 12;
  reader.expect(signatureCount * SMALLEST_SIGNATURE, 'signatures');
  return {
    ttl,
    eid,
    maskLength,
    action: flags >>> 13,
    authoritative: isSet(flags, A),
    incomplete: isSet(flags, I),
    mapVersion: version & 0xfff,
    referrals,
    signatures: Array.from({ length: signatureCount }, () => decodeSignature(reader)),
  };
}

function encodeRecord(record: ReferralRecord, writer: Writer): void {
  const act = within(record.action, 7, 'ACT') << 13;
  const signatureCount = within(record.signatures.length, 0xf, 'signature count');
  writer
    .u32(record.ttl, 'record TTL')
    .u8(record.referrals.length, 'referral count')
    .u8(record.maskLength, 'EID mask-len')
    .u16(act | bit(record.authoritative, A) | bit(record.incomplete, I), 'ACT')
    .u16((signatureCount << 12) | within(record.mapVersion, 0xfff, 'map-version'), 'map-version');
  encodeAddress(record.eid, writer);
  for (const referral of record.referrals) encodeRlocRecord(referral, writer);
  for (const signature of record.signatures) encodeSignature(signature, writer);
}

function decodeSignature(reader: Reader): ReferralSignature {
  const originalTtl = reader.u32('original record TTL');
  const expiration = reader.u32('signature expiration');
  const inception = reader.u32('signature inception');
  const keyTag = reader.u16('key tag');
  const length = reader.u16('signature length');
  const algorithm = reader.u8('signature algorithm');
  reader.skip(3, 'reserved');
  const signature = reader.bytes(length, 'signature');
  return { originalTtl, expiration, inception, keyTag, algorithm, signature };
}

function encodeSignature(signature: ReferralSignature, writer: Writer): void {
  writer
    .u32(signature.originalTtl, 'original record TTL')
    .u32(signature.expiration, 'signature expiration')
    .u32(signature.inception, 'signature inception')
    .u16(signature.keyTag, 'key tag')
    .u16(signature.signature.length, 'signature length')
    .u8(signature.algorithm, 'signature algorithm')
    .u24(0, 'reserved')
    .bytes(signature.signature);
}

const A = 0x1000;
const I = 0x0800;
const SMALLEST_RECORD = 12;
const SMALLEST_SIGNATURE = 20;
