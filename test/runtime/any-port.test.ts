import assert from 'node:assert/strict';
import { test } from 'node:test';
import { onBothTransports } from '../../runtime/any-port.ts';

const taken = Object.assign(new Error('taken'), { code: 'EADDRINUSE' });

test('any port will do: another one is tried, ten in all', async () => {
  let tries = 0;
  assert.equal(await onBothTransports(0, async () => (++tries < 3 ? Promise.reject(taken) : 5353)), 5353);
  assert.equal(tries, 3);
  tries = 0;
  await assert.rejects(
    onBothTransports(0, () => {
      tries++;
      return Promise.reject(taken);
    }),
    taken,
  );
  assert.equal(tries, 10);
});

test('of a port that is wanted there is no other', async () => {
  let tries = 0;
  await assert.rejects(
    onBothTransports(53, () => {
      tries++;
      return Promise.reject(taken);
    }),
    taken,
  );
  assert.equal(tries, 1);
});
