/** How many errors of its own the agent goes on after. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { Tolerance } from '../../agent/shell/tolerance.ts';
import { Faults } from '../../runtime/faults.ts';

test('Five errors within a minute are borne, the sixth is thrown', () => {
  const tolerance = new Tolerance(new Faults(pino({ level: 'silent' }), 'x', () => {}));
  for (let i = 0; i < 50; i++) tolerance.note(new Error('now and then'), i * 12_000);
  const last = new Error('too many');
  assert.throws(() => tolerance.note(last, 49 * 12_000 + 1), last);
});

test('Each error is counted, and the first at its place logged', () => {
  const lines: string[] = [];
  let counted = 0;
  const faults = new Faults(
    pino({ level: 'error' }, { write: (line) => lines.push(line) }),
    'an error',
    () => counted++,
  );
  for (let i = 0; i < 10; i++) faults.note(new Error(`of input ${i}`));
  faults.note(new Error('elsewhere'));
  faults.note('no error object');
  faults.note('another');
  assert.equal(counted, 13);
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).err.message ?? JSON.parse(line).err),
    ['of input 0', 'elsewhere', 'no error object'],
  );
});
