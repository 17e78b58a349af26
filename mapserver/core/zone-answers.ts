/**
 * The answers of a primary name server, as octets: queries (RFC 1034), whole zones (RFC 5936) and differences
 * (RFC 1995). Transfers are made message by message, while they are sent, of the records as they were at their start.
 *
 * Over UDP an answer that does not fit is cut off (TC), and differences that do not fit are the new SOA alone, which
 * tells the secondary to come over TCP.
 */
import { CLASS, FLAG } from '../../proto/dns/header.ts';
import { MAX_TCP, RCODE, TYPE } from '../../proto/dns/message.ts';
import { isWithin, readName } from '../../proto/dns/name.ts';
import { MAX_UDP } from '../../proto/dns/opt.ts';
import { MessageBuilder, type Question, type ResourceRecord, type SectionMessage } from '../../proto/dns/sections.ts';
import type { ZoneLookup, ZoneRecords } from './zone-records.ts';

export interface ZoneRequest {
  readonly message: SectionMessage;
  readonly transport: 'udp' | 'tcp';
  /** Octets that a signature of the answer takes. */
  readonly overhead: number;
}

/** Without records: an error, or what an update is answered with. */
export function bareAnswer(request: ZoneRequest, rcode: number): Uint8Array {
  return opened(request, { rcode }).finish();
}

/** What can be answered for a request of which nothing but the header could be read. */
export function headerAnswer(bytes: Uint8Array, rcode: number): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const opcode = (view.getUint16(2) >> 11) & 0xf;
  return new MessageBuilder({ id: view.getUint16(0), flags: FLAG.qr, opcode, rcode }, MIN_UDP).finish();
}

export function queryAnswer(request: ZoneRequest, zone: ZoneRecords, { name, type }: Question): Uint8Array {
  const answers: ResourceRecord[] = [];
  let asked = name;
  let lookup: ZoneLookup = zone.find(asked, type);
  for (let aliases = 0; aliases <= MAX_ALIASES && lookup.kind === 'records'; aliases++) {
    answers.push(...lookup.records);
    const [first] = lookup.records;
    if (first?.type !== TYPE.cname || type === TYPE.cname || type === TYPE.any) break;
    const target = zone.aliasInside(first);
    if (target === undefined) break;
    asked = target;
    lookup = zone.find(asked, type);
  }
  const absent = lookup.kind === 'absent';
  const referral = lookup.kind === 'referral' ? lookup : undefined;
  const flags = referral !== undefined && answers.length === 0 ? 0 : FLAG.aa;
  const negative = absent || lookup.kind === 'no-data' ? [zone.negativeSoa()] : [];
  const builder = opened(request, { flags, rcode: absent ? RCODE.nxDomain : RCODE.noError });
  const whole =
    answers.every((record) => builder.add('answer', record)) &&
    [...negative, ...(referral?.servers ?? [])].every((record) => builder.add('authority', record));
  if (!whole) return opened(request, { flags: flags | FLAG.tc, rcode: RCODE.noError }).finish();
  const more = [...(referral?.glue ?? []), ...targetAddresses(answers, zone)];
  for (const record of more) if (!builder.add('additional', record)) break;
  return builder.finish();
}

/** Of the services among the answers, so that nobody has to ask once more (RFC 2782). */
function targetAddresses(answers: readonly ResourceRecord[], zone: ZoneRecords): ResourceRecord[] {
  const services = answers.filter(({ type }) => type === TYPE.srv);
  const targets = new Set(services.map(({ rdata }) => readName(rdata, SRV_TARGET).name));
  return [...targets]
    .filter((target) => isWithin(target, zone.origin))
    .flatMap((target) => [zone.find(target, TYPE.a), zone.find(target, TYPE.aaaa)])
    .flatMap((found) => (found.kind === 'records' ? found.records.filter(isAddress) : []));
}

function isAddress({ type }: ResourceRecord): boolean {
  return type === TYPE.a || type === TYPE.aaaa;
}

export function* wholeZone(request: ZoneRequest, zone: ZoneRecords): IterableIterator<Uint8Array> {
  const soa = zone.soa();
  yield* packed(request, [soa, ...zone.nameServers(), ...zone.snapshot(), soa]);
}

/** `serial`: what the secondary has. */
export function* differences(request: ZoneRequest, zone: ZoneRecords, serial: number): IterableIterator<Uint8Array> {
  const soa = zone.soa();
  if (!isNewer(zone.serial, serial)) {
    yield* packed(request, [soa]);
    return;
  }
  const changes = zone.changesSince(serial);
  if (request.transport === 'udp') {
    yield udpDifferences(request, zone, changes);
  } else if (changes === undefined) {
    yield* wholeZone(request, zone);
  } else {
    yield* packed(request, differenceRecords(zone, changes));
  }
}

/** RFC 1982 section 3.2. */
export function isNewer(a: number, b: number): boolean {
  const distance = (a - b) >>> 0;
  return distance !== 0 && distance < 0x8000_0000;
}

function udpDifferences(
  request: ZoneRequest,
  zone: ZoneRecords,
  changes: ReturnType<ZoneRecords['changesSince']>,
): Uint8Array {
  const builder = opened(request, { flags: FLAG.aa });
  if (changes !== undefined && differenceRecords(zone, changes).every((record) => builder.add('answer', record)))
    return builder.finish();
  const alone = opened(request, { flags: FLAG.aa });
  alone.add('answer', zone.soa());
  return alone.finish();
}

function differenceRecords(
  zone: ZoneRecords,
  changes: NonNullable<ReturnType<ZoneRecords['changesSince']>>,
): ResourceRecord[] {
  const soa = zone.soa();
  const steps = changes.flatMap(({ from, to, removed, added }) => [zone.soa(from), ...removed, zone.soa(to), ...added]);
  return [soa, ...steps, soa];
}

/** As many messages as it takes; at least one. The question is in the first only (RFC 5936 section 2.2.1). */
function* packed(request: ZoneRequest, records: Iterable<ResourceRecord>): IterableIterator<Uint8Array> {
  let builder = opened(request, { flags: FLAG.aa, most: MAX_TRANSFER });
  for (const record of records) {
    if (builder.add('answer', record)) continue;
    yield builder.finish();
    builder = opened(request, { flags: FLAG.aa, question: false, most: MAX_TRANSFER });
    builder.add('answer', record);
  }
  yield builder.finish();
}

function opened(
  { message, transport, overhead }: ZoneRequest,
  { flags = 0, rcode = RCODE.noError as number, question = true, most = MAX_TCP },
): MessageBuilder {
  const opt = message.additionals.find(({ type }) => type === TYPE.opt);
  const limit = transport === 'tcp' ? most : udpSize(opt);
  const head = { id: message.id, flags: FLAG.qr | flags | (message.flags & FLAG.rd), opcode: message.opcode, rcode };
  const builder = new MessageBuilder(head, limit - overhead, opt === undefined ? undefined : optRecord(rcode, opt));
  const [asked] = message.questions;
  if (question && asked !== undefined) builder.question(asked);
  return builder;
}

function udpSize(opt: ResourceRecord | undefined): number {
  return opt === undefined ? MIN_UDP : Math.min(MAX_UDP, Math.max(MIN_UDP, opt.class));
}

/** RFC 6891 section 6.1.3; DO is the asker's (RFC 3225). */
function optRecord(rcode: number, asked: ResourceRecord): ResourceRecord {
  const ttl = (((rcode >> 4) << 24) | (asked.ttl & DNSSEC_OK)) >>> 0;
  return { name: '', type: TYPE.opt, class: MAX_UDP, ttl, rdata: new Uint8Array(0) };
}

/** RFC 6891 section 6.1: at most one OPT, of the root, whose options fill it. */
export function hasWellFormedEdns({ additionals }: SectionMessage): boolean {
  const opts = additionals.filter(({ type }) => type === TYPE.opt);
  return opts.length <= 1 && opts.every(({ name, rdata }) => name === '' && optionsFill(rdata));
}

function optionsFill(rdata: Uint8Array): boolean {
  let at = 0;
  while (at + 4 <= rdata.length) at += 4 + (((rdata[at + 2] ?? 0) << 8) | (rdata[at + 3] ?? 0));
  return at === rdata.length;
}

/** The version of EDNS of a request; undefined without. */
export function ednsVersion({ additionals }: SectionMessage): number | undefined {
  const opt = additionals.find(({ type }) => type === TYPE.opt);
  return opt === undefined ? undefined : (opt.ttl >>> 16) & 0xff;
}

export const QUERY_CLASSES: ReadonlySet<number> = new Set([CLASS.in, CLASS.any]);
const MIN_UDP = 512;
const DNSSEC_OK = 0x8000;
/** Octets of one message of a transfer: all of it is in reach of compression, and it is made in a few milliseconds. */
const MAX_TRANSFER = 16_384;
const MAX_ALIASES = 8;
/** Behind priority, weight and port. */
const SRV_TARGET = 6;
