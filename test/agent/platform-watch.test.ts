/** What the agent takes over from the platform below, and when. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Examination } from '../../agent/platform/examination.ts';
import { NONE } from '../../agent/platform/none.ts';
import { certain, PlatformError, type PlatformEvent, type PlatformFacts } from '../../agent/platform/platform.ts';
import { PlatformWatch } from '../../agent/shell/platform-watch.ts';
import { parseIpAddress } from '../../proto/address.ts';
import type { Place } from '../../proto/exporter.ts';
import { createLog } from '../../runtime/log.ts';
import { waitFor } from '../lab/wait.ts';

test('public addresses are taken over, local ones are those of interfaces anyway', async (t) => {
  const { told } = watched(t, [said(['public 198.51.100.1', 'local 10.0.0.5'])]);
  await waitFor('the reading', () => told.length === 2);
  assert.deepEqual(told, ['read', 'addresses 198.51.100.1']);
});

test('a snapshot from the boot gives none: it may be of another place', async (t) => {
  const { told } = watched(t, [said(['public 198.51.100.1'], { asOf: 'boot' })]);
  await waitFor('the reading', () => told.length === 2);
  assert.deepEqual(told, ['read', 'addresses ']);
});

test('what a platform began to say before a move counts no more, and it is asked again', async (t) => {
  const { watch, told, answers } = watched(t, []);
  await waitFor('the first question', () => answers.length === 1);
  watch.handleMoved();
  assert.equal(answers.length, 1, 'one reading at a time');
  answers[0]?.(said(['public 198.51.100.1']));
  await waitFor('the second question', () => answers.length === 2);
  answers[1]?.(said(['public 198.51.100.2']));
  await waitFor('the reading', () => told.length === 2);
  assert.deepEqual(told, ['read', 'addresses 198.51.100.2']);
});

test('where the host is is told after each reading, but not from a snapshot of the boot', async (t) => {
  const there = { region: 'r', zone: 'r-1', instanceId: 'i-1' };
  const { watch, told, places } = watched(t, [said([], there), said([], { ...there, asOf: 'boot' })]);
  await waitFor('the reading', () => told.length === 2);
  watch.handleMoved();
  await waitFor('the second reading', () => told.length === 4);
  assert.deepEqual(places, [
    { platform: 'none', ...there },
    { platform: 'none', region: null, zone: null, instanceId: null },
  ]);
});

test('a platform that cannot be asked changes nothing', async (t) => {
  const problem = new PlatformError('timeout', 'no answer');
  const { told } = watched(t, [{ ...said([]), facts: null, problem }]);
  await waitFor('the reading', () => told.length > 0);
  assert.deepEqual(told, ['failed']);
});

test('maintenance is told once while it stands', async (t) => {
  const events = [{ id: '1', action: 'Freeze', notBefore: null }];
  const readings = [events, events, [], events].map((each) => said([], {}, each));
  const { watch, told } = watched(t, readings);
  for (let reading = 1; reading <= readings.length; reading++) {
    await waitFor('the reading', () => told.filter((what) => what === 'read').length === reading);
    watch.handleMoved();
  }
  assert.equal(told.filter((what) => what === 'announced').length, 2);
});

test('an error of ours is handed on, and the platform is asked again', async (t) => {
  const { watch, told } = watched(t, [new TypeError('ours'), said([])]);
  await waitFor('the error', () => told.includes('fault ours'));
  watch.handleMoved();
  await waitFor('the reading', () => told.includes('read'));
});

type Outcome = Examination | Error;

/** Questions are answered by `outcomes` in their order, those after them by `answers`. */
function watched(t: { after(end: () => void): void }, outcomes: readonly Outcome[]) {
  const told: string[] = [];
  const places: Place[] = [];
  const answers: ((outcome: Examination) => void)[] = [];
  let asked = 0;
  const watch = new PlatformWatch(
    'auto',
    {
      onAddresses: (addresses) => told.push(`addresses ${addresses.join(' ')}`),
      onRead: (result) => told.push(result),
      onPlace: (place) => places.push(place),
      onAnnounced: () => told.push('announced'),
      onFault: (error) => told.push(`fault ${(error as Error).message}`),
    },
    createLog('agent', 'silent'),
    () => {
      const outcome = outcomes[asked++];
      if (outcome instanceof Error) return Promise.reject(outcome);
      return outcome === undefined ? new Promise((resolve) => answers.push(resolve)) : Promise.resolve(outcome);
    },
  );
  t.after(() => watch.close());
  watch.start();
  return { watch, told, answers, places };
}

function said(
  locators: readonly string[],
  more: Partial<PlatformFacts> = {},
  events: readonly PlatformEvent[] = [],
): Examination {
  return {
    detected: { chosen: { driver: NONE, ...certain('a test') }, verdicts: [] },
    detectionMs: 0,
    facts: {
      instanceId: null,
      zone: null,
      region: null,
      network: null,
      locators: locators.map((text) => {
        const [scope, address = ''] = text.split(' ');
        return { scope: scope === 'public' ? 'public' : 'local', address: parseIpAddress(address) };
      }),
      provisioning: {},
      asOf: 'now',
      refused: [],
      ...more,
    },
    events,
    problem: null,
  };
}
