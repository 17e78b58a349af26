/**
 * Which agents are here, and since when the others are gone.
 *
 * A lost session takes nothing from others: the agent's mappings stay until the grace period is over, counted from
 * the loss (or from the start of this server). A new session starts the period again, for what the agent does not
 * confirm by a registration: it may have given that up while it was away. All periods are equally long, so the order
 * in which they were started is the order in which they end. Somewhat earlier than that an agent that has lost its
 * session counts as away: a name with other EIDs behind it is answered with those. A roam takes less long, and of those
 * that were not here yet since the start of this server it is not known.
 */
import type { EidKey } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { type Instant, type Millis, seconds } from '../../proto/time.ts';

export type SessionId = number & { readonly __brand: 'SessionId' };

export interface Overdue {
  readonly xtrId: XtrId;
  /** What stays. */
  readonly confirmed: ReadonlySet<EidKey>;
}

export class Presence {
  private readonly grace: Millis;
  private readonly sessions = new Map<XtrId, { readonly session: SessionId; readonly confirmed: Set<EidKey> }>();
  private readonly deadlines = new Map<XtrId, Instant>();
  /** When those that lost their session will be away, the next first. */
  private readonly leaving = new Map<XtrId, Instant>();
  private readonly away = new Set<XtrId>();

  constructor(grace: Millis) {
    this.grace = grace;
  }

  get size(): number {
    return this.sessions.size;
  }

  session(xtrId: XtrId): SessionId | undefined {
    return this.sessions.get(xtrId)?.session;
  }

  /** The agent's remaining grace period; undefined when none runs. */
  deadline(xtrId: XtrId): Instant | undefined {
    return this.deadlines.get(xtrId);
  }

  isAway(xtrId: XtrId): boolean {
    return this.away.has(xtrId);
  }

  /** True when it was away. */
  opened(xtrId: XtrId, session: SessionId, now: Instant): boolean {
    this.sessions.set(xtrId, { session, confirmed: new Set() });
    this.restart(xtrId, now);
    this.leaving.delete(xtrId);
    return this.away.delete(xtrId);
  }

  /** A session that was superseded has no say any more. */
  closed(xtrId: XtrId, session: SessionId, now: Instant): void {
    if (this.session(xtrId) !== session) return;
    this.sessions.delete(xtrId);
    this.restart(xtrId, now);
    this.leaving.delete(xtrId);
    this.leaving.set(xtrId, now + PATIENCE);
  }

  missing(xtrId: XtrId, now: Instant): void {
    this.restart(xtrId, now);
  }

  /** Returns whether it is the first time in this session. */
  confirm(xtrId: XtrId, session: SessionId, eid: EidKey): boolean {
    const present = this.sessions.get(xtrId);
    if (present?.session !== session || present.confirmed.has(eid)) return false;
    present.confirmed.add(eid);
    return true;
  }

  /** Agents that are away from now on. */
  handleLeaving(now: Instant): XtrId[] {
    const gone: XtrId[] = [];
    for (const [xtrId, at] of this.leaving) {
      if (at > now) break;
      this.leaving.delete(xtrId);
      this.away.add(xtrId);
      gone.push(xtrId);
    }
    return gone;
  }

  /** Agents whose grace period is over. */
  handleTimeout(now: Instant): Overdue[] {
    const overdue: Overdue[] = [];
    for (const [xtrId, deadline] of this.deadlines) {
      if (deadline > now) break;
      this.deadlines.delete(xtrId);
      // Nothing of it is left that could be answered.
      this.leaving.delete(xtrId);
      this.away.delete(xtrId);
      overdue.push({ xtrId, confirmed: this.sessions.get(xtrId)?.confirmed ?? new Set() });
    }
    return overdue;
  }

  pollTimeout(): Instant | undefined {
    const [deadline] = this.deadlines.values();
    const [leaving] = this.leaving.values();
    return deadline === undefined || leaving === undefined ? (deadline ?? leaving) : Math.min(deadline, leaving);
  }

  private restart(xtrId: XtrId, now: Instant): void {
    this.deadlines.delete(xtrId);
    this.deadlines.set(xtrId, now + this.grace);
  }
}

const PATIENCE = seconds(5);
