/**
 * The octets of DNS messages (RFC 1035 section 4), read without trusting any count or length in them.
 *
 *     0               1               2               3
 *     +-------ID------+QR Opcode AA TC RD RA Z AD CD RCODE
 *     +----QDCOUNT----+----ANCOUNT----+
 *     +----NSCOUNT----+----ARCOUNT----+
 *     QNAME (labels, at most 255 octets), QTYPE 16, QCLASS 16
 *     resource records: owner, TYPE 16, CLASS 16, TTL 32, RDLENGTH 16, RDATA
 *
 * A question is kept as the octets that arrived and is copied into the answer, so the case of the name (0x20)
 * and labels with unusual octets survive. What upstream servers say is forwarded as octets too: only the ID,
 * the flags, the question and the TTLs are rewritten, so every record type passes. RDATA of our own records
 * comes from the `RecordEncoder` that the shell supplies.
 *
 * OPT (RFC 6891) belongs to one hop: it is taken off what comes in and built anew for what goes out.
 */
import { concat, viewOf } from '../bytes.ts';
import { DecodeError } from '../errors.ts';
import { CLASS, FLAG, HEADER_SIZE, OPCODE_MASK } from './header.ts';
import { encodeLabels } from './name.ts';

export const RCODE = {
  noError: 0,
  formErr: 1,
  servFail: 2,
  nxDomain: 3,
  notImp: 4,
  refused: 5,
  /** 6 to 10: of updates (RFC 2136 section 2.2); 9 also of TSIG. */
  yxDomain: 6,
  yxRrset: 7,
  nxRrset: 8,
  notAuth: 9,
  notZone: 10,
  badVers: 16,
} as const;

export const TYPE = {
  a: 1,
  ns: 2,
  cname: 5,
  soa: 6,
  ptr: 12,
  mx: 15,
  txt: 16,
  aaaa: 28,
  srv: 33,
  opt: 41,
  tsig: 250,
  ixfr: 251,
  axfr: 252,
  any: 255,
} as const;

/** Extended DNS errors (RFC 8914). */
export const EDE = {
  other: 0,
  stale: 3,
  cachedError: 13,
  prohibited: 18,
  staleNxDomain: 19,
  noReachableAuthority: 22,
} as const;

/** The DO bit, in the TTL of an OPT. */
export const OPT_DO = 0x8000;

export const MAX_TCP = 65535;
/** Queries are a header, a name and an OPT; nothing larger is one. */
export const MAX_QUERY = 4096;

export type DnsTransport = 'udp' | 'tcp';

export interface DnsQuestion {
  /** QNAME, QTYPE and QCLASS exactly as they arrived, uncompressed. */
  readonly bytes: Uint8Array;
  /** Labels of QNAME from left to right, ASCII in lower case, one character per octet. */
  readonly labels: readonly string[];
  readonly type: number;
  readonly class: number;
}

export interface DnsQuery {
  readonly id: number;
  readonly recursionDesired: boolean;
  readonly authenticData: boolean;
  readonly checkingDisabled: boolean;
  readonly question: DnsQuestion;
  readonly edns: { readonly udpSize: number; readonly dnssecOk: boolean } | undefined;
}

export type ParsedQuery =
  | { readonly kind: 'query'; readonly query: DnsQuery }
  | { readonly kind: 'reject'; readonly query: DnsQuery; readonly rcode: number }
  /** Without a question that could be echoed; `reply` is ready to be sent. */
  | { readonly kind: 'malformed'; readonly reply: Uint8Array; readonly rcode: number }
  /** Not a query at all. An answer to it could start a loop. */
  | { readonly kind: 'drop' };

/** An upstream's answer, without OPT. */
export interface DnsMessage {
  readonly bytes: Uint8Array;
  readonly rcode: number;
  readonly authenticData: boolean;
  readonly truncated: boolean;
  readonly question: DnsQuestion;
  readonly records: readonly RecordView[];
  readonly answerCount: number;
  readonly authorityCount: number;
}

export interface RecordView {
  readonly start: number;
  readonly type: number;
  /** Seconds. */
  readonly ttl: number;
  readonly ttlOffset: number;
  readonly end: number;
}

export function parseQuery(packet: Uint8Array): ParsedQuery {
  if (packet.length < HEADER_SIZE || packet.length > MAX_QUERY) return { kind: 'drop' };
  const view = viewOf(packet);
  const flags = view.getUint16(2);
  if ((flags & FLAG.qr) !== 0) return { kind: 'drop' };
  if ((flags & OPCODE_MASK) !== 0) return malformed(packet, RCODE.notImp);
  if (view.getUint16(4) !== 1 || view.getUint16(6) !== 0 || view.getUint16(8) !== 0 || view.getUint16(10) > 2) {
    return malformed(packet, RCODE.formErr);
  }
  try {
    const question = readQuestion(packet);
    const opts = readRecords(packet, HEADER_SIZE + question.bytes.length, view.getUint16(10)).filter(isOpt);
    const opt = opts[0];
    if (opts.length > 1 || question.type === TYPE.opt) return malformed(packet, RCODE.formErr);
    if (opt !== undefined) checkOpt(packet, opt);
    const query: DnsQuery = {
      id: view.getUint16(0),
      recursionDesired: (flags & FLAG.rd) !== 0,
      authenticData: (flags & FLAG.ad) !== 0,
      checkingDisabled: (flags & FLAG.cd) !== 0,
      question,
      edns:
        opt === undefined
          ? undefined
          : { udpSize: view.getUint16(opt.ttlOffset - 2), dnssecOk: (opt.ttl & OPT_DO) !== 0 },
    };
    if (opt !== undefined && ((opt.ttl >>> 16) & 0xff) !== 0) return { kind: 'reject', query, rcode: RCODE.badVers };
    const transfer = question.type === TYPE.axfr || question.type === TYPE.ixfr;
    if (question.class !== CLASS.in || transfer) return { kind: 'reject', query, rcode: RCODE.refused };
    return { kind: 'query', query };
  } catch (error) {
    if (error instanceof DecodeError) return malformed(packet, RCODE.formErr);
    throw error;
  }
}

/** @throws DecodeError */
export function parseMessage(packet: Uint8Array): DnsMessage {
  if (packet.length < HEADER_SIZE) throw new DecodeError('header', 0, `${packet.length} octets are no DNS message`);
  const view = viewOf(packet);
  const flags = view.getUint16(2);
  if (view.getUint16(4) !== 1) throw new DecodeError('QDCOUNT', 4, 'an answer has one question');
  const question = readQuestion(packet);
  const answerCount = view.getUint16(6);
  const authorityCount = view.getUint16(8);
  const count = answerCount + authorityCount + view.getUint16(10);
  const all = readRecords(packet, HEADER_SIZE + question.bytes.length, count);
  const optIndex = all.findIndex(isOpt);
  if (optIndex >= 0 && optIndex < answerCount + authorityCount) {
    throw new DecodeError('OPT', all[optIndex]?.start ?? 0, 'is outside the additional section');
  }
  // Additional records behind the OPT are left out with it: nothing requires them, and no offset changes.
  const records = optIndex < 0 ? all : all.slice(0, optIndex);
  const end = records.at(-1)?.end ?? HEADER_SIZE + question.bytes.length;
  return {
    bytes: new Uint8Array(packet.subarray(0, end)),
    rcode: (flags & 0xf) | (((all[optIndex]?.ttl ?? 0) >>> 24) << 4),
    authenticData: (flags & FLAG.ad) !== 0,
    truncated: (flags & FLAG.tc) !== 0,
    question,
    records,
    answerCount,
    authorityCount,
  };
}

/** A question of our own. */
export function questionFor(name: string, type: number): DnsQuestion {
  const labels = name.split('.');
  const end = Uint8Array.of(type >> 8, type & 0xff, 0, CLASS.in);
  return { bytes: concat([encodeLabels(labels), end]), labels, type, class: CLASS.in };
}

/** Octets from which `parseMessage` makes the same message, if its RCODE is one that needs no OPT. */
export function packMessage({ bytes, records, answerCount, authorityCount }: DnsMessage): Uint8Array {
  const packed = new Uint8Array(bytes);
  viewOf(packed).setUint16(10, records.length - answerCount - authorityCount);
  return packed;
}

/** The same name (in any case), type and class. */
export function sameQuestion(a: DnsQuestion, b: DnsQuestion): boolean {
  return a.type === b.type && a.class === b.class && a.labels.length === b.labels.length && nameKey(a) === nameKey(b);
}

/** The flags of a question that may change its answer, a digit for each. */
export function questionFlags({ edns, checkingDisabled, recursionDesired, authenticData }: DnsQuery): string {
  const digit = (flag: boolean): string => (flag ? '1' : '0');
  return digit(edns?.dnssecOk ?? false) + digit(checkingDisabled) + digit(recursionDesired) + digit(authenticData);
}

/** RD, AD and CD of a question that asks for the same. */
export function requestFlags(query: DnsQuery): number {
  return (
    (query.recursionDesired ? FLAG.rd : 0) |
    (query.authenticData ? FLAG.ad : 0) |
    (query.checkingDisabled ? FLAG.cd : 0)
  );
}

/** Equal for names that DNS takes for equal. */
export function nameKey({ labels }: Pick<DnsQuestion, 'labels'>): string {
  return labels.map((label) => String.fromCharCode(label.length) + label).join('');
}

/** MINIMUM is the last field of SOA's RDATA. */
export function soaMinimum(message: DnsMessage, record: RecordView): number {
  return record.end - record.ttlOffset < 6 + 20 + 2 ? 0 : boundedTtl(viewOf(message.bytes).getUint32(record.end - 4));
}

function malformed(packet: Uint8Array, rcode: number): ParsedQuery {
  const reply = new Uint8Array(HEADER_SIZE);
  const view = viewOf(reply);
  const request = viewOf(packet);
  view.setUint16(0, request.getUint16(0));
  view.setUint16(2, FLAG.qr | (request.getUint16(2) & (OPCODE_MASK | FLAG.rd)) | FLAG.ra | rcode);
  return { kind: 'malformed', reply, rcode };
}

/** A compressed name in the only question could point at nothing but the header. */
function readQuestion(packet: Uint8Array): DnsQuestion {
  const labels: string[] = [];
  let offset = HEADER_SIZE;
  for (;;) {
    const length = octet(packet, offset, 'QNAME');
    if (length > 63) throw new DecodeError('QNAME', offset, 'is compressed or has an unknown label type');
    offset += 1;
    if (length === 0) break;
    if (offset + length > packet.length) throw new DecodeError('QNAME', offset, 'ends early');
    labels.push(lowerCase(packet.subarray(offset, offset + length)));
    offset += length;
    if (offset + 1 - HEADER_SIZE > MAX_NAME) throw new DecodeError('QNAME', offset, 'has more than 255 octets');
  }
  if (offset + 4 > packet.length) throw new DecodeError('QTYPE', offset, 'ends early');
  const view = viewOf(packet);
  return {
    bytes: new Uint8Array(packet.subarray(HEADER_SIZE, offset + 4)),
    labels,
    type: view.getUint16(offset),
    class: view.getUint16(offset + 2),
  };
}

function readRecords(packet: Uint8Array, from: number, count: number): RecordView[] {
  if (count > (packet.length - from) / MIN_RECORD) throw new DecodeError('record counts', 6, 'exceed the message');
  const view = viewOf(packet);
  const records: RecordView[] = [];
  let start = from;
  for (let i = 0; i < count; i++) {
    const typeOffset = skipName(packet, start);
    if (typeOffset + 10 > packet.length) throw new DecodeError('record', typeOffset, 'ends early');
    const end = typeOffset + 10 + view.getUint16(typeOffset + 8);
    if (end > packet.length) throw new DecodeError('RDATA', typeOffset + 10, 'ends early');
    const type = view.getUint16(typeOffset);
    const ttl = view.getUint32(typeOffset + 4);
    const bounded = type === TYPE.opt ? ttl : boundedTtl(ttl);
    records.push({ start, type, ttl: bounded, ttlOffset: typeOffset + 4, end });
    start = end;
  }
  return records;
}

/** RFC 6891 6.1.2: its owner is the root, and its options fill it. @throws DecodeError */
function checkOpt(packet: Uint8Array, { start, ttlOffset, end }: RecordView): void {
  if (packet[start] !== 0) throw new DecodeError('OPT', start, 'has an owner that is not the root');
  const view = viewOf(packet);
  let at = ttlOffset + 6;
  while (at < end) {
    if (at + 4 > end) throw new DecodeError('OPT', at, 'ends in the head of an option');
    at += 4 + view.getUint16(at + 2);
  }
  if (at > end) throw new DecodeError('OPT', end, 'ends in an option');
}

/** The offset behind a name. Pointers must go backwards; they are not followed. */
function skipName(packet: Uint8Array, start: number): number {
  let offset = start;
  for (;;) {
    const length = octet(packet, offset, 'name');
    if (length === 0) return offset + 1;
    if (length >= 0xc0) {
      const target = ((length & 0x3f) << 8) | octet(packet, offset + 1, 'name');
      if (target >= start || target < HEADER_SIZE) throw new DecodeError('name', offset, 'points forwards');
      return offset + 2;
    }
    if (length > 63) throw new DecodeError('name', offset, 'has an unknown label type');
    offset += 1 + length;
    if (offset + 1 - start > MAX_NAME) throw new DecodeError('name', offset, 'has more than 255 octets');
  }
}

function octet(packet: Uint8Array, offset: number, field: string): number {
  const value = packet[offset];
  if (value === undefined) throw new DecodeError(field, offset, 'ends early');
  return value;
}

function lowerCase(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes).replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** RFC 8767 section 4: a TTL with the top bit set is a large one. */
function boundedTtl(ttl: number): number {
  return Math.min(ttl, MAX_TTL);
}

function isOpt(record: RecordView): boolean {
  return record.type === TYPE.opt;
}

const MIN_RECORD = 11;
const MAX_NAME = 255;
/** Seven days. */
const MAX_TTL = 604_800;
