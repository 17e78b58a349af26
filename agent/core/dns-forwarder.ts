/**
 * Asks the resolvers of the network that the host is on right now.
 *
 * One flight per distinct question: equal questions in flight are joined, which also keeps a forwarding loop from
 * growing. A flight is a series of transmits, each with a fresh ID and (by the shell) a fresh source port; it moves
 * to the next upstream when one is silent, broken or refuses, goes over to TCP when an answer is truncated
 * (RFC 7766), and drops EDNS towards an upstream that does not understand it. The last two transmits stay open, so
 * an answer that is late still counts. New upstreams restart every flight at once: after a roam the old ones are out
 * of reach. The number of flights, of clients that wait for one, of attempts, and the time are bounded.
 */

import {
  answersId,
  type DnsMessage,
  type DnsQuery,
  type DnsReply,
  type DnsTransport,
  EDE,
  encodeUpstreamQuery,
  headerRcode,
  nameKey,
  parseMessage,
  RCODE,
  sameQuestion,
} from '../../proto/dns/message.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import { DnsCache } from './dns-cache.ts';
import { failure } from './dns-zone.ts';

export interface Upstream {
  readonly host: string;
  readonly port: number;
}

/** Names one transmit towards the shell. */
export type TransmitId = number;

export type ForwarderAction<Client> =
  | {
      readonly kind: 'send';
      readonly transmit: TransmitId;
      readonly upstream: Upstream;
      readonly transport: DnsTransport;
      readonly packet: Uint8Array;
    }
  | { readonly kind: 'cancel'; readonly transmit: TransmitId }
  | { readonly kind: 'forwarded'; readonly client: Client; readonly query: DnsQuery; readonly answer: Forwarded };

export type Forwarded =
  /** `age` in seconds. */
  | { readonly kind: 'message'; readonly message: DnsMessage; readonly age: number; readonly authenticData: boolean }
  | { readonly kind: 'reply'; readonly reply: DnsReply };

export interface ForwarderLimits {
  readonly flights: number;
  readonly waitingPerFlight: number;
  readonly cacheEntries: number;
}

export class DnsForwarder<Client> {
  readonly #randomId: () => number;
  readonly #limits: ForwarderLimits;
  readonly #cache: DnsCache;
  readonly #flights = new Map<string, Flight<Client>>();
  readonly #transmits = new Map<TransmitId, Transmit<Client>>();
  readonly #actions: ForwarderAction<Client>[] = [];
  readonly #withoutEdns = new Set<Upstream>();
  #upstreams: readonly Upstream[] = [];
  /** The upstream that answered last; the next flight starts there. */
  #preferred = 0;
  #lastTransmit: TransmitId = 0;

  constructor(randomId: () => number, limits: ForwarderLimits) {
    this.#randomId = randomId;
    this.#limits = limits;
    this.#cache = new DnsCache(limits.cacheEntries);
  }

  get cacheEntries(): number {
    return this.#cache.size;
  }

  setUpstreams(upstreams: readonly Upstream[], now: Instant): void {
    this.#upstreams = upstreams;
    this.#preferred = 0;
    this.#withoutEdns.clear();
    this.#cache.clear();
    for (const flight of [...this.#flights.values()]) {
      this.#cancel(flight);
      flight.attempts = 0;
      flight.refused.clear();
      this.#attempt(flight, now);
    }
  }

  handleQuery(client: Client, query: DnsQuery, now: Instant): void {
    const key = flightKey(query);
    const cached = this.#cache.find(key, now);
    if (cached !== undefined) {
      const answer: Forwarded =
        cached.kind === 'message'
          ? forwarded(cached.message, cached.trusted, query, Math.floor((now - cached.stored) / 1000))
          : { kind: 'reply', reply: { ...failure(EDE.cachedError, 'failed a moment ago'), rcode: cached.rcode } };
      this.#actions.push({ kind: 'forwarded', client, query, answer });
      return;
    }
    const flight = this.#flights.get(key);
    if (flight !== undefined) {
      if (flight.waiting.length < this.#limits.waitingPerFlight) flight.waiting.push({ client, query });
      else this.#refuse(client, query, failure(EDE.other, 'too many wait for this answer'));
      return;
    }
    if (this.#upstreams.length === 0) {
      this.#refuse(client, query, failure(EDE.noReachableAuthority, 'no upstream resolver is known'));
      return;
    }
    if (this.#flights.size >= this.#limits.flights) {
      this.#refuse(client, query, failure(EDE.other, 'too many questions in flight'));
      return;
    }
    const launched: Flight<Client> = {
      key,
      query,
      waiting: [{ client, query }],
      transmits: [],
      refused: new Map(),
      attempts: 0,
      first: this.#preferred,
      retryAt: now,
      deadline: now + FLIGHT_TIME,
    };
    this.#flights.set(key, launched);
    this.#attempt(launched, now);
  }

  handleUpstream(id: TransmitId, packet: Uint8Array, now: Instant): void {
    const transmit = this.#transmits.get(id);
    if (transmit === undefined) return;
    const { flight } = transmit;
    // A stranger who guesses the port must not be able to end the attempt; over TCP there is no stranger.
    const ours = answersId(packet, transmit.dnsId);
    if (!ours && transmit.transport === 'udp') return;
    const message = ours ? decoded(packet) : undefined;
    if (message !== undefined && !sameQuestion(message.question, flight.query.question)) {
      if (transmit.transport === 'tcp') this.#next(transmit, now);
      return;
    }
    const rcode = message?.rcode ?? headerRcode(packet);
    const noEdns = rcode === RCODE.formErr || rcode === RCODE.notImp || rcode === RCODE.badVers;
    if (ours && transmit.edns && noEdns) {
      this.#withoutEdns.add(transmit.upstream);
      this.#close(transmit);
      this.#send(flight, transmit.upstream, transmit.transport, now);
    } else if (message === undefined) {
      this.#next(transmit, now);
    } else if (message.truncated && transmit.transport === 'udp') {
      this.#close(transmit);
      this.#send(flight, transmit.upstream, 'tcp', now);
    } else if (rcode === RCODE.noError || rcode === RCODE.nxDomain) {
      this.#land(transmit, message, now);
    } else {
      flight.refused.set(transmit.upstream, rcode);
      this.#next(transmit, now);
    }
  }

  /** The transmit cannot be answered any more: unreachable, refused or closed. */
  handleUpstreamFailed(id: TransmitId, now: Instant): void {
    const transmit = this.#transmits.get(id);
    if (transmit !== undefined) this.#next(transmit, now);
  }

  handleTimeout(now: Instant): void {
    for (const flight of [...this.#flights.values()]) {
      if (now >= flight.deadline) this.#fail(flight, now);
      else if (now >= flight.retryAt) this.#attempt(flight, now);
    }
  }

  pollTimeout(): Instant | undefined {
    let earliest: Instant | undefined;
    for (const flight of this.#flights.values()) {
      const due = Math.min(flight.retryAt, flight.deadline);
      if (earliest === undefined || due < earliest) earliest = due;
    }
    return earliest;
  }

  pollAction(): ForwarderAction<Client> | undefined {
    return this.#actions.shift();
  }

  /** Gives this upstream up for now and turns to the next. */
  #next(transmit: Transmit<Client>, now: Instant): void {
    const { flight } = transmit;
    this.#close(transmit);
    const untried = flight.attempts < this.#upstreams.length;
    const allRefused = this.#upstreams.every((upstream) => flight.refused.has(upstream));
    if (allRefused) this.#fail(flight, now);
    else if (untried) this.#attempt(flight, now);
    // Another transmit may still be answered; and without a route there is nothing to hurry for.
    else if (flight.transmits.length === 0) flight.retryAt = Math.min(flight.retryAt, now + PAUSE);
  }

  #attempt(flight: Flight<Client>, now: Instant): void {
    const upstream = this.#upstreams[(flight.first + flight.attempts) % Math.max(1, this.#upstreams.length)];
    if (upstream === undefined || flight.attempts >= this.#maxAttempts()) {
      this.#fail(flight, now);
      return;
    }
    flight.attempts += 1;
    this.#send(flight, upstream, 'udp', now);
  }

  /** RFC 9520 section 3.1: at most three queries per server. */
  #maxAttempts(): number {
    return Math.min(MAX_ATTEMPTS, 3 * this.#upstreams.length);
  }

  #send(flight: Flight<Client>, upstream: Upstream, transport: DnsTransport, now: Instant): void {
    const patience = transport === 'tcp' ? TCP_PATIENCE : (UDP_PATIENCE[flight.attempts - 1] ?? LAST_PATIENCE);
    flight.retryAt = now + patience;
    this.#lastTransmit += 1;
    const transmit: Transmit<Client> = {
      id: this.#lastTransmit,
      flight,
      upstream,
      transport,
      dnsId: this.#randomId(),
      edns: !this.#withoutEdns.has(upstream),
    };
    this.#transmits.set(transmit.id, transmit);
    flight.transmits.push(transmit);
    const oldest = flight.transmits[0];
    if (flight.transmits.length > OPEN_TRANSMITS && oldest !== undefined) this.#close(oldest);
    const packet = encodeUpstreamQuery(flight.query, transmit.dnsId, transmit.edns);
    this.#actions.push({ kind: 'send', transmit: transmit.id, upstream, transport, packet });
  }

  #land(transmit: Transmit<Client>, message: DnsMessage, now: Instant): void {
    const { flight, upstream } = transmit;
    const trusted = upstream.host.startsWith('127.') || upstream.host === '::1';
    this.#preferred = Math.max(0, this.#upstreams.indexOf(upstream));
    this.#cache.storeMessage(flight.key, message, trusted, now);
    this.#finish(flight, (query) => forwarded(message, trusted, query, 0));
  }

  #fail(flight: Flight<Client>, now: Instant): void {
    const refusals = [...flight.refused.values()];
    const last = refusals.length >= this.#upstreams.length ? refusals.at(-1) : undefined;
    // An extended RCODE is about their OPT, not about the question, and a client without OPT would see NOERROR.
    const rcode = last === undefined || last > 15 ? RCODE.servFail : last;
    const reply = {
      ...failure(EDE.noReachableAuthority, 'no upstream resolver answered'),
      rcode,
    };
    this.#cache.storeFailure(flight.key, reply.rcode, now);
    this.#finish(flight, () => ({ kind: 'reply', reply }));
  }

  #finish(flight: Flight<Client>, answer: (query: DnsQuery) => Forwarded): void {
    this.#flights.delete(flight.key);
    this.#cancel(flight);
    for (const { client, query } of flight.waiting) {
      this.#actions.push({ kind: 'forwarded', client, query, answer: answer(query) });
    }
  }

  #cancel(flight: Flight<Client>): void {
    for (const transmit of [...flight.transmits]) this.#close(transmit);
  }

  #close(transmit: Transmit<Client>): void {
    this.#transmits.delete(transmit.id);
    transmit.flight.transmits = transmit.flight.transmits.filter((other) => other !== transmit);
    this.#actions.push({ kind: 'cancel', transmit: transmit.id });
  }

  #refuse(client: Client, query: DnsQuery, reply: DnsReply): void {
    this.#actions.push({ kind: 'forwarded', client, query, answer: { kind: 'reply', reply } });
  }
}

interface Flight<Client> {
  readonly key: string;
  readonly query: DnsQuery;
  readonly waiting: { readonly client: Client; readonly query: DnsQuery }[];
  transmits: Transmit<Client>[];
  /** Upstreams that answered with a failure. */
  readonly refused: Map<Upstream, number>;
  /** UDP attempts so far. */
  attempts: number;
  /** Index of the upstream that is asked first. */
  readonly first: number;
  retryAt: Instant;
  readonly deadline: Instant;
}

interface Transmit<Client> {
  readonly id: TransmitId;
  readonly flight: Flight<Client>;
  readonly upstream: Upstream;
  readonly transport: DnsTransport;
  readonly dnsId: number;
  readonly edns: boolean;
}

function flightKey(query: DnsQuery): string {
  const { question, edns, checkingDisabled, recursionDesired, authenticData } = query;
  // Each of the flags may change the answer (RFC 6840 section 5.9).
  const flags = [edns?.dnssecOk ?? false, checkingDisabled, recursionDesired, authenticData].map(Number).join('');
  return `${flags}/${question.type}/${nameKey(question)}`;
}

function forwarded(message: DnsMessage, trusted: boolean, query: DnsQuery, age: number): Forwarded {
  // RFC 6840 section 5.8: AD only for those who asked.
  const wanted = query.authenticData || (query.edns?.dnssecOk ?? false);
  return { kind: 'message', message, age, authenticData: message.authenticData && trusted && wanted };
}

function decoded(packet: Uint8Array): DnsMessage | undefined {
  try {
    return parseMessage(packet);
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

/** How long to wait for each attempt before the next; a lost packet should cost less than a glibc timeout (5 s). */
const UDP_PATIENCE: readonly Millis[] = [700, 1300];
const LAST_PATIENCE: Millis = 2000;
const TCP_PATIENCE: Millis = 2500;
const FLIGHT_TIME: Millis = 8000;
const PAUSE: Millis = 300;
const MAX_ATTEMPTS = 6;
const OPEN_TRANSMITS = 2;
