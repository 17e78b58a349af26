/**
 * EIDs that Map-Resolvers of others are asked for, over UDP (RFC 9301 sections 5.2 to 5.4 and 6.1).
 *
 * The operator says which: prefixes of EIDs that this agent's own map server knows nothing of. A packet to or from one of
 * them leads to a Map-Request in an ECM, repeated after 1, 2, 4 and 8 s, then not for 30 s, and after an answer not for
 * 3 s. A Map-Reply counts with the random nonce of a question that is open, from its Map-Resolver or from an RLOC that
 * plain packets are exchanged with; nothing else proves it. So it makes plain mappings and drops, no more: inside the
 * prefixes of that Map-Resolver, at generation 0, never where the own map server has said something, and sent are packets
 * only to RLOCs that the operator allows (`plain`). A mapping ends with its TTL; the next packet asks again. An SMR, which
 * proves nothing either, asks again meanwhile.
 */
import {
  hostPrefix,
  type IpAddress,
  type IpPrefix,
  ipFamily,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';
import { type Eid, eidKey, type InstanceId, prefixEid } from '../../proto/eid.ts';
import { ipLispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import type { EncapsulatedControl } from '../../proto/lisp/ecm.ts';
import { LISP_CONTROL_PORT, type Nonce } from '../../proto/lisp/header.ts';
import type { MapReply } from '../../proto/lisp/map-reply.ts';
import { MAP_REQUEST, type MapRequest } from '../../proto/lisp/map-request.ts';
import { eidToRecordKey, recordToMapping } from '../../proto/lisp/mapping-record.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { type Generation, type Locator, type Mapping, NEVER_USE } from '../../proto/mapping.ts';
import { type Instant, type Millis, minutes, seconds } from '../../proto/time.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import type { LispOutcome } from './lisp-responder.ts';
import type { MapCache } from './map-cache.ts';
import type { Ticket } from './map-requests.ts';
import type { Outbox } from './outbox.ts';
import type { Resolution } from './output.ts';
import { usableLocators } from './remote-mappings.ts';
import { TokenBucket } from './token-bucket.ts';

export interface LispMapResolver {
  readonly address: IpAddress;
  readonly port: number;
  /** It is asked for EIDs inside these, and the own map server is not. */
  readonly resolve: readonly IpPrefix[];
}

export interface LispResolutionsParts {
  readonly resolvers: readonly LispMapResolver[];
  /** Unpredictable. */
  readonly randomNonce: () => Nonce;
  /** Of EIDs in these messages. */
  readonly plainInstance: InstanceId;
  /** Of the overlay. */
  readonly instance: InstanceId;
  readonly overlay: () => readonly IpPrefix[];
  readonly locators: () => readonly Locator[];
  readonly isOwn: (address: IpAddress) => boolean;
  readonly remote: { readonly cache: Pick<MapCache, 'find' | 'exact'> };
  readonly table: Pick<DataplaneTable, 'forwardPlainly' | 'drop' | 'removeMapping' | 'repeatMapping'>;
  readonly outbox: Outbox;
}

interface Question {
  readonly resolver: LispMapResolver;
  /** Because of an SMR. */
  solicited: boolean;
  nonce: Nonce;
  tries: number;
  /** False: answered or given up, and only here so that it is not asked again too soon. */
  open: boolean;
  /** Asked for once more meanwhile. */
  again: boolean;
  nextAt: Instant;
  readonly tickets: Ticket[];
}

interface Entry {
  readonly mapping: Mapping;
  /** For whose sake it is known. */
  readonly asked: IpAddress;
  readonly receivedAt: Instant;
  readonly until: Instant;
}

export class LispResolutions {
  private readonly parts: LispResolutionsParts;
  private readonly questions = new Map<IpAddress, Question>();
  private readonly entries = new Map<IpPrefix, Entry>();
  private readonly rate: TokenBucket;
  /** Of what others cause, who must not keep this host's own packets from being resolved. */
  private readonly strangerRate: TokenBucket;

  constructor(parts: LispResolutionsParts, now: Instant) {
    this.parts = parts;
    this.rate = new TokenBucket(2 * QUESTIONS_PER_SECOND, QUESTIONS_PER_SECOND, now);
    this.strangerRate = new TokenBucket(2 * QUESTIONS_PER_SECOND, QUESTIONS_PER_SECOND, now);
  }

  isResolver(address: IpAddress): boolean {
    return this.parts.resolvers.some((each) => each.address === address);
  }

  /** Packets wait for a mapping of their destination or source. False if the own map server is to be asked. */
  handleMiss(address: IpAddress, reason: 'destination' | 'source', now: Instant): boolean {
    const resolver = this.resolverOf(address);
    if (resolver === undefined) return false;
    const entry = this.find(address);
    if (entry?.mapping.eid.kind === 'prefix') this.parts.table.repeatMapping(entry.mapping.eid.prefix);
    else this.ask(resolver, address, reason === 'destination', now);
    return true;
  }

  /** Somebody else sends from this address than whom its mapping names. False if the own map server is to be asked. */
  handleConflict(address: IpAddress, now: Instant): boolean {
    const resolver = this.resolverOf(address);
    if (resolver !== undefined) this.ask(resolver, address, false, now, true);
    return resolver !== undefined;
  }

  /** Answered with `resolution`. False if the own map server is to be asked. */
  resolve(eid: Eid, ticket: Ticket, now: Instant): boolean {
    if (eid.kind !== 'prefix' || eid.iid !== this.parts.instance) return false;
    const address = prefixAddress(eid.prefix);
    const resolver = this.resolverOf(address);
    if (resolver === undefined) return false;
    const known = this.resolution(address, now);
    const question = known === null ? this.ask(resolver, address, true, now) : undefined;
    if (question?.open === true && question.tickets.length < MAX_TICKETS) question.tickets.push(ticket);
    else this.answer([ticket], known ?? UNAVAILABLE);
    return true;
  }

  /** Somebody says that it changed. False if nobody here needs to know. */
  askAgain(eid: Eid, now: Instant): boolean {
    if (eid.kind !== 'prefix' || eid.iid !== this.parts.instance) return false;
    const concerned = [...this.entries].filter(
      ([prefix]) => prefixContains(prefix, eid.prefix) || prefixContains(eid.prefix, prefix),
    );
    const asked = new Set(concerned.slice(0, MAX_ASKED_AGAIN).map(([, entry]) => entry.asked));
    for (const address of asked) {
      const resolver = this.resolverOf(address);
      if (resolver !== undefined) this.ask(resolver, address, false, now, true);
    }
    return asked.size > 0;
  }

  /** `from`: a Map-Resolver, or an RLOC that plain packets are exchanged with. @throws DecodeError */
  handleReply({ nonce, probe, records }: MapReply, now: Instant): LispOutcome {
    const found = [...this.questions].find(([, question]) => question.open && question.nonce === nonce);
    if (found === undefined || probe) return 'ignored';
    const [address, question] = found;
    const mappings = records
      .slice(0, MAX_RECORDS)
      .map((record) => recordToMapping(record, { ttl: MAX_TTL }))
      .flatMap((mapping) => this.inside(mapping, question.resolver) ?? []);
    const best = mappings.filter(({ prefix }) => prefixContains(prefix, address));
    if (best.length === 0) return 'ignored';
    const isPart = (prefix: IpPrefix) => best.some((each) => prefixContains(each.prefix, prefix));
    const told = mappings.filter(({ prefix }) => isPart(prefix));
    for (const prefix of this.entries.keys()) {
      const isReplaced = prefixContains(prefix, address) || isPart(prefix);
      if (isReplaced && !told.some((each) => each.prefix === prefix)) this.remove(prefix, now);
    }
    for (const { prefix, mapping } of told) this.put(prefix, mapping, address, now);
    question.open = false;
    question.nextAt = now + SMR_INTERVAL;
    const resolution = this.resolution(address, now) ?? ABSENT;
    this.parts.outbox.note({ type: 'resolution', result: resolution.kind });
    this.answer(question.tickets.splice(0), resolution);
    return 'resolved';
  }

  handleTimeout(now: Instant): void {
    for (const [prefix, { until }] of this.entries) if (until <= now) this.remove(prefix, now);
    for (const [address, question] of this.questions) if (question.nextAt <= now) this.proceed(address, question, now);
  }

  pollTimeout(): Instant {
    let next = Number.POSITIVE_INFINITY;
    for (const { until } of this.entries.values()) next = Math.min(next, until);
    for (const { nextAt } of this.questions.values()) next = Math.min(next, nextAt);
    return next;
  }

  private resolverOf(address: IpAddress): LispMapResolver | undefined {
    const { resolvers, isOwn, remote, instance } = this.parts;
    const found = resolvers.find(({ resolve }) => resolve.some((prefix) => prefixContains(prefix, address)));
    if (found === undefined || isOwn(address)) return undefined;
    const known = remote.cache.find(prefixEid(instance, hostPrefix(address)));
    return known === undefined || known.negative ? found : undefined;
  }

  private find(address: IpAddress): Entry | undefined {
    let best: { readonly prefix: IpPrefix; readonly entry: Entry } | undefined;
    for (const [prefix, entry] of this.entries) {
      if (!prefixContains(prefix, address)) continue;
      if (best === undefined || prefixLength(prefix) > prefixLength(best.prefix)) best = { prefix, entry };
    }
    return best?.entry;
  }

  private resolution(address: IpAddress, now: Instant): Resolution | null {
    const entry = this.find(address);
    if (entry === undefined) return null;
    const { mapping, receivedAt } = entry;
    if (mapping.locators.length === 0) return { kind: 'absent', action: mapping.action };
    return { kind: 'found', mapping, own: false, stale: false, ageMs: now - receivedAt };
  }

  private ask(
    resolver: LispMapResolver,
    address: IpAddress,
    forOwn: boolean,
    now: Instant,
    solicited = false,
  ): Readonly<Question> & { readonly tickets: Ticket[] } {
    const known = this.questions.get(address);
    if (known !== undefined) {
      known.again ||= solicited && !known.open;
      return known;
    }
    const question: Question = {
      resolver,
      solicited,
      nonce: this.parts.randomNonce(),
      tries: 0,
      open: true,
      again: false,
      nextAt: now,
      tickets: [],
    };
    const limit = forOwn ? MAX_QUESTIONS : MAX_QUESTIONS / 2;
    const rate = forOwn ? this.rate : this.strangerRate;
    if (this.questions.size >= limit || !rate.take(now)) {
      this.parts.outbox.note({ type: 'limit', what: 'map-requests' });
      return { ...question, open: false };
    }
    this.questions.set(address, question);
    this.proceed(address, question, now);
    return question;
  }

  private proceed(address: IpAddress, question: Question, now: Instant): void {
    if (question.open && question.tries >= TRIES) {
      question.open = false;
      question.nextAt = now + GIVEN_UP;
      this.parts.outbox.note({ type: 'resolution', result: 'unavailable' });
      this.answer(question.tickets.splice(0), UNAVAILABLE);
      return;
    }
    if (!question.open) {
      this.questions.delete(address);
      if (question.again) this.ask(question.resolver, address, false, now, true);
      return;
    }
    question.nextAt = now + FIRST_RETRY * 2 ** question.tries;
    question.tries += 1;
    // For a person or a program that waits, the first two are enough.
    if (question.tries > 2) this.answer(question.tickets.splice(0), UNAVAILABLE);
    this.send(address, question);
  }

  private send(address: IpAddress, { resolver, nonce, solicited }: Question): void {
    const family = ipFamily(resolver.address);
    const own = this.parts.locators().filter(({ priority }) => priority < NEVER_USE);
    // The first is what most answer to.
    const rlocs = [...own].sort(
      (a, b) => Number(ipFamily(b.address) === family) - Number(ipFamily(a.address) === family),
    );
    if (rlocs.length === 0) return;
    const key = eidToRecordKey(prefixEid(this.parts.plainInstance, hostPrefix(address)));
    const request: MapRequest = {
      ...REQUEST,
      nonce,
      smrInvoked: solicited,
      itrRlocs: rlocs.slice(0, MAX_RLOCS).map((rloc) => ipLispAddress(rloc.address)),
      records: [{ ...key, notify: false }],
    };
    const source = rlocs.find((rloc) => ipFamily(rloc.address) === ipFamily(address))?.address ?? address;
    const ecm: EncapsulatedControl = { ...ECM, source, destination: address, payload: encodeLispMessage(request) };
    this.parts.outbox.sendPlainly({ address: resolver.address, port: resolver.port }, encodeLispMessage(ecm));
  }

  /** What of it the Map-Resolver may speak for. */
  private inside(mapping: Mapping, resolver: LispMapResolver): Told[] | undefined {
    const { eid, tunnelKey } = mapping;
    // Who has a tunnel key is never spoken to plainly.
    if (eid.kind !== 'prefix' || eid.iid !== this.parts.plainInstance || tunnelKey !== undefined) return undefined;
    return resolver.resolve.flatMap((allowed) => {
      if (prefixContains(allowed, eid.prefix)) return [{ prefix: eid.prefix, mapping }];
      return prefixContains(eid.prefix, allowed) ? [{ prefix: allowed, mapping }] : [];
    });
  }

  private put(prefix: IpPrefix, told: Mapping, asked: IpAddress, now: Instant): void {
    const { table, overlay, instance } = this.parts;
    this.entries.delete(prefix);
    if (told.ttl === 0 || this.isSaid(prefix)) {
      this.remove(prefix, now);
      return;
    }
    for (const oldest of this.entries.keys()) {
      if (this.entries.size < MAX_ENTRIES) break;
      this.remove(oldest, now);
    }
    const locators = usableLocators(told.locators, overlay());
    const mapping = { ...told, eid: prefixEid(instance, prefix), generation: GENERATION, locators };
    this.entries.set(prefix, { mapping, asked, receivedAt: now, until: now + Math.min(told.ttl, MAX_TTL) });
    if (locators.length > 0) table.forwardPlainly(prefix, GENERATION, locators);
    else table.drop(prefix, GENERATION);
  }

  private remove(prefix: IpPrefix, now: Instant): void {
    this.entries.delete(prefix);
    if (!this.isSaid(prefix)) this.parts.table.removeMapping(prefix, now);
  }

  /** By the own map server, whose word the data plane has then. */
  private isSaid(prefix: IpPrefix): boolean {
    return this.parts.remote.cache.exact(eidKey(prefixEid(this.parts.instance, prefix))) !== undefined;
  }

  private answer(tickets: readonly Ticket[], resolution: Resolution): void {
    for (const ticket of tickets) this.parts.outbox.answer(ticket, { kind: 'resolution', resolution });
  }
}

interface Told {
  readonly prefix: IpPrefix;
  readonly mapping: Mapping;
}

const REQUEST = {
  ...MAP_REQUEST,
  sourceEid: NO_ADDRESS,
} as const;
const ECM = {
  type: 'encapsulated-control',
  ddt: false,
  toEtr: false,
  toMapServer: false,
  forRtr: false,
  relayed: false,
  hopLimit: 64,
  sourcePort: LISP_CONTROL_PORT,
  destinationPort: LISP_CONTROL_PORT,
} as const;
const UNAVAILABLE: Resolution = { kind: 'unavailable' };
const ABSENT: Resolution = { kind: 'absent', action: 'no-action' };
const GENERATION = 0 as Generation;
const FIRST_RETRY: Millis = seconds(1);
const TRIES = 5;
const GIVEN_UP: Millis = seconds(30);
const SMR_INTERVAL: Millis = seconds(3);
const MAX_TTL: Millis = minutes(24 * 60);
const MAX_QUESTIONS = 256;
const QUESTIONS_PER_SECOND = 100;
const MAX_ENTRIES = 1024;
const MAX_RECORDS = 32;
const MAX_ASKED_AGAIN = 16;
const MAX_TICKETS = 16;
const MAX_RLOCS = 4;
