/** Rates per agent or per source, of a bounded number of them. */
import type { Instant } from '../../proto/time.ts';

interface Bucket {
  tokens: number;
  filledAt: Instant;
}

export class RateTable {
  private readonly perSecond: number;
  private readonly burst: number;
  private readonly limit: number;
  /** The least recently used first. */
  private readonly buckets = new Map<string, Bucket>();

  constructor(perSecond: number, burst: number, limit: number) {
    this.perSecond = perSecond;
    this.burst = burst;
    this.limit = limit;
  }

  /** Takes `count` of what `key` may if there are so many. */
  tryTake(key: string, now: Instant, count = 1): boolean {
    const bucket = this.buckets.get(key) ?? { tokens: this.burst, filledAt: now };
    this.buckets.delete(key);
    this.buckets.set(key, bucket);
    for (const oldest of this.buckets.keys()) {
      if (this.buckets.size <= this.limit) break;
      this.buckets.delete(oldest);
    }
    bucket.tokens = Math.min(this.burst, bucket.tokens + ((now - bucket.filledAt) * this.perSecond) / 1000);
    bucket.filledAt = now;
    if (bucket.tokens < count) return false;
    bucket.tokens -= count;
    return true;
  }
}
