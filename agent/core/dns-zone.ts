/**
 * What the agent answers by itself: the overlay's zone, the reverse names of the overlay's prefixes, and the
 * names that must never leave the host (RFC 6761, RFC 7686, RFC 9476).
 *
 * `judge` looks at a question alone and answers, or says which lookup in the mapping system it takes, or that
 * the question is for the host's resolvers. The zone is authoritative and complete, so a name that exists
 * without the type asked for is NODATA and only a name that does not exist is NXDOMAIN; both carry the SOA
 * (RFC 2308). A reverse zone is cut at the first whole octet (IPv4) or nibble (IPv6) inside an overlay prefix,
 * so nothing outside the prefix is claimed and nothing inside it leaks.
 *
 * The zone is its own name server and SOA primary (as in RFC 6303): no host name is taken away from people.
 */
import {
  hostPrefix,
  type IpAddress,
  type IpPrefix,
  ipFamily,
  ipFromBytes,
  ipPrefix,
  parseIpAddress,
  parseIpPrefix,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';
import { type DnsQuestion, EDE, RCODE, TYPE } from '../../proto/dns/message.ts';
import { fitsDomainName } from '../../proto/dns/name.ts';
import { absoluteTarget, type ZoneData } from '../../proto/dns/record-sets.ts';
import type { DnsRecord, DnsRecordData, DnsReply } from '../../proto/dns/reply.ts';
import { APEX, DEFAULT_INSTANCE, nameEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import { keptOutIn } from '../../proto/overlay.ts';
import { type Aliases, ANSWER_TTL, type NameStep, stepAt } from './dns-names.ts';

export type ZoneVerdict =
  | { readonly kind: 'answer'; readonly reply: DnsReply }
  /** `name` is relative to the zone, or APEX. */
  | { readonly kind: 'resolve-name'; readonly name: string }
  | { readonly kind: 'resolve-pointer'; readonly address: IpAddress }
  | { readonly kind: 'forward' };

/** What the mapping system said: addresses of a name, or names of an address. */
export type Finding<T> =
  | {
      readonly kind: 'found';
      readonly values: readonly T[];
      /** What else the zone has at a name. */
      readonly zone?: ZoneData | undefined;
      readonly stale: boolean;
    }
  | { readonly kind: 'absent' }
  | { readonly kind: 'unavailable' };

export class DnsZone {
  /** Labels of the zone; empty while the agent does not know it. */
  readonly #labels: readonly string[];
  readonly #overlay: readonly IpPrefix[];

  constructor(zone: string, overlay: readonly IpPrefix[]) {
    this.#labels = zone
      .toLowerCase()
      .split('.')
      .filter((label) => label !== '');
    this.#overlay = overlay;
  }

  judge(question: DnsQuestion): ZoneVerdict {
    const special = judgeSpecialName(question);
    if (special !== undefined) return { kind: 'answer', reply: special };
    if (this.#labels.length > 0 && endsWith(question.labels, this.#labels)) return this.#judgeForward(question);
    return this.#judgeReverse(question);
  }

  /** `aliases` led to the name that was looked up. Where no step is, the reply is final. */
  stepAtName(
    question: DnsQuestion,
    finding: Finding<IpAddress>,
    aliases: Aliases,
    random: () => number,
  ): { readonly kind: 'reply'; readonly reply: DnsReply } | Exclude<NameStep, { kind: 'records' }> {
    const apexSkip = question.labels.length - this.#labels.length;
    const reply = (each: DnsReply): { readonly kind: 'reply'; readonly reply: DnsReply } => ({
      kind: 'reply',
      reply: { ...each, answers: [...aliases.records, ...each.answers] },
    });
    if (finding.kind === 'absent') {
      const isApex = (aliases.end ?? question.labels.join('.')) === this.name;
      return reply(negative(question, apexSkip, !isApex));
    }
    if (finding.kind === 'unavailable')
      return { kind: 'reply', reply: failure(EDE.noReachableAuthority, 'map server is not reachable') };
    const step = stepAt(question.type, finding.values, finding.zone, aliases, this.name, random);
    if (step.kind !== 'records') return step;
    const { records } = step;
    const found = records.length === 0 ? negative(question, apexSkip, false) : positive(records.slice(0, MAX_RRSET));
    return reply(finding.stale ? { ...found, extendedError: STALE } : found);
  }

  /** Names of the zone, relative to it, that the services among the answers lead to. */
  serviceTargets({ answers }: DnsReply): readonly string[] {
    const suffix = `.${this.name}`;
    const targets = answers.flatMap((record) =>
      record.type === 'SRV' && record.target.endsWith(suffix) ? [record.target.slice(0, -suffix.length)] : [],
    );
    return [...new Set(targets)].slice(0, MAX_TARGETS);
  }

  /** Of a name that something leads to, as additional records. */
  addressesAt(name: string, finding: Finding<IpAddress>, random: () => number): readonly DnsRecord[] {
    if (finding.kind !== 'found') return [];
    const at = { records: [], end: absoluteTarget(name, this.name) };
    return [TYPE.a, TYPE.aaaa].flatMap((type) => {
      const step = stepAt(type, finding.values, finding.zone, at, this.name, random);
      return step.kind === 'records' ? step.records : [];
    });
  }

  /** Without a final dot; empty while the agent does not know it. */
  get name(): string {
    return this.#labels.join('.');
  }

  replyToPointer(question: DnsQuestion, finding: Finding<string>): DnsReply {
    const range = reverseRange(question.labels);
    const apexSkip = range === undefined ? 0 : this.#reverseApexSkip(question, range.prefix);
    const whole = (name: string): string => absoluteTarget(name, this.name);
    // Nobody could ask for one that is too long together with the zone.
    const known =
      finding.kind !== 'found' ? finding : { ...finding, values: finding.values.map(whole).filter(fitsDomainName) };
    return this.#replyToFinding(question, apexSkip ?? 0, known, (target) => ({ type: 'PTR', target }));
  }

  #judgeForward(question: DnsQuestion): ZoneVerdict {
    const apexSkip = question.labels.length - this.#labels.length;
    if (apexSkip === 0) {
      const isSet = APEX_TYPES.has(question.type);
      return isSet ? { kind: 'resolve-name', name: APEX } : { kind: 'answer', reply: apexReply(question) };
    }
    try {
      // A wildcard that is asked for by its name answers what it answers for a name that nobody has (RFC 4592 section 2.3).
      const labels = question.labels.slice(0, apexSkip).map((each, i) => (i === 0 && each === '*' ? NOBODYS : each));
      const { name } = nameEid(DEFAULT_INSTANCE, labels.join('.'));
      // A label with a dot in it is another name than the text says.
      const faithful = name.split('.').length === apexSkip;
      return faithful ? { kind: 'resolve-name', name } : { kind: 'answer', reply: negative(question, apexSkip, true) };
    } catch (error) {
      if (error instanceof DecodeError) return { kind: 'answer', reply: negative(question, apexSkip, true) };
      throw error;
    }
  }

  #judgeReverse(question: DnsQuestion): ZoneVerdict {
    const range = reverseRange(question.labels);
    if (range === undefined || (range.whole && keptOutIn(range.prefix) !== undefined)) return { kind: 'forward' };
    const apexSkip = this.#reverseApexSkip(question, range.prefix);
    if (apexSkip === undefined) return { kind: 'forward' };
    if (apexSkip === 0 && !range.whole) return { kind: 'answer', reply: apexReply(question) };
    if (range.extraLabels > 0) return { kind: 'answer', reply: negative(question, apexSkip, true) };
    if (range.whole) return { kind: 'resolve-pointer', address: prefixAddress(range.prefix) };
    // Addresses may exist below, so the name exists.
    return { kind: 'answer', reply: negative(question, apexSkip, false) };
  }

  /** How many labels are in front of the reverse zone's apex; undefined outside the overlay. */
  #reverseApexSkip(question: DnsQuestion, range: IpPrefix): number | undefined {
    const within = this.#overlay.filter((prefix) => prefixContains(prefix, range));
    if (within.length === 0) return undefined;
    const shortest = Math.min(...within.map(prefixLength));
    const bitsPerLabel = ipFamily(prefixAddress(range)) === 4 ? 8 : 4;
    return question.labels.length - 2 - Math.ceil(shortest / bitsPerLabel);
  }

  #replyToFinding<T>(
    question: DnsQuestion,
    apexSkip: number,
    finding: Finding<T>,
    toRecord: (value: T) => DnsRecordData,
  ): DnsReply {
    switch (finding.kind) {
      case 'absent':
        return negative(question, apexSkip, true);
      case 'unavailable':
        return failure(EDE.noReachableAuthority, 'map server is not reachable');
      case 'found': {
        const records = finding.values.map((value) => ({ ...toRecord(value), ownerSkip: 0, ttl: ANSWER_TTL }));
        // ANY gets one RRset (RFC 8482).
        const type = question.type === TYPE.any ? records[0]?.type : typeName(question.type);
        const answers = records.filter((record) => record.type === type).slice(0, MAX_RRSET);
        const reply = answers.length === 0 ? negative(question, apexSkip, false) : positive(answers);
        return finding.stale ? { ...reply, extendedError: STALE } : reply;
      }
      default:
        return finding satisfies never;
    }
  }
}

/** SERVFAIL with an extended error (RFC 8914). */
export function failure(code: number, text: string): DnsReply {
  return {
    rcode: RCODE.servFail,
    authoritative: false,
    answers: [],
    authorities: [],
    extendedError: { code, text },
  };
}

function judgeSpecialName(question: DnsQuestion): DnsReply | undefined {
  const { labels } = question;
  const last = labels.at(-1);
  if (last === 'localhost') return localhostReply(question);
  if (last === 'invalid' || last === 'onion' || last === 'alt') return negative(question, labels.length - 1, true);
  const range = reverseRange(labels);
  if (range === undefined) return undefined;
  if (range.prefix === LOOPBACK_4 || range.prefix === LOOPBACK_6) {
    if (range.extraLabels > 0) return negative(question, labels.length - 2, true);
    if (question.type !== TYPE.ptr && question.type !== TYPE.any) return negative(question, labels.length - 2, false);
    return positive([{ type: 'PTR', target: 'localhost', ownerSkip: 0, ttl: ANSWER_TTL }]);
  }
  if (prefixContains(LOOPBACK_NET, range.prefix)) {
    return negative(question, labels.length - 3, range.whole || range.extraLabels > 0);
  }
  return undefined;
}

function localhostReply(question: DnsQuestion): DnsReply {
  const record = { ownerSkip: 0, ttl: ANSWER_TTL };
  if (question.type === TYPE.a || question.type === TYPE.any) {
    return positive([{ ...record, type: 'A', address: prefixAddress(LOOPBACK_4) }]);
  }
  if (question.type === TYPE.aaaa) return positive([{ ...record, type: 'AAAA', address: prefixAddress(LOOPBACK_6) }]);
  return negative(question, question.labels.length - 1, false);
}

/** The apex of a zone of ours without what can be set there: SOA and NS. */
function apexReply(question: DnsQuestion): DnsReply {
  switch (question.type) {
    case TYPE.soa:
    case TYPE.any:
      return positive([soa(question, 0)]);
    case TYPE.ns:
      return positive([{ type: 'NS', target: question.labels.join('.'), ownerSkip: 0, ttl: ANSWER_TTL }]);
    default:
      return negative(question, 0, false);
  }
}

function positive(answers: readonly DnsRecord[]): DnsReply {
  return { rcode: RCODE.noError, authoritative: true, answers, authorities: [] };
}

function negative(question: DnsQuestion, apexSkip: number, nxDomain: boolean): DnsReply {
  return {
    rcode: nxDomain ? RCODE.nxDomain : RCODE.noError,
    authoritative: true,
    answers: [],
    // RFC 2308 3: how long it may be kept is the lower of the two.
    authorities: [{ ...soa(question, apexSkip), ttl: NEGATIVE_TTL }],
  };
}

function soa(question: DnsQuestion, apexSkip: number): DnsRecord {
  return {
    type: 'SOA',
    primary: question.labels.slice(apexSkip).join('.'),
    mailbox: 'nobody.invalid',
    minimum: NEGATIVE_TTL,
    ownerSkip: apexSkip,
    ttl: ANSWER_TTL,
  };
}

function typeName(type: number): DnsRecord['type'] | undefined {
  switch (type) {
    case TYPE.a:
      return 'A';
    case TYPE.aaaa:
      return 'AAAA';
    case TYPE.ptr:
      return 'PTR';
    default:
      return undefined;
  }
}

interface ReverseRange {
  /** All addresses at or below the name. */
  readonly prefix: IpPrefix;
  /** The name, without its extra labels, is that of one address. */
  readonly whole: boolean;
  /** Labels in front that are no part of an address, as in `b._dns-sd._udp.0.0.77.10.in-addr.arpa`. */
  readonly extraLabels: number;
}

function reverseRange(labels: readonly string[]): ReverseRange | undefined {
  if (labels.at(-1) !== 'arpa') return undefined;
  if (labels.at(-2) === 'in-addr') return readReverse(labels, 4, 256, (label) => /^(0|[1-9]\d{0,2})$/.test(label), 10);
  if (labels.at(-2) === 'ip6') return readReverse(labels, 32, 16, (label) => /^[0-9a-f]$/.test(label), 16);
  return undefined;
}

function readReverse(
  labels: readonly string[],
  digits: number,
  base: number,
  isDigit: (label: string) => boolean,
  radix: number,
): ReverseRange {
  const values: number[] = [];
  for (const label of labels.slice(0, -2).reverse()) {
    const value = isDigit(label) ? Number.parseInt(label, radix) : base;
    if (values.length === digits || value >= base) break;
    values.push(value);
  }
  const known = values.length;
  const padded = [...values, ...new Array<number>(digits - known).fill(0)];
  const bytes =
    base === 256
      ? Uint8Array.from(padded)
      : Uint8Array.from({ length: 16 }, (_, i) => ((padded[2 * i] ?? 0) << 4) | (padded[2 * i + 1] ?? 0));
  return {
    prefix: ipPrefix(ipFromBytes(bytes), known * (base === 256 ? 8 : 4)),
    whole: known === digits,
    extraLabels: labels.length - 2 - known,
  };
}

function endsWith(labels: readonly string[], suffix: readonly string[]): boolean {
  const skip = labels.length - suffix.length;
  return skip >= 0 && suffix.every((label, i) => labels[skip + i] === label);
}

const STALE = { code: EDE.stale, text: 'map server is not reachable' } as const;
/** Seconds. A name that is registered now should be visible soon. */
const NEGATIVE_TTL = 5;
/** What an operator can set at the zone's own name. */
const APEX_TYPES: ReadonlySet<number> = new Set([TYPE.a, TYPE.aaaa, TYPE.srv, TYPE.txt]);
/** A label that no name has. */
const NOBODYS = '_the-wildcard-itself_';
const MAX_RRSET = 256;
/** Of services, whose addresses are looked up. */
const MAX_TARGETS = 4;
const LOOPBACK_4 = hostPrefix(parseIpAddress('127.0.0.1'));
const LOOPBACK_6 = hostPrefix(parseIpAddress('::1'));
const LOOPBACK_NET = parseIpPrefix('127.0.0.0/8');
