import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from '../../mapserver/shell/turns.ts';

// Attack: messages of one agent, each of which takes a millisecond, before one of another | 10,000 | the other's turn comes
// after one of them
test('attack: one agent that keeps the others waiting', async () => {
  let now = 0;
  const turns = new Turns(() => now);
  const [busy, quiet] = [{}, {}];
  let processed = 0;
  for (let i = 0; i < 10_000; i++)
    turns.add(busy, 1000, () => {
      now++;
      processed++;
    });
  const before = await new Promise<number>((resolve) => turns.add(quiet, 1000, () => resolve(processed)));
  assert.equal(before, 1);
});

test('other work of the process goes on between the messages', async () => {
  let now = 0;
  const turns = new Turns(() => now);
  let processed = 0;
  for (let i = 0; i < 1000; i++)
    turns.add(turns, 0, () => {
      now++;
      processed++;
    });
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(processed > 0 && processed < 1000, `${processed}`);
  turns.drop(turns);
  assert.equal(turns.waiting(turns), 0);
});
