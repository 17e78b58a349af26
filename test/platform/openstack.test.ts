import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { addresses, PlatformEmulator } from './emulator.ts';
import { isoImage } from './iso-image.ts';
import { OPENSTACK, OPENSTACK_METADATA, OPENSTACK_NETWORKS } from './platforms.ts';

test('OpenStack by its service: fixed addresses, the floating one of the EC2 tree, metadata of the operator', async (t) => {
  const examination = await (await PlatformEmulator.start(t, OPENSTACK)).examine();
  const { detected, facts, problem } = examination;
  assert.equal(problem, null);
  assert.equal(detected.chosen.driver.name, 'openstack');
  assert.equal(facts?.instanceId, 'b0fa911b-69d4-4476-bbe2-1c92bff6535c');
  assert.equal(facts?.zone, 'nova');
  assert.equal(facts?.network, 'net-1');
  assert.deepEqual(addresses(examination, 'local'), ['10.0.0.3', '2001:db8::3']);
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.20']);
  assert.deepEqual(facts?.provisioning, { 'map-server': 'https://map.example.org:4342', token: 'stp1.secret' });
  assert.equal(facts?.asOf, 'now');
});

test('a service without the EC2 tree, or without a floating address, has no public one', async (t) => {
  for (const routes of [
    { ...OPENSTACK.routes, '/latest/meta-data/public-ipv4': '' },
    Object.fromEntries(Object.entries(OPENSTACK.routes).filter(([path]) => path.startsWith('/openstack'))),
  ]) {
    const examination = await (await PlatformEmulator.start(t, { ...OPENSTACK, routes })).examine();
    assert.equal(examination.problem, null);
    assert.deepEqual(addresses(examination, 'public'), []);
    assert.equal(addresses(examination, 'local').length, 2);
  }
});

for (const joliet of [true, false]) {
  test(`the config drive where no service answers, with ${joliet ? 'Joliet' : 'plain'} names: as of the boot`, async (t) => {
    const image = isoImage(
      {
        'ec2/latest/meta-data.json': '{}',
        'openstack/latest/meta_data.json': OPENSTACK_METADATA,
        'openstack/latest/network_data.json': OPENSTACK_NETWORKS,
      },
      { joliet },
    );
    const emulator = await PlatformEmulator.start(t, { files: { 'dev/disk/by-label/config-2': image } });
    const examination = await emulator.examine();
    assert.equal(examination.problem, null);
    assert.equal(examination.detected.chosen.driver.name, 'openstack');
    assert.equal(examination.facts?.asOf, 'boot');
    assert.deepEqual(addresses(examination, 'local'), ['10.0.0.3', '2001:db8::3']);
  });
}

for (const width of [12, 16, 32]) {
  test(`a config drive of FAT${width}, as mkfs.vfat and mtools make it: long names, a file in pieces`, async (t) => {
    const emulator = await PlatformEmulator.start(t, { files: { 'dev/disk/by-label/config-2': fatDrive(width) } });
    const examination = await emulator.examine();
    assert.equal(examination.problem, null);
    assert.equal(examination.detected.chosen.driver.name, 'openstack');
    assert.equal(examination.facts?.instanceId, 'b0fa911b-69d4-4476-bbe2-1c92bff6535c');
    assert.deepEqual(addresses(examination, 'local'), ['10.0.0.3']);
  });
}

test('a FAT drive whose chains are cut off, lead elsewhere or in a circle, is read to an end', async (t) => {
  for (const width of [12, 16]) {
    const drive = fatDrive(width);
    const table = drive.readUInt16LE(14) * drive.readUInt16LE(11);
    for (const content of [
      drive.subarray(0, table + 3),
      drive.subarray(0, table + 2048),
      ...[0, 0x22, 0xff].map((octet) => Buffer.from(drive).fill(octet, table, table + 2048)),
      Buffer.from(drive).fill(0xff, 11, 62),
      Buffer.from(drive).fill(0xff, table + 2048),
    ]) {
      const emulator = await PlatformEmulator.start(t, { files: { 'dev/disk/by-label/config-2': content } });
      const { facts, problem } = await emulator.examine();
      assert.equal(facts, null);
      assert.ok(['malformed', 'too-large', 'unreadable'].includes(problem?.failure ?? ''), `${problem?.failure}`);
    }
  }
});

test('a config drive that is none, is cut off, or has something else in it, is a failure with a name', async (t) => {
  const image = isoImage({ 'openstack/latest/meta_data.json': OPENSTACK_METADATA });
  for (const content of [
    '',
    'garbage'.repeat(10_000),
    isoImage({ 'cloudstack/metadata/instance-id.txt': 'x' }),
    isoImage({ 'openstack/latest/meta_data.json': '{' }),
    isoImage({ 'openstack/latest/meta_data.json': 'x'.repeat(2 << 20) }),
    image.subarray(0, 16 * 2048 + 200),
    Buffer.from(image).fill(0xff, 20 * 2048),
  ]) {
    const emulator = await PlatformEmulator.start(t, { files: { 'dev/disk/by-label/CONFIG-2': content } });
    const { facts, problem } = await emulator.examine();
    assert.equal(facts, null);
    assert.ok(['malformed', 'too-large', 'unreadable'].includes(problem?.failure ?? ''), `${problem?.failure}`);
  }
});

test('on other architectures there is no mark: it is possible, and asked only when it is named', async (t) => {
  const emulator = await PlatformEmulator.start(t, { ...OPENSTACK, files: {}, architecture: 'arm64' });
  const detected = await emulator.examine();
  assert.equal(detected.detected.chosen.driver.name, 'none');
  assert.deepEqual(emulator.requests, []);
  assert.equal((await emulator.examine('openstack')).facts?.zone, 'nova');
});

/** What `mkfs.vfat -n config-2`, `mmd` and `mcopy` have made. */
function fatDrive(width: number): Buffer {
  return brotliDecompressSync(readFileSync(join(PROJECT_ROOT, `test/platform/config-drives/fat${width}.br`)));
}
