import type { Instant } from '../../proto/time.ts';

/** A rate with a burst of one second. */
export class TokenBucket {
  private readonly rate: number;
  private tokens: number;
  private filledAt: Instant;

  constructor(perSecond: number, now: Instant) {
    this.rate = perSecond;
    this.tokens = perSecond;
    this.filledAt = now;
  }

  /** Takes one; returns how many milliseconds too early that was, 0 if it was not. */
  take(now: Instant): number {
    this.tokens = Math.min(this.rate, this.tokens + ((now - this.filledAt) * this.rate) / 1000);
    this.filledAt = now;
    this.tokens -= 1;
    return this.tokens >= 0 ? 0 : (-this.tokens * 1000) / this.rate;
  }
}
