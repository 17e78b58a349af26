/** DNS messages octet by octet (RFC 1035 section 4), with any bit and count that a check wants to be wrong. */
import { Deviation } from '../check.ts';
import { join, type Octets, u8, u16, u32 } from '../lisp/octets.ts';

export const RRTYPE = {
  A: 1,
  NS: 2,
  SOA: 6,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  LOC: 29,
  SRV: 33,
  NAPTR: 35,
  OPT: 41,
  ANY: 255,
} as const;
export const RCODE = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  NOTAUTH: 9,
  BADVERS: 16,
} as const;
export const FLAG = {
  QR: 0x8000,
  AA: 0x0400,
  TC: 0x0200,
  RD: 0x0100,
  RA: 0x0080,
  Z: 0x0040,
  AD: 0x0020,
  CD: 0x0010,
} as const;

export interface QueryOptions {
  readonly id: number;
  /** Opcode, flags and RCODE as they are sent. */
  readonly flags?: number;
  readonly name: string;
  readonly type?: number;
  readonly class?: number;
  /** What the counts say; by default what there is. */
  readonly counts?: readonly [question: number, answer: number, authority: number, additional: number];
  /** Instead of the name, octet by octet. */
  readonly rawName?: Octets;
  /** Behind the question. */
  readonly more?: Octets;
  /** Resource records in `more`. */
  readonly additional?: number;
}

export function dnsQuery(options: QueryOptions): Octets {
  const { id, flags = 0, name, type = RRTYPE.SOA, class: rrClass = 1, more = u8(), additional = 0 } = options;
  const counts = options.counts ?? [1, 0, 0, additional];
  return join(
    u16(id),
    u16(flags),
    ...counts.map(u16),
    options.rawName ?? encodedName(name),
    u16(type),
    u16(rrClass),
    more,
  );
}

export function encodedName(name: string): Octets {
  const labels = name.split('.').filter((label) => label !== '');
  return join(...labels.flatMap((label) => [u8(label.length), Buffer.from(label, 'latin1')]), u8(0));
}

export interface OptOptions {
  readonly size?: number;
  readonly version?: number;
  /** DO is 0x8000. */
  readonly flags?: number;
  readonly options?: Octets;
  readonly owner?: Octets;
  /** What the length of the options says. */
  readonly length?: number;
}

export function opt(options: OptOptions = {}): Octets {
  const { size = 1232, version = 0, flags = 0, options: data = u8(), owner = u8(0) } = options;
  return join(owner, u16(RRTYPE.OPT), u16(size), u8(0, version), u16(flags), u16(options.length ?? data.length), data);
}

export function ednsOption(code: number, data: Octets): Octets {
  return join(u16(code), u16(data.length), data);
}

export interface DnsRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly ttl: number;
  readonly data: Octets;
}

export interface DnsAnswer {
  readonly octets: Octets;
  readonly id: number;
  readonly flags: number;
  readonly opcode: number;
  /** With the extended bits of OPT. */
  readonly rcode: number;
  /** As they were sent, letter by letter. */
  readonly questions: readonly { readonly name: string; readonly type: number; readonly class: number }[];
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
  readonly opt: DnsRecord | undefined;
}

/** @throws Deviation when the message does not hold what it says */
export function readDns(octets: Octets): DnsAnswer {
  if (octets.length < 12) throw new Deviation(`a message of ${octets.length} octets`);
  const cursor = { octets, at: 12 };
  const word = (at: number): number => ((octets[at] ?? 0) << 8) | (octets[at + 1] ?? 0);
  const questions = Array.from({ length: word(4) }, () => {
    const name = readName(cursor);
    return { name, type: take16(cursor), class: take16(cursor) };
  });
  const records = (count: number): DnsRecord[] => Array.from({ length: count }, () => readRecord(cursor));
  const answers = records(word(6));
  const authorities = records(word(8));
  const additionals = records(word(10));
  if (cursor.at !== octets.length) throw new Deviation(`${octets.length - cursor.at} octets behind the message`);
  const optRecord = additionals.find(({ type }) => type === RRTYPE.OPT);
  const flags = word(2);
  const rcode = (flags & 0xf) | (((optRecord?.ttl ?? 0) >>> 24) << 4);
  return {
    octets,
    id: word(0),
    flags,
    opcode: (flags >>> 11) & 0xf,
    rcode,
    questions,
    answers,
    authorities,
    additionals,
    opt: optRecord,
  };
}

export function describeDns({ rcode, flags, answers, authorities }: DnsAnswer): string {
  const name = Object.entries(RCODE).find(([, value]) => value === rcode)?.[0] ?? `RCODE ${rcode}`;
  const set = Object.entries(FLAG).filter(([flag, bit]) => flag !== 'QR' && (flags & bit) !== 0);
  return `${[name, ...set.map(([flag]) => flag)].join(' ')}, ${answers.length} answers, ${authorities.length} authorities`;
}

interface Cursor {
  readonly octets: Octets;
  at: number;
}

function readRecord(cursor: Cursor): DnsRecord {
  const name = readName(cursor);
  const type = take16(cursor);
  const rrClass = take16(cursor);
  const ttl = (take16(cursor) * 65536 + take16(cursor)) >>> 0;
  const length = take16(cursor);
  if (cursor.at + length > cursor.octets.length) throw new Deviation('a record that goes beyond the message');
  cursor.at += length;
  return { name, type, class: rrClass, ttl, data: cursor.octets.subarray(cursor.at - length, cursor.at) };
}

function readName(cursor: Cursor): string {
  const labels: string[] = [];
  const { octets } = cursor;
  let at = cursor.at;
  let end: number | undefined;
  for (let steps = 0; steps < 200; steps++) {
    const length = octets[at];
    if (length === undefined) throw new Deviation('a name that goes beyond the message');
    if (length === 0) {
      cursor.at = end ?? at + 1;
      return `${labels.join('.')}.`;
    }
    if (length >= 0xc0) {
      end ??= at + 2;
      at = ((length & 0x3f) << 8) | (octets[at + 1] ?? 0);
      continue;
    }
    labels.push(Buffer.from(octets.subarray(at + 1, at + 1 + length)).toString('latin1'));
    at += 1 + length;
  }
  throw new Deviation('a name without an end');
}

function take16(cursor: Cursor): number {
  if (cursor.at + 2 > cursor.octets.length) throw new Deviation('a message that ends in a record');
  cursor.at += 2;
  return ((cursor.octets[cursor.at - 2] ?? 0) << 8) | (cursor.octets[cursor.at - 1] ?? 0);
}

/** A record that nothing asked for. */
export function strayRecord(name: string): Octets {
  return join(encodedName(name), u16(RRTYPE.A), u16(1), u32(60), u16(4), u8(192, 0, 2, 66));
}
