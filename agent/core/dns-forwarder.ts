/**
 * Asks the resolvers of the network that the host is on right now, or those of a zone that has its own.
 *
 * One flight per distinct question: equal questions in flight are joined, which also keeps a forwarding loop from
 * growing. A flight is a series of transmits, each with a fresh ID, a fresh case of the name's letters and (by the
 * shell) a fresh source port; it begins at the fastest good upstream, moves to the next when one is silent, broken or
 * refuses, goes over to TCP when an answer is truncated (RFC 7766) or forgeries arrive (RFC 5452), and drops EDNS or
 * mixed case towards an upstream that does not understand it. The last two transmits stay open, so an answer that is
 * late still counts. New upstreams restart every flight at once: after a roam the old ones are out of reach. The number
 * of flights, of clients that wait for one, of attempts, and the time are bounded.
 *
 * Somebody who waits gets an answer that has expired when a new one does not come within 1.8 s or at all (RFC 8767);
 * what is asked for often is fetched again before it expires, so that nobody waits.
 */
import { type DnsMessage, type DnsQuery, EDE, parseMessage, RCODE, sameQuestion } from '../../proto/dns/message.ts';
import { answersId, encodeUpstreamQuery, headerRcode, questionOctets } from '../../proto/dns/upstream-query.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import { type CacheEntry, cacheKey, DnsCache } from './dns-cache.ts';
import { type Forwarded, fresh, showsAuthentic, stale } from './dns-forwarded.ts';
import { isBelow, UpstreamZones, type ZoneUpstreams } from './dns-upstream-zones.ts';
import type { Upstream, UpstreamHealth, UpstreamSet, UpstreamTransport } from './dns-upstreams.ts';
import { failure } from './dns-zone.ts';

/** Names one transmit towards the shell. */
export type TransmitId = number;

export type ForwarderAction<Client> =
  | {
      readonly kind: 'send';
      readonly transmit: TransmitId;
      readonly upstream: Upstream;
      readonly transport: UpstreamTransport;
      readonly packet: Uint8Array;
    }
  | { readonly kind: 'cancel'; readonly transmit: TransmitId }
  | { readonly kind: 'fault'; readonly error: unknown }
  | { readonly kind: 'forwarded'; readonly client: Client; readonly query: DnsQuery; readonly answer: Forwarded };

export interface ForwarderLimits {
  readonly flights: number;
  readonly waitingPerFlight: number;
  readonly cacheEntries: number;
}

export class DnsForwarder<Client> {
  readonly #random: () => number;
  readonly #limits: ForwarderLimits;
  readonly #cache: DnsCache;
  readonly #zones = new UpstreamZones();
  readonly #flights = new Map<string, Flight<Client>>();
  readonly #transmits = new Map<TransmitId, Transmit<Client>>();
  readonly #actions: ForwarderAction<Client>[] = [];
  #lastTransmit: TransmitId = 0;

  /** `random` gives unpredictable numbers from 0 to 65535. */
  constructor(random: () => number, limits: ForwarderLimits) {
    this.#random = random;
    this.#limits = limits;
    this.#cache = new DnsCache(limits.cacheEntries);
  }

  get cacheEntries(): number {
    return this.#cache.size;
  }

  get health(): readonly UpstreamHealth[] {
    return this.#zones.health;
  }

  setUpstreams(upstreams: readonly Upstream[], now: Instant): void {
    this.#zones.setEverything(upstreams, now);
    this.#restart([], now);
  }

  /** A zone that stays as it was keeps what is known of its upstreams, and its answers. */
  setZones(zones: readonly ZoneUpstreams[], now: Instant): void {
    for (const labels of this.#zones.setZones(zones, now)) this.#restart(labels, now);
  }

  handleQuery(client: Client, query: DnsQuery, now: Instant): void {
    const cached = this.#cache.find(query, this.#zones.depth(query.question.labels), now);
    switch (cached?.kind) {
      case 'failure': {
        const reply = { ...failure(EDE.cachedError, 'failed a moment ago'), rcode: cached.rcode };
        this.#give(client, query, { kind: 'reply', cache: 'failure', reply });
        return;
      }
      case 'fresh':
        this.#give(client, query, fresh(cached, query, now));
        this.#prefetch(query, cached.entry, now);
        return;
      case 'stale':
        if (now < cached.entry.retryAt) this.#give(client, query, stale(cached.entry, query));
        else this.#join(client, query, cached.entry, now);
        return;
      case undefined:
        this.#join(client, query, undefined, now);
        return;
      default:
        cached satisfies never;
    }
  }

  handleUpstream(id: TransmitId, packet: Uint8Array, now: Instant): void {
    const transmit = this.#transmits.get(id);
    if (transmit !== undefined) this.#guarded(transmit.flight, () => this.#receive(transmit, packet, now));
  }

  #receive(transmit: Transmit<Client>, packet: Uint8Array, now: Instant): void {
    const { flight, upstream, transport } = transmit;
    // A stranger who guesses the port must not be able to end the attempt; over TCP there is no stranger.
    const ours = answersId(packet, transmit.dnsId);
    const message = ours ? decoded(packet) : undefined;
    const foreign = message !== undefined && !sameQuestion(message.question, flight.query.question);
    if (!ours || foreign) {
      if (transport === 'udp') this.#doubt(transmit, now);
      else this.#next(transmit, now);
      return;
    }
    if (
      message !== undefined &&
      !sameOctets(message.question.bytes, questionOctets(transmit.packet, message.question))
    ) {
      // Either forged by somebody who knows the ID, or an upstream that changes the case: TCP tells.
      if (transport === 'udp') {
        this.#overTcp(transmit, now);
        return;
      }
      flight.upstreams.withoutRandomCase(upstream);
    }
    const rcode = message?.rcode ?? headerRcode(packet);
    const noEdns = rcode === RCODE.formErr || rcode === RCODE.notImp || rcode === RCODE.badVers;
    const isAnswer = message !== undefined && (rcode === RCODE.noError || rcode === RCODE.nxDomain);
    if (isAnswer) flight.upstreams.answered(upstream, now - transmit.sent, now);
    else flight.upstreams.declined(upstream, now);
    // It may also be the question that it does not like: the answer to the same without OPT tells.
    if (message !== undefined && !transmit.edns && !noEdns) flight.upstreams.withoutEdns(upstream);
    if (transmit.edns && noEdns) {
      this.#close(transmit);
      this.#send(flight, upstream, transport, now, false);
    } else if (message === undefined) {
      flight.upstreams.failed(upstream);
      this.#next(transmit, now);
    } else if (message.truncated && transport === 'udp') {
      this.#overTcp(transmit, now);
    } else if (isAnswer) {
      // What another one answers was no reason to refuse.
      for (const other of flight.refused.keys()) if (other !== upstream) flight.upstreams.failed(other);
      this.#land(transmit, message, now);
    } else {
      flight.refused.set(upstream, rcode);
      this.#next(transmit, now);
    }
  }

  /** The transmit cannot be answered any more: unreachable, refused or closed. */
  handleUpstreamFailed(id: TransmitId, now: Instant): void {
    const transmit = this.#transmits.get(id);
    if (transmit === undefined) return;
    this.#guarded(transmit.flight, () => {
      transmit.flight.upstreams.failed(transmit.upstream);
      this.#next(transmit, now);
    });
  }

  handleTimeout(now: Instant): void {
    for (const flight of [...this.#flights.values()]) this.#guarded(flight, () => this.#continue(flight, now));
  }

  #continue(flight: Flight<Client>, now: Instant): void {
    if (flight.stale !== undefined && now >= flight.staleAt) this.#giveStale(flight, flight.stale);
    if (now >= flight.deadline) {
      this.#suspect(flight);
      this.#fail(flight, now);
    } else if (now >= flight.retryAt) {
      this.#suspect(flight);
      this.#attempt(flight, now);
    }
  }

  /** A flight that failed by an error of ours is over: another look at it would find the same. */
  #guarded(flight: Flight<Client>, act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#actions.push({ kind: 'fault', error });
      const reply = failure(EDE.other, 'an error of the agent');
      this.#finish(flight, () => ({ kind: 'reply', cache: 'miss', reply }));
    }
  }

  pollTimeout(): Instant | undefined {
    let earliest: Instant | undefined;
    for (const { retryAt, deadline, stale: expired, waiting, staleAt } of this.#flights.values()) {
      const due = Math.min(retryAt, deadline, expired !== undefined && waiting.length > 0 ? staleAt : deadline);
      if (earliest === undefined || due < earliest) earliest = due;
    }
    return earliest;
  }

  pollAction(): ForwarderAction<Client> | undefined {
    return this.#actions.shift();
  }

  #join(client: Client, query: DnsQuery, expired: CacheEntry | undefined, now: Instant): void {
    const flight = this.#flights.get(cacheKey(query));
    if (flight === undefined) {
      const launched = this.#launch(query, expired, now);
      if (typeof launched !== 'string') {
        launched.waiting.push({ client, query });
        this.#guarded(launched, () => this.#attempt(launched, now));
      } else if (expired !== undefined) {
        this.#give(client, query, stale(expired, query));
      } else {
        const code = launched === NO_UPSTREAM ? EDE.noReachableAuthority : EDE.other;
        this.#give(client, query, { kind: 'reply', cache: 'miss', reply: failure(code, launched) });
      }
    } else if (expired !== undefined && now >= flight.staleAt) {
      this.#give(client, query, stale(expired, query));
    } else if (flight.waiting.length < this.#limits.waitingPerFlight) {
      flight.waiting.push({ client, query });
    } else {
      const reply = failure(EDE.other, 'too many wait for this answer');
      this.#give(client, query, { kind: 'reply', cache: 'miss', reply });
    }
  }

  /** Or says why not. */
  #launch(query: DnsQuery, expired: CacheEntry | undefined, now: Instant): Flight<Client> | string {
    const upstreams = this.#zones.of(query.question.labels);
    if (upstreams.list.length === 0) return NO_UPSTREAM;
    if (this.#flights.size >= this.#limits.flights) return 'too many questions in flight';
    const flight: Flight<Client> = {
      query,
      upstreams,
      order: upstreams.ranking(),
      waiting: [],
      transmits: [],
      refused: new Map(),
      attempts: 0,
      retryAt: now,
      deadline: now + FLIGHT_TIME,
      stale: expired,
      staleAt: now + STALE_PATIENCE,
    };
    this.#flights.set(cacheKey(query), flight);
    return flight;
  }

  #prefetch(query: DnsQuery, entry: CacheEntry, now: Instant): void {
    entry.hits += 1;
    const wanted = now >= entry.ageing && entry.hits >= POPULAR && now >= entry.retryAt;
    // Clients come first: half of the flights are theirs alone.
    if (!wanted || this.#flights.size * 2 >= this.#limits.flights || this.#flights.has(cacheKey(query))) return;
    entry.retryAt = now + REFRESH_PAUSE;
    const flight = this.#launch(query, undefined, now);
    if (typeof flight !== 'string') this.#guarded(flight, () => this.#attempt(flight, now));
  }

  /** What is asked in a zone is asked of others from now on. */
  #restart(zone: readonly string[], now: Instant): void {
    this.#cache.forgetBelow(zone);
    for (const flight of [...this.#flights.values()]) {
      if (isBelow(flight.query.question.labels, zone)) this.#guarded(flight, () => this.#askAnew(flight, now));
    }
  }

  #askAnew(flight: Flight<Client>, now: Instant): void {
    this.#cancel(flight);
    flight.upstreams = this.#zones.of(flight.query.question.labels);
    flight.order = flight.upstreams.ranking();
    flight.stale = undefined;
    flight.attempts = 0;
    flight.refused.clear();
    this.#attempt(flight, now);
  }

  /** What has not been answered by now speaks against its upstream. */
  #suspect(flight: Flight<Client>): void {
    const latest = flight.transmits.at(-1);
    if (latest !== undefined) flight.upstreams.failed(latest.upstream);
  }

  #doubt(transmit: Transmit<Client>, now: Instant): void {
    transmit.forgeries += 1;
    if (transmit.forgeries >= MAX_FORGERIES) this.#overTcp(transmit, now);
  }

  #overTcp(transmit: Transmit<Client>, now: Instant): void {
    this.#close(transmit);
    this.#send(transmit.flight, transmit.upstream, 'tcp', now);
  }

  /** Gives this upstream up for now and turns to the next. */
  #next(transmit: Transmit<Client>, now: Instant): void {
    const { flight } = transmit;
    this.#close(transmit);
    const untried = flight.attempts < flight.order.length;
    const allRefused = flight.order.every((upstream) => flight.refused.has(upstream));
    if (allRefused) this.#fail(flight, now);
    else if (untried) this.#attempt(flight, now);
    // Another transmit may still be answered; and without a route there is nothing to hurry for.
    else if (flight.transmits.length === 0) flight.retryAt = Math.min(flight.retryAt, now + PAUSE);
  }

  #attempt(flight: Flight<Client>, now: Instant): void {
    const upstream = flight.order[flight.attempts % Math.max(1, flight.order.length)];
    // RFC 9520 section 3.1: at most three queries per server.
    if (upstream === undefined || flight.attempts >= Math.min(MAX_ATTEMPTS, 3 * flight.order.length)) {
      this.#fail(flight, now);
      return;
    }
    flight.attempts += 1;
    const rival = flight.attempts === 1 ? flight.upstreams.rival(upstream, now) : undefined;
    if (rival !== undefined) this.#send(flight, rival, transportTo(rival), now);
    this.#send(flight, upstream, transportTo(upstream), now);
  }

  #send(
    flight: Flight<Client>,
    upstream: Upstream,
    transport: UpstreamTransport,
    now: Instant,
    edns = flight.upstreams.edns(upstream),
  ): void {
    const patience = transport === 'udp' ? (UDP_PATIENCE[flight.attempts - 1] ?? LAST_PATIENCE) : TCP_PATIENCE;
    flight.retryAt = now + patience;
    this.#lastTransmit += 1;
    const dnsId = this.#random();
    const letters = flight.upstreams.randomCase(upstream) ? this.#coin() : undefined;
    const packet = encodeUpstreamQuery(flight.query, dnsId, edns, letters);
    const id = this.#lastTransmit;
    const transmit = { id, flight, upstream, transport, dnsId, edns, packet, sent: now, forgeries: 0 };
    this.#transmits.set(id, transmit);
    flight.transmits.push(transmit);
    const oldest = flight.transmits[0];
    if (flight.transmits.length > OPEN_TRANSMITS && oldest !== undefined) this.#close(oldest);
    this.#actions.push({ kind: 'send', transmit: id, upstream, transport, packet });
  }

  #coin(): () => boolean {
    let bits = 0;
    let left = 0;
    return () => {
      if (left === 0) [bits, left] = [this.#random(), 16];
      left -= 1;
      return ((bits >> left) & 1) === 1;
    };
  }

  #land(transmit: Transmit<Client>, message: DnsMessage, now: Instant): void {
    const { flight, upstream, transport } = transmit;
    const trusted = transport === 'tls' || upstream.host.startsWith('127.') || upstream.host === '::1';
    this.#cache.storeMessage(flight.query, message, trusted, now);
    this.#finish(flight, (query) => ({
      ...{ kind: 'message', cache: 'miss', message, age: 0 },
      authenticData: showsAuthentic(message, trusted, query),
    }));
  }

  #fail(flight: Flight<Client>, now: Instant): void {
    const expired = flight.stale;
    if (expired !== undefined) {
      expired.retryAt = now + REFRESH_PAUSE;
      this.#finish(flight, (query) => stale(expired, query));
      return;
    }
    const refusals = [...flight.refused.values()];
    const last = refusals.length >= flight.order.length ? refusals.at(-1) : undefined;
    // An extended RCODE is about their OPT, not about the question, and a client without OPT would see NOERROR.
    const rcode = last === undefined || last > 15 ? RCODE.servFail : last;
    const reply = { ...failure(EDE.noReachableAuthority, 'no upstream resolver answered'), rcode };
    if (flight.waiting.length > 0) this.#cache.storeFailure(flight.query, reply.rcode, now);
    this.#finish(flight, () => ({ kind: 'reply', cache: 'miss', reply }));
  }

  #giveStale(flight: Flight<Client>, expired: CacheEntry): void {
    for (const { client, query } of flight.waiting.splice(0)) this.#give(client, query, stale(expired, query));
  }

  #finish(flight: Flight<Client>, answer: (query: DnsQuery) => Forwarded): void {
    this.#flights.delete(cacheKey(flight.query));
    this.#cancel(flight);
    for (const { client, query } of flight.waiting.splice(0)) this.#give(client, query, answer(query));
  }

  #cancel(flight: Flight<Client>): void {
    for (const transmit of [...flight.transmits]) this.#close(transmit);
  }

  #close(transmit: Transmit<Client>): void {
    this.#transmits.delete(transmit.id);
    transmit.flight.transmits = transmit.flight.transmits.filter((other) => other !== transmit);
    this.#actions.push({ kind: 'cancel', transmit: transmit.id });
  }

  #give(client: Client, query: DnsQuery, answer: Forwarded): void {
    this.#actions.push({ kind: 'forwarded', client, query, answer });
  }
}

interface Flight<Client> {
  readonly query: DnsQuery;
  upstreams: UpstreamSet;
  /** In which they are asked, again and again. */
  order: readonly Upstream[];
  /** Nobody, when an entry of the cache is being refreshed. */
  readonly waiting: { readonly client: Client; readonly query: DnsQuery }[];
  transmits: Transmit<Client>[];
  /** Upstreams that answered with a failure. */
  readonly refused: Map<Upstream, number>;
  /** How many upstreams were turned to so far. */
  attempts: number;
  retryAt: Instant;
  readonly deadline: Instant;
  /** What is given when no answer comes. */
  stale: CacheEntry | undefined;
  readonly staleAt: Instant;
}

interface Transmit<Client> {
  readonly id: TransmitId;
  readonly flight: Flight<Client>;
  readonly upstream: Upstream;
  readonly transport: UpstreamTransport;
  readonly dnsId: number;
  readonly edns: boolean;
  readonly packet: Uint8Array;
  readonly sent: Instant;
  /** Packets that came for it and were not its answer. */
  forgeries: number;
}

function transportTo(upstream: Upstream): UpstreamTransport {
  return upstream.tls === undefined ? 'udp' : 'tls';
}

function decoded(packet: Uint8Array): DnsMessage | undefined {
  try {
    return parseMessage(packet);
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

function sameOctets(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, i) => octet === b[i]);
}

const NO_UPSTREAM = 'no upstream resolver is known';
/** How long to wait for each attempt before the next; a lost packet should cost less than a glibc timeout (5 s). */
const UDP_PATIENCE: readonly Millis[] = [700, 1300];
const LAST_PATIENCE: Millis = 2000;
const TCP_PATIENCE: Millis = 2500;
const FLIGHT_TIME: Millis = 8000;
const PAUSE: Millis = 300;
const MAX_ATTEMPTS = 6;
const OPEN_TRANSMITS = 2;
const MAX_FORGERIES = 8;
/** RFC 8767 section 5: the client response timer, and the failure recheck timer. */
const STALE_PATIENCE: Millis = 1800;
const REFRESH_PAUSE: Millis = 30_000;
/** Asked so often in one life, an answer is worth to be fetched again. */
const POPULAR = 3;
