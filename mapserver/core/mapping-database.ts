/**
 * The mapping database: which live mapping answers for an EID, and who owns what.
 *
 * Prefixes are matched by the longest, per instance; names exactly. It follows the replica, which tells it each change.
 */
import { type IpPrefix, isHostPrefix } from '../../proto/address.ts';
import { type Eid, type EidKey, eidKey, type InstanceId, type PrefixEid, parseEidKey } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { PrefixTrie } from '../../proto/prefix-trie.ts';
import type { OwnershipRecord } from './records.ts';

export class MappingDatabase {
  private readonly prefixes = new Map<InstanceId, PrefixTrie<OwnershipRecord>>();
  private readonly names = new Map<EidKey, OwnershipRecord>();
  private readonly owned = new Map<XtrId, Map<EidKey, OwnershipRecord>>();
  /** Of those what is withdrawn, the longest ago in front. */
  private readonly withdrawn = new Map<XtrId, Map<EidKey, OwnershipRecord>>();
  /** EIDs that nobody owns, by who released them. */
  private readonly released = new Map<XtrId, number>();
  /** Those of them that sites had, the longest ago in front. */
  private readonly vacated = new Map<EidKey, OwnershipRecord>();
  private live = 0;

  get counts(): { readonly prefixes: number; readonly names: number } {
    return { prefixes: this.live - this.names.size, names: this.names.size };
  }

  update(before: OwnershipRecord | undefined, after: OwnershipRecord | undefined): void {
    if (before !== undefined) this.remove(before);
    if (after !== undefined) this.insert(after);
  }

  /** The live mapping that answers for `eid`: the same name, or the longest prefix that covers it. */
  match(eid: Eid): OwnershipRecord | undefined {
    if (eid.kind === 'name') return this.names.get(eidKey(eid));
    return this.prefixes.get(eid.iid)?.longestMatch(eid.prefix)?.value;
  }

  /** Live mappings strictly inside the prefix of `record`, at most `limit`. */
  inside(record: OwnershipRecord, limit: number): OwnershipRecord[] {
    const eid = parseEidKey(record.eid);
    if (eid.kind === 'name' || isHostPrefix(eid.prefix)) return [];
    const found: OwnershipRecord[] = [];
    for (const { prefix, value: other } of this.prefixes.get(eid.iid)?.covered(eid.prefix) ?? []) {
      if (prefix !== eid.prefix) found.push(other);
      if (found.length >= limit) break;
    }
    return found;
  }

  /** Length of the largest prefix around `eid` that holds no other live mapping, and is inside those around it. */
  vacantLength(eid: PrefixEid): number {
    return this.prefixes.get(eid.iid)?.vacantLength(eid.prefix) ?? 0;
  }

  /** Live mappings of the prefix and of all inside it. */
  *within(iid: InstanceId, prefix: IpPrefix): IterableIterator<OwnershipRecord> {
    for (const { value } of this.prefixes.get(iid)?.covered(prefix) ?? []) yield value;
  }

  /** Everything of which `xtrId` is the owner and that it has not released. */
  ownedBy(xtrId: XtrId): IterableIterator<OwnershipRecord> {
    return (this.owned.get(xtrId) ?? new Map<EidKey, OwnershipRecord>()).values();
  }

  ownedCount(xtrId: XtrId): number {
    return this.owned.get(xtrId)?.size ?? 0;
  }

  /** What it owns and has withdrawn, the longest ago first. */
  withdrawnOf(xtrId: XtrId): IterableIterator<OwnershipRecord> {
    return (this.withdrawn.get(xtrId) ?? new Map<EidKey, OwnershipRecord>()).values();
  }

  /** EIDs that `xtrId` was the last to own, and that nobody owns now. */
  releasedCount(xtrId: XtrId): number {
    return this.released.get(xtrId) ?? 0;
  }

  /** EIDs that sites had and nobody owns now, the longest ago first. */
  vacatedBySites(): IterableIterator<OwnershipRecord> {
    return this.vacated.values();
  }

  owners(): IterableIterator<XtrId> {
    return this.owned.keys();
  }

  private insert(record: OwnershipRecord): void {
    if (record.state === 'released') {
      this.released.set(record.owner, this.releasedCount(record.owner) + 1);
      if (record.site !== undefined) this.vacated.set(record.eid, record);
      return;
    }
    const own = this.owned.get(record.owner) ?? new Map<EidKey, OwnershipRecord>();
    this.owned.set(record.owner, own.set(record.eid, record));
    if (record.state !== 'live') {
      const withdrawn = this.withdrawn.get(record.owner) ?? new Map<EidKey, OwnershipRecord>();
      this.withdrawn.set(record.owner, withdrawn.set(record.eid, record));
      return;
    }
    this.live++;
    const eid = parseEidKey(record.eid);
    if (eid.kind === 'name') {
      this.names.set(record.eid, record);
      return;
    }
    const trie = this.prefixes.get(eid.iid) ?? new PrefixTrie<OwnershipRecord>();
    this.prefixes.set(eid.iid, trie);
    trie.set(eid.prefix, record);
  }

  private remove(record: OwnershipRecord): void {
    if (record.state === 'released') {
      const left = this.releasedCount(record.owner) - 1;
      if (left === 0) this.released.delete(record.owner);
      else this.released.set(record.owner, left);
      this.vacated.delete(record.eid);
      return;
    }
    const own = this.owned.get(record.owner);
    own?.delete(record.eid);
    if (own?.size === 0) this.owned.delete(record.owner);
    if (record.state !== 'live') {
      const withdrawn = this.withdrawn.get(record.owner);
      withdrawn?.delete(record.eid);
      if (withdrawn?.size === 0) this.withdrawn.delete(record.owner);
      return;
    }
    this.live--;
    const eid = parseEidKey(record.eid);
    if (eid.kind === 'name') this.names.delete(record.eid);
    else this.prefixes.get(eid.iid)?.delete(eid.prefix);
  }
}
