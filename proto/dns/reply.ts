/**
 * What clients are answered with: records of our own, or what an upstream said, within the size that the client takes.
 *
 * The question is copied from the octets that arrived (`message.ts`), and the OPT is ours.
 */
import type { IpAddress } from '../address.ts';
import { concat, viewOf } from '../bytes.ts';
import { FLAG, HEADER_SIZE, OPCODE_MASK } from './header.ts';
import {
  type DnsMessage,
  type DnsQuery,
  type DnsQuestion,
  type DnsTransport,
  MAX_TCP,
  RCODE,
  requestFlags,
} from './message.ts';
import { encodeLabels } from './name.ts';
import { MAX_UDP, optRecord } from './opt.ts';

/** Seconds, for records that are older than they said (RFC 8767 section 4). */
export const STALE_TTL = 30;

export type DnsRecordData =
  | { readonly type: 'A' | 'AAAA'; readonly address: IpAddress }
  | { readonly type: 'PTR' | 'NS' | 'CNAME'; readonly target: string }
  | {
      readonly type: 'SRV';
      readonly priority: number;
      readonly weight: number;
      readonly port: number;
      readonly target: string;
    }
  /** ASCII. */
  | { readonly type: 'TXT'; readonly text: string }
  | { readonly type: 'SOA'; readonly primary: string; readonly mailbox: string; readonly minimum: number }
  /** Of any type, as octets without compressed names. */
  | { readonly type: 'other'; readonly number: number; readonly data: Uint8Array };

export type DnsRecord = DnsRecordData & {
  /** The owner is QNAME without this many labels on its left. */
  readonly ownerSkip: number;
  /** The owner, when it is no part of QNAME: a whole domain name. */
  readonly owner?: string;
  /** Seconds. */
  readonly ttl: number;
};

export interface DnsReply {
  readonly rcode: number;
  readonly authoritative: boolean;
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  /** As many as there is room for. */
  readonly additionals?: readonly DnsRecord[];
  readonly extendedError?: { readonly code: number; readonly text: string };
}

/** TYPE, CLASS, TTL, RDLENGTH and RDATA of a record, that is all but its owner. */
export type RecordEncoder = (record: DnsRecord) => Uint8Array;

/** The largest answer that the client can take. */
export function replyLimit(query: DnsQuery, transport: DnsTransport): number {
  if (transport === 'tcp') return MAX_TCP;
  return query.edns === undefined ? MIN_UDP : Math.min(MAX_UDP, Math.max(MIN_UDP, query.edns.udpSize));
}

/** TC=1 and no records when an RRset does not fit (RFC 2181 section 9); the extended error goes first. */
export function encodeReply(query: DnsQuery, reply: DnsReply, limit: number, encodeRecord: RecordEncoder): Uint8Array {
  const encoded = (record: DnsRecord): Uint8Array => {
    const { owner, ownerSkip } = record;
    const name = owner === undefined ? ownerPointer(query.question, ownerSkip) : encodeLabels(owner.split('.'));
    return concat([name, encodeRecord(record)]);
  };
  const parts = [...reply.answers, ...reply.authorities].map(encoded);
  const base = HEADER_SIZE + query.question.bytes.length + total(parts);
  const explained = encodeOpt(query, reply.rcode, reply.extendedError);
  const opt = base + explained.length <= limit ? explained : encodeOpt(query, reply.rcode, undefined);
  const fits = base + opt.length <= limit;
  const extra = fits ? leading((reply.additionals ?? []).map(encoded), limit - base - opt.length) : [];
  const flags = (reply.authoritative ? FLAG.aa : 0) | (fits ? 0 : FLAG.tc) | (reply.rcode & 0xf);
  const counts = fits ? [reply.answers.length, reply.authorities.length, extra.length] : [];
  return concat([header(query, flags, counts, opt), query.question.bytes, ...(fits ? parts : []), ...extra, opt]);
}

/**
 * An upstream's answer for one client: its ID, question and OPT, TTLs lowered by `age` seconds. With `stale` the answer
 * is older than it said: TTLs are those of RFC 8767 section 4, and the extended error says so where there is room.
 */
export function renderMessage(
  message: DnsMessage,
  query: DnsQuery,
  age: number,
  authenticData: boolean,
  limit: number,
  stale?: DnsReply['extendedError'],
): Uint8Array {
  const explained = encodeOpt(query, message.rcode, stale);
  const opt = message.bytes.length + explained.length <= limit ? explained : encodeOpt(query, message.rcode, undefined);
  const required = message.answerCount + message.authorityCount;
  const requiredEnd = message.records[required - 1]?.end ?? HEADER_SIZE + query.question.bytes.length;
  const whole = message.bytes.length + opt.length <= limit;
  const fits = requiredEnd + opt.length <= limit;
  const flags = (authenticData ? FLAG.ad : 0) | (fits ? 0 : FLAG.tc) | (message.rcode & 0xf);
  const kept = whole ? message.records : fits ? message.records.slice(0, required) : [];
  const counts = fits ? [message.answerCount, message.authorityCount] : [0, 0];
  const body = new Uint8Array(message.bytes.subarray(0, kept.at(-1)?.end ?? HEADER_SIZE + query.question.bytes.length));
  const head = header(query, flags, counts, opt);
  viewOf(head).setUint16(10, kept.length - (fits ? required : 0) + (opt.length > 0 ? 1 : 0));
  body.set(head);
  body.set(query.question.bytes, HEADER_SIZE);
  const view = viewOf(body);
  for (const record of kept) {
    view.setUint32(record.ttlOffset, stale === undefined ? Math.max(0, record.ttl - age) : STALE_TTL);
  }
  return concat([body, opt]);
}

/** SERVFAIL to a question of which nothing is trusted but its octets. */
export function servFailTo(packet: Uint8Array): Uint8Array {
  let end = HEADER_SIZE;
  for (let length = packet[end] ?? 0; length > 0 && length < 64; length = packet[end] ?? 0) end += 1 + length;
  const whole = end + 5 <= packet.length && packet[end] === 0;
  const reply = new Uint8Array(whole ? end + 5 : HEADER_SIZE);
  const view = viewOf(reply);
  const request = viewOf(packet);
  view.setUint16(0, request.getUint16(0));
  view.setUint16(2, FLAG.qr | (request.getUint16(2) & (OPCODE_MASK | FLAG.rd | FLAG.cd)) | FLAG.ra | RCODE.servFail);
  view.setUint16(4, whole ? 1 : 0);
  if (whole) reply.set(packet.subarray(HEADER_SIZE, end + 5), HEADER_SIZE);
  return reply;
}

function ownerPointer(question: DnsQuestion, skip: number): Uint8Array {
  if (skip >= question.labels.length) return new Uint8Array(1);
  const offset = question.labels.slice(0, skip).reduce((sum, label) => sum + 1 + label.length, HEADER_SIZE);
  return Uint8Array.of(0xc0 | (offset >> 8), offset & 0xff);
}

function header(query: DnsQuery, flags: number, counts: readonly number[], opt: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE);
  const view = viewOf(bytes);
  view.setUint16(0, query.id);
  view.setUint16(2, FLAG.qr | FLAG.ra | (requestFlags(query) & (FLAG.rd | FLAG.cd)) | flags);
  view.setUint16(4, 1);
  view.setUint16(6, counts[0] ?? 0);
  view.setUint16(8, counts[1] ?? 0);
  view.setUint16(10, (counts[2] ?? 0) + (opt.length > 0 ? 1 : 0));
  return bytes;
}

function encodeOpt(query: DnsQuery, rcode: number, error: DnsReply['extendedError']): Uint8Array {
  if (query.edns === undefined) return new Uint8Array(0);
  if (error === undefined) return optRecord(rcode >> 4, query.edns.dnssecOk, new Uint8Array(0));
  const option = new Uint8Array(6 + error.text.length);
  const view = viewOf(option);
  view.setUint16(0, OPTION_EDE);
  view.setUint16(2, 2 + error.text.length);
  view.setUint16(4, error.code);
  for (let i = 0; i < error.text.length; i++) option[6 + i] = error.text.charCodeAt(i) & 0x7f;
  return optRecord(rcode >> 4, query.edns.dnssecOk, option);
}

/** The first of them, as many as have room. */
function leading(parts: readonly Uint8Array[], room: number): Uint8Array[] {
  const kept: Uint8Array[] = [];
  for (const part of parts) {
    if (total(kept) + part.length > room) break;
    kept.push(part);
  }
  return kept;
}

function total(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

const MIN_UDP = 512;
/** Extended DNS errors (RFC 8914). */
const OPTION_EDE = 15;
