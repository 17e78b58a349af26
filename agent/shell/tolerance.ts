/**
 * Errors of our own at single inputs. The agent goes on without what such an input was to change: to end would take DNS
 * and all moves down with it, and whoever sent the input would send it again to the next start. When they come thick it
 * is rather the state that is wrong; then the agent ends, and starts again from what is on disk.
 */
import type { Instant } from '../../proto/time.ts';
import type { Faults } from '../../runtime/faults.ts';

export class Tolerance {
  readonly #faults: Faults;
  #lately: Instant[] = [];

  constructor(faults: Faults) {
    this.#faults = faults;
  }

  /** @throws the error, when too many came lately */
  note(error: unknown, now: Instant): void {
    this.#faults.note(error);
    this.#lately = [...this.#lately.filter((at) => now - at < WINDOW), now];
    if (this.#lately.length > MAX_LATELY) throw error;
  }
}

const WINDOW = 60_000;
const MAX_LATELY = 5;
