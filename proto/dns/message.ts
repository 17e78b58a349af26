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
import type { IpAddress } from '../address.ts';
import { DecodeError } from '../errors.ts';

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

/** Largest UDP message in either direction: fits one unfragmented IPv6 packet of 1280 octets. */
export const MAX_UDP = 1232;
export const MAX_TCP = 65535;
/** Queries are a header, a name and an OPT; nothing larger is one. */
export const MAX_QUERY = 4096;

/** Seconds, for records that are older than they said (RFC 8767 section 4). */
export const STALE_TTL = 30;

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
  const view = dataView(packet);
  const flags = view.getUint16(2);
  if ((flags & FLAG_QR) !== 0) return { kind: 'drop' };
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
      recursionDesired: (flags & FLAG_RD) !== 0,
      authenticData: (flags & FLAG_AD) !== 0,
      checkingDisabled: (flags & FLAG_CD) !== 0,
      question,
      edns:
        opt === undefined
          ? undefined
          : { udpSize: view.getUint16(opt.ttlOffset - 2), dnssecOk: (opt.ttl & OPT_DO) !== 0 },
    };
    if (opt !== undefined && ((opt.ttl >>> 16) & 0xff) !== 0) return { kind: 'reject', query, rcode: RCODE.badVers };
    const transfer = question.type === TYPE.axfr || question.type === TYPE.ixfr;
    if (question.class !== CLASS_IN || transfer) return { kind: 'reject', query, rcode: RCODE.refused };
    return { kind: 'query', query };
  } catch (error) {
    if (error instanceof DecodeError) return malformed(packet, RCODE.formErr);
    throw error;
  }
}

/** The largest answer that the client can take. */
export function replyLimit(query: DnsQuery, transport: DnsTransport): number {
  if (transport === 'tcp') return MAX_TCP;
  return query.edns === undefined ? MIN_UDP : Math.min(MAX_UDP, Math.max(MIN_UDP, query.edns.udpSize));
}

/** TC=1 and no records when an RRset does not fit (RFC 2181 section 9); the extended error goes first. */
export function encodeReply(query: DnsQuery, reply: DnsReply, limit: number, encodeRecord: RecordEncoder): Uint8Array {
  const encoded = (record: DnsRecord): Uint8Array => {
    const { owner, ownerSkip } = record;
    const name = owner === undefined ? ownerPointer(query.question, ownerSkip) : plainName(owner.split('.'));
    return concat([name, encodeRecord(record)]);
  };
  const parts = [...reply.answers, ...reply.authorities].map(encoded);
  const base = HEADER_SIZE + query.question.bytes.length + total(parts);
  const explained = encodeOpt(query, reply.rcode, reply.extendedError);
  const opt = base + explained.length <= limit ? explained : encodeOpt(query, reply.rcode, undefined);
  const fits = base + opt.length <= limit;
  const extra = fits ? leading((reply.additionals ?? []).map(encoded), limit - base - opt.length) : [];
  const flags = (reply.authoritative ? FLAG_AA : 0) | (fits ? 0 : FLAG_TC) | (reply.rcode & 0xf);
  const counts = fits ? [reply.answers.length, reply.authorities.length, extra.length] : [];
  return concat([header(query, flags, counts, opt), query.question.bytes, ...(fits ? parts : []), ...extra, opt]);
}

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
  const view = dataView(head);
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

/** ID and QR of what may be an answer, to tell strangers from a damaged answer. */
export function answersId(packet: Uint8Array, id: number): boolean {
  if (packet.length < HEADER_SIZE) return false;
  const view = dataView(packet);
  return view.getUint16(0) === id && (view.getUint16(2) & FLAG_QR) !== 0;
}

/** RCODE of an answer whose header is there; a server may leave the question out of a FORMERR. */
export function headerRcode(packet: Uint8Array): number {
  return (packet[3] ?? 0) & 0xf;
}

/** @throws DecodeError */
export function parseMessage(packet: Uint8Array): DnsMessage {
  if (packet.length < HEADER_SIZE) throw new DecodeError('header', 0, `${packet.length} octets are no DNS message`);
  const view = dataView(packet);
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
    authenticData: (flags & FLAG_AD) !== 0,
    truncated: (flags & FLAG_TC) !== 0,
    question,
    records,
    answerCount,
    authorityCount,
  };
}

/** A question of our own. */
export function questionFor(name: string, type: number): DnsQuestion {
  const labels = name.split('.');
  const end = Uint8Array.of(type >> 8, type & 0xff, 0, CLASS_IN);
  return { bytes: concat([plainName(labels), end]), labels, type, class: CLASS_IN };
}

/** Octets from which `parseMessage` makes the same message, if its RCODE is one that needs no OPT. */
export function packMessage({ bytes, records, answerCount, authorityCount }: DnsMessage): Uint8Array {
  const packed = new Uint8Array(bytes);
  dataView(packed).setUint16(10, records.length - answerCount - authorityCount);
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

/** Equal for names that DNS takes for equal. */
export function nameKey({ labels }: Pick<DnsQuestion, 'labels'>): string {
  return labels.map((label) => String.fromCharCode(label.length) + label).join('');
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
  const flags = (authenticData ? FLAG_AD : 0) | (fits ? 0 : FLAG_TC) | (message.rcode & 0xf);
  const kept = whole ? message.records : fits ? message.records.slice(0, required) : [];
  const counts = fits ? [message.answerCount, message.authorityCount] : [0, 0];
  const body = new Uint8Array(message.bytes.subarray(0, kept.at(-1)?.end ?? HEADER_SIZE + query.question.bytes.length));
  const head = header(query, flags, counts, opt);
  dataView(head).setUint16(10, kept.length - (fits ? required : 0) + (opt.length > 0 ? 1 : 0));
  body.set(head);
  body.set(query.question.bytes, HEADER_SIZE);
  const view = dataView(body);
  for (const record of kept) {
    view.setUint32(record.ttlOffset, stale === undefined ? Math.max(0, record.ttl - age) : STALE_TTL);
  }
  return concat([body, opt]);
}

/** MINIMUM is the last field of SOA's RDATA. */
export function soaMinimum(message: DnsMessage, record: RecordView): number {
  return record.end - record.ttlOffset < 6 + 20 + 2 ? 0 : boundedTtl(dataView(message.bytes).getUint32(record.end - 4));
}

/** SERVFAIL to a question of which nothing is trusted but its octets. */
export function servFailTo(packet: Uint8Array): Uint8Array {
  let end = HEADER_SIZE;
  for (let length = packet[end] ?? 0; length > 0 && length < 64; length = packet[end] ?? 0) end += 1 + length;
  const whole = end + 5 <= packet.length && packet[end] === 0;
  const reply = new Uint8Array(whole ? end + 5 : HEADER_SIZE);
  const view = dataView(reply);
  const request = dataView(packet);
  view.setUint16(0, request.getUint16(0));
  view.setUint16(2, FLAG_QR | (request.getUint16(2) & (OPCODE_MASK | FLAG_RD | FLAG_CD)) | FLAG_RA | RCODE.servFail);
  view.setUint16(4, whole ? 1 : 0);
  if (whole) reply.set(packet.subarray(HEADER_SIZE, end + 5), HEADER_SIZE);
  return reply;
}

function malformed(packet: Uint8Array, rcode: number): ParsedQuery {
  const reply = new Uint8Array(HEADER_SIZE);
  const view = dataView(reply);
  const request = dataView(packet);
  view.setUint16(0, request.getUint16(0));
  view.setUint16(2, FLAG_QR | (request.getUint16(2) & (OPCODE_MASK | FLAG_RD)) | FLAG_RA | rcode);
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
  const view = dataView(packet);
  return {
    bytes: new Uint8Array(packet.subarray(HEADER_SIZE, offset + 4)),
    labels,
    type: view.getUint16(offset),
    class: view.getUint16(offset + 2),
  };
}

function readRecords(packet: Uint8Array, from: number, count: number): RecordView[] {
  if (count > (packet.length - from) / MIN_RECORD) throw new DecodeError('record counts', 6, 'exceed the message');
  const view = dataView(packet);
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
  const view = dataView(packet);
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

function plainName(labels: readonly string[]): Uint8Array {
  const octets = labels.flatMap((label) => [label.length, ...Array.from(label, (letter) => letter.charCodeAt(0))]);
  return Uint8Array.of(...octets, 0);
}

function ownerPointer(question: DnsQuestion, skip: number): Uint8Array {
  if (skip >= question.labels.length) return new Uint8Array(1);
  const offset = question.labels.slice(0, skip).reduce((sum, label) => sum + 1 + label.length, HEADER_SIZE);
  return Uint8Array.of(0xc0 | (offset >> 8), offset & 0xff);
}

function header(query: DnsQuery, flags: number, counts: readonly number[], opt: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE);
  const view = dataView(bytes);
  view.setUint16(0, query.id);
  view.setUint16(2, FLAG_QR | FLAG_RA | (requestFlags(query) & (FLAG_RD | FLAG_CD)) | flags);
  view.setUint16(4, 1);
  view.setUint16(6, counts[0] ?? 0);
  view.setUint16(8, counts[1] ?? 0);
  view.setUint16(10, (counts[2] ?? 0) + (opt.length > 0 ? 1 : 0));
  return bytes;
}

function requestFlags(query: DnsQuery): number {
  return (
    (query.recursionDesired ? FLAG_RD : 0) |
    (query.authenticData ? FLAG_AD : 0) |
    (query.checkingDisabled ? FLAG_CD : 0)
  );
}

function encodeOpt(query: DnsQuery, rcode: number, error: DnsReply['extendedError']): Uint8Array {
  if (query.edns === undefined) return new Uint8Array(0);
  if (error === undefined) return optRecord(rcode >> 4, query.edns.dnssecOk, new Uint8Array(0));
  const option = new Uint8Array(6 + error.text.length);
  const view = dataView(option);
  view.setUint16(0, OPTION_EDE);
  view.setUint16(2, 2 + error.text.length);
  view.setUint16(4, error.code);
  for (let i = 0; i < error.text.length; i++) option[6 + i] = error.text.charCodeAt(i) & 0x7f;
  return optRecord(rcode >> 4, query.edns.dnssecOk, option);
}

function optRecord(extendedRcode: number, dnssecOk: boolean, options: Uint8Array): Uint8Array {
  const record = new Uint8Array(MIN_RECORD + options.length);
  const view = dataView(record);
  view.setUint16(1, TYPE.opt);
  view.setUint16(3, MAX_UDP);
  view.setUint32(5, ((extendedRcode << 24) >>> 0) + (dnssecOk ? OPT_DO : 0));
  view.setUint16(9, options.length);
  record.set(options, MIN_RECORD);
  return record;
}

function dataView(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function total(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
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

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(total(parts));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

const HEADER_SIZE = 12;
const MIN_RECORD = 11;
const MIN_UDP = 512;
const MAX_NAME = 255;
/** Seven days. */
const MAX_TTL = 604_800;
const CLASS_IN = 1;
const FLAG_QR = 0x8000;
const OPCODE_MASK = 0x7800;
const FLAG_AA = 0x0400;
const FLAG_TC = 0x0200;
const FLAG_RD = 0x0100;
const FLAG_RA = 0x0080;
const FLAG_AD = 0x0020;
const FLAG_CD = 0x0010;
const OPT_DO = 0x8000;
const OPTION_EDE = 15;
