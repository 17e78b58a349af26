/** What the agent takes over from the platform below, and when. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Examination } from '../../agent/platform/examination.ts';
import { NONE } from '../../agent/platform/none.ts';
import { OPENSTACK } from '../../agent/platform/openstack.ts';
import {
  certain,
  type PlatformDriver,
  PlatformError,
  type PlatformEvent,
  type PlatformFacts,
} from '../../agent/platform/platform.ts';
import { type PlatformQuestions, PlatformWatch } from '../../agent/shell/platform-watch.ts';
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
  const count = (wanted: string): number => told.filter((what) => what === wanted).length;
  assert.equal(count('announced'), 2);
  assert.equal(count('prepare'), 2);
  assert.deepEqual(
    told.filter((what) => what.startsWith('standing')),
    ['standing 1', 'standing ', 'standing 1'],
  );
});

test('an operator announces maintenance where the platform does not', async (t) => {
  const { watch, told } = watched(t, [said([], { provisioning: { maintenance: 'evacuation' } })]);
  await waitFor('the reading', () => told.includes('prepare'));
  assert.deepEqual(watch.state?.maintenance, [{ action: 'evacuation', notBefore: null }]);
});

test('what an operator announces is not over because the platform cannot be asked, but on another platform it is', async (t) => {
  const problem = new PlatformError('timeout', 'no answer');
  const silent: Examination = { ...said([]), facts: null, events: null, problem };
  const elsewhere: Examination = {
    ...silent,
    detected: { chosen: { driver: OPENSTACK, ...certain('its service answers') }, verdicts: [] },
  };
  const { watch, told } = watched(t, [said([], { provisioning: { maintenance: 'evacuation' } }), silent, elsewhere]);
  const standing = (): string[] => told.filter((what) => what.startsWith('standing'));
  await waitFor('the reading', () => told.includes('prepare'));
  watch.handleMoved();
  await waitFor('the silence', () => told.includes('failed'));
  assert.deepEqual(standing(), ['standing operator evacuation']);
  watch.handleMoved();
  await waitFor('the other platform', () => told.filter((what) => what === 'failed').length === 2);
  assert.deepEqual(standing(), ['standing operator evacuation', 'standing ']);
});

test('a platform that announces something new all the time is heard at a bounded rate', async (t) => {
  let asked = 0;
  const driver: PlatformDriver = { ...NONE, events: () => Promise.resolve([]), eventsEveryMs: 1 };
  const { told } = watched(t, [{ ...said([]), detected: { chosen: { driver, ...certain('a test') }, verdicts: [] } }], {
    events: () => Promise.resolve([{ id: `${++asked}`, action: 'Freeze', notBefore: null }]),
    change: () => Promise.reject(new Error('not asked')),
  });
  await waitFor('many announcements', () => asked >= 100);
  const announced = told.filter((what) => what === 'announced').length;
  assert.ok(announced >= 32 && announced <= 40, `${announced}`);
});

test('notices that cannot be asked for are not over', async (t) => {
  const events = [{ id: '1', action: 'Freeze', notBefore: null }];
  const { watch, told } = watched(t, [said([], {}, events), { ...said([]), events: null }]);
  await waitFor('the reading', () => told.includes('read'));
  watch.handleMoved();
  await waitFor('the next reading', () => told.filter((what) => what === 'read').length === 2);
  assert.equal(watch.state?.maintenance.length, 1);
});

test('after a change of addresses all services are asked, until one was heard, and then that one by its name', async (t) => {
  const elsewhere: Examination = {
    ...said(['public 198.51.100.9']),
    detected: { chosen: { driver: OPENSTACK, ...certain('its service answers') }, verdicts: [] },
    recognised: true,
  };
  const { watch, told, questions } = watched(t, [said([]), elsewhere, { ...elsewhere, recognised: false }]);
  await waitFor('the first reading', () => told.length === 2);
  watch.handleMoved();
  await waitFor('the second reading', () => told.includes('changed'));
  assert.deepEqual(questions, ['auto', 'auto moved']);
  assert.equal(watch.state?.name, 'openstack');
  watch.handleMoved();
  await waitFor('the third reading', () => told.filter((what) => what === 'read').length === 3);
  assert.deepEqual(questions.slice(2), ['auto moved'], 'a further move is a further doubt');
});

test('after a change of addresses all services are asked for minutes: a new one may be late', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { watch, questions } = watched(t, Array(40).fill(said([])));
  const settled = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  await settled();
  watch.handleMoved();
  for (let second = 0; second < 8 * 60; second++) {
    t.mock.timers.tick(1_000);
    if (second < 20 || second % 30 === 0) await settled();
  }
  const doubting = questions.filter((question) => question === 'auto moved').length;
  assert.ok(doubting >= 10, `${doubting}`);
  for (let minute = 0; minute < 10; minute++) {
    t.mock.timers.tick(60_000);
    await settled();
  }
  assert.equal(questions.at(-1), 'auto', 'in the end the firmware is believed');
});

test('an error of ours is handed on, and the platform is asked again', async (t) => {
  const { watch, told } = watched(t, [new TypeError('ours'), said([])]);
  await waitFor('the error', () => told.includes('fault ours'));
  watch.handleMoved();
  await waitFor('the reading', () => told.includes('read'));
});

type Outcome = Examination | Error;

/** Questions are answered by `outcomes` in their order, those after them by `answers`. */
function watched(
  t: { after(end: () => void): void },
  outcomes: readonly Outcome[],
  notices?: PlatformQuestions['notices'],
) {
  const told: string[] = [];
  const places: Place[] = [];
  const answers: ((outcome: Examination) => void)[] = [];
  const questions: string[] = [];
  let asked = 0;
  const watch = new PlatformWatch(
    'auto',
    {
      onAddresses: (addresses) => told.push(`addresses ${addresses.join(' ')}`),
      onRead: (result) => told.push(result),
      onPlace: (place) => places.push(place),
      onChanged: () => told.push('changed'),
      onAnnounced: () => told.push('announced'),
      onPrepare: () => told.push('prepare'),
      onStanding: (_, events) => told.push(`standing ${events.map(({ id }) => id).join(' ')}`),
      onFault: (error) => told.push(`fault ${(error as Error).message}`),
    },
    createLog('agent', 'silent'),
    {
      ...(notices === undefined ? {} : { notices }),
      examine(wanted, { moved }) {
        questions.push(`${wanted}${moved === true ? ' moved' : ''}`);
        const outcome = outcomes[asked++];
        if (outcome instanceof Error) return Promise.reject(outcome);
        return outcome === undefined ? new Promise((resolve) => answers.push(resolve)) : Promise.resolve(outcome);
      },
    },
  );
  t.after(() => watch.close());
  watch.start();
  return { watch, told, answers, places, questions };
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
    totalMs: 0,
    recognised: false,
  };
}
