/**
 * Answers of the upstream resolvers, kept for as long as they said (RFC 2308 for negative ones), and a day longer in
 * case that nobody answers then (RFC 8767). A name that does not exist has nothing below it either (RFC 8020).
 *
 * Failures are kept apart and do not replace an answer: for one second, and twice as long each time that the same
 * question fails again (RFC 9520), so that a client in a loop does not become a loop on the network.
 *
 * What was stored longest ago goes first when it is full. A change of upstreams empties it, or the part below the zone
 * that they are for: another network may answer differently.
 */
import {
  type DnsMessage,
  type DnsQuery,
  nameKey,
  packMessage,
  parseMessage,
  questionFlags,
  RCODE,
  soaMinimum,
  TYPE,
} from '../../proto/dns/message.ts';
import { nxDomainBelow } from '../../proto/dns/nxdomain.ts';
import type { Instant, Millis } from '../../proto/time.ts';

export class CacheEntry {
  /** A character for each octet: of all that holds octets a string takes the least memory, by far. */
  readonly #packed: string;
  /** AD may be shown to clients: the way to the upstream cannot be forged. */
  readonly trusted: boolean;
  readonly stored: Instant;
  readonly expires: Instant;
  /** From here on a popular entry is fetched again. */
  readonly ageing: Instant;
  hits = 0;
  /** Not fetched again before: it was tried a moment ago. */
  retryAt: Instant;
  /** False when another has taken its place, or it was thrown out. */
  current = true;

  /** `life` in seconds. */
  constructor(message: DnsMessage, trusted: boolean, life: number, now: Instant) {
    this.#packed = String.fromCharCode(...packMessage(message));
    this.trusted = trusted;
    this.stored = now;
    this.expires = now + life * 1000;
    this.ageing = this.expires - Math.min(MAX_PREFETCH, life * 100);
    this.retryAt = now;
  }

  /** Made anew each time. */
  get message(): DnsMessage {
    return parseMessage(Uint8Array.from(this.#packed, (character) => character.charCodeAt(0)));
  }
}

export type Cached =
  | {
      readonly kind: 'fresh' | 'stale';
      readonly entry: CacheEntry;
      readonly message: DnsMessage;
      /** The entry is about this question itself and not about a name above. */
      readonly exact: boolean;
    }
  | { readonly kind: 'failure'; readonly rcode: number };

export class DnsCache {
  readonly #entries = new Map<string, CacheEntry>();
  /** Entries that say that a name does not exist, by its name. */
  readonly #absent = new Map<string, CacheEntry>();
  readonly #failures = new Map<string, { readonly rcode: number; readonly life: Millis; readonly until: Instant }>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** What is said of names with fewer labels than `zoneLabels` comes from other resolvers and tells nothing here. */
  find(query: DnsQuery, zoneLabels: number, now: Instant): Cached | undefined {
    const key = cacheKey(query);
    const entry = this.#entries.get(key);
    if (entry !== undefined && now < entry.expires)
      return { kind: 'fresh', entry, message: entry.message, exact: true };
    const below = this.#findAbove(query, zoneLabels, now);
    if (below !== undefined) return below;
    const failure = this.#failures.get(key);
    if (failure !== undefined && now < failure.until) {
      return entry === undefined || now >= entry.expires + MAX_STALE
        ? { kind: 'failure', rcode: failure.rcode }
        : { kind: 'stale', entry, message: entry.message, exact: true };
    }
    if (entry === undefined) return undefined;
    if (now < entry.expires + MAX_STALE) return { kind: 'stale', entry, message: entry.message, exact: true };
    this.#remove(key, entry);
    return undefined;
  }

  storeMessage(query: DnsQuery, message: DnsMessage, trusted: boolean, now: Instant): void {
    const key = cacheKey(query);
    this.#failures.delete(key);
    const life = lifetime(message);
    const former = this.#entries.get(key);
    if (former !== undefined) this.#remove(key, former);
    if (life <= 0 || message.bytes.length > MAX_CACHED) return;
    const entry = new CacheEntry(message, trusted, life, now);
    this.#entries.set(key, entry);
    this.#noteExistence(query, message, entry);
    if (this.#entries.size <= this.#capacity) return;
    const oldest = this.#entries.entries().next().value;
    if (oldest !== undefined) this.#remove(...oldest);
  }

  storeFailure(query: DnsQuery, rcode: number, now: Instant): void {
    const key = cacheKey(query);
    const former = this.#failures.get(key);
    // Much later it is another failure.
    const again = former !== undefined && now < former.until + 2 * former.life;
    const life = again ? Math.min(MAX_FAILURE, 2 * former.life) : FIRST_FAILURE;
    this.#failures.delete(key);
    this.#failures.set(key, { rcode, life, until: now + life });
    const oldest = this.#failures.keys().next().value;
    if (this.#failures.size > MAX_FAILURES && oldest !== undefined) this.#failures.delete(oldest);
  }

  /** All of a zone; the root: everything. */
  forgetBelow(zone: readonly string[]): void {
    const top = nameKey({ labels: zone });
    const isBelow = (key: string): boolean => {
      const name = nameOf(key);
      return top === '' || name === top || (name.endsWith(top) && [...namesAbove(name)].includes(top));
    };
    for (const [key, entry] of this.#entries) if (isBelow(key)) this.#remove(key, entry);
    for (const key of this.#failures.keys()) if (isBelow(key)) this.#failures.delete(key);
  }

  #remove(key: string, entry: CacheEntry): void {
    entry.current = false;
    this.#entries.delete(key);
    const name = nameOf(key);
    if (this.#absent.get(name) === entry) this.#absent.delete(name);
  }

  /** With DO the proof of absence would have to be another one. */
  #findAbove(query: DnsQuery, zoneLabels: number, now: Instant): Cached | undefined {
    if (this.#absent.size === 0 || query.edns?.dnssecOk === true) return undefined;
    let labels = query.question.labels.length;
    for (const name of namesAbove(nameKey(query.question))) {
      labels -= 1;
      if (labels < zoneLabels) break;
      const entry = this.#absent.get(name);
      if (entry === undefined || now >= entry.expires) continue;
      const message = nxDomainBelow(entry.message, query.question);
      if (message !== undefined) return { kind: 'fresh', entry, message, exact: false };
    }
    return undefined;
  }

  #noteExistence(query: DnsQuery, message: DnsMessage, entry: CacheEntry): void {
    const name = nameKey(message.question);
    if (message.rcode === RCODE.noError) {
      this.#absent.delete(name);
      for (const above of namesAbove(name)) this.#absent.delete(above);
      return;
    }
    // Behind an alias it is the alias' target that does not exist.
    if (message.answerCount === 0 && !query.checkingDisabled && query.edns?.dnssecOk !== true) {
      this.#absent.set(name, entry);
    }
  }
}

/** Equal for questions that have the same answer; each of the flags may change it (RFC 6840 section 5.9). */
export function cacheKey(query: DnsQuery): string {
  return `${questionFlags(query)}/${query.question.type}/${nameKey(query.question)}`;
}

function nameOf(key: string): string {
  return key.slice(key.indexOf('/', key.indexOf('/') + 1) + 1);
}

/** Each name that this one is below of, in the form of `nameKey`: labels behind their lengths. */
function* namesAbove(name: string): Generator<string> {
  for (let rest = name; rest !== ''; ) {
    rest = rest.slice(1 + rest.charCodeAt(0));
    if (rest !== '') yield rest;
  }
}

/** Seconds that an answer may be used again; 0 for "never". */
function lifetime(message: DnsMessage): number {
  const answers = message.records.slice(0, message.answerCount);
  const ttls = message.records.map((record) => record.ttl);
  if (message.truncated) return 0;
  if (message.rcode === RCODE.noError && answers.some((record) => answersType(message, record.type))) {
    return Math.min(MAX_LIFE, ...ttls);
  }
  const authorities = message.records.slice(message.answerCount, message.answerCount + message.authorityCount);
  const soa = authorities.find((record) => record.type === TYPE.soa);
  return soa === undefined ? 0 : Math.min(MAX_NEGATIVE_LIFE, soaMinimum(message, soa), ...ttls);
}

function answersType(message: DnsMessage, type: number): boolean {
  return message.question.type === type || message.question.type === TYPE.any;
}

/** Octets. */
const MAX_CACHED = 4096;
/** Seconds. */
const MAX_LIFE = 86_400;
const MAX_NEGATIVE_LIFE = 3600;
const MAX_STALE: Millis = 86_400_000;
/** Of the life of an entry the last tenth, but no more than this. */
const MAX_PREFETCH: Millis = 30_000;
const FIRST_FAILURE: Millis = 1000;
const MAX_FAILURE: Millis = 30_000;
const MAX_FAILURES = 1024;
