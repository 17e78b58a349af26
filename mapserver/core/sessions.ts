/**
 * The agents' sessions: who is connected, and everything that is sent to them, refused or closed.
 *
 * An agent has at most one session that counts; a newer one ends it. From `end` on nothing is sent any more, although
 * the shell has not said yet that the session is gone. What this server says of its own accord is numbered by nonces
 * from FIRST_PUSH_NONCE on, so that it can never be taken for an answer.
 */
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mapNotify } from '../../proto/lisp/native.ts';
import { type Order, orderRequest } from '../../proto/lisp/order.ts';
import type { Mapping, XtrId } from '../../proto/mapping.ts';
import type { AgentPolicy } from '../../proto/policy.ts';
import type { WallClock } from '../../proto/time.ts';
import { type Action, CLOSE, type RejectionReason } from './actions.ts';
import { chunked } from './framing.ts';
import type { Presence, SessionId } from './presence.ts';

export interface Session {
  readonly id: SessionId;
  readonly xtrId: XtrId;
  readonly openedAt: WallClock;
  registerNonce: bigint;
  pushNonce: bigint;
  ended: boolean;
}

export class Sessions {
  private readonly presence: Presence;
  private readonly act: (action: Action) => void;
  private readonly sessions = new Map<SessionId, Session>();

  constructor(presence: Presence, act: (action: Action) => void) {
    this.presence = presence;
    this.act = act;
  }

  add(id: SessionId, xtrId: XtrId, openedAt: WallClock): void {
    this.sessions.set(id, { id, xtrId, openedAt, registerNonce: -1n, pushNonce: FIRST_PUSH_NONCE, ended: false });
  }

  /** The session, for the last time. */
  remove(id: SessionId): Session | undefined {
    const session = this.sessions.get(id);
    this.sessions.delete(id);
    return session;
  }

  get(id: SessionId): Session | undefined {
    return this.sessions.get(id);
  }

  /** The one that counts. */
  of(xtrId: XtrId): Session | undefined {
    const id = this.presence.session(xtrId);
    return id === undefined ? undefined : this.sessions.get(id);
  }

  /** Those that count, and are not over. */
  *all(): IterableIterator<Session> {
    for (const session of this.sessions.values()) if (!session.ended) yield session;
  }

  send(session: Session, message: LispMessage): void {
    if (!session.ended) this.act({ kind: 'send', session: session.id, message });
  }

  policy(session: Session, policy: AgentPolicy): void {
    if (!session.ended) this.act({ kind: 'policy', session: session.id, policy });
  }

  order(session: Session, order: Order): void {
    this.send(session, orderRequest(nonce(session.pushNonce++), order));
  }

  publish(session: Session, mappings: readonly Mapping[]): void {
    for (const part of chunked(mappings)) this.notify(session, nonce(session.pushNonce++), part, 'publication');
  }

  notify(
    session: Session,
    withNonce: Nonce,
    mappings: readonly Mapping[],
    why: 'registration' | 'resolution' | 'publication',
  ): void {
    this.send(session, mapNotify({ nonce: withNonce, xtrId: session.xtrId, mappings }));
    this.act({ kind: 'event', event: { kind: 'notify', why } });
  }

  reject({ xtrId }: Pick<Session, 'xtrId'>, reason: RejectionReason): void {
    this.act({ kind: 'event', event: { kind: 'rejected', reason, xtrId } });
  }

  rejectIdentity(session: Session): void {
    this.reject(session, 'foreign-xtr-id');
    this.end(session.id, CLOSE.foreignXtrId, 'a message carried another xTR-ID than the certificate');
  }

  /** A session that was not let in at all. */
  refuse(id: SessionId, code: number, reason: string): void {
    this.act({ kind: 'close', session: id, code, reason });
  }

  end(id: SessionId, code: number, reason: string): void {
    const session = this.sessions.get(id);
    if (session === undefined || session.ended) return;
    session.ended = true;
    this.act({ kind: 'close', session: id, code, reason });
  }
}

const FIRST_PUSH_NONCE = 1n << 63n;
