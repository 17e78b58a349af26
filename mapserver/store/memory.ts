/** The store contract in memory: for tests, and as the plain reading of what the contract means. */
import type { Millis } from '../../proto/time.ts';
import {
  type CommitResult,
  CompactedError,
  type Condition,
  type Entry,
  type LeaseId,
  type Revision,
  type Store,
  type StoreChange,
  StoreError,
  type Watch,
  type Write,
} from './store.ts';
import { Watchers } from './watchers.ts';

export interface MemoryStoreOptions {
  /** Milliseconds since the epoch. */
  readonly clock: () => number;
  /** Transactions kept for watchers. */
  readonly history?: number;
}

interface Stored extends Entry {
  readonly lease: LeaseId | undefined;
}

export class MemoryStore implements Store {
  private readonly clock: () => number;
  private readonly history: number;
  private readonly entries = new Map<string, Stored>();
  private readonly leases = new Map<LeaseId, { readonly ttl: Millis; expiresAt: number }>();
  private readonly watchers = new Watchers();
  private log: StoreChange[] = [];
  private revision: Revision = 0;
  private lastLease = 0;
  private closed = false;

  constructor(options: MemoryStoreOptions) {
    this.clock = options.clock;
    this.history = options.history ?? 1000;
  }

  async get(key: string): Promise<Entry | undefined> {
    this.expire();
    return plain(this.entries.get(key));
  }

  async list(prefix: string): Promise<{ readonly entries: readonly Entry[]; readonly revision: Revision }> {
    this.expire();
    const entries = [...this.entries.values()]
      .filter((entry) => entry.key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .map(({ key, value, revision }) => ({ key, value, revision }));
    return { entries, revision: this.revision };
  }

  async compareAndSet(conditions: readonly Condition[], writes: readonly Write[]): Promise<CommitResult> {
    this.expire();
    for (const { lease } of writes) {
      if (lease !== undefined && !this.leases.has(lease)) throw new StoreError(`lease ${lease} is over`);
    }
    if (conditions.some(({ key, revision }) => (this.entries.get(key)?.revision ?? 0) !== revision)) {
      const current = conditions.flatMap(({ key }) => plain(this.entries.get(key)) ?? []);
      return { ok: false, current };
    }
    this.write(writes);
    return { ok: true, revision: this.revision };
  }

  watch(prefix: string, after: Revision, listener: (changes: readonly StoreChange[]) => void): Watch {
    const oldest = this.log[0]?.revision ?? this.revision + 1;
    if (after < oldest - 1) throw new CompactedError(after, oldest);
    return this.watchers.add(prefix, after, [...this.log], listener);
  }

  async lease(ttl: Millis): Promise<LeaseId> {
    this.expire();
    const id = ++this.lastLease as LeaseId;
    this.leases.set(id, { ttl, expiresAt: this.clock() + ttl });
    return id;
  }

  async renew(id: LeaseId): Promise<boolean> {
    this.expire();
    const lease = this.leases.get(id);
    if (lease !== undefined) lease.expiresAt = this.clock() + lease.ttl;
    return lease !== undefined;
  }

  async revoke(id: LeaseId): Promise<void> {
    this.expire();
    this.end([id]);
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  /** Lets leases that nobody renewed run out; every call does this first. */
  private expire(): void {
    if (this.closed) throw new StoreError('the store is closed');
    const now = this.clock();
    this.end([...this.leases].filter(([, lease]) => lease.expiresAt <= now).map(([id]) => id));
  }

  private end(ids: readonly LeaseId[]): void {
    if (ids.length === 0) return;
    const ended = new Set(ids);
    for (const id of ids) this.leases.delete(id);
    const gone = [...this.entries.values()].filter(({ lease }) => lease !== undefined && ended.has(lease));
    if (gone.length > 0) this.write(gone.map(({ key }) => ({ key, value: undefined })));
  }

  private write(writes: readonly Write[]): void {
    if (writes.length === 0) return;
    const revision = ++this.revision;
    for (const { key, value, lease } of writes) {
      if (value === undefined) this.entries.delete(key);
      else this.entries.set(key, { key, value, revision, lease });
    }
    const changes = writes.map(({ key, value }) => ({ key, value, revision }));
    this.log.push(...changes);
    const first = revision - this.history + 1;
    if ((this.log[0]?.revision ?? revision) < first) this.log = this.log.filter((change) => change.revision >= first);
    this.watchers.publish(changes);
  }
}

function plain(entry: Stored | undefined): Entry | undefined {
  return entry === undefined ? undefined : { key: entry.key, value: entry.value, revision: entry.revision };
}
