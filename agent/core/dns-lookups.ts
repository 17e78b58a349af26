/** Lookups in the mapping system that are on their way, and who waits for each: equal ones are joined. */
import type { Instant, Millis } from '../../proto/time.ts';

/** Names one lookup in the mapping system towards the shell. */
export type LookupId = number;

export interface LookupLimits {
  readonly lookups: number;
  readonly waitingPerFlight: number;
}

/** What is taken when it ends. */
export interface Lookup<Waiting> {
  readonly waiting: readonly Waiting[];
  /** Of the overlay, when it was asked. */
  readonly version: number;
}

export class Lookups<Waiting> {
  readonly #limits: LookupLimits;
  readonly #lookups = new Map<LookupId, PendingLookup<Waiting>>();
  readonly #byKey = new Map<string, PendingLookup<Waiting>>();
  #last: LookupId = 0;

  constructor(limits: LookupLimits) {
    this.#limits = limits;
  }

  /** The id of a lookup that is to be begun for it; or it waits for one that is under way, if there is room. */
  join(key: string, waiting: Waiting, version: number, now: Instant): LookupId | 'joined' | 'full' {
    const pending = this.#byKey.get(key);
    if (pending !== undefined) {
      if (pending.waiting.length >= this.#limits.waitingPerFlight) return 'full';
      pending.waiting.push(waiting);
      return 'joined';
    }
    if (this.#lookups.size >= this.#limits.lookups) return 'full';
    this.#last += 1;
    const lookup = { id: this.#last, key, waiting: [waiting], deadline: now + LOOKUP_TIME, version };
    this.#lookups.set(lookup.id, lookup);
    this.#byKey.set(key, lookup);
    return lookup.id;
  }

  /** It has ended. Undefined: it had before. */
  take(id: LookupId): Lookup<Waiting> | undefined {
    const lookup = this.#lookups.get(id);
    if (lookup === undefined) return undefined;
    this.#lookups.delete(id);
    this.#byKey.delete(lookup.key);
    return lookup;
  }

  /** Those that took too long. */
  overdue(now: Instant): readonly LookupId[] {
    return [...this.#lookups.values()].filter(({ deadline }) => now >= deadline).map(({ id }) => id);
  }

  pollTimeout(): Instant | undefined {
    // They are in the order of their deadlines.
    return this.#lookups.values().next().value?.deadline;
  }
}

interface PendingLookup<Waiting> extends Lookup<Waiting> {
  readonly id: LookupId;
  readonly key: string;
  readonly waiting: Waiting[];
  readonly deadline: Instant;
}

/** The resolver bounds its own time; this is for one that does not come back. */
const LOOKUP_TIME: Millis = 4000;
