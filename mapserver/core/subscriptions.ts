/**
 * Who wants to hear of which EIDs (RFC 9437).
 *
 * A change of an EID concerns the subscribers of that EID, of every prefix that covers it, and of every prefix inside
 * it, since the longest match of those may have changed. Subscriptions live as long as the subscriber's session; one
 * to an EID that nobody has registered ends after TEMPORARY unless somebody does. Bounded per agent and in all.
 */
import { ipPrefix, prefixAddress, prefixLength } from '../../proto/address.ts';
import {
  type Eid,
  type EidKey,
  eidKey,
  type InstanceId,
  type NameEid,
  parseEidKey,
  prefixEid,
} from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { PrefixTrie } from '../../proto/prefix-trie.ts';
import { type Instant, minutes } from '../../proto/time.ts';
import { parentOf } from './names.ts';

export interface SubscriptionLimits {
  readonly perAgent: number;
  readonly total: number;
}

export class Subscriptions {
  private readonly limits: SubscriptionLimits;
  private readonly byEid = new Map<EidKey, Set<XtrId>>();
  private readonly byAgent = new Map<XtrId, Set<EidKey>>();
  private readonly prefixes = new Map<InstanceId, PrefixTrie<EidKey>>();
  /** Subscribed names by their last label, so that a change below one is not looked for among all. */
  private readonly names = new Map<string, Map<EidKey, NameEid>>();
  /** How many subscribed prefixes have which length: what covers an EID is looked for only at these. */
  private readonly lengths = new Map<number, number>();
  /** In the order in which they end, since all last equally long. */
  private readonly temporary = new Map<
    string,
    { readonly xtrId: XtrId; readonly eid: EidKey; readonly endsAt: Instant }
  >();
  private count = 0;

  constructor(limits: SubscriptionLimits) {
    this.limits = limits;
  }

  get size(): number {
    return this.count;
  }

  /** Undefined, or of what there would be too many. */
  add(xtrId: XtrId, eid: Eid, temporary: boolean, now: Instant): 'subscriptionsPerAgent' | 'subscriptions' | undefined {
    const key = eidKey(eid);
    const own = this.byAgent.get(xtrId) ?? new Set<EidKey>();
    if (!own.has(key)) {
      if (own.size >= this.limits.perAgent) return 'subscriptionsPerAgent';
      if (this.count >= this.limits.total) return 'subscriptions';
      this.byAgent.set(xtrId, own.add(key));
      this.index(eid, key).add(xtrId);
      this.count++;
    }
    const id = `${xtrId} ${key}`;
    this.temporary.delete(id);
    if (temporary) this.temporary.set(id, { xtrId, eid: key, endsAt: now + TEMPORARY });
    return undefined;
  }

  delete(xtrId: XtrId, eid: Eid): void {
    this.drop(xtrId, eidKey(eid));
  }

  deleteAll(xtrId: XtrId): void {
    for (const key of [...(this.byAgent.get(xtrId) ?? [])]) this.drop(xtrId, key);
  }

  /** Subscribers that a change of `eid` concerns. */
  concerned(eid: Eid): Set<XtrId> {
    const found = new Set(this.byEid.get(eidKey(eid)));
    if (eid.kind === 'name') return found;
    const collect = (key: EidKey): void => {
      for (const xtrId of this.byEid.get(key) ?? []) found.add(xtrId);
    };
    const length = prefixLength(eid.prefix);
    for (const shorter of this.lengths.keys()) {
      if (shorter < length) collect(eidKey(prefixEid(eid.iid, ipPrefix(prefixAddress(eid.prefix), shorter))));
    }
    for (const { value: key } of this.prefixes.get(eid.iid)?.covered(eid.prefix) ?? []) collect(key);
    return found;
  }

  /** A subscription to something that is registered now has no end of its own. */
  settle(eid: Eid, subscribers: Iterable<XtrId>): void {
    for (const xtrId of subscribers) this.temporary.delete(`${xtrId} ${eidKey(eid)}`);
  }

  /** Names at or below `tops` that somebody is subscribed to; below the empty one are all. */
  *namesBelow(tops: ReadonlySet<string>): IterableIterator<NameEid> {
    const groups = tops.has('') ? this.names.keys() : new Set([...tops].map(lastLabel));
    for (const group of groups) {
      for (const eid of this.names.get(group)?.values() ?? []) if (isBelow(eid.name, tops)) yield eid;
    }
  }

  of(xtrId: XtrId): number {
    return this.byAgent.get(xtrId)?.size ?? 0;
  }

  handleTimeout(now: Instant): void {
    for (const [id, { xtrId, eid, endsAt }] of this.temporary) {
      if (endsAt > now) return;
      this.temporary.delete(id);
      this.drop(xtrId, eid);
    }
  }

  pollTimeout(): Instant | undefined {
    for (const { endsAt } of this.temporary.values()) return endsAt;
    return undefined;
  }

  private index(eid: Eid, key: EidKey): Set<XtrId> {
    const known = this.byEid.get(key);
    if (known !== undefined) return known;
    const subscribers = new Set<XtrId>();
    this.byEid.set(key, subscribers);
    if (eid.kind === 'prefix') {
      const trie = this.prefixes.get(eid.iid) ?? new PrefixTrie<EidKey>();
      this.prefixes.set(eid.iid, trie);
      trie.set(eid.prefix, key);
      const length = prefixLength(eid.prefix);
      this.lengths.set(length, (this.lengths.get(length) ?? 0) + 1);
    } else {
      const group = lastLabel(eid.name);
      const names = this.names.get(group) ?? new Map<EidKey, NameEid>();
      this.names.set(group, names.set(key, eid));
    }
    return subscribers;
  }

  private drop(xtrId: XtrId, key: EidKey): void {
    const own = this.byAgent.get(xtrId);
    if (own === undefined || !own.delete(key)) return;
    this.count--;
    this.temporary.delete(`${xtrId} ${key}`);
    if (own.size === 0) this.byAgent.delete(xtrId);
    const subscribers = this.byEid.get(key);
    subscribers?.delete(xtrId);
    if (subscribers?.size !== 0) return;
    this.byEid.delete(key);
    const eid = parseEidKey(key);
    if (eid.kind === 'name') {
      const group = lastLabel(eid.name);
      this.names.get(group)?.delete(key);
      if (this.names.get(group)?.size === 0) this.names.delete(group);
      return;
    }
    this.prefixes.get(eid.iid)?.delete(eid.prefix);
    const length = prefixLength(eid.prefix);
    const left = (this.lengths.get(length) ?? 1) - 1;
    if (left > 0) this.lengths.set(length, left);
    else this.lengths.delete(length);
  }
}

function lastLabel(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

function isBelow(name: string, tops: ReadonlySet<string>): boolean {
  if (tops.has('')) return true;
  for (let each = name; each !== ''; each = parentOf(each)) if (tops.has(each)) return true;
  return false;
}

const TEMPORARY = minutes(15);
