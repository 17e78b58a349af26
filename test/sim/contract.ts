/**
 * What every core promises its driver: `pollTimeout` says when it has something to do.
 *
 * A driver that wakes a core exactly then must lose nothing. So a core with work queued says "now", one that was woken in
 * vain has nothing to say, and one that was woken in time does not ask for the same moment again.
 */
import type { Instant } from '../../proto/time.ts';
import type { Chance } from './clock.ts';

export class ContractError extends Error {}

/** A core, as far as its driver's clock is concerned. */
export interface Contract {
  readonly name: string;
  pollTimeout(): Instant;
  handleTimeout(now: Instant): void;
  /** Takes all outputs out; how many there were. */
  takeOutputs(): number;
}

/** Before an input, now and then. */
export function wakeNeedlessly(core: Contract | null, now: Instant, chance: Chance): void {
  if (core === null || !chance.takes(NEEDLESS)) return;
  const due = core.pollTimeout();
  if (due <= now) return;
  core.handleTimeout(now);
  const outputs = core.takeOutputs();
  if (outputs === 0) return;
  throw new ContractError(`${core.name} had ${outputs} things to do at ${now}, but asked to be woken at ${due} only`);
}

/** After all outputs were taken. */
export function checkQueued(core: Contract | null): void {
  if (core !== null && core.pollTimeout() === Number.NEGATIVE_INFINITY) {
    throw new ContractError(`${core.name} says that something is queued, and gives nothing out`);
  }
}

const NEEDLESS = 0.1;
