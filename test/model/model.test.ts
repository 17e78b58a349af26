/**
 * The model test: random schedules of everything that can happen to hosts, agents, data planes, the map server and the
 * network between them, played in virtual time against the reference model. CONTRIBUTING.md says how to repeat a failure.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { explain, runSchedule } from './run.ts';
import { type Schedule, schedules } from './transitions.ts';

test('what went wrong once stays right', () => {
  for (const file of readdirSync(CORPUS)) {
    const { why, ...schedule } = JSON.parse(readFileSync(join(CORPUS, file), 'utf8')) as Schedule & { why: string };
    assert.ok(why, `${file} says what it once showed`);
    try {
      runSchedule(schedule);
    } catch (error) {
      throw new Error(`${file} (${why}): ${report(schedule, error)}`, { cause: error });
    }
  }
});

test('no schedule breaks ownership, delivery or names', (t) => {
  const started = performance.now();
  let [runs, sent, delivered, lasted] = [0, 0, 0, 0];
  const result = fc.check(
    fc.property(schedules(MAX_STEPS), (schedule) => {
      const outcome = runSchedule(schedule);
      runs++;
      sent += outcome.sent;
      delivered += outcome.delivered;
      lasted += outcome.lasted;
    }),
    { seed: SEED, numRuns: RUNS, interruptAfterTimeLimit: SECONDS * 1000, endOnFailure: false },
  );
  const took = ((performance.now() - started) / 1000).toFixed(1);
  t.diagnostic(
    `${runs} schedules of seed ${SEED} in ${took} s: ${(lasted / 3_600_000).toFixed(1)} simulated hours, ${delivered} of ${sent} packets delivered`,
  );
  if (result.counterexample === null) return;
  const [schedule] = result.counterexample;
  assert.fail(`seed ${SEED}: ${report(schedule, result.errorInstance)}`);
});

/** What a person needs: the violation, the shortest schedule that shows it, and what happened in it. */
function report(schedule: Schedule, error: unknown): string {
  const { flow } = explain(schedule);
  const json = JSON.stringify(schedule);
  if (process.env.STAYPUT_MODEL_SAVE !== undefined) {
    mkdirSync(CORPUS, { recursive: true });
    const entry = { why: (error as Error).message, ...schedule };
    writeFileSync(join(CORPUS, `${process.env.STAYPUT_MODEL_SAVE}.json`), `${JSON.stringify(entry, null, 2)}\n`);
  }
  return `${(error as Error).stack}\n\nschedule:\n${json}\n\nflow:\n${flow.text(400)}\n`;
}

const CORPUS = join(PROJECT_ROOT, 'test', 'corpus', 'model');
const SEED = Number(process.env.STAYPUT_MODEL_SEED ?? 1);
const RUNS = Number(process.env.STAYPUT_MODEL_RUNS ?? 3000);
const SECONDS = Number(process.env.STAYPUT_MODEL_SECONDS ?? 25);
const MAX_STEPS = 24;
