/**
 * Map-Registers on their way, and what is given up (RFC 9301 section 5.6).
 *
 * A registration that is not answered is forgotten after PATIENCE and everything is registered again. What was given up
 * is said until it is answered, over sessions and restarts: the map server would go on to answer with it.
 */
import { type Eid, type EidKey, eidKey, parseEidKey } from '../../proto/eid.ts';
import { mapRegister } from '../../proto/lisp/native.ts';
import { type Generation, isWithdrawal, type Mapping } from '../../proto/mapping.ts';
import { type Instant, seconds } from '../../proto/time.ts';
import type { Locators } from './locators.ts';
import type { MapServerSession } from './map-server-session.ts';
import type { Outbox } from './outbox.ts';
import { type AgentIdentity, MAX_OWNED, type Registrar } from './registrar.ts';

/** What was given up and the map server has not confirmed yet, as it is written to disk. */
export interface SavedWithdrawal {
  readonly eid: EidKey;
  readonly generation: Generation;
}

interface PendingRegister {
  readonly sentAt: Instant;
  /** What it gives up: to be said again if it is not answered. */
  readonly withdrawals: readonly Mapping[];
}

export class MapRegisters {
  private readonly identity: AgentIdentity;
  private readonly registrar: Registrar;
  private readonly locators: Locators;
  private readonly session: MapServerSession;
  private readonly outbox: Outbox;
  private readonly pending = new Map<bigint, PendingRegister>();
  private withdrawals: Mapping[] = [];

  constructor(
    identity: AgentIdentity,
    registrar: Registrar,
    locators: Locators,
    session: MapServerSession,
    outbox: Outbox,
    saved: readonly SavedWithdrawal[],
  ) {
    this.identity = identity;
    this.registrar = registrar;
    this.locators = locators;
    this.session = session;
    this.outbox = outbox;
    this.queueWithdrawals(saved.map(({ eid, generation }) => this.withdrawal(parseEidKey(eid), generation)));
  }

  /** Everything that this agent owns or claims. */
  sendAll(now: Instant): void {
    if (!this.isPossible) return;
    this.flushWithdrawals(now);
    for (const group of this.registrar.registrations(this.locators.list())) this.send(group, now);
  }

  send(mappings: readonly Mapping[], now: Instant): void {
    if (!this.isPossible || mappings.length === 0) return;
    if (this.pending.size >= MAX_PENDING) {
      this.outbox.note({ type: 'limit', what: 'registrations' });
      return;
    }
    const nonce = this.session.nextNonce();
    this.pending.set(nonce, { sentAt: now, withdrawals: mappings.filter(isWithdrawal) });
    this.outbox.send(mapRegister({ nonce, xtrId: this.identity.xtrId, mappings }));
  }

  /** What gives EIDs up: now, or as soon as the map server is there. */
  withdraw(mappings: readonly Mapping[], now: Instant): void {
    this.queueWithdrawals(mappings);
    this.flushWithdrawals(now);
  }

  /** The answer with this nonce came. Null if none is waited for; a withdrawal is done, whatever the answer says. */
  finish(nonce: bigint): 'registration' | 'withdrawal' | null {
    const register = this.pending.get(nonce);
    if (register === undefined) return null;
    this.pending.delete(nonce);
    if (register.withdrawals.length === 0) return 'registration';
    this.outbox.persist('eids');
    return 'withdrawal';
  }

  /** The session ended: no answer will come. */
  forgetAll(): void {
    this.forget([...this.pending.keys()]);
  }

  /** True if answers are overdue: everything is to be registered again. */
  expire(now: Instant): boolean {
    const overdue = [...this.pending].filter(([, { sentAt }]) => now - sentAt >= PATIENCE);
    this.forget(overdue.map(([nonce]) => nonce));
    return overdue.length > 0;
  }

  save(): readonly SavedWithdrawal[] {
    const sent = [...this.pending.values()].flatMap(({ withdrawals }) => withdrawals);
    return [...sent, ...this.withdrawals].map(({ eid, generation }) => ({ eid: eidKey(eid), generation }));
  }

  /** A mapping without locators would cut off everybody who talks to us. */
  private get isPossible(): boolean {
    return this.session.isUp && this.locators.list().length > 0;
  }

  private forget(nonces: readonly bigint[]): void {
    const withdrawals = nonces.flatMap((nonce) => this.pending.get(nonce)?.withdrawals ?? []);
    for (const nonce of nonces) this.pending.delete(nonce);
    this.queueWithdrawals(withdrawals);
  }

  private queueWithdrawals(withdrawals: readonly Mapping[]): void {
    if (withdrawals.length === 0) return;
    this.withdrawals.push(...withdrawals);
    let excess = this.withdrawals.length - MAX_WITHDRAWALS;
    for (const sent of this.pending.values()) excess += sent.withdrawals.length;
    for (; excess > 0 && this.withdrawals.shift() !== undefined; excess--) {
      this.outbox.note({ type: 'limit', what: 'withdrawals' });
    }
    this.outbox.persist('eids');
  }

  private withdrawal(eid: Eid, generation: Generation): Mapping {
    const { xtrId: owner, tunnelKey } = this.identity;
    return { eid, ttl: 0, action: 'no-action', generation, owner, tunnelKey, locators: [], names: [], targets: [] };
  }

  /** As much as there is room for of what was given up, unless it was attached again meanwhile. */
  private flushWithdrawals(now: Instant): void {
    if (!this.isPossible) return;
    this.withdrawals = this.withdrawals.filter(({ eid }) => {
      const owned = this.registrar.find(eid);
      return owned === undefined || owned.state === 'lost';
    });
    while (this.withdrawals.length > 0 && this.pending.size < MAX_PENDING) {
      this.send(this.withdrawals.splice(0, WITHDRAWALS_PER_MESSAGE), now);
    }
  }
}

/** Of EIDs and names, sent and to be sent; what was given up first is forgotten first. */
export const MAX_WITHDRAWALS = MAX_OWNED;
const MAX_PENDING = 2048;
const WITHDRAWALS_PER_MESSAGE = 16;
const PATIENCE = seconds(5);
