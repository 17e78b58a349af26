import type { Millis } from '../proto/time.ts';

/**
 * Jittered exponential back-off: the first delay is short so that a restarted server is found at once, later ones
 * spread over [half, whole] of the doubling step, so that many clients do not come back together.
 */
export class Backoff {
  private readonly first: Millis;
  private readonly cap: Millis;
  private readonly random: () => number;
  private attempt = 0;

  constructor(first: Millis, cap: Millis, random: () => number) {
    this.first = first;
    this.cap = cap;
    this.random = random;
  }

  next(): Millis {
    const step = Math.min(this.cap, this.first * 2 ** Math.min(this.attempt++, 30));
    return step / 2 + (this.random() * step) / 2;
  }

  reset(): void {
    this.attempt = 0;
  }
}
