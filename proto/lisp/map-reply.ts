/**
 * Map-Reply (RFC 9301 5.4).
 *
 * ```
 * |Type=2 |P|E|S|          Reserved               | Record Count  |
 * |                             Nonce                             |   of the Map-Request
 * | EID-records                                                   |
 * | LISP-SEC authentication data, see security-data.ts            |   when S
 * ```
 */
import { type Reader, type Writer, within } from '../bytes.ts';
import { decodeEidRecords, type EidRecord, encodeEidRecord } from './eid-record.ts';
import { bit, decodeNonce, encodeWord0, isSet, type Nonce, TYPE } from './header.ts';
import { decodeReplySecurity, encodeReplySecurity, type LispSecReply } from './security-data.ts';

export interface MapReply {
  readonly type: 'map-reply';
  /** P: answers an RLOC-probe. */
  readonly probe: boolean;
  /** E: the sender answers echo-nonce requests. */
  readonly echoNonce: boolean;
  readonly nonce: Nonce;
  readonly records: readonly EidRecord[];
  /** S */
  readonly security?: LispSecReply;
}

export function decodeMapReply(reader: Reader): MapReply {
  const word = reader.u32('header');
  return {
    type: 'map-reply',
    probe: isSet(word, P),
    echoNonce: isSet(word, E),
    nonce: decodeNonce(reader),
    records: decodeEidRecords(reader, word & 0xff),
    ...(isSet(word, S) ? { security: decodeReplySecurity(reader) } : {}),
  };
}

export function encodeMapReply(reply: MapReply, writer: Writer): void {
  encodeWord0(
    TYPE.mapReply,
    [
      bit(reply.probe, P),
      bit(reply.echoNonce, E),
      bit(reply.security !== undefined, S),
      within(reply.records.length, 0xff, 'record count'),
    ],
    writer,
  );
  writer.u64(reply.nonce, 'nonce');
  for (const record of reply.records) encodeEidRecord(record, writer);
  if (reply.security !== undefined) encodeReplySecurity(reply.security, writer);
}

const P = 0x0800_0000;
const E = 0x0400_0000;
const S = 0x0200_0000;
