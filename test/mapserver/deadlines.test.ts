/** Deadlines that are put off, against a plain list of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Deadlines } from '../../mapserver/core/deadlines.ts';

const step = fc.oneof(
  fc.record({ what: fc.constant('set' as const), key: fc.nat(8), due: fc.nat(100) }),
  fc.record({ what: fc.constant('delete' as const), key: fc.nat(8), due: fc.constant(0) }),
  fc.record({ what: fc.constant('take' as const), key: fc.constant(0), due: fc.nat(30) }),
);

test('each key is taken once, when its last deadline has come, and never slept over', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const deadlines = new Deadlines<number>();
      const model = new Map<number, number>();
      let now = 0;
      for (const { what, key, due } of steps) {
        if (what === 'set') {
          deadlines.set(key, now + due);
          model.set(key, now + due);
        } else if (what === 'delete') {
          deadlines.delete(key);
          model.delete(key);
        } else {
          now += due;
          const expected = [...model].filter(([, at]) => at <= now).map(([each]) => each);
          for (const each of expected) model.delete(each);
          assert.deepEqual(deadlines.take(now).sort(), expected.sort());
        }
        assert.equal(deadlines.size, model.size);
        if (model.size > 0) assert.ok((deadlines.next() ?? Number.POSITIVE_INFINITY) <= Math.min(...model.values()));
      }
    }),
    { numRuns: 500, seed: 1 },
  );
});

test('what was deleted or brought forward many times is taken once, in order', () => {
  const deadlines = new Deadlines<number>();
  for (let i = 0; i < 1_000; i++) {
    deadlines.set(i % 10, 10_000 - i);
    deadlines.set(100 + i, 50_000);
    deadlines.delete(100 + i);
  }
  assert.deepEqual(deadlines.take(9_005), [9, 8, 7, 6, 5]);
  assert.deepEqual(deadlines.take(60_000), [4, 3, 2, 1, 0]);
  assert.equal(deadlines.next(), undefined);
});
