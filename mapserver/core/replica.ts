/**
 * This server's copy of the store, complete and in memory: every lookup is answered from it.
 *
 * A record carries the revision of its key in the store. A _dirty_ record is newer here than there (soft state: the
 * locators that an owner reported); it is written behind. News from the store win, except over a dirty record of the
 * same owner and generation, whose content is the owner's latest word; then only the revision is taken over.
 */
import type { OwnershipRecord, RecordKey, SoftRecord, StoreRecord } from './records.ts';

export class Replica {
  private readonly records = new Map<RecordKey, { readonly record: StoreRecord; readonly revision: number }>();
  private readonly dirtyKeys = new Set<RecordKey>();
  /** What this server removed, until the store has told of it: what it told before must not bring it back. */
  private readonly removals = new Map<RecordKey, number>();
  private readonly sizes = {
    eid: 0,
    agent: 0,
    token: 0,
    policy: 0,
    name: 0,
    site: 0,
    'site-nonces': 0,
    restoration: 0,
    'forgotten-generations': 0,
  };
  private readonly onChange: (before: StoreRecord | undefined, after: StoreRecord | undefined) => void;

  constructor(onChange: (before: StoreRecord | undefined, after: StoreRecord | undefined) => void) {
    this.onChange = onChange;
  }

  get(key: RecordKey): StoreRecord | undefined {
    return this.records.get(key)?.record;
  }

  revision(key: RecordKey): number {
    return this.records.get(key)?.revision ?? 0;
  }

  values(): IterableIterator<{ readonly record: StoreRecord }> {
    return this.records.values();
  }

  get dirty(): ReadonlySet<RecordKey> {
    return this.dirtyKeys;
  }

  get size(): number {
    return this.records.size;
  }

  /** Records of each kind. */
  get counts(): Readonly<Record<StoreRecord['kind'], number>> {
    return this.sizes;
  }

  /** What a committed transaction wrote. */
  committed(key: RecordKey, record: StoreRecord | undefined, revision: number): void {
    if (record === undefined) this.removals.set(key, revision);
    this.replace(key, record, revision);
  }

  /** Soft state: true here at once, in the store later. */
  soften(key: RecordKey, record: SoftRecord): void {
    this.dirtyKeys.add(key);
    this.put(key, record, this.revision(key));
  }

  /** A change that was made elsewhere. Returns false when it was known. */
  learned(key: RecordKey, record: StoreRecord | undefined, revision: number): boolean {
    const removal = this.removals.get(key) ?? 0;
    if (removal > 0 && revision >= removal) this.removals.delete(key);
    if (revision <= Math.max(this.revision(key), removal)) return false;
    const mine = this.get(key);
    if (this.dirtyKeys.has(key) && mine?.kind === 'eid' && record?.kind === 'eid' && sameOwnership(mine, record)) {
      this.put(key, mine, revision);
      return false;
    }
    this.replace(key, record, revision);
    return true;
  }

  private replace(key: RecordKey, record: StoreRecord | undefined, revision: number): void {
    this.dirtyKeys.delete(key);
    this.put(key, record, revision);
  }

  private put(key: RecordKey, record: StoreRecord | undefined, revision: number): void {
    const before = this.records.get(key)?.record;
    if (record === undefined) this.records.delete(key);
    else this.records.set(key, { record, revision });
    if (before !== undefined) this.sizes[before.kind]--;
    if (record !== undefined) this.sizes[record.kind]++;
    if (before !== record) this.onChange(before, record);
  }
}

function sameOwnership(a: OwnershipRecord, b: OwnershipRecord): boolean {
  return a.generation === b.generation && a.owner === b.owner;
}
