import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog } from '../../runtime/log.ts';
import { Shutdown } from '../../runtime/shutdown.ts';

const log = createLog('agent', 'silent');

test('closers run once, in reverse order, and a failing one does not stop the others', async () => {
  const order: string[] = [];
  const shutdown = new Shutdown();
  shutdown.add('first', () => order.push('first'));
  shutdown.add('second', async () => {
    await Promise.resolve();
    order.push('second');
  });
  shutdown.add('third', () => {
    order.push('third');
    throw new Error('broken');
  });
  await Promise.all([shutdown.end(log), shutdown.end(log)]);
  await shutdown.end(log);
  assert.deepEqual(order, ['third', 'second', 'first']);
});
