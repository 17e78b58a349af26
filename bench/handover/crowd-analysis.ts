/**
 * What one event did to many correspondents of the mover: the outcome, and the time line of how they came to know.
 *
 * The gap lasts until the last of them sent to the new place; the outage is the longest time that one of them went
 * without an answer. One that was not answered any more counts until the end of the watch, and the result is cut off.
 */
import { median, range } from '../statistics.ts';
import type { Outcome, Watch } from './analysis.ts';
import { millisecondsSince } from './samples.ts';

/** Between two requests of each: 1,000 a second in all, which two CPUs that do everything else as well can bear. */
export const REQUEST_INTERVAL_MS = 1_000;
/** Silences shorter than this at the end of the watch are the pace of the requests, or one that was lost. */
const PACE_MS = 2 * REQUEST_INTERVAL_MS;

/** Moments are nanoseconds of CLOCK_MONOTONIC as text: more than a number holds. */
export interface Correspondent {
  readonly requests: readonly (readonly [number, string])[];
  readonly answers: readonly (readonly [number, string])[];
  /** Where it sent to, and from when on. */
  readonly switches: readonly (readonly [string, string])[];
  /** When the owner before said who has it now; null: never. */
  readonly told: string | null;
  /** When the new owner spoke to it first; null: never. */
  readonly spokenTo: string | null;
}

/** Milliseconds since the moment from which the gap counts, of those to whom it happened. */
export interface Step {
  readonly name: (typeof STEPS)[number];
  readonly count: number;
  readonly firstMs: number;
  readonly medianMs: number;
  readonly lastMs: number;
}

const STEPS = ['told', 'spoken to', 'switched', 'answered'] as const;

/** What the event did to all of them together. `origin`: of the watch, nanoseconds of CLOCK_MONOTONIC. */
export function analyseCrowd(correspondents: readonly Correspondent[], origin: bigint, watch: Watch): Outcome {
  const ms = (nanoseconds: string): number => millisecondsSince(origin, BigInt(nanoseconds));
  let [gapMs, sent, lost, duplicated, cutOff] = [0, 0, 0, 0, false];
  let outage: readonly [number, number] = [watch.begunMs, watch.begunMs];
  for (const { requests, answers, switches } of correspondents) {
    const switched = switches.map(([, at]) => ms(at)).find((at) => at >= watch.begunMs);
    cutOff ||= switched === undefined;
    gapMs = Math.max(gapMs, (switched ?? watch.endMs) - watch.countedMs);
    const counted = new Set(requests.filter(([, at]) => ms(at) >= watch.fromMs).map(([number]) => number));
    const seen = new Set<number>();
    let before = watch.fromMs;
    const endSilence = (at: number): void => {
      if (at > watch.begunMs && at - before > outage[1] - outage[0]) outage = [before, at];
      before = Math.max(before, at);
    };
    for (const [number, at] of answers) {
      endSilence(ms(at));
      if (!counted.has(number)) continue;
      if (seen.has(number)) duplicated += 1;
      seen.add(number);
    }
    if (watch.endMs - before > PACE_MS) {
      cutOff = true;
      endSilence(watch.endMs);
    }
    sent += counted.size;
    lost += counted.size - seen.size;
  }
  return {
    gapMs,
    outageMs: outage[1] - outage[0],
    outage,
    cutOff,
    ...{ sent, lost, lostWhileAway: 0, duplicated, resets: 0, sha256Match: null },
  };
}

/** How they came to know, step by step; without the steps that nobody took. */
export function stepsOf(correspondents: readonly Correspondent[], origin: bigint, watch: Watch): readonly Step[] {
  const since = (at: string | null | undefined): number | undefined =>
    at === null || at === undefined ? undefined : millisecondsSince(origin, BigInt(at));
  const moments: Record<Step['name'], (of: Correspondent) => number | undefined> = {
    told: ({ told }) => since(told),
    'spoken to': ({ spokenTo }) => since(spokenTo),
    switched: ({ switches }) => switches.map(([, at]) => since(at) ?? 0).find((at) => at >= watch.begunMs),
    answered: ({ answers }) => answers.map(([, at]) => since(at) ?? 0).find((at) => at >= watch.countedMs),
  };
  return STEPS.flatMap((name) => {
    const at = correspondents.map(moments[name]).filter((each) => each !== undefined);
    if (at.length === 0) return [];
    const { min, max } = range(at);
    const [firstMs, medianMs, lastMs] = [min, median(at), max].map((each) => each - watch.countedMs) as [
      number,
      number,
      number,
    ];
    return [{ name, count: at.length, firstMs, medianMs, lastMs }];
  });
}

/** In a line. */
export function describeSteps(steps: readonly Step[]): string {
  return steps
    .map(({ name, count, firstMs, medianMs, lastMs }) => {
      const [first, middle, last] = [firstMs, medianMs, lastMs].map((each) => each.toFixed(0));
      return `${count} ${name} after ${first}, ${middle} and ${last} ms`;
    })
    .join('; ');
}
