/**
 * Whole DNS messages with all of their sections, as name servers exchange them: queries, transfers (RFC 5936,
 * RFC 1995), NOTIFY (RFC 1996) and updates (RFC 2136). `message.ts` and `reply.ts` are for clients.
 *
 * RDATA is kept as octets without compressed names, so records can be compared and kept whatever their type. Names in
 * the RDATA of the types of RFC 1035 and of SRV may arrive compressed and are written out; other types are copied
 * (RFC 3597 section 4). What goes out has compressed owners only.
 */
import { Reader, Writer } from '../bytes.ts';
import { DecodeError } from '../errors.ts';
import { HEADER_SIZE } from './header.ts';
import { type DnsMessage, packMessage, TYPE } from './message.ts';
import { encodeName, labelsOf, readName } from './name.ts';

export interface Question {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** The name as it was asked, in its letters' case, which an answer repeats (RFC 4343). */
  readonly spelling?: Uint8Array;
}

export interface ResourceRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Seconds. */
  readonly ttl: number;
  readonly rdata: Uint8Array;
}

export interface SectionMessage {
  readonly id: number;
  /** QR, AA, TC and so on, without opcode and RCODE. */
  readonly flags: number;
  readonly opcode: number;
  readonly rcode: number;
  readonly questions: readonly Question[];
  /** In an update: prerequisites. */
  readonly answers: readonly ResourceRecord[];
  /** In an update: what is to be changed. */
  readonly authorities: readonly ResourceRecord[];
  readonly additionals: readonly ResourceRecord[];
}

/** A message as it arrived, and where its last record begins, which is where a TSIG would. */
export interface DecodedMessage extends SectionMessage {
  readonly lastRecord: number;
}

/** @throws DecodeError also when octets are left over */
export function decodeSections(bytes: Uint8Array): DecodedMessage {
  const reader = new Reader(bytes);
  const id = reader.u16('ID');
  const word = reader.u16('flags');
  const counts = ['QDCOUNT', 'ANCOUNT', 'NSCOUNT', 'ARCOUNT'].map((field) => reader.u16(field));
  const records = (counts[1] ?? 0) + (counts[2] ?? 0) + (counts[3] ?? 0);
  if ((counts[0] ?? 0) * MIN_QUESTION + records * MIN_RECORD > reader.remaining) {
    throw new DecodeError('record counts', 4, 'exceed the message');
  }
  let offset = HEADER_SIZE;
  let lastRecord = bytes.length;
  const questions = Array.from({ length: counts[0] ?? 0 }, () => {
    const { question, end } = readQuestion(bytes, offset);
    offset = end;
    return question;
  });
  const [answers = [], authorities = [], additionals = []] = counts.slice(1).map((count) =>
    Array.from({ length: count }, () => {
      const { record, end } = readRecord(bytes, offset);
      lastRecord = offset;
      offset = end;
      return record;
    }),
  );
  if (offset !== bytes.length) throw new DecodeError('message', offset, 'has octets behind its last record');
  return {
    id,
    flags: word & FLAG_BITS,
    opcode: (word >> 11) & 0xf,
    rcode: word & 0xf,
    questions,
    answers,
    authorities,
    additionals,
    lastRecord,
  };
}

/** The answers of this type in what an upstream said; none when they cannot be read. */
export function answersOfType(message: DnsMessage, type: number): readonly ResourceRecord[] {
  try {
    return decodeSections(packMessage(message)).answers.filter((record) => record.type === type);
  } catch (error) {
    if (error instanceof DecodeError) return [];
    throw error;
  }
}

/** Builds one message within a size. Sections have to be filled in their order. */
export class MessageBuilder {
  private readonly writer = new Writer();
  private readonly names = new Map<string, number>();
  private readonly head: Pick<SectionMessage, 'id' | 'flags' | 'opcode' | 'rcode'>;
  private readonly limit: number;
  private readonly last: ResourceRecord | undefined;
  private readonly counts = [0, 0, 0, 0];
  private spelling: Uint8Array | undefined;

  /** `limit`: octets of the whole. `last`: at the end of the additional section, whatever else there is room for. */
  constructor(head: Pick<SectionMessage, 'id' | 'flags' | 'opcode' | 'rcode'>, limit: number, last?: ResourceRecord) {
    this.head = head;
    this.limit = last === undefined ? limit : limit - sizeOf(last);
    this.last = last;
    this.writer.bytes(new Uint8Array(HEADER_SIZE));
  }

  question({ name, type, class: kind, spelling }: Question): this {
    if (this.writer.length === HEADER_SIZE) this.spelling = spelling;
    this.name(name);
    this.writer.u16(type, 'QTYPE').u16(kind, 'QCLASS');
    this.count(0);
    return this;
  }

  /** Returns false, and adds nothing, when the record does not fit. */
  add(section: 'answer' | 'authority' | 'additional', record: ResourceRecord): boolean {
    if (this.writer.length + sizeOf(record) > this.limit) return false;
    this.append(record);
    this.count(section === 'answer' ? 1 : section === 'authority' ? 2 : 3);
    return true;
  }

  finish(): Uint8Array {
    if (this.last !== undefined) {
      this.append(this.last);
      this.count(3);
    }
    const bytes = this.writer.finish();
    if (this.spelling !== undefined) bytes.set(this.spelling, HEADER_SIZE);
    const view = new DataView(bytes.buffer);
    const { id, flags, opcode, rcode } = this.head;
    view.setUint16(0, id);
    view.setUint16(2, (flags & FLAG_BITS) | (opcode << 11) | (rcode & 0xf));
    for (const [i, count] of this.counts.entries()) view.setUint16(4 + 2 * i, count);
    return bytes;
  }

  private append(record: ResourceRecord): void {
    this.name(record.name);
    this.writer
      .u16(record.type, 'TYPE')
      .u16(record.class, 'CLASS')
      .u32(record.ttl, 'TTL')
      .u16(record.rdata.length, 'RDLENGTH')
      .bytes(record.rdata);
  }

  private count(section: number): void {
    this.counts[section] = (this.counts[section] ?? 0) + 1;
  }

  private name(name: string): void {
    let rest = name;
    for (const label of labelsOf(name)) {
      const known = this.names.get(rest);
      if (known !== undefined) {
        this.writer.u16(0xc000 | known, 'pointer');
        return;
      }
      if (this.writer.length < MAX_POINTER) this.names.set(rest, this.writer.length);
      this.writer.bytes(encodeName(label).subarray(0, -1));
      rest = rest.slice(label.length + 1);
    }
    this.writer.u8(0, 'root');
  }
}

/** @throws EncodeError when it is larger than 65,535 octets in one of its counts or lengths */
export function encodeSections(message: SectionMessage): Uint8Array {
  const builder = new MessageBuilder(message, Number.POSITIVE_INFINITY);
  for (const question of message.questions) builder.question(question);
  for (const record of message.answers) builder.add('answer', record);
  for (const record of message.authorities) builder.add('authority', record);
  for (const record of message.additionals) builder.add('additional', record);
  return builder.finish();
}

/** Tells records with the same owner, type and data apart from all others (RFC 2136 section 1.1.1). */
export function recordIdentity({ type, rdata }: Pick<ResourceRecord, 'type' | 'rdata'>): string {
  return `${type} ${hex(rdata)}`;
}

function readQuestion(bytes: Uint8Array, start: number): { readonly question: Question; readonly end: number } {
  const { name, end } = readName(bytes, start);
  const reader = new Reader(bytes, end);
  const type = reader.u16('QTYPE');
  // The first name has nothing before it to point to.
  const spelling = start === HEADER_SIZE ? { spelling: new Uint8Array(bytes.subarray(start, end)) } : {};
  const question = { name, type, class: reader.u16('QCLASS'), ...spelling };
  return { question, end: reader.offset };
}

function readRecord(bytes: Uint8Array, start: number): { readonly record: ResourceRecord; readonly end: number } {
  const { name, end } = readName(bytes, start);
  const reader = new Reader(bytes, end);
  const type = reader.u16('TYPE');
  const kind = reader.u16('CLASS');
  const ttl = reader.u32('TTL');
  const length = reader.u16('RDLENGTH');
  const at = reader.offset;
  reader.skip(length, 'RDATA');
  const rdata = length === 0 ? new Uint8Array(0) : expanded(bytes, type, at, at + length);
  return { record: { name, type, class: kind, ttl, rdata }, end: at + length };
}

/** RDATA with its names written out. */
function expanded(bytes: Uint8Array, type: number, start: number, end: number): Uint8Array {
  const layout = NAMES_IN_RDATA[type];
  if (layout === undefined) return new Uint8Array(bytes.subarray(start, end));
  const writer = new Writer();
  let offset = start + layout.before;
  if (offset > end) throw new DecodeError('RDATA', start, 'ends early');
  writer.bytes(bytes.subarray(start, offset));
  for (let i = 0; i < layout.names; i++) {
    const { name, end: behind } = readName(bytes, offset);
    writer.bytes(encodeName(name));
    offset = behind;
  }
  if (offset + layout.after !== end) throw new DecodeError('RDATA', start, 'has another length than its type');
  writer.bytes(bytes.subarray(offset, end));
  return writer.finish();
}

/** Octets without compression. */
function sizeOf({ name, rdata }: ResourceRecord): number {
  return encodeName(name).length + RECORD_FIXED + rdata.length;
}

function hex(bytes: Uint8Array): string {
  let text = '';
  for (const each of bytes) text += HEX[each] ?? '';
  return text;
}

const HEX = Array.from({ length: 256 }, (_, each) => each.toString(16).padStart(2, '0'));
const MIN_QUESTION = 5;
const MIN_RECORD = 11;
/** TYPE, CLASS, TTL and RDLENGTH. */
const RECORD_FIXED = 10;
const MAX_POINTER = 0x4000;
const FLAG_BITS = 0x87f0;
/** Octets before, names, octets behind. */
const NAMES_IN_RDATA: Readonly<
  Record<number, { readonly before: number; readonly names: number; readonly after: number }>
> = {
  [TYPE.ns]: { before: 0, names: 1, after: 0 },
  [TYPE.cname]: { before: 0, names: 1, after: 0 },
  [TYPE.ptr]: { before: 0, names: 1, after: 0 },
  [TYPE.mx]: { before: 2, names: 1, after: 0 },
  [TYPE.srv]: { before: 6, names: 1, after: 0 },
  [TYPE.soa]: { before: 0, names: 2, after: 20 },
};
