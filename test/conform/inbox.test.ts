/** What came to a port is found whether it was waited for or not. */
import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { Inbox } from '../../conform/lisp/inbox.ts';

test('what came before is found, from where it is asked', async () => {
  const inbox = new Inbox<number>();
  for (const item of [1, 2, 3]) inbox.add(item);
  assert.deepEqual(inbox.all, [1, 2, 3]);
  assert.equal(await inbox.wait(odd, 0), 1);
  assert.equal(await inbox.wait(odd, 0, 1), 3);
  assert.equal(await inbox.wait(odd, 0, 3), undefined);
});

test('what comes later is waited for, by all who do', async () => {
  const inbox = new Inbox<number>();
  const waiting = Promise.all([inbox.wait(odd, PATIENCE_MS), inbox.wait(even, PATIENCE_MS)]);
  inbox.add(2);
  inbox.add(5);
  assert.deepEqual(await waiting, [5, 2]);
});

test('nothing is waited for longer than told', async () => {
  const inbox = new Inbox<number>();
  inbox.add(2);
  assert.equal(await inbox.wait(odd, 5), undefined);
});

test('a thousand are kept, and no more', () => {
  const inbox = new Inbox<number>();
  for (let item = 0; item < 1_100; item++) inbox.add(item);
  assert.equal(inbox.all.length, 1_000);
  assert.equal(inbox.all.at(-1), 999);
});

function odd(item: number): number | undefined {
  return item % 2 === 1 ? item : undefined;
}

function even(item: number): number | undefined {
  return item % 2 === 0 ? item : undefined;
}

const PATIENCE_MS = 60_000;
