/**
 * What administrators want done with EIDs by agents: attach (which moves it if another agent has it) and detach.
 *
 * An order goes to the agent as a message, and is done when the agent's registration says so; the agent goes through the
 * same states as for its own operator. What cannot work is refused before anything is sent. An order that is not
 * fulfilled in time ends with what is known of why; the agent is not told, and may fulfil it later. Bounded in number.
 */
import { type EidKey, eidKey, type PrefixEid } from '../../proto/eid.ts';
import { StayputError } from '../../proto/errors.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import { covers, inOverlay, type Overlay } from './grants.ts';
import { type AgentRecord, agentKey, type OwnershipRecord, ownershipKey } from './records.ts';
import type { DenialReason } from './registration.ts';
import type { Replica } from './replica.ts';
import type { Targets } from './targets.ts';

export type OrderId = number & { readonly __brand: 'OrderId' };

export type EidOrder =
  | {
      readonly kind: 'attach';
      readonly eid: PrefixEid;
      readonly xtrId: XtrId;
      readonly interface: string | null;
      /** Only if another agent has it. */
      readonly move: boolean;
      readonly patience: Millis;
    }
  | { readonly kind: 'detach'; readonly eid: PrefixEid; readonly patience: Millis };

export type OrderCode =
  | 'STAYPUT_AGENT_UNKNOWN'
  | 'STAYPUT_AGENT_REVOKED'
  | 'STAYPUT_OUTSIDE_OVERLAY'
  | 'STAYPUT_NOT_GRANTED'
  | 'STAYPUT_NOT_CONNECTED'
  | 'STAYPUT_NOT_REGISTERED'
  | 'STAYPUT_TOO_MANY'
  | 'STAYPUT_TIMEOUT';

export class OrderError extends StayputError {
  override readonly code: OrderCode;

  constructor(code: OrderCode, message: string) {
    super(code, message);
    this.code = code;
  }
}

export type OrderResult =
  | { readonly ok: true; readonly record: OwnershipRecord | undefined; readonly already: boolean }
  | { readonly ok: false; readonly error: OrderError };

interface Pending {
  readonly id: OrderId;
  readonly key: EidKey;
  readonly order: EidOrder;
  /** Who has to do it. */
  readonly xtrId: XtrId;
  readonly deadline: Instant;
}

export interface OrderParts {
  readonly overlay: Overlay;
  readonly replica: Replica;
  readonly targets: Targets;
  readonly isConnected: (xtrId: XtrId) => boolean;
  readonly finish: (id: OrderId, order: EidOrder, result: OrderResult) => void;
}

export class Orders {
  private readonly parts: OrderParts;
  private readonly pending = new Map<OrderId, Pending>();
  private lastId = 0;

  constructor(parts: OrderParts) {
    this.parts = parts;
  }

  /** `agent` is to be told; null if the order is finished. */
  begin(order: EidOrder, now: Instant): { readonly id: OrderId; readonly agent: XtrId | null } {
    const id = ++this.lastId as OrderId;
    const key = eidKey(order.eid);
    try {
      const record = this.record(key);
      const agent = this.judge(order, record);
      if (agent !== null) {
        this.pending.set(id, { id, key, order, xtrId: agent, deadline: now + order.patience });
        return { id, agent };
      }
      this.parts.finish(id, order, { ok: true, record, already: true });
    } catch (error) {
      if (!(error instanceof OrderError)) throw error;
      this.parts.finish(id, order, { ok: false, error });
    }
    return { id, agent: null };
  }

  /** A record changed. */
  handleRecord(record: OwnershipRecord): void {
    for (const { id, key, order, xtrId } of this.pending.values()) {
      if (key !== record.eid) continue;
      const done =
        order.kind === 'attach' ? record.owner === xtrId && record.state === 'live' : record.state === 'released';
      if (!done) continue;
      this.pending.delete(id);
      this.parts.finish(id, order, { ok: true, record, already: false });
    }
  }

  /** The agent tried, and was refused. */
  handleDenied(eid: EidKey, xtrId: XtrId, reason: DenialReason): void {
    for (const each of this.pending.values()) {
      if (each.key !== eid || each.xtrId !== xtrId || each.order.kind !== 'attach') continue;
      this.fail(each, 'STAYPUT_NOT_GRANTED', `agent ${xtrId} may not register ${each.order.eid.prefix} (${reason})`);
    }
  }

  handleTimeout(now: Instant): void {
    for (const each of this.pending.values()) {
      if (each.deadline > now) continue;
      const waits = this.parts.targets.has(each.key, each.xtrId);
      const why = waits
        ? 'is prepared for it, but its interface is not up; it takes the EID over when that comes up'
        : 'has not done it in time, and may do so later; see its log';
      this.fail(each, 'STAYPUT_TIMEOUT', `agent ${each.xtrId} ${why}`);
    }
  }

  pollTimeout(): Instant | undefined {
    let at: Instant | undefined;
    for (const { deadline } of this.pending.values()) at = Math.min(at ?? deadline, deadline);
    return at;
  }

  /** Who has to do it; null if it is so already. @throws OrderError */
  private judge(order: EidOrder, record: OwnershipRecord | undefined): XtrId | null {
    const owner = record === undefined || record.state === 'released' ? undefined : record.owner;
    const { prefix } = order.eid;
    if (this.pending.size >= MAX_PENDING) throw new OrderError('STAYPUT_TOO_MANY', 'too many orders wait; try again');
    if (order.kind === 'detach') {
      if (owner === undefined) return null;
      return this.connected(owner);
    }
    const agent = this.agent(order.xtrId);
    if (!inOverlay(this.parts.overlay, prefix)) {
      const overlay = this.parts.overlay.prefixes.join(', ');
      throw new OrderError('STAYPUT_OUTSIDE_OVERLAY', `${prefix} is not inside the overlay (${overlay})`);
    }
    if (!covers(agent, this.parts.overlay, order.eid)) {
      throw new OrderError('STAYPUT_NOT_GRANTED', `agent ${order.xtrId} is not granted ${prefix}; add a grant first`);
    }
    if (order.move && owner === undefined) {
      throw new OrderError('STAYPUT_NOT_REGISTERED', `no agent has ${prefix}, so there is nothing to move; attach it`);
    }
    if (owner === order.xtrId && record?.state === 'live') return null;
    return this.connected(order.xtrId);
  }

  private agent(xtrId: XtrId): AgentRecord {
    const agent = this.parts.replica.get(agentKey(xtrId));
    if (agent?.kind !== 'agent') throw new OrderError('STAYPUT_AGENT_UNKNOWN', `there is no agent ${xtrId}`);
    if (agent.revokedAt !== undefined) throw new OrderError('STAYPUT_AGENT_REVOKED', `agent ${xtrId} was revoked`);
    return agent;
  }

  private connected(xtrId: XtrId): XtrId {
    if (this.parts.isConnected(xtrId)) return xtrId;
    throw new OrderError('STAYPUT_NOT_CONNECTED', `agent ${xtrId} is not connected now; see "stayput agents list"`);
  }

  private record(key: EidKey): OwnershipRecord | undefined {
    const record = this.parts.replica.get(ownershipKey(key));
    return record?.kind === 'eid' ? record : undefined;
  }

  private fail({ id, order }: Pending, code: OrderCode, message: string): void {
    this.pending.delete(id);
    this.parts.finish(id, order, { ok: false, error: new OrderError(code, message) });
  }
}

const MAX_PENDING = 1024;
