import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses, PlatformEmulator, type Route } from './emulator.ts';
import { EC2, EC2_VALUES } from './platforms.ts';

test('EC2 by IMDSv2: instance, place, private and elastic addresses, tags for Stayput, and scheduled events', async (t) => {
  const emulator = await PlatformEmulator.start(t, EC2);
  const examination = await emulator.examine();
  const { detected, facts, events, problem } = examination;
  assert.equal(problem, null);
  assert.equal(detected.chosen.driver.name, 'ec2');
  assert.equal(detected.chosen.confidence, 'certain');
  assert.equal(facts?.instanceId, 'i-0123456789abcdef0');
  assert.equal(facts?.zone, 'eu-west-1a');
  assert.equal(facts?.region, 'eu-west-1');
  assert.equal(facts?.network, 'vpc-0a1b2c3d');
  assert.deepEqual(addresses(examination, 'local'), ['172.31.5.9', '2a05:d018:1::9', '172.31.5.10']);
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.7']);
  assert.deepEqual(facts?.provisioning, { eid: '10.77.0.5/32', name: 'db' });
  assert.deepEqual(events, [
    { id: 'instance-event-1', action: 'system-reboot', notBefore: '21 Jan 2027 09:00:43 GMT' },
    { id: 'spot 2027-01-20T08:22:00Z', action: 'spot-terminate', notBefore: '2027-01-20T08:22:00Z' },
  ]);
});

test('without a token, as the first version of the service answers', async (t) => {
  const routes: Record<string, Route> = { ...EC2.routes, '/latest/api/token': () => ({ status: 404 }) };
  for (const [path, body] of Object.entries(EC2_VALUES)) routes[`/latest/meta-data/${path}`] = body;
  const examination = await (await PlatformEmulator.start(t, { ...EC2, routes })).examine();
  assert.equal(examination.problem, null);
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.7']);
});

test('a service that insists on the token that does not arrive is a failure, not an empty answer', async (t) => {
  const routes = { ...EC2.routes, '/latest/api/token': () => ({ status: 403 }) };
  const { facts, problem } = await (await PlatformEmulator.start(t, { ...EC2, routes })).examine();
  assert.equal(facts, null);
  assert.equal(problem?.failure, 'status');
});

test('no address is a public one that peers could not use', async (t) => {
  for (const hostile of ['127.0.0.1', '169.254.169.254', '0.0.0.0', '224.0.0.1', '198.51.100.7; rm -rf /', '1.2.3']) {
    const routes = { ...EC2.routes, '/latest/meta-data/public-ipv4': hostile };
    const examination = await (await PlatformEmulator.start(t, { ...EC2, routes })).examine();
    const found = addresses(examination, 'public').filter((address) => address !== '198.51.100.7');
    assert.deepEqual(found, [], hostile);
    assert.ok((examination.facts?.refused.length ?? 0) > 0, hostile);
  }
});

test('the marks of older instances', async (t) => {
  for (const files of [
    { 'sys/hypervisor/uuid': 'ec2e1916-9099-7caf-fd21-012345abcdef\n' },
    { 'sys/class/dmi/id/product_uuid': 'EC2E1916-9099-7CAF-FD21-012345ABCDEF\n' },
    { 'sys/class/dmi/id/product_uuid': '45E12AEC-DCD1-B213-94ED-012345ABCDEF\n' },
    { 'run/stayput/product-uuid': 'ec2e1916-9099-7caf-fd21-012345abcdef\n' },
  ]) {
    const { detected } = await (await PlatformEmulator.start(t, { ...EC2, files })).examine();
    assert.equal(detected.chosen.driver.name, 'ec2', JSON.stringify(files));
  }
});
