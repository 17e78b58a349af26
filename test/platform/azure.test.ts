import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses, PlatformEmulator } from './emulator.ts';
import { azure } from './platforms.ts';

test('Azure: instance, addresses, tags and scheduled events', async (t) => {
  const examination = await (await PlatformEmulator.start(t, azure('198.51.100.40'))).examine();
  const { detected, facts, events, problem } = examination;
  assert.equal(problem, null);
  assert.equal(detected.chosen.driver.name, 'azure');
  assert.equal(facts?.instanceId, '02aab8a4-74ef-476e-8182-f6d2ba4166a6');
  assert.equal(facts?.region, 'westeurope');
  assert.equal(facts?.zone, '2');
  assert.deepEqual(addresses(examination, 'local'), ['10.1.0.4', 'fd00::4']);
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.40']);
  assert.deepEqual(facts?.provisioning, { name: 'db' });
  assert.deepEqual(events, [{ id: 'C7061BAC', action: 'Freeze', notBefore: 'Mon, 11 Apr 2027 22:26:58 GMT' }]);
});

test('a public address of the standard kind is known to the load balancer only', async (t) => {
  const examination = await (await PlatformEmulator.start(t, azure(''))).examine();
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.41']);
});

test('an older service is asked in its version', async (t) => {
  const platform = azure('198.51.100.40');
  const older = {
    ...platform.routes,
    '/metadata/instance?api-version=2021-08-01': () => ({ status: 400 }),
    '/metadata/instance?api-version=2019-06-01': platform.routes?.['/metadata/instance?api-version=2021-08-01'] ?? '',
  };
  const examination = await (await PlatformEmulator.start(t, { ...platform, routes: older })).examine();
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.40']);
});

test('events that are not answered in time cost nothing else', async (t) => {
  const platform = azure('198.51.100.40');
  const slow = { ...platform.routes, '/metadata/scheduledevents?api-version=2020-07-01': () => ({ status: 503 }) };
  const { facts, events, problem } = await (await PlatformEmulator.start(t, { ...platform, routes: slow })).examine();
  assert.equal(facts?.region, 'westeurope');
  assert.equal(events, null);
  assert.equal(problem?.failure, 'status');
});
