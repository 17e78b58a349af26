/**
 * Which agents are here, and since when the others are gone.
 *
 * A lost session changes nothing for others: the agent's mappings stay until the grace period is over, counted from
 * the loss (or from the start of this server). A new session starts the period again, for what the agent does not
 * confirm by a registration: it may have given that up while it was away. All periods are equally long, so the order
 * in which they were started is the order in which they end.
 */
import type { EidKey } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { Instant, Millis } from '../../proto/time.ts';

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

  opened(xtrId: XtrId, session: SessionId, now: Instant): void {
    this.sessions.set(xtrId, { session, confirmed: new Set() });
    this.restart(xtrId, now);
  }

  /** A session that was superseded has no say any more. */
  closed(xtrId: XtrId, session: SessionId, now: Instant): void {
    if (this.session(xtrId) !== session) return;
    this.sessions.delete(xtrId);
    this.restart(xtrId, now);
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

  /** Agents whose grace period is over. */
  handleTimeout(now: Instant): Overdue[] {
    const overdue: Overdue[] = [];
    for (const [xtrId, deadline] of this.deadlines) {
      if (deadline > now) break;
      this.deadlines.delete(xtrId);
      overdue.push({ xtrId, confirmed: this.sessions.get(xtrId)?.confirmed ?? new Set() });
    }
    return overdue;
  }

  pollTimeout(): Instant | undefined {
    for (const deadline of this.deadlines.values()) return deadline;
    return undefined;
  }

  private restart(xtrId: XtrId, now: Instant): void {
    this.deadlines.delete(xtrId);
    this.deadlines.set(xtrId, now + this.grace);
  }
}
