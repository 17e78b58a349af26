/**
 * When this agent's certificate is renewed: at two thirds of its life, and if that fails, again and again with pauses
 * that grow to an hour. When it has ended, it is tried every minute: this host is cut off, and whether it is renewed is for
 * the map server to say, whose operator may have changed that a moment ago. It is also renewed when the map server trusts
 * other authorities than this agent knows. Everything is on the wall clock, since a certificate's life is: a step of the
 * clock moves the moment with it.
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
  /** So that a wrong clock does not make it renew without a pause. */
  private notBefore: WallClock = Number.NEGATIVE_INFINITY;

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
    return wall >= this.dueAt();
  }

  dueAt(): WallClock {
    const { notBefore, notAfter } = this.validity;
    return this.retryAt ?? Math.max(notBefore + ((notAfter - notBefore) * 2) / 3, this.notBefore);
  }

  renewed(validity: Validity, wall: WallClock): void {
    this.validity = validity;
    this.notBefore = wall + FIRST_PAUSE;
    this.failures = 0;
    this.retryAt = null;
  }

  /** The map server's authorities are not those that this agent knows: at `at`, unless it is due before. */
  hasten(at: WallClock): void {
    this.retryAt = Math.min(at, this.dueAt());
  }

  failed(wall: WallClock): void {
    const pause = Math.min(FIRST_PAUSE * 2 ** this.failures, LONGEST_PAUSE);
    this.retryAt = Math.min(wall + pause, Math.max(wall + FIRST_PAUSE, this.notAfter));
    this.failures++;
  }
}

const FIRST_PAUSE: Millis = minutes(1);
const LONGEST_PAUSE: Millis = minutes(60);
