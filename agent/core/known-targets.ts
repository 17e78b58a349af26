/**
 * Who is authorised to take over which EID of ours (targets of a move), as the map server told, or as told by
 * the owner that we took it from.
 *
 * Soft state that the map server repeats; while it is away nothing ends, since that is when it matters. Both ends keep
 * a session with the other, so that the first word of the move needs no handshake.
 */
import { type EidKey, eidKey } from '../../proto/eid.ts';
import { isWithdrawal, type Mapping, type TunnelKey } from '../../proto/mapping.ts';
import { type Instant, minutes } from '../../proto/time.ts';

/** What is written to disk. */
export interface SavedTarget {
  readonly eid: EidKey;
  readonly tunnelKey: TunnelKey;
}

export class KnownTargets {
  private readonly byEid = new Map<EidKey, Map<TunnelKey, Instant>>();

  constructor(saved: readonly SavedTarget[], now: Instant) {
    for (const { eid, tunnelKey } of saved) this.put(eid, tunnelKey, now + LIFE);
  }

  /** Returns whether it was not known. */
  add({ eid, tunnelKey, ...mapping }: Mapping, now: Instant): boolean {
    if (tunnelKey === undefined || isWithdrawal({ eid, ...mapping })) return false;
    return this.put(eidKey(eid), tunnelKey, now + LIFE);
  }

  has(eid: EidKey, key: TunnelKey): boolean {
    return this.byEid.get(eid)?.has(key) === true;
  }

  of(eid: EidKey): readonly TunnelKey[] {
    return [...(this.byEid.get(eid)?.keys() ?? [])];
  }

  /** It may not take this one over any more. Returns whether it was known. */
  delete(eid: EidKey, key: TunnelKey): boolean {
    return this.byEid.get(eid)?.delete(key) === true;
  }

  /** It is an agent no more. */
  revoke(key: TunnelKey): void {
    for (const targets of this.byEid.values()) targets.delete(key);
  }

  /** It is not ours any more. */
  forget(eid: EidKey): void {
    this.byEid.delete(eid);
  }

  keys(): ReadonlySet<TunnelKey> {
    return new Set([...this.byEid.values()].flatMap((each) => [...each.keys()]));
  }

  /** Call only while there has been a session for a while: what the map server would have repeated ends. */
  sweep(now: Instant): void {
    for (const [eid, targets] of this.byEid) {
      for (const [key, endsAt] of targets) if (endsAt <= now) targets.delete(key);
      if (targets.size === 0) this.byEid.delete(eid);
    }
  }

  save(): readonly SavedTarget[] {
    return [...this.byEid].flatMap(([eid, targets]) => [...targets.keys()].map((tunnelKey) => ({ eid, tunnelKey })));
  }

  private put(eid: EidKey, key: TunnelKey, endsAt: Instant): boolean {
    const targets = this.byEid.get(eid) ?? new Map<TunnelKey, Instant>();
    const isNew = !targets.has(key);
    if (isNew && targets.size >= MAX_PER_EID) return false;
    targets.set(key, endsAt);
    this.byEid.set(eid, targets);
    return isNew;
  }
}

const MAX_PER_EID = 8;
export const LIFE = minutes(5);
