/**
 * Takes EIDs from sites that may not have them any more: that were removed, or whose prefixes were changed.
 *
 * A site may own a hundred thousand EIDs, so it is done in slices, each a transaction of its own, and between two of them
 * everybody else is served. What is looked at is whether the site may have the EID by then, so nothing depends on how far
 * it came: a map server that starts looks through all sites again, and a site that was made again keeps what it may have.
 */
import { type EidKey, type PrefixEid, parseEidKey } from '../../../proto/eid.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import { type Instant, seconds } from '../../../proto/time.ts';
import type { MappingDatabase } from '../mapping-database.ts';
import { type OwnershipRecord, ownershipKey } from '../records.ts';
import type { Transaction, Transactions } from '../transactions.ts';
import type { Sites } from './sites.ts';

export interface SiteReleasesParts {
  readonly database: MappingDatabase;
  readonly sites: Sites;
  readonly transactions: Transactions;
}

export class SiteReleases {
  private readonly parts: SiteReleasesParts;
  private readonly waiting = new Set<XtrId>();
  private current: { readonly owner: XtrId; readonly eids: readonly EidKey[]; at: number } | undefined;
  /** A slice is being stored. */
  private isBusy = false;
  private nextAt: Instant | undefined;

  constructor(parts: SiteReleasesParts) {
    this.parts = parts;
  }

  /** What the site of this owner may have, may be less than what it has. */
  check(owner: XtrId): void {
    this.waiting.add(owner);
  }

  /** The store was read: any may have been on the way when the map server stopped. */
  restore(owners: Iterable<XtrId>, now: Instant): void {
    for (const owner of owners) this.check(owner);
    if (this.isPending()) this.nextAt = now;
  }

  settle(now: Instant): void {
    if (!this.isBusy && this.nextAt === undefined && this.isPending()) this.step(now);
  }

  handleTimeout(now: Instant): void {
    if (this.nextAt === undefined || now < this.nextAt) return;
    this.nextAt = undefined;
    if (this.isPending()) this.step(now);
  }

  pollTimeout(): Instant | undefined {
    return this.nextAt;
  }

  private isPending(): boolean {
    return this.waiting.size > 0 || this.current !== undefined;
  }

  private step(now: Instant): void {
    this.current ??= this.next();
    if (this.current === undefined) return;
    const { current } = this;
    const from = current.at;
    const { owner, eids } = current;
    const slice: EidKey[] = [];
    const end = Math.min(eids.length, from + EXAMINED);
    for (; current.at < end && slice.length < SLICE; current.at++) {
      const eid = eids[current.at];
      if (eid !== undefined && !this.mayHave(owner, eid)) slice.push(eid);
    }
    if (current.at === eids.length) this.current = undefined;
    if (slice.length === 0) {
      if (this.isPending()) this.nextAt = now;
      return;
    }
    this.isBusy = true;
    const resume = (at: Instant): void => {
      this.isBusy = false;
      this.nextAt = at;
    };
    this.parts.transactions.add(
      {
        sender: 'site releases',
        size: slice.length,
        evaluate: (transaction) => {
          for (const eid of slice) if (!this.mayHave(owner, eid)) release(transaction, owner, eid);
        },
        complete: (later) => resume(later),
        fail: (later) => {
          this.current = { owner, eids, at: from };
          resume(later + RETRY);
        },
      },
      now,
    );
  }

  private next(): { readonly owner: XtrId; readonly eids: readonly EidKey[]; at: number } | undefined {
    const [owner] = this.waiting;
    if (owner === undefined) return undefined;
    this.waiting.delete(owner);
    return { owner, eids: Array.from(this.parts.database.ownedBy(owner), ({ eid }) => eid), at: 0 };
  }

  private mayHave(owner: XtrId, key: EidKey): boolean {
    const site = this.parts.sites.ownedBy(owner);
    return site !== undefined && this.parts.sites.authorises(site, parseEidKey(key) as PrefixEid);
  }
}

function release(transaction: Transaction, owner: XtrId, eid: EidKey): void {
  const record = transaction.get(ownershipKey(eid));
  if (record?.kind !== 'eid' || record.owner !== owner || record.state === 'released') return;
  const released: OwnershipRecord = { ...record, state: 'released', locators: [], names: [], targets: [] };
  transaction.put(released);
}

/** Stored in one transaction, and told in one turn. */
const SLICE = 256;
/** Looked at in one turn. */
const EXAMINED = 4_096;
const RETRY = seconds(10);
