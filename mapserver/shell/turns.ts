/**
 * Takes in turns what several senders have waiting, one message of each, and lets the process look at its sockets and
 * timers in between. So a message of a quiet agent waits for one of each busy one, not for all that they have sent.
 */
import type { Millis } from '../../proto/time.ts';

export class Turns {
  private readonly now: () => Millis;
  /** Whose turn comes next is the first. */
  private readonly queues = new Map<object, (() => void)[]>();
  private scheduled = false;

  constructor(now: () => Millis) {
    this.now = now;
  }

  /** Returns how many wait of this sender, who is to see to it that they do not become too many. */
  add(sender: object, work: () => void): number {
    const queue = this.queues.get(sender) ?? [];
    queue.push(work);
    this.queues.set(sender, queue);
    this.schedule();
    return queue.length;
  }

  waiting(sender: object): number {
    return this.queues.get(sender)?.length ?? 0;
  }

  drop(sender: object): void {
    this.queues.delete(sender);
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      this.run();
      if (this.queues.size > 0) this.schedule();
    });
  }

  private run(): void {
    const end = this.now() + SLICE;
    for (const [sender, queue] of this.queues) {
      // A sender with more to come has its next turn after the others.
      this.queues.delete(sender);
      const work = queue.shift();
      if (queue.length > 0) this.queues.set(sender, queue);
      work?.();
      if (this.now() >= end) return;
    }
  }
}

const SLICE: Millis = 5;
