/**
 * Map-Requests on their way, and who waits for the answers.
 *
 * One request per EID, whoever asks. It is sent at once while the map server is connected, again every RETRY without an
 * answer, and at the start of each session. Somebody who waits is told `unavailable` at his own deadline; a request that
 * only packets wait for ends with the patience of the data plane.
 */
import { type Eid, type EidKey, eidKey } from '../../proto/eid.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import { type Instant, seconds } from '../../proto/time.ts';

export type Ticket = number & { readonly __brand: 'Ticket' };

interface PendingRequest {
  readonly eid: Eid;
  /** Of this session: the answer to an earlier one is as good as to the last. */
  nonces: Nonce[];
  nextAt: Instant;
  endsAt: Instant;
  readonly waiters: { readonly ticket: Ticket; readonly deadline: Instant }[];
}

export class MapRequests {
  private readonly pending = new Map<EidKey, PendingRequest>();
  private readonly byNonce = new Map<Nonce, EidKey>();
  private readonly nextNonce: () => Nonce;

  constructor(nextNonce: () => Nonce) {
    this.nextNonce = nextNonce;
  }

  get size(): number {
    return this.pending.size;
  }

  has(key: EidKey): boolean {
    return this.pending.has(key);
  }

  /** False when there is no room. */
  ask(eid: Eid, ticket: Ticket | null, now: Instant, patience = PATIENCE): boolean {
    const key = eidKey(eid);
    let request = this.pending.get(key);
    if (request === undefined) {
      if (this.pending.size >= MAX_PENDING) return false;
      request = { eid, nonces: [], nextAt: now, endsAt: now + PATIENCE, waiters: [] };
      this.pending.set(key, request);
    }
    request.endsAt = Math.max(request.endsAt, now + patience);
    if (ticket === null) return true;
    if (request.waiters.length >= MAX_WAITERS) return false;
    request.waiters.push({ ticket, deadline: now + patience });
    return true;
  }

  /** Requests to be sent now, with fresh nonces. */
  due(now: Instant): readonly { readonly nonce: Nonce; readonly eid: Eid }[] {
    const due: { nonce: Nonce; eid: Eid }[] = [];
    for (const [key, request] of this.pending) {
      if (request.nextAt > now || due.length >= MAX_PER_ROUND) continue;
      const nonce = this.nextNonce();
      request.nonces.push(nonce);
      if (request.nonces.length > MAX_NONCES) this.forget(request.nonces.splice(0, 1));
      request.nextAt = now + RETRY;
      this.byNonce.set(nonce, key);
      due.push({ nonce, eid: request.eid });
    }
    return due;
  }

  /** The answer with this nonce came. */
  finish(nonce: Nonce): { readonly eid: Eid; readonly waiters: readonly Ticket[] } | null {
    const key = this.byNonce.get(nonce);
    const request = key === undefined ? undefined : this.pending.get(key);
    if (key === undefined || request === undefined) return null;
    this.forget(request.nonces.splice(0));
    this.pending.delete(key);
    return { eid: request.eid, waiters: request.waiters.map(({ ticket }) => ticket) };
  }

  /** A new session: everything is asked again at once. */
  restart(now: Instant): void {
    for (const request of this.pending.values()) {
      this.forget(request.nonces.splice(0));
      request.nextAt = now;
    }
  }

  /** Removes what nobody waits for any longer; returns the waiters whose deadline passed, and how many requests ended. */
  expire(now: Instant): { readonly tickets: readonly Ticket[]; readonly ended: number } {
    const tickets: Ticket[] = [];
    let ended = 0;
    for (const [key, request] of this.pending) {
      for (let i = request.waiters.length - 1; i >= 0; i--) {
        const waiter = request.waiters[i];
        if (waiter === undefined || waiter.deadline > now) continue;
        tickets.push(waiter.ticket);
        request.waiters.splice(i, 1);
      }
      if (request.endsAt > now) continue;
      tickets.push(...request.waiters.map(({ ticket }) => ticket));
      this.forget(request.nonces.splice(0));
      this.pending.delete(key);
      ended += 1;
    }
    return { tickets, ended };
  }

  pollTimeout(connected: boolean): Instant | undefined {
    let at = Number.POSITIVE_INFINITY;
    for (const { nextAt, endsAt, waiters } of this.pending.values()) {
      at = Math.min(at, connected ? nextAt : endsAt, endsAt);
      for (const { deadline } of waiters) at = Math.min(at, deadline);
    }
    return this.pending.size === 0 ? undefined : at;
  }

  private forget(nonces: readonly Nonce[]): void {
    for (const nonce of nonces) this.byNonce.delete(nonce);
  }
}

const MAX_PENDING = 1024;
const MAX_WAITERS = 64;
const MAX_PER_ROUND = 128;
const RETRY = seconds(1);
/** As many questions as a map server is behind with that still answers in time. */
const MAX_NONCES = 4;
const PATIENCE = seconds(4);
