/** A machine that was moved alive has the firmware tables of the place before: services tell where it is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses, FAULTS, PlatformEmulator } from './emulator.ts';
import { CLOUDSTACK, OPENSTACK, PLATFORMS } from './platforms.ts';

for (const [name, platform] of Object.entries(PLATFORMS)) {
  // Its tree has nothing that others have not.
  if (name === 'exoscale') continue;
  test(`${name} is recognised by its service alone, whatever the firmware says`, async (t) => {
    const network = { 'proc/net/route': CLOUDSTACK.files['proc/net/route'] };
    for (const files of [{}, { 'sys/class/dmi/id/product_name': 'VMware7,1' }]) {
      const emulator = await PlatformEmulator.start(t, { ...platform, files: { ...network, ...files } });
      assert.notEqual((await emulator.examine()).detected.chosen.driver.name, name);
      const examination = await emulator.examine('auto', { moved: true });
      assert.equal(examination.detected.chosen.driver.name, name);
      assert.equal(examination.recognised, true);
      assert.notEqual(examination.facts?.instanceId, null);
    }
  });
}

test('a service is that of its own platform also where it answers at the addresses of all', async (t) => {
  const network = { 'proc/net/route': CLOUDSTACK.files['proc/net/route'] };
  for (const [name, platform] of Object.entries(PLATFORMS)) {
    if (name === 'exoscale') continue;
    const emulator = await PlatformEmulator.start(t, { ...platform, files: network, address: '*' });
    const { detected } = await emulator.examine('auto', { moved: true });
    assert.equal(detected.chosen.driver.name, name);
  }
});

test('the platform of the firmware stays as long as its own service answers', async (t) => {
  const emulator = await PlatformEmulator.start(t, OPENSTACK);
  const examination = await emulator.examine('auto', { moved: true });
  assert.equal(examination.detected.chosen.confidence, 'certain');
  assert.equal(examination.recognised, true);
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.20']);
});

for (const [fault, server] of Object.entries(FAULTS)) {
  test(`a service that ${fault} is nobody's`, async (t) => {
    const emulator = await PlatformEmulator.start(t, {}, server);
    emulator.limits = { requestMs: 200, readingMs: 400, maxOctets: 1 << 20 };
    const { detected, recognised } = await emulator.examine('auto', { moved: true });
    assert.equal(detected.chosen.driver.name, 'none');
    assert.equal(recognised, false);
  });
}
