/** Bounds what is sent to a target: turns come one after the other, `perSecond` at most, with no burst to make up for. */
import { setTimeout as sleep } from 'node:timers/promises';

export class Pacer {
  private readonly spacing: number;
  private next = 0;
  /** Turns taken: datagrams, connections or requests sent. */
  taken = 0;

  constructor(perSecond: number) {
    this.spacing = 1000 / perSecond;
  }

  async turn(): Promise<void> {
    const now = performance.now();
    const at = Math.max(now, this.next);
    this.next = at + this.spacing;
    this.taken++;
    if (at - now >= 1) await sleep(at - now);
  }
}
