/**
 * Carries out checks against one subject, some at a time, and collects their verdicts in the checks' order.
 *
 * Each check gets a stage of its own: identifiers that no other check uses at the same time, and what it left behind at
 * the target is taken back when it ends, however it ends. A check has a time limit; it can only be reached by a defect
 * of the kit, since every wait inside a check is bounded as well.
 */
import { type Check, Deviation, type Level, NotTried } from './check.ts';

export const OUTCOMES = ['passed', 'failed', 'not-tried', 'broken'] as const;

/** `broken`: the check itself could not be carried out, by no fault of the target that is known. */
export type Outcome = (typeof OUTCOMES)[number];

export interface Verdict {
  readonly id: string;
  readonly level: Level;
  readonly source: string;
  readonly title: string;
  readonly sent: string;
  readonly expected: string;
  readonly outcome: Outcome;
  readonly seen: string;
  readonly milliseconds: number;
}

/** What a single check works with; `clear` takes back what it left at the target. */
export interface Stage {
  clear(): Promise<void>;
}

export interface EngineOptions<S extends Stage> {
  readonly checks: readonly Check<S>[];
  readonly stage: () => Promise<S>;
  readonly parallel: number;
  readonly limitMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onVerdict?: (verdict: Verdict, done: number, all: number) => void;
}

export async function runChecks<S extends Stage>(options: EngineOptions<S>): Promise<Verdict[]> {
  const { checks, parallel } = options;
  const verdicts: Verdict[] = new Array(checks.length);
  let next = 0;
  let done = 0;
  const worker = async (): Promise<void> => {
    for (let at = next++; at < checks.length; at = next++) {
      const check = checks[at];
      if (check === undefined) return;
      const verdict = await carryOut(check, options);
      verdicts[at] = verdict;
      done++;
      options.onVerdict?.(verdict, done, checks.length);
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, checks.length) }, worker));
  return verdicts;
}

async function carryOut<S extends Stage>(check: Check<S>, options: EngineOptions<S>): Promise<Verdict> {
  const { run, ...described } = check;
  const started = performance.now();
  const ended = (outcome: Outcome, seen: string): Verdict => ({
    ...described,
    outcome,
    seen,
    milliseconds: Math.round(performance.now() - started),
  });
  if (options.signal?.aborted === true) return ended('not-tried', 'The run was interrupted before.');
  let stage: S | undefined;
  try {
    stage = await options.stage();
    return ended('passed', await within(run(stage), options.limitMs));
  } catch (error) {
    if (error instanceof Deviation) return ended('failed', error.message);
    if (error instanceof NotTried) return ended('not-tried', error.message);
    return ended('broken', `${(error as Error)?.message ?? error}`);
  } finally {
    // What cannot be cleared now is soft state of the target; the next check is not to suffer from it.
    await stage?.clear().catch(() => {});
  }
}

async function within<T>(work: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end after ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
