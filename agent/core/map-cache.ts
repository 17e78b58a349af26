/**
 * The map-cache (RFC 9301 section 4.1): what this agent was told of EIDs that others own.
 *
 * Positive entries hold a mapping, negative ones the fact that there is none (or that policy denies it). An entry
 * that was asked for is subscribed: while the map server is connected, pushes keep it true and it is asked for again
 * before its TTL ends. An entry that merely came along (an owner's agent address) ends with its TTL. While the map
 * server is away nothing ends: a stale mapping is better than none.
 *
 * Invariants: a mapping of an older generation never replaces a newer one; at most `limit` entries exist, and to make
 * room negative ones go first, then those that came along, then the least recently used.
 */
import { type IpAddress, type IpPrefix, prefixAddress, prefixContains, prefixLength } from '../../proto/address.ts';
import { type Eid, type EidKey, eidKey } from '../../proto/eid.ts';
import { isWithdrawal, type Mapping, supersedes, type XtrId } from '../../proto/mapping.ts';
import { PrefixTrie } from '../../proto/prefix-trie.ts';
import { type Instant, type Millis, minutes, seconds } from '../../proto/time.ts';

export interface CacheEntry {
  readonly key: EidKey;
  readonly mapping: Mapping;
  /** No mapping exists: TTL ended at the owner, or never registered. */
  readonly negative: boolean;
  readonly receivedAt: Instant;
  touchedAt: Instant;
  /** The EIDs that were asked for and answered by this entry, each by one alone; empty if it came along. */
  readonly asked: Map<EidKey, Eid>;
  /** When it was last due to be asked for again; null: not since it was received. */
  refreshedAt: Instant | null;
  /** Not from the map server: the word of the owner before, until the map server confirms or corrects it. */
  provisional: Provisional | null;
}

export interface Provisional {
  /** Who said so. Null: somebody who was not the owner, while the map server was away. */
  readonly formerOwner: XtrId | null;
  /** Until then the map server may not know yet, and its word for the former owner is not taken. */
  holdUntil: Instant;
}

/** `same` was refreshed without a change that forwarding has to know of; `older` was ignored. */
export type Insertion = 'new' | 'changed' | 'same' | 'older';

/** What is written to disk: the age replaces the monotonic clock. */
export interface SavedEntry {
  readonly mapping: Mapping;
  readonly ageMs: Millis;
  readonly asked: boolean;
}

export class MapCache {
  private readonly limit: number;
  private readonly entries = new Map<EidKey, CacheEntry>();
  private readonly prefixes = new PrefixTrie<CacheEntry>();

  constructor(limit: number) {
    this.limit = limit;
  }

  /** The entry for exactly this EID, or for an address the longest matching prefix. */
  find(eid: Eid): CacheEntry | undefined {
    const exact = this.entries.get(eidKey(eid));
    if (exact !== undefined || eid.kind === 'name') return exact;
    const match = this.longestMatch(prefixAddress(eid.prefix));
    return match !== undefined && prefixLengthOf(match) <= prefixLength(eid.prefix) ? match : undefined;
  }

  longestMatch(address: IpAddress): CacheEntry | undefined {
    return this.prefixes.longestMatch(address)?.value;
  }

  exact(key: EidKey): CacheEntry | undefined {
    return this.entries.get(key);
  }

  insert(mapping: Mapping, asked: Eid | null, now: Instant): Insertion {
    const key = eidKey(mapping.eid);
    if (asked !== null) this.takeQuestions(asked, key);
    const previous = this.entries.get(key);
    const negative = isNegative(mapping);
    // A negative answer to a question has generation 0 but is newer than what we hold: nobody has the EID now.
    const answersNothing = negative && asked !== null;
    if (previous !== undefined && !answersNothing && !supersedes(mapping, previous.mapping)) return 'older';
    if (previous !== undefined && !negative && precedes(mapping, previous, now)) return 'older';
    const entry: CacheEntry = {
      key,
      mapping,
      negative,
      receivedAt: now,
      touchedAt: asked === null ? (previous?.touchedAt ?? now) : now,
      asked: previous?.asked ?? new Map(),
      refreshedAt: null,
      provisional: null,
    };
    if (asked !== null && entry.asked.size < MAX_ASKED) entry.asked.set(eidKey(asked), asked);
    this.entries.set(key, entry);
    if (mapping.eid.kind === 'prefix') this.prefixes.set(mapping.eid.prefix, entry);
    if (previous === undefined) return 'new';
    return sameForwarding(previous, entry) ? 'same' : 'changed';
  }

  /** On the word of `formerOwner`; what is known is replaced, at its generation. */
  insertProvisional(mapping: Mapping, formerOwner: XtrId | null, now: Instant): CacheEntry {
    const key = eidKey(mapping.eid);
    const previous = this.entries.get(key);
    const entry: CacheEntry = {
      key,
      mapping,
      negative: false,
      receivedAt: now,
      touchedAt: now,
      asked: previous?.asked ?? new Map([[key, mapping.eid]]),
      refreshedAt: null,
      provisional: { formerOwner, holdUntil: now + HOLD },
    };
    this.entries.set(key, entry);
    if (mapping.eid.kind === 'prefix') this.prefixes.set(mapping.eid.prefix, entry);
    return entry;
  }

  /** A new session: the new owners need a moment to claim what they took meanwhile. */
  handleSession(now: Instant): void {
    for (const { provisional } of this.entries.values()) if (provisional !== null) provisional.holdUntil = now + HOLD;
  }

  /** It is ours: what is inside it is not asked for any more. Returns what was known of it. */
  release(eid: Eid): CacheEntry | undefined {
    const entry = this.remove(eidKey(eid));
    this.takeQuestions(eid, null);
    return entry;
  }

  remove(key: EidKey): CacheEntry | undefined {
    const entry = this.entries.get(key);
    if (entry === undefined) return undefined;
    this.entries.delete(key);
    if (entry.mapping.eid.kind === 'prefix') this.prefixes.delete(entry.mapping.eid.prefix);
    return entry;
  }

  /** The entries that have to go to keep within the limit. They are removed. */
  evict(): readonly CacheEntry[] {
    if (this.entries.size <= this.limit) return [];
    const rank = (entry: CacheEntry): number => (entry.negative ? 0 : entry.asked.size === 0 ? 1 : 2);
    // An eighth at once, so that the sort is paid for once per many insertions.
    const excess = this.entries.size - this.limit + Math.floor(this.limit / 8);
    const doomed = [...this.entries.values()]
      .sort((a, b) => rank(a) - rank(b) || a.touchedAt - b.touchedAt)
      .slice(0, excess);
    for (const { key } of doomed) this.remove(key);
    return doomed;
  }

  /** Call about once a second while connected: removes what ended, names what should be asked for again. */
  sweep(now: Instant): { readonly ended: readonly CacheEntry[]; readonly refresh: readonly Eid[] } {
    const ended: CacheEntry[] = [];
    const refresh: Eid[] = [];
    for (const entry of this.entries.values()) {
      const age = now - entry.receivedAt;
      const { ttl } = entryLife(entry);
      if (entry.provisional !== null && entry.provisional.holdUntil <= now) {
        entry.provisional = null;
        refresh.push(...entry.asked.values());
      }
      if (age >= ttl && (entry.negative || entry.asked.size === 0)) {
        ended.push(entry);
        continue;
      }
      if (!entry.negative && entry.asked.size > 0 && age >= ttl * REFRESH_AT && !wasRefreshed(entry, now)) {
        if (refresh.length >= MAX_REFRESH_PER_SWEEP) continue;
        entry.refreshedAt = now;
        refresh.push(...entry.asked.values());
      }
    }
    for (const { key } of ended) this.remove(key);
    return { ended, refresh };
  }

  /** Everything that was asked for, to be subscribed to again in a new session. */
  subscriptions(): readonly Eid[] {
    return [...this.entries.values()].flatMap((entry) => [...entry.asked.values()]);
  }

  counts(now: Instant): { positive: number; negative: number; stale: number; oldestMs: Millis } {
    let [positive, negative, stale, oldestMs] = [0, 0, 0, 0];
    for (const entry of this.entries.values()) {
      const age = now - entry.receivedAt;
      oldestMs = Math.max(oldestMs, age);
      if (entry.negative) negative++;
      else if (age >= entryLife(entry).ttl) stale++;
      else positive++;
    }
    return { positive, negative, stale, oldestMs };
  }

  values(): IterableIterator<CacheEntry> {
    return this.entries.values();
  }

  save(now: Instant): readonly SavedEntry[] {
    return [...this.entries.values()]
      .filter((entry) => !entry.negative)
      .map((entry) => ({ mapping: entry.mapping, ageMs: now - entry.receivedAt, asked: entry.asked.size > 0 }));
  }

  restore(saved: readonly SavedEntry[], now: Instant): void {
    for (const { mapping, ageMs, asked } of saved.slice(0, this.limit)) {
      if (ageMs > MAX_AGE_ON_DISK || isNegative(mapping)) continue;
      this.insert(mapping, asked ? mapping.eid : null, now - Math.max(0, ageMs));
    }
  }

  /** Nothing but the entry `to`, if any, answers for what is in `eid`. */
  private takeQuestions(eid: Eid, to: EidKey | null): void {
    if (eid.kind === 'name') return;
    for (const { value: entry } of this.prefixes.covering(eid.prefix)) {
      if (entry.key === to) continue;
      for (const [key, asked] of entry.asked) {
        if (asked.kind === 'prefix' && prefixContains(eid.prefix, asked.prefix)) entry.asked.delete(key);
      }
    }
  }
}

/** No owner, or nothing to send to; of a name: the zone does not have it. */
export function isNegative(mapping: Mapping): boolean {
  if (isWithdrawal(mapping)) return true;
  if (mapping.eid.kind === 'name') return mapping.targets.length === 0 && mapping.zone === undefined;
  // A site of routers without tunnel keys has locators at least.
  return mapping.owner === undefined || (mapping.tunnelKey === undefined && mapping.locators.length === 0);
}

/** The map server still has the owner before, who told us himself that it is not his any more. */
function precedes(mapping: Mapping, { mapping: held, provisional }: CacheEntry, now: Instant): boolean {
  if (provisional === null || provisional.formerOwner === null || provisional.holdUntil <= now) return false;
  return mapping.generation === held.generation && mapping.owner === provisional.formerOwner;
}

function entryLife(entry: CacheEntry): { ttl: Millis } {
  const ttl = isWithdrawal(entry.mapping) ? WITHDRAWN_TTL : entry.mapping.ttl;
  return { ttl: Math.max(ttl, MIN_TTL) };
}

/** An answer may still come, or was not taken: older than what is known, say. */
function wasRefreshed({ refreshedAt }: CacheEntry, now: Instant): boolean {
  return refreshedAt !== null && now - refreshedAt < REFRESH_RETRY;
}

function prefixLengthOf(entry: CacheEntry): number {
  return entry.mapping.eid.kind === 'prefix' ? prefixLength(entry.mapping.eid.prefix as IpPrefix) : 0;
}

function sameForwarding(a: CacheEntry, b: CacheEntry): boolean {
  const view = ({ mapping: m, negative }: CacheEntry): string =>
    JSON.stringify([negative, m.action, m.generation, m.owner, m.tunnelKey, m.locators, m.names, m.targets, m.zone]);
  return view(a) === view(b);
}

const MAX_ASKED = 64;
const HOLD = seconds(5);
const MAX_REFRESH_PER_SWEEP = 64;
const REFRESH_AT = 0.8;
/** A little longer than a request lasts. */
const REFRESH_RETRY = seconds(5);
const MIN_TTL = seconds(5);
const WITHDRAWN_TTL = minutes(1);
const MAX_AGE_ON_DISK = minutes(7 * 24 * 60);
