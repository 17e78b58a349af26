import type { Instant } from '../../proto/time.ts';
import type { Ticket } from './map-requests.ts';

/** Those who wait for something under a key, each until its deadline; bounded. */
export class Callers<K> {
  private readonly limit: number;
  private readonly waiting: { readonly key: K; readonly ticket: Ticket; readonly deadline: Instant }[] = [];

  constructor(limit: number) {
    this.limit = limit;
  }

  /** False when too many wait already. */
  add(key: K, ticket: Ticket, deadline: Instant): boolean {
    if (this.waiting.length >= this.limit) return false;
    this.waiting.push({ key, ticket, deadline });
    return true;
  }

  take(key: K): readonly Ticket[] {
    return this.remove((each) => each.key === key).map(({ ticket }) => ticket);
  }

  expire(now: Instant): readonly { readonly key: K; readonly ticket: Ticket }[] {
    return this.remove(({ deadline }) => deadline <= now);
  }

  private remove(test: (each: (typeof this.waiting)[number]) => boolean) {
    const removed = this.waiting.filter(test);
    if (removed.length > 0) {
      const kept = this.waiting.filter((each) => !test(each));
      this.waiting.splice(0, this.waiting.length, ...kept);
    }
    return removed;
  }
}
