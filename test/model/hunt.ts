/**
 * Plays many schedules of one seed, on all CPUs. Each worker draws all of them and plays its share, so what is played
 * does not depend on how many workers there are.
 */
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import fc from 'fast-check';
import { report } from './report.ts';
import { runSchedule } from './run.ts';
import { schedules } from './transitions.ts';

export interface Hunt {
  readonly seed: number;
  readonly runs: number;
  readonly maxSteps: number;
}

/** What was played, and the first failure that was found, as a person reads it. */
export interface Catch {
  readonly runs: number;
  readonly sent: number;
  readonly delivered: number;
  /** Virtual milliseconds. */
  readonly lasted: number;
  readonly failure: string | null;
}

interface Share extends Hunt {
  readonly part: number;
  readonly parts: number;
}

/** @throws whatever stops a worker other than a failed schedule */
export async function hunt(whole: Hunt): Promise<Catch> {
  const parts = Math.min(availableParallelism(), whole.runs);
  const workers = Array.from({ length: parts }, (_, part) => {
    const workerData: Share = { ...whole, part, parts };
    return new Worker(fileURLToPath(import.meta.url), { workerData });
  });
  const shares = workers.map(
    (worker) =>
      new Promise<Catch>((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
        worker.once('exit', () => reject(new Error('a worker ended without an answer')));
      }),
  );
  const failed = shares.map(async (share) => {
    const caught = await share;
    return caught.failure === null ? new Promise<never>(() => undefined) : caught;
  });
  try {
    return await Promise.race([Promise.all(shares).then(sum), ...failed]);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

function play({ seed, runs, maxSteps, part, parts }: Share): Catch {
  let [drawn, failing] = [0, false];
  const played = { runs: 0, sent: 0, delivered: 0, lasted: 0 };
  const result = fc.check(
    fc.property(schedules(maxSteps), (schedule) => {
      // What follows a failure are attempts to shrink it.
      if (!failing && drawn++ % parts !== part) return;
      try {
        const { sent, delivered, lasted } = runSchedule(schedule);
        played.runs++;
        played.sent += sent;
        played.delivered += delivered;
        played.lasted += lasted;
      } catch (error) {
        failing = true;
        throw error;
      }
    }),
    { seed, numRuns: runs },
  );
  if (result.counterexample === null) return { ...played, failure: null };
  return { ...played, failure: report(result.counterexample[0], result.errorInstance) };
}

function sum(shares: readonly Catch[]): Catch {
  const total = (of: (share: Catch) => number): number => shares.reduce((all, share) => all + of(share), 0);
  return {
    runs: total(({ runs }) => runs),
    sent: total(({ sent }) => sent),
    delivered: total(({ delivered }) => delivered),
    lasted: total(({ lasted }) => lasted),
    failure: null,
  };
}

if (!isMainThread) parentPort?.postMessage(play(workerData as Share));
