/** One event with the probes running: what they saw, and when what happened. */
import type { Watch } from './analysis.ts';
import { type EventName, interrupts } from './events.ts';
import { Probing } from './probing.ts';
import { millisecondsSince, type ProbeName, type Samples } from './samples.ts';
import type { Staged } from './systems/system.ts';

/** A longer outage is cut off and said to be at least this. */
export const LIMIT_MS = 30_000;

export interface Observation {
  readonly samples: readonly Samples[];
  readonly watch: Watch;
  /** All times are milliseconds since this moment of CLOCK_MONOTONIC. */
  readonly origin: bigint;
}

export async function observe(
  staged: Staged,
  event: EventName,
  probes: readonly ProbeName[],
  program: string,
): Promise<Observation> {
  const probing = await Probing.start(program, staged.mover, staged.peer, probes);
  try {
    const origin = process.hrtime.bigint();
    const { begun, counted, carried = counted } = await staged.happen();
    const happened = process.hrtime.bigint();
    await probing.steadyAgain(happened, LIMIT_MS);
    const end = process.hrtime.bigint();
    const samples = await probing.finish(origin);
    const since = (moment: bigint): number => millisecondsSince(origin, moment);
    const watch: Watch = {
      fromMs: 0,
      begunMs: since(begun),
      countedMs: since(counted),
      carriedMs: since(carried),
      endMs: since(end),
      interrupted: interrupts(event),
    };
    return { samples, watch, origin };
  } catch (error) {
    await probing.abort();
    throw error;
  }
}
