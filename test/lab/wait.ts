/**
 * Bounded waits on real conditions; nothing in the lab sleeps for a fixed time and hopes. How long something may take is
 * asserted where it is a promise; a wait gives up only when a machine with ten times as much to do would be done as well.
 */
import { LabError } from './lab-error.ts';

export interface WaitOptions {
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
  /** Why there is no point in waiting any longer, if there is none. Asked when the condition does not hold. */
  readonly unless?: () => string | undefined;
}

/**
 * Polls `condition` until it gives something other than undefined or false, and returns that.
 * An exception counts as "not yet" and is named when time is up.
 * @throws LabError after `timeoutMs` (a minute), or when `unless` says so
 */
export async function waitFor<T>(
  what: string,
  condition: () => T | undefined | false | Promise<T | undefined | false>,
  options: WaitOptions = {},
): Promise<T> {
  const { timeoutMs = PATIENCE_MS, intervalMs = 25 } = options;
  const deadline = Date.now() + timeoutMs;
  let last = '';
  for (;;) {
    try {
      const value = await condition();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error instanceof Error ? error.message : String(error);
    }
    const hopeless = options.unless?.();
    if (hopeless !== undefined) throw new LabError(`${what}: ${hopeless}`);
    if (Date.now() >= deadline) {
      throw new LabError(`waited ${timeoutMs} ms in vain for: ${what}${last === '' ? '' : ` (${last})`}`);
    }
    await pause(intervalMs);
  }
}

/** Lets time pass that is itself part of the story (traffic flowing, a process staying dead). */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Of every wait that does not say otherwise. */
export const PATIENCE_MS = 60_000;
