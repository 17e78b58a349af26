/**
 * The model test: random schedules of everything that can happen to hosts, agents, data planes, the map server and the
 * network between them, played in virtual time against the reference model. CONTRIBUTING.md says how to repeat a failure.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runs } from '../runs.ts';
import { hunt } from './hunt.ts';
import { CORPUS, report } from './report.ts';
import { runSchedule } from './run.ts';
import type { Schedule } from './transitions.ts';

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

test('no schedule breaks ownership, delivery or names', async (t) => {
  const started = performance.now();
  const {
    runs: played,
    sent,
    delivered,
    lasted,
    failure,
  } = await hunt({ seed: SEED, runs: RUNS, maxSteps: MAX_STEPS });
  const took = ((performance.now() - started) / 1000).toFixed(1);
  t.diagnostic(
    `${played} schedules of seed ${SEED} in ${took} s: ${(lasted / 3_600_000).toFixed(1)} simulated hours, ${delivered} of ${sent} packets delivered`,
  );
  if (failure !== null) assert.fail(`seed ${SEED}: ${failure}`);
  assert.equal(played, RUNS);
});

const SEED = Number(process.env.STAYPUT_MODEL_SEED ?? 1);
const RUNS = Number(process.env.STAYPUT_MODEL_RUNS ?? runs(2500));
const MAX_STEPS = 24;
