import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FairQueue } from '../../mapserver/core/fair-queue.ts';

test('the order of one sender is kept', () => {
  const queue = new FairQueue<string, number>();
  for (const [item, size] of [200, 1, 50, 1].entries()) queue.add('a', item, size);
  assert.deepEqual(queue.take(Number.POSITIVE_INFINITY), [0, 1, 2, 3]);
  assert.equal(queue.length, 0);
});

test('takes as many as fit, at least one', () => {
  const queue = new FairQueue<string, string>();
  queue.add('a', 'large', 300);
  queue.add('a', 'larger', 400);
  queue.add('a', 'small', 1);
  assert.deepEqual(queue.take(256), ['large']);
  assert.deepEqual(queue.take(401), ['larger', 'small']);
  assert.deepEqual(queue.take(256), []);
});

// Attack: Map-Registers of 200 EID-records by 17 agents, of which each has 20 waiting at any time | 340 | those of an agent
// that registers one EID at a time are each the next to be judged
test('attack: agents with many large Map-Registers waiting', () => {
  const queue = new FairQueue<string, string>();
  const refill = (): void => {
    while (queue.length < 340) queue.add(`busy ${queue.length % 17}`, 'busy', 200);
  };
  for (let round = 0; round < 100; round++) {
    refill();
    queue.add('quiet', 'quiet', 1);
    assert.deepEqual(queue.take(1), ['quiet'], `round ${round}`);
    assert.deepEqual(queue.take(1), ['busy'], 'and these go on');
  }
});

test('two that ask for as much get as much, whatever the pieces, and a newcomer does not pay for what was before', () => {
  const queue = new FairQueue<string, string>();
  const served = new Map<string, number>();
  const serve = (): string => {
    const [item = ''] = queue.take(1);
    const [sender = '', size = ''] = item.split(' ');
    served.set(sender, (served.get(sender) ?? 0) + Number(size));
    return sender;
  };
  for (let i = 0; i < 100; i++) queue.add('large', 'large 100', 100);
  for (let i = 0; i < 10_000; i++) queue.add('small', 'small 1', 1);
  for (let i = 0; i < 5_000; i++) serve();
  const [large = 0, small = 0] = [served.get('large'), served.get('small')];
  assert.ok(Math.abs(large - small) <= 200, `${large} and ${small}`);
  queue.add('newcomer', 'newcomer 1', 1);
  const before = [serve(), serve(), serve()];
  assert.ok(before.includes('newcomer'), before.join());
});

test('nothing is kept of a sender that is gone, also while others wait', () => {
  const queue = new FairQueue<string, string>();
  queue.add('busy', 'large', 10_000);
  queue.add('other', 'small', 500);
  queue.drop('busy');
  queue.add('busy', 'again', 1);
  assert.deepEqual(queue.take(1000), ['again', 'small']);
});
