/** Medians, quantiles, and how rounds become a row. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { medians, rounded } from '../../bench/figures.ts';
import { median, quantile, range } from '../../bench/statistics.ts';
import { round } from './samples.ts';

const values = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 50 });

test('the median is the middle value, or the mean of the two in the middle', () => {
  assert.equal(median([3]), 3);
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.ok(Number.isNaN(median([])));
});

test('numbers are put in order as numbers', () => {
  assert.equal(median([10, 9, 100]), 10);
  assert.deepEqual(range([10, 9, 100]), { min: 9, max: 100 });
});

test('the 99th percentile of 1000 values is the 990th', () => {
  const thousand = Array.from({ length: 1000 }, (_, i) => i + 1);
  assert.equal(quantile(thousand, 0.99), 990);
  assert.equal(quantile(thousand, 0), 1);
  assert.equal(quantile(thousand, 1), 1000);
  assert.ok(Number.isNaN(quantile([], 0.5)));
});

test('a quantile is one of the values, at least that share of which does not exceed it', () => {
  fc.assert(
    fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (all, share) => {
      const found = quantile(all, share);
      assert.ok(all.includes(found));
      assert.ok(all.filter((value) => value <= found).length >= share * all.length - 1e-9);
    }),
  );
});

test('median and quantiles lie within the range and do not change what they are given', () => {
  fc.assert(
    fc.property(values, (all) => {
      const before = [...all];
      const { min, max } = range(all);
      for (const value of [median(all), quantile(all, 0.99)]) assert.ok(min <= value && value <= max);
      assert.deepEqual(all, before);
    }),
  );
});

test('a row has the medians of its rounds, and null where no round has a figure', () => {
  const rounds = [
    round({ round: 1, tcp1Gbps: 5, cpuSecondsPerGB: null }),
    round({ round: 2, tcp1Gbps: 9, cpuSecondsPerGB: null }),
    round({ round: 3, tcp1Gbps: 6, cpuSecondsPerGB: null }),
  ];
  assert.equal(medians(rounds).tcp1Gbps, 6);
  assert.equal(medians(rounds).cpuSecondsPerGB, null);
  assert.equal(medians([]).tcp1Gbps, null);
});

test('three decimals are kept', () => {
  assert.equal(rounded(1.23456), 1.235);
});
