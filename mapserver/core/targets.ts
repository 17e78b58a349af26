/**
 * Agents that are prepared to take an EID over (state `target` of a move).
 *
 * Soft state: a target says it again with each of its registrations, else it ends after TARGET_TTL. It owns nothing and
 * changes no generation. Its grant was checked, so the owner is told of it, with each of its registrations and in each
 * of the owner's sessions: owner and target know each other before the move. Bounded per EID, per agent and in all.
 */
import type { EidKey } from '../../proto/eid.ts';
import type { Locator, TunnelKey, XtrId } from '../../proto/mapping.ts';
import { type Instant, minutes } from '../../proto/time.ts';
import type { SessionId } from './presence.ts';

export interface Target {
  readonly eid: EidKey;
  readonly xtrId: XtrId;
  readonly tunnelKey: TunnelKey;
  readonly locators: readonly Locator[];
  readonly endsAt: Instant;
  /** The session of the owner in which it was told. */
  toldIn: SessionId | undefined;
}

export class Targets {
  /** In the order in which they end, since all last equally long. */
  private readonly targets = new Map<string, Target>();
  private readonly byEid = new Map<EidKey, Set<string>>();
  private readonly counts = new Map<XtrId, number>();

  get size(): number {
    return this.targets.size;
  }

  /** False when there are too many. */
  add(target: Omit<Target, 'endsAt' | 'toldIn'>, now: Instant): boolean {
    const key = keyOf(target.eid, target.xtrId);
    const known = this.targets.get(key);
    const siblings = this.byEid.get(target.eid) ?? new Set();
    const count = this.counts.get(target.xtrId) ?? 0;
    const full = siblings.size >= MAX_PER_EID || count >= MAX_PER_AGENT || this.targets.size >= MAX_TARGETS;
    if (known === undefined && full) return false;
    if (known === undefined) this.counts.set(target.xtrId, count + 1);
    this.targets.delete(key);
    this.targets.set(key, { ...target, endsAt: now + TARGET_TTL, toldIn: undefined });
    this.byEid.set(target.eid, siblings.add(key));
    return true;
  }

  delete(eid: EidKey, xtrId: XtrId): void {
    const key = keyOf(eid, xtrId);
    if (!this.targets.delete(key)) return;
    const count = (this.counts.get(xtrId) ?? 1) - 1;
    if (count === 0) this.counts.delete(xtrId);
    else this.counts.set(xtrId, count);
    const siblings = this.byEid.get(eid);
    siblings?.delete(key);
    if (siblings?.size === 0) this.byEid.delete(eid);
  }

  deleteAll(xtrId: XtrId): void {
    for (const target of [...this.targets.values()]) if (target.xtrId === xtrId) this.delete(target.eid, xtrId);
  }

  has(eid: EidKey, xtrId: XtrId): boolean {
    return this.targets.has(keyOf(eid, xtrId));
  }

  /** The EIDs of which it is a target. */
  eidsOf(xtrId: XtrId): readonly EidKey[] {
    return [...this.targets.values()].filter((target) => target.xtrId === xtrId).map(({ eid }) => eid);
  }

  /** Those of which the owner has not heard in this session; told from now on. */
  untold(eid: EidKey, owner: XtrId, session: SessionId): readonly Target[] {
    const untold = [...(this.byEid.get(eid) ?? [])]
      .flatMap((key) => this.targets.get(key) ?? [])
      .filter(({ toldIn, xtrId }) => toldIn !== session && xtrId !== owner);
    for (const target of untold) target.toldIn = session;
    return untold;
  }

  handleTimeout(now: Instant): void {
    for (const { eid, xtrId, endsAt } of this.targets.values()) {
      if (endsAt > now) return;
      this.delete(eid, xtrId);
    }
  }

  pollTimeout(): Instant | undefined {
    for (const { endsAt } of this.targets.values()) return endsAt;
    return undefined;
  }
}

function keyOf(eid: EidKey, xtrId: XtrId): string {
  return `${xtrId} ${eid}`;
}

/** Three refreshes. */
export const TARGET_TTL = minutes(3);
const MAX_PER_EID = 8;
/** As many EIDs as an agent attaches. */
const MAX_PER_AGENT = 1024;
const MAX_TARGETS = 65_536;
