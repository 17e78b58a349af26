import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses, PlatformEmulator } from './emulator.ts';
import { GCE, GCE_TREE, marked } from './platforms.ts';

test('Google: instance, zone, addresses, attributes, and the notice of a live migration', async (t) => {
  const examination = await (await PlatformEmulator.start(t, GCE)).examine();
  const { detected, facts, events, problem } = examination;
  assert.equal(problem, null);
  assert.equal(detected.chosen.driver.name, 'gce');
  assert.equal(facts?.instanceId, '9007199254740993123', 'not rounded');
  assert.equal(facts?.zone, 'europe-west1-b');
  assert.equal(facts?.region, 'europe-west1');
  assert.equal(facts?.network, 'projects/123/networks/default');
  assert.deepEqual(addresses(examination, 'local'), ['10.132.0.2', '2600:1900::2']);
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.30', '198.51.100.31']);
  assert.deepEqual(facts?.provisioning, { eid: '10.77.0.5/32' });
  assert.deepEqual(events, [
    { id: 'MIGRATE_ON_HOST_MAINTENANCE', action: 'MIGRATE_ON_HOST_MAINTENANCE', notBefore: null },
  ]);
});

test('by the serial number that the unit has left, where the product was given another name', async (t) => {
  const files = { 'run/stayput/product-serial': 'GoogleCloud-0A1B2C3D\n' };
  const { detected } = await (await PlatformEmulator.start(t, { ...GCE, files })).examine();
  assert.equal(detected.chosen.driver.name, 'gce');
});

test('without an external address there is none, and without maintenance no event', async (t) => {
  const routes = {
    ...GCE.routes,
    [`${GCE_TREE}/?recursive=true&alt=json`]: marked(
      '{"networkInterfaces": [{"accessConfigs": [{"externalIp": ""}]}]}',
    ),
    [`${GCE_TREE}/maintenance-event`]: marked('NONE\n'),
  };
  const examination = await (await PlatformEmulator.start(t, { ...GCE, routes })).examine();
  assert.equal(examination.problem, null);
  assert.deepEqual(examination.facts?.locators, []);
  assert.deepEqual(examination.events, []);
});

test('who answers without the mark of Google is not believed', async (t) => {
  const routes = { ...GCE.routes, [`${GCE_TREE}/id`]: '1' };
  const { facts, problem } = await (await PlatformEmulator.start(t, { ...GCE, routes })).examine();
  assert.equal(facts, null);
  assert.equal(problem?.failure, 'malformed');
});
