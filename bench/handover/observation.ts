/** One event with the probes running: what they saw, and when what happened. */
import { pause } from '../../test/lab/wait.ts';
import { BenchError } from '../bench-error.ts';
import type { Outcome, Watch } from './analysis.ts';
import { analyseCrowd, type Step, stepsOf } from './crowd-analysis.ts';
import { type EventName, interrupts } from './events.ts';
import { Probing } from './probing.ts';
import { millisecondsSince, type ProbeName, type Samples } from './samples.ts';
import type { Staged } from './systems/system.ts';

/** A longer outage is cut off and said to be at least this. */
export const LIMIT_MS = 30_000;
/**
 * How long the correspondents talk before the event: each repetition begins with 1,000 hosts that meet the mover within
 * a second, which is an event of its own. After this its work is done, and the sessions of the repetition before are over.
 */
const CROWD_SETTLES_MS = 12_000;

export interface Observation {
  readonly samples: readonly Samples[];
  readonly watch: Watch;
  /** All times are milliseconds since this moment of CLOCK_MONOTONIC. */
  readonly origin: bigint;
}

/**
 * One event with many correspondents instead of the probes: what it did to them, and how they came to know.
 *
 * @throws BenchError when the system has none
 */
export async function observeCrowd(
  staged: Staged,
): Promise<{ readonly outcome: Outcome; readonly steps: readonly Step[]; readonly watch: Watch }> {
  if (staged.crowd === undefined) throw new BenchError('nobody is there to talk to the mover');
  const talk = await staged.crowd();
  try {
    await pause(CROWD_SETTLES_MS);
    const origin = process.hrtime.bigint();
    const { begun, counted, carried = counted } = await staged.happen();
    // Who is not answered until then is cut off.
    await talk.steady(process.hrtime.bigint(), LIMIT_MS).catch(() => undefined);
    const since = (moment: bigint): number => millisecondsSince(origin, moment);
    const watch: Watch = {
      fromMs: 0,
      begunMs: since(begun),
      countedMs: since(counted),
      carriedMs: since(carried),
      endMs: since(process.hrtime.bigint()),
      interrupted: true,
    };
    const seen = await talk.finish();
    return { outcome: analyseCrowd(seen, origin, watch), steps: stepsOf(seen, origin, watch), watch };
  } catch (error) {
    await talk.abort();
    throw error;
  }
}

/**
 * One event with the probes, until they are steady again or `LIMIT_MS` is over.
 *
 * @param program the path of the probe program
 */
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
