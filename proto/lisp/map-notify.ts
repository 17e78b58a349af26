/**
 * Map-Notify and Map-Notify-Ack (RFC 9301 5.7).
 *
 * ```
 * |Type=4 |I|R|              Reserved               | Record Count |   Type 5: Map-Notify-Ack
 * |                             Nonce                              |
 * |    Key ID     | Algorithm ID  |  Authentication Data Length    |
 * | Authentication Data ...                                        |
 * | EID-records                                                    |
 * | xTR-ID (128) | Site-ID (64)                                    |   when I
 * | MS-RTR Key ID (16) | Length (16) | MS-RTR Authentication Data   |   when R
 * ```
 *
 * I is of the drafts before RFC 9301 and set when `xtrId` is there; R is of the NAT traversal draft. lispers.net
 * appends the trailer and leaves I clear: whatever follows the records then is kept in `trailer`, because its
 * authentication covers it.
 */
import { EncodeError, type Reader, Writer, within } from '../bytes.ts';
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

export interface MapNotify extends NotifyBody {
  readonly type: 'map-notify';
}

export interface MapNotifyAck extends NotifyBody {
  readonly type: 'map-notify-ack';
}

export interface NotifyBody extends XtrTrailer {
  readonly nonce: Nonce;
  readonly authentication: Authentication;
  readonly records: readonly EidRecord[];
  /** R: of a map server for the RTR that relays this, by a key that the two share. */
  readonly msRtr?: MsRtrData;
  /** Octets behind the records without the I and R flags; not together with `xtrId` or `msRtr`. */
  readonly trailer?: Uint8Array;
}

export interface MsRtrData {
  readonly keyId: number;
  readonly data: Uint8Array;
}

export function decodeMapNotify(reader: Reader): MapNotify {
  return { type: 'map-notify', ...decodeBody(reader) };
}

export function decodeMapNotifyAck(reader: Reader): MapNotifyAck {
  return { type: 'map-notify-ack', ...decodeBody(reader) };
}

export function encodeMapNotify(notify: MapNotify | MapNotifyAck, writer: Writer): void {
  encodeAround(notify, notify.records.length, writer, () => {
    for (const record of notify.records) encodeEidRecord(record, writer);
  });
}

/** The same of records that are encoded already, as by `encodeEidRecord`. @throws EncodeError */
export function encodeMapNotifyOf(notify: Omit<MapNotify, 'records'>, records: readonly Uint8Array[]): Uint8Array {
  const writer = new Writer();
  encodeAround(notify, records.length, writer, () => {
    for (const record of records) writer.bytes(record);
  });
  return writer.finish();
}

function encodeAround(
  notify: Omit<MapNotify | MapNotifyAck, 'records'>,
  recordCount: number,
  writer: Writer,
  encodeRecords: () => void,
): void {
  if (notify.trailer !== undefined && (notify.xtrId !== undefined || notify.msRtr !== undefined)) {
    throw new EncodeError('trailer', 'cannot be together with an xTR-ID or MS-RTR authentication');
  }
  encodeWord0(
    notify.type === 'map-notify' ? TYPE.mapNotify : TYPE.mapNotifyAck,
    [bit(notify.xtrId !== undefined, I), bit(notify.msRtr !== undefined, R), within(recordCount, 0xff, 'record count')],
    writer,
  );
  writer.u64(notify.nonce, 'nonce');
  encodeAuthentication(notify.authentication, writer);
  encodeRecords();
  encodeXtrTrailer(notify, writer);
  const { msRtr } = notify;
  if (msRtr !== undefined) {
    if (notify.xtrId !== undefined && notify.siteId === undefined) {
      throw new EncodeError('site ID', 'is needed between an xTR-ID and MS-RTR authentication');
    }
    writer.u16(msRtr.keyId, 'MS-RTR key ID').u16(msRtr.data.length, 'MS-RTR data length').bytes(msRtr.data);
  }
  if (notify.trailer !== undefined) writer.bytes(notify.trailer);
}

function decodeBody(reader: Reader): NotifyBody {
  const word = reader.u32('header');
  const body = {
    nonce: decodeNonce(reader),
    authentication: decodeAuthentication(reader),
    records: decodeEidRecords(reader, word & 0xff),
  };
  if (isSet(word, I | R)) {
    return {
      ...body,
      ...(isSet(word, I) ? decodeXtrTrailer(reader) : {}),
      ...(isSet(word, R) ? { msRtr: decodeMsRtr(reader) } : {}),
    };
  }
  return reader.remaining === 0 ? body : { ...body, trailer: reader.rest() };
}

function decodeMsRtr(reader: Reader): MsRtrData {
  const keyId = reader.u16('MS-RTR key ID');
  return { keyId, data: reader.bytes(reader.u16('MS-RTR data length'), 'MS-RTR data') };
}

const I = 0x0800_0000;
const R = 0x0400_0000;
