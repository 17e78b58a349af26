import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Backoff } from '../../runtime/backoff.ts';

test('each delay lies in the upper half of a doubling step, up to the cap', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1000 }),
      fc.integer({ min: 1, max: 60 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (first, rounds, random) => {
        const cap = 30_000;
        const backoff = new Backoff(first, cap, () => random);
        for (let i = 0; i < rounds; i++) {
          const step = Math.min(cap, first * 2 ** Math.min(i, 30));
          const delay = backoff.next();
          assert.ok(delay >= step / 2 && delay <= step, `${delay} is not in [${step / 2}, ${step}]`);
        }
      },
    ),
  );
});

test('after a success it starts from the first delay again', () => {
  const backoff = new Backoff(100, 10_000, () => 1);
  assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [100, 200, 400]);
  backoff.reset();
  assert.equal(backoff.next(), 100);
});

test('a thousand failures do not overflow the delay', () => {
  const backoff = new Backoff(100, 10_000, () => 1);
  for (let i = 0; i < 1000; i++) backoff.next();
  assert.equal(backoff.next(), 10_000);
});
