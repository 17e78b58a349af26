/** Who hears of which names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Subscriptions } from '../../mapserver/core/subscriptions.ts';
import { parseEid } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';

test('names are found at and below others, as long as somebody is subscribed', () => {
  const subscriptions = new Subscriptions({ perAgent: 100, total: 100 });
  const [a, b] = ['a', 'b'] as unknown as [XtrId, XtrId];
  for (const text of ['web', 'x.web', 'y.x.web', 'xweb', 'db', '10.77.0.5']) {
    subscriptions.add(a, parseEid(text), false, 0);
  }
  subscriptions.add(b, parseEid('y.x.web'), false, 0);
  const below = (...tops: string[]): string[] => [...subscriptions.namesBelow(new Set(tops))].map(({ name }) => name);
  assert.deepEqual(below('x.web'), ['x.web', 'y.x.web']);
  assert.deepEqual(below('web', 'x.web'), ['web', 'x.web', 'y.x.web']);
  assert.deepEqual(below('x'), []);
  assert.deepEqual(below(''), ['web', 'x.web', 'y.x.web', 'xweb', 'db']);
  subscriptions.deleteAll(a);
  assert.deepEqual(below(''), ['y.x.web']);
  subscriptions.delete(b, parseEid('y.x.web'));
  assert.deepEqual(below('', 'web'), []);
});
