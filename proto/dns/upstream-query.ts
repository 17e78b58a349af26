/** What upstream servers are asked, and what tells whether something is the answer to it. */
import { concat, viewOf } from '../bytes.ts';
import { FLAG, HEADER_SIZE } from './header.ts';
import { type DnsQuery, type DnsQuestion, requestFlags } from './message.ts';
import { optRecord } from './opt.ts';

/**
 * What is asked of an upstream; its ID and OPT are ours, and so is the case of the name's letters (0x20), which the
 * answer must have as well: each bit of `randomCase` decides about one.
 */
export function encodeUpstreamQuery(
  query: DnsQuery,
  id: number,
  edns: boolean,
  randomCase?: (letter: number) => boolean,
): Uint8Array {
  const head = new Uint8Array(HEADER_SIZE);
  const view = viewOf(head);
  view.setUint16(0, id);
  view.setUint16(2, requestFlags(query));
  view.setUint16(4, 1);
  view.setUint16(10, edns ? 1 : 0);
  const opt = edns ? optRecord(0, query.edns?.dnssecOk ?? false, new Uint8Array(0)) : new Uint8Array(0);
  const question = randomCase === undefined ? query.question.bytes : mixedCase(query.question.bytes, randomCase);
  return concat([head, question, opt]);
}

/** The octets of the question in a message that `encodeUpstreamQuery` made, or an answer to one. */
export function questionOctets(packet: Uint8Array, question: DnsQuestion): Uint8Array {
  return packet.subarray(HEADER_SIZE, HEADER_SIZE + question.bytes.length);
}

/** ID and QR of what may be an answer, to tell strangers from a damaged answer. */
export function answersId(packet: Uint8Array, id: number): boolean {
  if (packet.length < HEADER_SIZE) return false;
  const view = viewOf(packet);
  return view.getUint16(0) === id && (view.getUint16(2) & FLAG.qr) !== 0;
}

/** RCODE of an answer whose header is there; a server may leave the question out of a FORMERR. */
export function headerRcode(packet: Uint8Array): number {
  return (packet[3] ?? 0) & 0xf;
}

function mixedCase(question: Uint8Array, upper: (letter: number) => boolean): Uint8Array {
  const mixed = new Uint8Array(question);
  for (let start = 0, length = mixed[0] ?? 0; length > 0; start += 1 + length, length = mixed[start] ?? 0) {
    for (let i = start + 1; i <= start + length; i++) {
      const lower = (mixed[i] ?? 0) | 0x20;
      if (lower >= 0x61 && lower <= 0x7a) mixed[i] = upper(i) ? lower ^ 0x20 : lower;
    }
  }
  return mixed;
}
