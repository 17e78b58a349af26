import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import type { Watch } from '../../bench/handover/analysis.ts';
import { analyseCrowd, type Correspondent, describeSteps, stepsOf } from '../../bench/handover/crowd-analysis.ts';

const ORIGIN = 5_000_000_000n;
const WATCH: Watch = { fromMs: 0, begunMs: 100, countedMs: 110, carriedMs: 115, endMs: 2000, interrupted: true };

function at(ms: number): string {
  return String(ORIGIN + BigInt(ms) * 1_000_000n);
}

const QUICK: Correspondent = {
  requests: [
    [1, at(50)],
    [2, at(150)],
  ],
  answers: [
    [1, at(60)],
    [2, at(190)],
  ],
  switches: [
    ['a', at(-900)],
    ['b', at(130)],
  ],
  told: at(125),
  spokenTo: at(-40),
};
const SLOW: Correspondent = {
  requests: [
    [1, at(-20)],
    [2, at(120)],
    [3, at(1120)],
  ],
  answers: [
    [1, at(-10)],
    [3, at(1130)],
    [3, at(1131)],
  ],
  switches: [
    ['a', at(-900)],
    ['b', at(410)],
  ],
  told: null,
  spokenTo: at(400),
};

describe('many correspondents', () => {
  test('the gap ends when the last of them sends to the new place', () => {
    const outcome = analyseCrowd([QUICK, SLOW], ORIGIN, WATCH);
    assert.deepEqual([outcome.gapMs, outcome.cutOff], [300, false]);
    assert.deepEqual([outcome.sent, outcome.lost, outcome.duplicated], [4, 1, 1]);
    assert.deepEqual(outcome.outage, [0, 1130]);
  });

  test('one that never followed lasts until the end of the watch', () => {
    const outcome = analyseCrowd([QUICK, { ...SLOW, switches: [['a', at(-900)]] }], ORIGIN, WATCH);
    assert.deepEqual([outcome.gapMs, outcome.cutOff], [1890, true]);
  });

  test('one that followed but is not answered any more is without an answer until the end of the watch', () => {
    const outcome = analyseCrowd([SLOW, { ...QUICK, answers: [[1, at(60)]] }], ORIGIN, { ...WATCH, endMs: 2100 });
    assert.deepEqual([outcome.outage, outcome.outageMs, outcome.cutOff], [[60, 2100], 2040, true]);
    assert.equal(outcome.gapMs, 300);
  });

  test('one that was never answered is without an answer for all of the watch', () => {
    const outcome = analyseCrowd([{ ...QUICK, answers: [] }], ORIGIN, { ...WATCH, endMs: 2100 });
    assert.deepEqual([outcome.outage, outcome.cutOff], [[0, 2100], true]);
  });

  test('one whose next request or answer is still due at the end is not cut off', () => {
    const outcome = analyseCrowd([{ ...QUICK, answers: [[1, at(60)]] }], ORIGIN, { ...WATCH, endMs: 2060 });
    assert.deepEqual([outcome.outage, outcome.cutOff], [[100, 100], false]);
  });

  test('the time line says of each step how many took it, and when the first, the middle and the last', () => {
    const steps = stepsOf([QUICK, SLOW], ORIGIN, WATCH);
    assert.equal(
      describeSteps(steps),
      '1 told after 15, 15 and 15 ms; 2 spoken to after -150, 70 and 290 ms; ' +
        '2 switched after 20, 160 and 300 ms; 2 answered after 80, 550 and 1020 ms',
    );
  });
});
