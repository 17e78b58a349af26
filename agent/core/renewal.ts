/**
 * When this agent's certificate is renewed: at two thirds of its life, and if that fails, again and again with pauses
 * that grow to an hour, until it has ended. Everything is on the wall clock, since a certificate's life is: a step of
 * the clock moves the moment with it.
 */
import { type Millis, minutes, type WallClock } from '../../proto/time.ts';

export interface Validity {
  readonly notBefore: WallClock;
  readonly notAfter: WallClock;
}

export class Renewal {
  private validity: Validity;
  private failures = 0;
  private retryAt: WallClock | null = null;

  constructor(validity: Validity) {
    this.validity = validity;
  }

  get notAfter(): WallClock {
    return this.validity.notAfter;
  }

  /** Without a renewal it ends soon; it should have been there for a while. */
  isLate(wall: WallClock): boolean {
    const { notBefore, notAfter } = this.validity;
    return wall >= notAfter - (notAfter - notBefore) / 6;
  }

  /** Whether to ask for a new certificate now. */
  isDue(wall: WallClock): boolean {
    return wall >= this.dueAt() && wall < this.validity.notAfter;
  }

  dueAt(): WallClock {
    const { notBefore, notAfter } = this.validity;
    return this.retryAt ?? notBefore + ((notAfter - notBefore) * 2) / 3;
  }

  renewed(validity: Validity): void {
    this.validity = validity;
    this.failures = 0;
    this.retryAt = null;
  }

  failed(wall: WallClock): void {
    this.retryAt = wall + Math.min(FIRST_PAUSE * 2 ** this.failures, LONGEST_PAUSE);
    this.failures++;
  }
}

const FIRST_PAUSE: Millis = minutes(1);
const LONGEST_PAUSE: Millis = minutes(60);
