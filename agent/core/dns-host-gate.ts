/**
 * When the host may be made to ask the agent. A host that asks an agent which does not answer has no names at all, so
 * it asks only while the agent answers, and is given back its former resolvers soon after it stops to. Two programs
 * that both insist on their resolv.conf would write it for ever: when it is overwritten too often, the other one gets
 * it, for a long while.
 */
import type { Millis } from '../../proto/time.ts';

export type GateVerdict =
  | { readonly host: 'asks-agent' }
  | { readonly host: 'asks-others'; readonly because: 'not-answering' | 'overwritten' };

export class HostGate {
  #answered: number | null = null;
  #overwritten: number[] = [];
  #yieldedUntil = Number.NEGATIVE_INFINITY;

  /** The agent's DNS has answered a question, or has not in time. */
  handleProbe(answered: boolean, now: number): void {
    if (answered) this.#answered = now;
  }

  /** Another program has put its file where ours was. */
  handleOverwritten(now: number): void {
    this.#overwritten = [...this.#overwritten.filter((at) => now - at < CONTENTION_WINDOW), now];
    if (this.#overwritten.length <= MAX_OVERWRITTEN) return;
    this.#overwritten = [];
    this.#yieldedUntil = now + YIELD_TIME;
  }

  verdict(now: number): GateVerdict {
    if (now < this.#yieldedUntil) return { host: 'asks-others', because: 'overwritten' };
    if (this.#answered === null || now - this.#answered > PATIENCE) {
      return { host: 'asks-others', because: 'not-answering' };
    }
    return { host: 'asks-agent' };
  }
}

/** Longer than a restart of the agent takes. */
export const PATIENCE: Millis = 5000;
/** A host that roams gets new leases on several interfaces; two programs at war write many times a second. */
export const MAX_OVERWRITTEN = 10;
export const CONTENTION_WINDOW: Millis = 30_000;
export const YIELD_TIME: Millis = 600_000;
