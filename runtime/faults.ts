/**
 * Errors of our own at inputs that the rest can go on without: each is counted, and logged when it is the first that
 * arose at its place in the code, since an input that somebody repeats must not fill the log.
 */
import type { Log } from './log.ts';

export class Faults {
  readonly #log: Log;
  readonly #message: string;
  readonly #count: () => void;
  readonly #places = new Set<string>();

  constructor(log: Log, message: string, count: () => void) {
    this.#log = log;
    this.#message = message;
    this.#count = count;
  }

  note(error: unknown): void {
    this.#count();
    const place = placeOf(error);
    if (this.#places.has(place) || this.#places.size >= MAX_PLACES) return;
    this.#places.add(place);
    this.#log.error({ err: error }, this.#message);
  }
}

/** The first line of the stack, which has no data of the input in it. */
function placeOf(error: unknown): string {
  const stack = error instanceof Error ? (error.stack ?? '') : '';
  return /^ {4}at .*$/m.exec(stack)?.[0] ?? '';
}

const MAX_PLACES = 64;
