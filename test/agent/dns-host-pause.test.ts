import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PauseAfterFailure } from '../../agent/shell/dns-host-pause.ts';
import { Backoff } from '../../runtime/backoff.ts';

test('what fails waits longer each time, and not at all once something is different', () => {
  const pause = new PauseAfterFailure(new Backoff(1000, 60_000, () => 1));
  assert.ok(!pause.lasts('no tunnel', 0));
  pause.handleFailure('no tunnel', 0);
  assert.deepEqual([pause.lasts('no tunnel', 999), pause.lasts('no tunnel', 1000)], [true, false]);
  pause.handleFailure('no tunnel', 1000);
  assert.deepEqual([pause.lasts('no tunnel', 2999), pause.lasts('no tunnel', 3000)], [true, false]);
  pause.handleFailure('no tunnel', 3000);
  assert.ok(!pause.lasts('a tunnel', 3001));
  pause.handleSuccess();
  assert.ok(!pause.lasts('no tunnel', 3002));
  pause.handleFailure('no tunnel', 3002);
  assert.ok(!pause.lasts('no tunnel', 4002), 'after a success it begins anew');
});
