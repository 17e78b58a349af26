/**
 * Answers of the host's resolvers, kept for as long as they said (RFC 2308 for negative ones), and failures for
 * one second (RFC 9520), so that a client in a loop does not become a loop on the network.
 *
 * Least recently stored entries go first when it is full. A change of upstreams empties it: another network may
 * answer differently.
 */

import { type DnsMessage, RCODE, soaMinimum, TYPE } from '../../proto/dns/message.ts';
import type { Instant } from '../../proto/time.ts';

export type CacheEntry =
  | {
      readonly kind: 'message';
      readonly message: DnsMessage;
      /** AD may be shown to clients: the upstream is on this host. */
      readonly trusted: boolean;
      readonly stored: Instant;
      readonly expires: Instant;
    }
  | { readonly kind: 'failure'; readonly rcode: number; readonly expires: Instant };

export class DnsCache {
  readonly #entries = new Map<string, CacheEntry>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#entries.size;
  }

  find(key: string, now: Instant): CacheEntry | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.expires > now) return entry;
    this.#entries.delete(key);
    return undefined;
  }

  storeMessage(key: string, message: DnsMessage, trusted: boolean, now: Instant): void {
    const life = lifetime(message);
    if (life <= 0 || message.bytes.length > MAX_CACHED) return;
    this.#store(key, { kind: 'message', message, trusted, stored: now, expires: now + life * 1000 });
  }

  storeFailure(key: string, rcode: number, now: Instant): void {
    this.#store(key, { kind: 'failure', rcode, expires: now + FAILURE_LIFE });
  }

  clear(): void {
    this.#entries.clear();
  }

  #store(key: string, entry: CacheEntry): void {
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (this.#entries.size <= this.#capacity) return;
    const oldest = this.#entries.keys().next().value;
    if (oldest !== undefined) this.#entries.delete(oldest);
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
/** Milliseconds. */
const FAILURE_LIFE = 1000;
