/**
 * The store: what map servers must agree on (who owns an EID at which generation, tokens, agents), as text by key.
 *
 * One revision counts all transactions of a store. A key carries the revision of the transaction that last wrote it,
 * and that is what conditions compare: 0 means that the key does not exist. A transaction that was answered with `ok`
 * is durable and stays so over a crash of process or machine. A watch reports every change behind a revision once, in
 * order; a revision too old to be replayed is an error, and the caller lists again. Keys written under a lease vanish
 * when nobody renews it. The drivers (`memory.ts`, `sqlite.ts`) pass the same tests.
 */
import { StayputError } from '../../proto/errors.ts';
import type { Millis } from '../../proto/time.ts';

export type Revision = number;

export interface Entry {
  readonly key: string;
  readonly value: string;
  readonly revision: Revision;
}

export interface Condition {
  readonly key: string;
  /** Of the last write to the key; 0 = the key does not exist. */
  readonly revision: Revision;
}

export interface Write {
  readonly key: string;
  /** Undefined deletes the key. */
  readonly value: string | undefined;
  readonly lease?: LeaseId;
}

export type CommitResult =
  | { readonly ok: true; readonly revision: Revision }
  /** Nothing was written; `current` holds the entries of the compared keys that exist. */
  | { readonly ok: false; readonly current: readonly Entry[] };

/** A write or deletion as watchers see it. */
export interface StoreChange {
  readonly key: string;
  readonly value: string | undefined;
  readonly revision: Revision;
}

export type LeaseId = number & { readonly __brand: 'LeaseId' };

export interface Watch {
  close(): void;
}

export interface Store {
  get(key: string): Promise<Entry | undefined>;
  /** All entries whose key starts with `prefix`, and the revision at which that was so. */
  list(prefix: string): Promise<{ readonly entries: readonly Entry[]; readonly revision: Revision }>;
  /** All writes, or none if a condition does not hold. */
  compareAndSet(conditions: readonly Condition[], writes: readonly Write[]): Promise<CommitResult>;
  /** Changes with a revision larger than `after`, those of one transaction together. @throws CompactedError */
  watch(prefix: string, after: Revision, listener: (changes: readonly StoreChange[]) => void): Watch;
  lease(ttl: Millis): Promise<LeaseId>;
  /** False when the lease is over. */
  renew(lease: LeaseId): Promise<boolean>;
  revoke(lease: LeaseId): Promise<void>;
  close(): Promise<void>;
}

/** What to do about a store that is damaged. */
export const RESTORE =
  'restore the data folder from a backup; without one, move the folder away, run "stayput mapserver init", and let all agents join anew (stayput agent join --force)';

export class StoreError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_STORE', message, options);
  }
}

export class CompactedError extends StayputError {
  constructor(after: Revision, oldest: Revision) {
    super(
      'STAYPUT_STORE_COMPACTED',
      `changes after revision ${after} are gone; the oldest kept is ${oldest}: list again`,
    );
  }
}
