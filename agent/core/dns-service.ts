/**
 * The agent's DNS server without its sockets: packets in, actions out.
 *
 * A packet is answered at once, or waits for one lookup in the mapping system (equal lookups are joined), or goes to
 * the forwarder. Every packet that is accepted ends in exactly one `reply` or `ignore` for its client, at the latest
 * when its lookup or flight times out, so that the shell can count what is outstanding. That holds as well for a
 * question that failed by an error of ours: it is SERVFAIL, others are worked on, and the shell hears of the `fault`.
 */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import {
  type DnsQuery,
  type DnsQuestion,
  type DnsTransport,
  EDE,
  parseQuery,
  questionFor,
  RCODE,
} from '../../proto/dns/message.ts';
import { insideZone, type NameServer } from '../../proto/dns/record-sets.ts';
import {
  type DnsRecord,
  type DnsReply,
  encodeReply,
  type RecordEncoder,
  renderMessage,
  replyLimit,
  STALE_TTL,
  servFailTo,
} from '../../proto/dns/reply.ts';
import { answersOfType } from '../../proto/dns/sections.ts';
import { APEX } from '../../proto/eid.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import { Delegations } from './dns-delegations.ts';
import type { CacheResult, Forwarded } from './dns-forwarded.ts';
import { DnsForwarder, type ForwarderLimits, type TransmitId } from './dns-forwarder.ts';
import { type LookupId, type LookupLimits, Lookups } from './dns-lookups.ts';
import { type Aliases, MAX_ALIASES, NO_ALIASES } from './dns-names.ts';
import { PreparedAnswers } from './dns-prepared.ts';
import type { ZoneUpstreams } from './dns-upstream-zones.ts';
import type { Upstream, UpstreamHealth, UpstreamTransport } from './dns-upstreams.ts';
import { DnsZone, type Finding, failure } from './dns-zone.ts';

export type DnsAction<Client> =
  | {
      readonly kind: 'reply';
      readonly client: Client;
      readonly packet: Uint8Array;
      /** `overlay` is all that the agent answers by itself. */
      readonly zone: 'overlay' | 'forward';
      /** Absent when the question could not be read. */
      readonly question?: DnsQuestion;
      readonly rcode: number;
      /** Absent for what was not forwarded. */
      readonly cache?: CacheResult;
      readonly elapsed: Millis;
    }
  | { readonly kind: 'ignore'; readonly client: Client }
  | { readonly kind: 'resolve-name'; readonly lookup: LookupId; readonly name: string }
  | { readonly kind: 'resolve-pointer'; readonly lookup: LookupId; readonly address: IpAddress }
  | {
      readonly kind: 'send';
      readonly transmit: TransmitId;
      readonly upstream: Upstream;
      readonly transport: UpstreamTransport;
      readonly packet: Uint8Array;
    }
  | { readonly kind: 'cancel'; readonly transmit: TransmitId }
  | { readonly kind: 'fault'; readonly error: unknown };

export interface DnsServiceLimits extends ForwarderLimits, LookupLimits {
  /** Of the fast path. */
  readonly preparedAnswers: number;
}

export interface DnsServiceOptions {
  readonly encodeRecord: RecordEncoder;
  /** Unpredictable, 0 to 65535. */
  readonly randomId: () => number;
  /** Names that are asked of the upstreams even inside the overlay's zone. */
  readonly alwaysForwarded?: readonly string[];
  readonly limits?: Partial<DnsServiceLimits>;
}

export class DnsService<Client> {
  readonly #encodeRecord: RecordEncoder;
  readonly #alwaysForwarded: ReadonlySet<string>;
  readonly #forwarder: DnsForwarder<Asker<Client>>;
  readonly #limits: DnsServiceLimits;
  readonly #actions: DnsAction<Client>[] = [];
  readonly #lookups: Lookups<Waiting<Client>>;
  #prepared: PreparedAnswers;
  readonly #random: () => number;
  readonly #delegations = new Delegations();
  #zones: readonly ZoneUpstreams[] = [];
  #zone = new DnsZone('', []);
  #version = 0;

  /** From 0 to below 1. */
  readonly #chance = (): number => this.#random() / 0x10000;

  constructor(options: DnsServiceOptions) {
    this.#encodeRecord = options.encodeRecord;
    this.#alwaysForwarded = new Set(options.alwaysForwarded?.map((name) => name.toLowerCase().replace(/\.$/, '')));
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#lookups = new Lookups(this.#limits);
    this.#prepared = new PreparedAnswers(this.#limits.preparedAnswers);
    this.#random = options.randomId;
    this.#forwarder = new DnsForwarder(options.randomId, this.#limits);
  }

  get cacheEntries(): number {
    return this.#forwarder.cacheEntries;
  }

  get upstreamHealth(): readonly UpstreamHealth[] {
    return this.#forwarder.health;
  }

  setZone(zone: string, overlay: readonly IpPrefix[]): void {
    this.#zone = new DnsZone(zone, overlay);
    this.#delegations.clear();
    this.#prepared = new PreparedAnswers(this.#limits.preparedAnswers);
  }

  /** Another number whenever answers about the overlay may be others now. */
  setVersion(version: number): void {
    this.#version = version;
  }

  setUpstreams(upstreams: readonly Upstream[], now: Instant): void {
    this.#forwarder.setUpstreams(upstreams, now);
    this.#drainForwarder(now);
  }

  setZones(zones: readonly ZoneUpstreams[], now: Instant): void {
    this.#zones = zones;
    this.#useZones(now);
    this.#drainForwarder(now);
  }

  handlePacket(client: Client, packet: Uint8Array, transport: DnsTransport, now: Instant): void {
    const found = transport === 'udp' ? this.#prepared.find(packet, this.#version, now) : undefined;
    if (found !== undefined) {
      const { question, rcode, entry } = found.prepared;
      const facts = entry === undefined ? OVERLAY_HIT : FORWARD_HIT;
      this.#actions.push({ kind: 'reply', client, packet: found.reply, question, rcode, elapsed: 0, ...facts });
      return;
    }
    const asker = { client, packet, transport, since: now };
    this.#guarded(asker, now, () => this.#handleQuestion(asker, now));
  }

  /** A client from elsewhere. It is told so, once, in no more octets than it sent and an OPT. */
  handleStranger(client: Client, packet: Uint8Array, transport: DnsTransport, now: Instant): void {
    const asker = { client, packet, transport, since: now };
    this.#guarded(asker, now, () => {
      const parsed = parseQuery(packet);
      if (parsed.kind !== 'query') {
        this.#actions.push({ kind: 'ignore', client });
        return;
      }
      const reply = { ...failure(EDE.prohibited, 'not for other hosts'), rcode: RCODE.refused };
      this.#answer(asker, parsed.query, reply, now);
    });
  }

  handleName(lookup: LookupId, finding: Finding<IpAddress>, now: Instant): void {
    const taken = this.#lookups.take(lookup);
    for (const waiting of taken?.waiting ?? []) {
      this.#guarded(waiting.asker, now, () => {
        if (waiting.service === undefined) this.#step(waiting, finding, taken?.version, now);
        else this.#complete(waiting, this.#zone.addressesAt(waiting.service.target, finding, this.#chance), now);
      });
    }
  }

  handlePointer(lookup: LookupId, finding: Finding<string>, now: Instant): void {
    this.#resolved(lookup, (query) => this.#zone.replyToPointer(query.question, finding), now);
  }

  handleUpstream(transmit: TransmitId, packet: Uint8Array, now: Instant): void {
    this.#forwarder.handleUpstream(transmit, packet, now);
    this.#drainForwarder(now);
  }

  handleUpstreamFailed(transmit: TransmitId, now: Instant): void {
    this.#forwarder.handleUpstreamFailed(transmit, now);
    this.#drainForwarder(now);
  }

  handleTimeout(now: Instant): void {
    for (const id of this.#lookups.overdue(now)) {
      this.#resolved(id, () => failure(EDE.noReachableAuthority, 'map server did not answer in time'), now);
    }
    if (this.#delegations.expire(now)) this.#useZones(now);
    this.#forwarder.handleTimeout(now);
    this.#drainForwarder(now);
  }

  pollTimeout(): Instant | undefined {
    const due = [this.#lookups.pollTimeout(), this.#forwarder.pollTimeout(), this.#delegations.pollTimeout()];
    const earliest = Math.min(...due.map((each) => each ?? Number.POSITIVE_INFINITY));
    return earliest === Number.POSITIVE_INFINITY ? undefined : earliest;
  }

  pollAction(): DnsAction<Client> | undefined {
    return this.#actions.shift();
  }

  #handleQuestion(asker: Asker<Client>, now: Instant): void {
    const { client } = asker;
    const parsed = parseQuery(asker.packet);
    switch (parsed.kind) {
      case 'drop':
        this.#actions.push({ kind: 'ignore', client });
        return;
      case 'malformed': {
        const { reply, rcode } = parsed;
        this.#actions.push({ kind: 'reply', client, packet: reply, zone: 'overlay', rcode, elapsed: 0 });
        return;
      }
      case 'reject':
        this.#answer(asker, parsed.query, emptyReply(parsed.rcode), now);
        return;
      case 'query':
        this.#ask(asker, parsed.query, now);
        return;
      default:
        parsed satisfies never;
    }
  }

  #guarded(asker: Asker<Client>, now: Instant, act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#actions.push({ kind: 'fault', error });
      const { client, packet, since } = asker;
      const done = this.#actions.some((a) => (a.kind === 'reply' || a.kind === 'ignore') && a.client === client);
      if (done) return;
      const reply = { packet: servFailTo(packet), rcode: RCODE.servFail, elapsed: now - since };
      this.#actions.push({ kind: 'reply', client, zone: 'overlay', ...reply });
    }
  }

  #ask(asker: Asker<Client>, query: DnsQuery, now: Instant): void {
    const verdict = this.#isAlwaysForwarded(query.question) ? FORWARD : this.#zone.judge(query.question);
    switch (verdict.kind) {
      case 'answer':
        this.#answer(asker, query, verdict.reply, now);
        return;
      case 'forward':
        this.#forwarder.handleQuery(asker, query, now);
        this.#drainForwarder(now);
        return;
      case 'resolve-name':
        this.#lookUp(`name:${verdict.name}`, asker, query, now, (lookup) => ({ ...verdict, lookup }));
        return;
      case 'resolve-pointer':
        this.#lookUp(verdict.address, asker, query, now, (lookup) => ({ ...verdict, lookup }));
        return;
      default:
        verdict satisfies never;
    }
  }

  #isAlwaysForwarded({ labels }: DnsQuestion): boolean {
    return this.#alwaysForwarded.size > 0 && this.#alwaysForwarded.has(labels.join('.'));
  }

  #lookUp(
    key: string,
    asker: Asker<Client>,
    query: DnsQuery,
    now: Instant,
    action: (lookup: LookupId) => DnsAction<Client>,
    { aliases = NO_ALIASES, service }: { aliases?: Aliases; service?: PendingService } = {},
  ): void {
    const lookup = this.#lookups.join(key, { asker, query, aliases, service }, this.#version, now);
    if (lookup === 'full') {
      this.#answer(asker, query, service?.reply ?? failure(EDE.other, 'too many lookups are waiting'), now);
    } else if (lookup !== 'joined') this.#actions.push(action(lookup));
  }

  #resolved(id: LookupId, reply: (query: DnsQuery) => DnsReply, now: Instant): void {
    const lookup = this.#lookups.take(id);
    for (const { asker, query, service } of lookup?.waiting ?? []) {
      this.#guarded(asker, now, () => {
        if (service !== undefined) this.#answer(asker, query, service.reply, now);
        else this.#answerAt(lookup?.version, asker, query, reply(query), now);
      });
    }
  }

  /** Keeps it for those who ask the same, if nothing has changed since the lookup. */
  #answerAt(version: number | undefined, asker: Asker<Client>, query: DnsQuery, reply: DnsReply, now: Instant): void {
    const packet = this.#answer(asker, query, reply, now);
    // Several addresses may be given in another order each time; aliases took several lookups.
    const [only, ...more] = reply.answers;
    const isOne = only !== undefined && more.length === 0 && only.type !== 'CNAME';
    if (version !== this.#version || asker.transport !== 'udp' || !isOne) return;
    const { question } = query;
    this.#prepared.storeOverlay(asker.packet, packet, version, now, { question, rcode: reply.rcode });
  }

  #step(
    { asker, query, aliases }: Waiting<Client>,
    finding: Finding<IpAddress>,
    version: number | undefined,
    now: Instant,
  ): void {
    const step = this.#zone.stepAtName(query.question, finding, aliases, this.#chance);
    switch (step.kind) {
      case 'reply': {
        const [target, ...targets] = this.#zone.serviceTargets(step.reply);
        if (target === undefined) this.#answerAt(version, asker, query, step.reply, now);
        else this.#lookUpService(asker, query, { reply: step.reply, target, targets }, now);
        return;
      }
      case 'alias':
        this.#followAlias(asker, query, step.aliases, step.target, now);
        return;
      case 'delegated':
        if (this.#delegate(step.cut, step.servers, now)) this.#forwardFor(asker, query, aliases, now);
        else this.#answer(asker, query, failure(EDE.noReachableAuthority, 'its name servers have no address'), now);
        return;
      default:
        step satisfies never;
    }
  }

  /** Where a service is goes with it (RFC 2782), as far as it can be found. */
  #lookUpService(asker: Asker<Client>, query: DnsQuery, service: PendingService, now: Instant): void {
    const { target: name } = service;
    this.#lookUp(`name:${name}`, asker, query, now, (lookup) => ({ kind: 'resolve-name', lookup, name }), { service });
  }

  #complete({ asker, query, service }: Waiting<Client>, addresses: readonly DnsRecord[], now: Instant): void {
    if (service === undefined) return;
    const additionals = [...(service.reply.additionals ?? []), ...addresses];
    const reply = { ...service.reply, additionals };
    const [target, ...targets] = service.targets;
    if (target === undefined) this.#answer(asker, query, reply, now);
    else this.#lookUpService(asker, query, { reply, target, targets }, now);
  }

  #followAlias(asker: Asker<Client>, query: DnsQuery, aliases: Aliases, target: string, now: Instant): void {
    const inside = aliases.end === this.#zone.name ? APEX : insideZone(target);
    if (aliases.records.length > MAX_ALIASES) this.#answer(asker, query, failure(EDE.other, 'too many aliases'), now);
    else if (inside === null) this.#forwardFor(asker, query, aliases, now);
    else
      this.#lookUp(`name:${inside}`, asker, query, now, (lookup) => ({ kind: 'resolve-name', lookup, name: inside }), {
        aliases,
      });
  }

  /** Asks others for where the aliases end, or for the question itself where there are none. */
  #forwardFor(asker: Asker<Client>, query: DnsQuery, aliases: Aliases, now: Instant): void {
    if (aliases.end === null) this.#forwarder.handleQuery({ ...asker, delegated: true }, query, now);
    else {
      const question = questionFor(aliases.end, query.question.type);
      this.#forwarder.handleQuery({ ...asker, through: { query, aliases } }, { ...query, question }, now);
    }
    this.#drainForwarder(now);
  }

  /** What is below the name is asked of its servers. False: it is not known where they are. */
  #delegate(cut: string, servers: readonly NameServer[], now: Instant): boolean {
    const upstreams = servers.flatMap(({ addresses }) => addresses.map((host) => ({ host, port: 53 })));
    if (upstreams.length === 0) return false;
    const use = this.#delegations.use(`${cut}.${this.#zone.name}`, upstreams, now);
    if (use === 'new') this.#useZones(now);
    return use !== 'full';
  }

  #useZones(now: Instant): void {
    const set = new Set(this.#zones.map(({ zone }) => zone));
    const learnt = this.#delegations.zones.filter(({ zone }) => !set.has(zone));
    this.#forwarder.setZones([...this.#zones, ...learnt], now);
  }

  /** An alias led out of the zone. Of what is there, the records of the type are taken over. */
  #answerThrough(asker: Asker<Client>, { query, aliases }: Through, answer: Forwarded, now: Instant): void {
    const owner = aliases.end ?? '';
    if (answer.kind === 'reply') {
      this.#answer(asker, query, { ...answer.reply, answers: aliases.records }, now);
      return;
    }
    const { message, age, stale } = answer;
    const { type } = query.question;
    const found = answersOfType(message, type).map(
      ({ ttl, rdata }): DnsRecord => ({
        ...{ type: 'other', number: type, data: rdata, owner, ownerSkip: 0 },
        ttl: stale === undefined ? Math.max(0, ttl - age) : STALE_TTL,
      }),
    );
    const answers = [...aliases.records, ...found];
    const reply = { ...emptyReply(message.rcode), answers };
    this.#answer(asker, query, stale === undefined ? reply : { ...reply, extendedError: stale }, now);
  }

  #drainForwarder(now: Instant): void {
    for (let action = this.#forwarder.pollAction(); action !== undefined; action = this.#forwarder.pollAction()) {
      if (action.kind === 'forwarded') {
        this.#guarded(action.client, now, () => this.#answerForwarded(action.client, action.query, action.answer, now));
      } else this.#actions.push(action);
    }
  }

  #answerForwarded(asker: Asker<Client>, query: DnsQuery, answer: Forwarded, now: Instant): void {
    if (asker.through !== undefined) {
      this.#answerThrough(asker, asker.through, answer, now);
      return;
    }
    const limit = replyLimit(query, asker.transport);
    const packet =
      answer.kind === 'message'
        ? renderMessage(answer.message, query, answer.age, answer.authenticData, limit, answer.stale)
        : encodeReply(query, answer.reply, limit, this.#encodeRecord);
    const rcode = answer.kind === 'message' ? answer.message.rcode : answer.reply.rcode;
    const lasts = asker.transport === 'udp' && asker.delegated !== true;
    if (answer.kind === 'message' && answer.entry !== undefined && lasts) {
      const facts = { question: query.question, rcode, entry: answer.entry, edns: query.edns !== undefined };
      this.#prepared.storeForwarded(asker.packet, packet, answer.age, answer.message, facts);
    }
    this.#actions.push({
      ...{ kind: 'reply', client: asker.client, packet, zone: 'forward', question: query.question, rcode },
      ...{ cache: answer.cache, elapsed: now - asker.since },
    });
  }

  #answer(asker: Asker<Client>, query: DnsQuery, reply: DnsReply, now: Instant): Uint8Array {
    const packet = encodeReply(query, reply, replyLimit(query, asker.transport), this.#encodeRecord);
    this.#actions.push({
      ...{ kind: 'reply', client: asker.client, packet, zone: 'overlay', question: query.question },
      ...{ rcode: reply.rcode, elapsed: now - asker.since },
    });
    return packet;
  }
}

interface Asker<Client> {
  readonly client: Client;
  /** What it sent. */
  readonly packet: Uint8Array;
  readonly transport: DnsTransport;
  readonly since: Instant;
  /** What is forwarded is not its question, but the end of these aliases. */
  readonly through?: Through;
  /** By the map server, for as long as it says so: with each question it is looked at again. */
  readonly delegated?: boolean;
}

interface Through {
  readonly query: DnsQuery;
  readonly aliases: Aliases;
}

interface Waiting<Client> {
  readonly asker: Asker<Client>;
  readonly query: DnsQuery;
  readonly aliases: Aliases;
  /** The question is answered, and this is what the lookup is for. */
  readonly service: PendingService | undefined;
}

/** An answer that waits for the addresses of the names that it leads to. */
interface PendingService {
  readonly reply: DnsReply;
  /** Relative to the zone. */
  readonly target: string;
  readonly targets: readonly string[];
}

function emptyReply(rcode: number): DnsReply {
  return { rcode, authoritative: false, answers: [], authorities: [] };
}

const FORWARD = { kind: 'forward' } as const;
const OVERLAY_HIT = { zone: 'overlay' } as const;
const FORWARD_HIT = { zone: 'forward', cache: 'hit' } as const;
const DEFAULT_LIMITS = { flights: 256, waitingPerFlight: 32, cacheEntries: 1024, lookups: 256, preparedAnswers: 4096 };
