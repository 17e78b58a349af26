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

  /** Takes one if there is one: for what is refused otherwise. */
  tryTake(now: Instant): boolean {
    this.fill(now);
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }

  /** Takes them in any case; returns how many milliseconds too early that was, 0 if it was not. For what is delayed. */
  take(now: Instant, tokens = 1): number {
    this.fill(now);
    // Bounded, so that a flood does not leave a debt behind.
    this.tokens = Math.max(-this.rate, this.tokens - tokens);
    return this.tokens >= 0 ? 0 : (-this.tokens * 1000) / this.rate;
  }

  private fill(now: Instant): void {
    this.tokens = Math.min(this.rate, this.tokens + ((now - this.filledAt) * this.rate) / 1000);
    this.filledAt = now;
  }
}
