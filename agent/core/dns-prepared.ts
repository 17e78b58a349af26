/**
 * Answers that are given again octet for octet: the fast path for questions that come often.
 *
 * An answer belongs to the question as it arrived, all octets but the ID; what is patched is the ID, and the TTLs of
 * forwarded answers once a second. So nothing is decoded, and the answer is what the general path would give: an answer
 * from the cache of the forwarder counts while its entry does, and before that is due to be fetched again; one about the
 * overlay while nothing has reached the agent that could have changed it, and for a second at most. UDP only.
 */
import { viewOf } from '../../proto/bytes.ts';
import type { DnsMessage, DnsQuestion } from '../../proto/dns/message.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import type { CacheEntry } from './dns-cache.ts';

export interface Prepared {
  readonly question: DnsQuestion;
  readonly rcode: number;
  /** Absent for the overlay's own. */
  readonly entry?: CacheEntry;
}

interface Stored extends Prepared {
  readonly asked: Uint8Array;
  /** As it was given last. */
  readonly reply: Uint8Array;
  readonly view: DataView;
  readonly records: DnsMessage['records'];
  /** Seconds by which the TTLs are lowered. */
  age: number;
  /** Of the overlay. */
  readonly version: number;
  readonly until: Instant;
}

export class PreparedAnswers {
  /** By a hash of the question; of two with the same, the latter. */
  readonly #stored = new Map<number, Stored>();
  readonly #capacity: number;
  /** Replies are cut from it: a buffer for each would cost more than all the rest. */
  #pool = new Uint8Array(POOL);
  #used = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** `version` is that of the overlay. The reply is the caller's. */
  find(
    packet: Uint8Array,
    version: number,
    now: Instant,
  ): { readonly reply: Uint8Array; readonly prepared: Prepared } | undefined {
    if (packet.length > MAX_QUERY) return undefined;
    const key = keyOf(packet);
    const prepared = this.#stored.get(key);
    if (prepared === undefined || !isSame(packet, prepared.asked)) return undefined;
    const { entry } = prepared;
    const valid = now < prepared.until && (entry === undefined ? version === prepared.version : entry.current);
    if (!valid) {
      this.#stored.delete(key);
      return undefined;
    }
    if (entry !== undefined) {
      entry.hits += 1;
      age(prepared, Math.floor((now - entry.stored) / 1000));
    }
    const reply = this.#copy(prepared.reply);
    reply[0] = packet[0] ?? 0;
    reply[1] = packet[1] ?? 0;
    return { reply, prepared };
  }

  /** `reply` was made from the message of the entry, with TTLs lowered by `seconds`; `edns`: our OPT is its last record. */
  storeForwarded(
    packet: Uint8Array,
    reply: Uint8Array,
    seconds: number,
    message: DnsMessage,
    { entry, edns, ...facts }: Prepared & { readonly entry: CacheEntry; readonly edns: boolean },
  ): void {
    const view = viewOf(reply);
    // The first ones of the message: the others had no room.
    const kept = view.getUint16(6) + view.getUint16(8) + view.getUint16(10) - (edns ? 1 : 0);
    const records = message.records.slice(0, kept);
    this.#store(packet, { ...facts, entry, reply, view, records, age: seconds, version: 0, until: entry.ageing });
  }

  storeOverlay(packet: Uint8Array, reply: Uint8Array, version: number, now: Instant, facts: Prepared): void {
    const stored = { ...facts, reply, view: viewOf(reply), records: [], age: 0 };
    this.#store(packet, { ...stored, version, until: now + OVERLAY_LIFE });
  }

  #store(packet: Uint8Array, stored: Omit<Stored, 'asked'>): void {
    if (packet.length > MAX_QUERY || stored.reply.length > MAX_REPLY) return;
    const key = keyOf(packet);
    this.#stored.delete(key);
    this.#stored.set(key, { ...stored, ...owned(stored.reply), asked: new Uint8Array(packet) });
    const oldest = this.#stored.keys().next().value;
    if (this.#stored.size > this.#capacity && oldest !== undefined) this.#stored.delete(oldest);
  }

  #copy(reply: Uint8Array): Uint8Array {
    if (this.#used + reply.length > POOL) {
      this.#pool = new Uint8Array(POOL);
      this.#used = 0;
    }
    const copy = this.#pool.subarray(this.#used, this.#used + reply.length);
    this.#used += reply.length;
    copy.set(reply);
    return copy;
  }
}

function age(stored: Stored, seconds: number): void {
  if (stored.age === seconds) return;
  for (const { ttl, ttlOffset } of stored.records) stored.view.setUint32(ttlOffset, Math.max(0, ttl - seconds));
  stored.age = seconds;
}

function owned(reply: Uint8Array): Pick<Stored, 'reply' | 'view'> {
  const bytes = new Uint8Array(reply);
  return { reply: bytes, view: viewOf(bytes) };
}

/** All but the ID. */
function isSame(packet: Uint8Array, other: Uint8Array): boolean {
  if (packet.length !== other.length) return false;
  for (let i = 2; i < packet.length; i++) if (packet[i] !== other[i]) return false;
  return true;
}

/** FNV-1a of all but the ID, in 30 bits: larger numbers would be objects. */
function keyOf(packet: Uint8Array): number {
  let hash = FNV_BASIS;
  for (let i = 2; i < packet.length; i++) hash = Math.imul(hash ^ (packet[i] ?? 0), FNV_PRIME);
  return hash & 0x3fff_ffff;
}

const FNV_BASIS = 0x811c_9dc5;
const FNV_PRIME = 0x0100_0193;
/** Octets. */
const MAX_QUERY = 128;
const MAX_REPLY = 1232;
const POOL = 64 * 1024;
const OVERLAY_LIFE: Millis = 1000;
