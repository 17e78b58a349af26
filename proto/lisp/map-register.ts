/**
 * Map-Register (RFC 9301 5.6).
 *
 * ```
 * |Type=3 |P|S|I|       Reserved        |E|T|a|R|M| Record Count  |
 * |                             Nonce                             |   larger in each Map-Register
 * |    Key ID     | Algorithm ID  |  Authentication Data Length   |
 * | Authentication Data ...                                       |
 * | EID-records                                                   |
 * | xTR-ID (128) | Site-ID (64)                                   |   when I
 * ```
 *
 * I is set when `xtrId` is there. Reserved bits are ignored: OOR and lispers.net use some.
 */
import { type Reader, type Writer, within } from '../bytes.ts';
import { type Authentication, decodeAuthentication, encodeAuthentication } from './authentication-data.ts';
import { decodeEidRecords, type EidRecord, encodeEidRecord } from './eid-record.ts';
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

export interface MapRegister extends XtrTrailer {
  readonly type: 'map-register';
  /** P: the map server shall answer Map-Requests itself. */
  readonly proxyReply: boolean;
  /** S: the ETR can do LISP-SEC. */
  readonly securityCapable: boolean;
  /** E: from a first-hop router that saw the EID arrive (eid-mobility). */
  readonly eidNotify: boolean;
  /** T: the registration lives as long as the record's TTL. */
  readonly useTtl: boolean;
  /** a: merge with the registrations of other xTRs. */
  readonly merge: boolean;
  /** R (bit 22), "mobile node" in lisp-mn. */
  readonly mobileNode: boolean;
  /** M: a Map-Notify is wanted. */
  readonly wantMapNotify: boolean;
  readonly nonce: Nonce;
  readonly authentication: Authentication;
  readonly records: readonly EidRecord[];
}

/** A Map-Register that asks to be acknowledged (M) and answered for (P), no other bit of the header set. */
export const MAP_REGISTER = {
  type: 'map-register',
  proxyReply: true,
  securityCapable: false,
  eidNotify: false,
  useTtl: false,
  merge: false,
  mobileNode: false,
  wantMapNotify: true,
} as const satisfies Partial<MapRegister>;

export function decodeMapRegister(reader: Reader): MapRegister {
  const word = reader.u32('header');
  return {
    type: 'map-register',
    proxyReply: isSet(word, P),
    securityCapable: isSet(word, S),
    eidNotify: isSet(word, E),
    useTtl: isSet(word, T),
    merge: isSet(word, MERGE),
    mobileNode: isSet(word, R),
    wantMapNotify: isSet(word, M),
    nonce: decodeNonce(reader),
    authentication: decodeAuthentication(reader),
    records: decodeEidRecords(reader, word & 0xff),
    ...(isSet(word, I) ? decodeXtrTrailer(reader) : {}),
  };
}

export function encodeMapRegister(register: MapRegister, writer: Writer): void {
  encodeWord0(
    TYPE.mapRegister,
    [
      bit(register.proxyReply, P),
      bit(register.securityCapable, S),
      bit(register.xtrId !== undefined, I),
      bit(register.eidNotify, E),
      bit(register.useTtl, T),
      bit(register.merge, MERGE),
      bit(register.mobileNode, R),
      bit(register.wantMapNotify, M),
      within(register.records.length, 0xff, 'record count'),
    ],
    writer,
  );
  writer.u64(register.nonce, 'nonce');
  encodeAuthentication(register.authentication, writer);
  for (const record of register.records) encodeEidRecord(record, writer);
  encodeXtrTrailer(register, writer);
}

const P = 0x0800_0000;
const S = 0x0400_0000;
const I = 0x0200_0000;
const E = 0x0000_1000;
const T = 0x0000_0800;
const MERGE = 0x0000_0400;
const R = 0x0000_0200;
const M = 0x0000_0100;
