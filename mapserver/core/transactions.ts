/**
 * All that changes records, one transaction at a time.
 *
 * A work is judged (`evaluate`) against the records as they are, and its consequences (acknowledgements, pushes) come
 * only when what it wrote is durable (`complete`). Works that wait while a transaction is under way share the next
 * one, each seeing what the ones before it wrote; if they are too many for one, none of a quiet agent waits for all of a
 * busy one (`fair-queue.ts`). If another map server was faster, the store refuses; its state is
 * taken over and the same works are judged again, so `evaluate` must be repeatable and without effects. Works that
 * write nothing hard complete without the store. Soft writes hold at once and reach the store with the next
 * transaction, at the latest after FLUSH_DELAY.
 */
import type { Instant, Millis } from '../../proto/time.ts';
import { FairQueue } from './fair-queue.ts';
import {
  type AgentRecord,
  type OwnershipRecord,
  type RecordKey,
  recordKey,
  type SoftRecord,
  type StoreRecord,
} from './records.ts';
import type { Replica } from './replica.ts';

export interface Work {
  /** Whose it is: works of one sender keep their order. */
  readonly sender: string;
  /** Records that it judges, if they are more than one. */
  readonly size?: number;
  readonly evaluate: (transaction: Transaction) => void;
  readonly complete: (now: Instant) => void;
  /** The store does not answer, or others were faster too often. */
  readonly fail: (now: Instant) => void;
}

export interface Commit {
  readonly id: number;
  readonly conditions: readonly { readonly key: RecordKey; readonly revision: number }[];
  readonly writes: readonly { readonly key: RecordKey; readonly record: StoreRecord | undefined }[];
}

export type CommitOutcome =
  | { readonly kind: 'committed'; readonly revision: number }
  | { readonly kind: 'refused'; readonly current: readonly LearnedRecord[] }
  | { readonly kind: 'failed' };

export interface LearnedRecord {
  readonly key: RecordKey;
  /** Undefined: deleted. */
  readonly record: StoreRecord | undefined;
  readonly revision: number;
}

/** The records as the works of one transaction see them. */
export class Transaction {
  readonly hard = new Map<RecordKey, StoreRecord | undefined>();
  readonly soft = new Map<RecordKey, SoftRecord>();
  readonly read = new Set<RecordKey>();
  private readonly replica: Replica;

  constructor(replica: Replica) {
    this.replica = replica;
  }

  get(key: RecordKey): StoreRecord | undefined {
    this.read.add(key);
    if (this.hard.has(key)) return this.hard.get(key);
    return this.soft.get(key) ?? this.replica.get(key);
  }

  put(record: StoreRecord): void {
    const key = recordKey(record);
    this.read.add(key);
    this.soft.delete(key);
    this.hard.set(key, record);
  }

  putSoft(record: SoftRecord): void {
    const key = recordKey(record);
    this.read.add(key);
    if (this.hard.has(key)) this.hard.set(key, record);
    else this.soft.set(key, record);
  }

  delete(key: RecordKey): void {
    this.read.add(key);
    this.soft.delete(key);
    this.hard.set(key, undefined);
  }

  /** Agents that this transaction has written so far. */
  *agents(): IterableIterator<AgentRecord> {
    for (const record of this.hard.values()) if (record?.kind === 'agent') yield record;
  }

  /** EID records that this transaction has written so far. */
  *written(): IterableIterator<OwnershipRecord> {
    for (const record of this.hard.values()) if (record?.kind === 'eid') yield record;
    for (const record of this.soft.values()) if (record.kind === 'eid') yield record;
  }
}

export class Transactions {
  private readonly replica: Replica;
  private readonly limit: number;
  private readonly onCommit: (commit: Commit) => void;
  private readonly onFull: () => void;
  private readonly queue = new FairQueue<string, Work>();
  private flight:
    | { readonly id: number; readonly works: readonly Work[]; writes: Commit['writes']; attempt: number }
    | undefined;
  private flushAt: Instant | undefined;
  private lastId = 0;

  constructor(replica: Replica, limit: number, onCommit: (commit: Commit) => void, onFull: () => void) {
    this.replica = replica;
    this.limit = limit;
    this.onCommit = onCommit;
    this.onFull = onFull;
  }

  get waiting(): number {
    return this.queue.length + (this.flight?.works.length ?? 0);
  }

  /** Fails at once when too many wait. */
  add(work: Work, now: Instant): void {
    if (this.queue.length >= this.limit) {
      this.onFull();
      work.fail(now);
      return;
    }
    this.queue.add(work.sender, work, work.size ?? 1);
    this.run(now);
  }

  handleOutcome(id: number, outcome: CommitOutcome, now: Instant): void {
    const flight = this.flight;
    if (flight?.id !== id) return;
    this.flight = undefined;
    switch (outcome.kind) {
      case 'committed':
        for (const { key, record } of flight.writes) this.replica.committed(key, record, outcome.revision);
        for (const work of flight.works) work.complete(now);
        break;
      case 'refused':
        for (const { key, record, revision } of outcome.current) this.replica.learned(key, record, revision);
        if (flight.attempt < ATTEMPTS) this.attempt(flight.works, flight.attempt + 1, now);
        else for (const work of flight.works) work.fail(now);
        break;
      case 'failed':
        for (const work of flight.works) work.fail(now);
        break;
      default:
        outcome satisfies never;
    }
    if (this.replica.dirty.size > 0) this.flushAt ??= now + FLUSH_RETRY;
    this.run(now);
  }

  handleTimeout(now: Instant): void {
    if (this.flushAt !== undefined && now >= this.flushAt && this.flight === undefined) this.attempt([], 1, now);
  }

  pollTimeout(): Instant | undefined {
    return this.flight === undefined ? this.flushAt : undefined;
  }

  private run(now: Instant): void {
    while (this.flight === undefined && this.queue.length > 0) this.attempt(this.queue.take(BATCH), 1, now);
  }

  private attempt(works: readonly Work[], attempt: number, now: Instant): void {
    const transaction = new Transaction(this.replica);
    for (const work of works) work.evaluate(transaction);
    const flushing = this.flushAt !== undefined && now >= this.flushAt;
    if (transaction.hard.size === 0 && !flushing) {
      for (const [key, record] of transaction.soft) this.replica.soften(key, record);
      if (this.replica.dirty.size > 0) this.flushAt ??= now + FLUSH_DELAY;
      for (const work of works) work.complete(now);
      return;
    }
    const writes = new Map<RecordKey, StoreRecord | undefined>();
    for (const key of this.replica.dirty) writes.set(key, this.replica.get(key));
    for (const [key, record] of transaction.soft) writes.set(key, record);
    for (const [key, record] of transaction.hard) writes.set(key, record);
    this.flushAt = undefined;
    if (writes.size === 0) return;
    const compared = new Set([...transaction.read, ...writes.keys()]);
    const commit: Commit = {
      id: ++this.lastId,
      conditions: [...compared].map((key) => ({ key, revision: this.replica.revision(key) })),
      writes: [...writes].map(([key, record]) => ({ key, record })),
    };
    this.flight = { id: commit.id, works, writes: commit.writes, attempt };
    this.onCommit(commit);
  }
}

/** Records that are judged without a pause, more or less. */
const BATCH = 256;
const ATTEMPTS = 20;
const FLUSH_DELAY: Millis = 20;
const FLUSH_RETRY: Millis = 1000;
