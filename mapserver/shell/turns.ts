/**
 * Takes in turns what several senders have waiting, and lets the process look at its sockets and timers in between. A
 * message of a quiet agent waits for no more than as many octets of each busy one, not for all that they have sent.
 */
import type { Millis } from '../../proto/time.ts';
import { FairQueue } from '../core/fair-queue.ts';

export class Turns {
  private readonly now: () => Millis;
  private readonly queue = new FairQueue<object, { readonly sender: object; readonly work: () => void }>();
  private readonly counts = new Map<object, number>();
  private scheduled = false;

  constructor(now: () => Millis) {
    this.now = now;
  }

  /** Returns how many wait of this sender, who is to see to it that they do not become too many. */
  add(sender: object, octets: number, work: () => void): number {
    const count = this.waiting(sender) + 1;
    this.counts.set(sender, count);
    this.queue.add(sender, { sender, work }, MESSAGE + octets);
    this.schedule();
    return count;
  }

  waiting(sender: object): number {
    return this.counts.get(sender) ?? 0;
  }

  drop(sender: object): void {
    if (!this.counts.delete(sender)) return;
    this.queue.drop(sender);
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      this.run();
      if (this.queue.length > 0) this.schedule();
    });
  }

  private run(): void {
    const end = this.now() + SLICE;
    do {
      const [next] = this.queue.take(1);
      if (next === undefined) return;
      const left = this.waiting(next.sender) - 1;
      if (left > 0) this.counts.set(next.sender, left);
      else this.counts.delete(next.sender);
      next.work();
    } while (this.now() < end);
  }
}

const SLICE: Millis = 5;
/** What a message costs whatever its length, in octets. */
const MESSAGE = 100;
