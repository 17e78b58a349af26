/** When something that failed is tried again: as soon as something it depends on is different, else after growing pauses. */
import type { Instant } from '../../proto/time.ts';
import type { Backoff } from '../../runtime/backoff.ts';

export class PauseAfterFailure {
  readonly #backoff: Backoff;
  #last: { readonly circumstances: string; readonly until: Instant } | undefined;

  constructor(backoff: Backoff) {
    this.#backoff = backoff;
  }

  handleFailure(circumstances: string, now: Instant): void {
    this.#last = { circumstances, until: now + this.#backoff.next() };
  }

  handleSuccess(): void {
    this.#last = undefined;
    this.#backoff.reset();
  }

  /** True while nothing should be tried. */
  lasts(circumstances: string, now: Instant): boolean {
    return this.#last?.circumstances === circumstances && now < this.#last.until;
  }
}
