/** How often something may be done, per source. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RateTable } from '../../mapserver/core/rate-table.ts';

test('what counts as several takes as much of the rate, and all of it or nothing', () => {
  const rates = new RateTable(100, 200, 10);
  assert.equal(rates.tryTake('a', 0, 128), true);
  assert.equal(rates.tryTake('a', 0, 128), false);
  assert.equal(rates.tryTake('a', 0, 72), true);
  assert.equal(rates.tryTake('a', 0), false);
  assert.equal(rates.tryTake('b', 0, 128), true, 'others have their own');
  assert.equal(rates.tryTake('a', 1_279, 128), false);
  assert.equal(rates.tryTake('a', 1_280, 128), true);
});
