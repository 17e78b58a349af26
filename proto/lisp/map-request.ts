/**
 * Map-Request (RFC 9301 5.2; I and N: RFC 9437).
 *
 * ```
 * |Type=1 |A|M|P|S|p|s|R|I|  Rsvd   |L|D|   IRC   | Record Count  |
 * |                             Nonce                             |
 * | Source-EID-AFI (16) | Source EID ...                          |
 * | ITR-RLOC-AFI (16)   | ITR-RLOC ...                            |   IRC + 1 times
 * |N| Rsvd (7) | EID mask-len (8) | EID-Prefix-AFI (16) | EID ... |   Record Count times
 * | EID-record                                                    |   when M
 * | xTR-ID (128) | Site-ID (64)                                   |   when I
 * ```
 *
 * M and I are set when `mapData` and `xtrId` are there. Reserved bits are ignored: lispers.net uses some.
 */
import { EncodeError, type Reader, type Writer, within } from '../bytes.ts';
import { decodeAddress, encodeAddress, type LispAddress } from './afi.ts';
import { decodeEidRecord, type EidRecord, encodeEidRecord } from './eid-record.ts';
import {
  bit,
  decodeNonce,
  decodeXtrTrailer,
  encodeWord0,
  encodeXtrTrailer,
  isSet,
  type Nonce,
  TYPE,
  type XtrTrailer,
} from './header.ts';

export interface MapRequest extends XtrTrailer {
  readonly type: 'map-request';
  /** A: only the ETR shall answer. */
  readonly authoritative: boolean;
  /** P: an RLOC-probe. */
  readonly probe: boolean;
  /** S: solicit-map-request. */
  readonly smr: boolean;
  /** p: sent by a proxy ITR. */
  readonly pitr: boolean;
  /** s: sent because of a solicit-map-request. */
  readonly smrInvoked: boolean;
  /** R (bit 10), "mobile node" in lisp-mn. */
  readonly mobileNode: boolean;
  /** L: the sender's xTR is in the site of the EID. */
  readonly localXtr: boolean;
  /** D: no Map-Reply wanted. */
  readonly dontReply: boolean;
  readonly nonce: Nonce;
  readonly sourceEid: LispAddress;
  /** 1 to 32. */
  readonly itrRlocs: readonly LispAddress[];
  readonly records: readonly EidQuery[];
  /** M: the sender's own mapping. To be verified before use. */
  readonly mapData?: EidRecord;
}

/** A plain Map-Request, no bit of the header set: what it asks, and who, is to be added. */
export const MAP_REQUEST = {
  type: 'map-request',
  authoritative: false,
  probe: false,
  smr: false,
  pitr: false,
  smrInvoked: false,
  mobileNode: false,
  localXtr: false,
  dontReply: false,
} as const satisfies Partial<MapRequest>;

export interface EidQuery {
  /** N: subscribe to changes of the mapping. */
  readonly notify: boolean;
  readonly maskLength: number;
  readonly eid: LispAddress;
}

export function decodeMapRequest(reader: Reader): MapRequest {
  const word = reader.u32('header');
  const requestNonce = decodeNonce(reader);
  const sourceEid = decodeAddress(reader, 'source EID');
  const itrRlocCount = ((word >>> 8) & 0x1f) + 1;
  reader.expect(itrRlocCount * 2, 'ITR-RLOCs');
  const itrRlocs = Array.from({ length: itrRlocCount }, () => decodeAddress(reader, 'ITR-RLOC'));
  const recordCount = word & 0xff;
  reader.expect(recordCount * SMALLEST_QUERY, 'records');
  const records = Array.from({ length: recordCount }, () => decodeQuery(reader));
  return {
    type: 'map-request',
    authoritative: isSet(word, A),
    probe: isSet(word, P),
    smr: isSet(word, S),
    pitr: isSet(word, PITR),
    smrInvoked: isSet(word, SMR_INVOKED),
    mobileNode: isSet(word, R),
    localXtr: isSet(word, L),
    dontReply: isSet(word, D),
    nonce: requestNonce,
    sourceEid,
    itrRlocs,
    records,
    ...(isSet(word, M) ? { mapData: decodeEidRecord(reader) } : {}),
    ...(isSet(word, I) ? decodeXtrTrailer(reader) : {}),
  };
}

export function encodeMapRequest(request: MapRequest, writer: Writer): void {
  if (request.itrRlocs.length < 1) throw new EncodeError('ITR-RLOC count', 'at least one is needed');
  encodeWord0(
    TYPE.mapRequest,
    [
      bit(request.authoritative, A),
      bit(request.mapData !== undefined, M),
      bit(request.probe, P),
      bit(request.smr, S),
      bit(request.pitr, PITR),
      bit(request.smrInvoked, SMR_INVOKED),
      bit(request.mobileNode, R),
      bit(request.xtrId !== undefined, I),
      bit(request.localXtr, L),
      bit(request.dontReply, D),
      within(request.itrRlocs.length - 1, 0x1f, 'ITR-RLOC count') << 8,
      within(request.records.length, 0xff, 'record count'),
    ],
    writer,
  );
  writer.u64(request.nonce, 'nonce');
  encodeAddress(request.sourceEid, writer);
  for (const rloc of request.itrRlocs) encodeAddress(rloc, writer);
  for (const query of request.records) {
    writer.u8(bit(query.notify, N), 'record flags').u8(query.maskLength, 'EID mask-len');
    encodeAddress(query.eid, writer);
  }
  if (request.mapData !== undefined) encodeEidRecord(request.mapData, writer);
  encodeXtrTrailer(request, writer);
}

function decodeQuery(reader: Reader): EidQuery {
  const flags = reader.u8('record flags');
  return {
    notify: isSet(flags, N),
    maskLength: reader.u8('EID mask-len'),
    eid: decodeAddress(reader, 'EID'),
  };
}

const A = 0x0800_0000;
const M = 0x0400_0000;
const P = 0x0200_0000;
const S = 0x0100_0000;
const PITR = 0x0080_0000;
const SMR_INVOKED = 0x0040_0000;
const R = 0x0020_0000;
const I = 0x0010_0000;
const L = 0x0000_4000;
const D = 0x0000_2000;
const N = 0x80;
const SMALLEST_QUERY = 4;
