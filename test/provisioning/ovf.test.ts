/** The OVF package of an image: a descriptor as DSP0243 wants it, whose properties arrive at a host that joins with them. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { XmlElement } from '@rgrove/parse-xml';
import { buildProgram } from '../../cli/program.ts';
import { PlatformEmulator } from '../platform/emulator.ts';
import { isoImage } from '../platform/iso-image.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';
import { deploy, elementsOf, ovfRoot } from './ovf-environment.ts';

test('descriptor, manifest and disk lie beside each other, with the digests and sizes of the files', async (t) => {
  const folder = temporaryFolder(t);
  const disk = vmdk(folder, 8);
  await ovfCreate(disk, '--out', join(folder, 'vm.ovf'), '--map-server', 'https://map.example.org');
  assert.deepEqual(readdirSync(folder).sort(), ['disk.vmdk', 'vm-disk.vmdk', 'vm.mf', 'vm.ovf']);
  const manifest = readFileSync(join(folder, 'vm.mf'), 'utf8');
  for (const name of ['vm.ovf', 'vm-disk.vmdk']) {
    const digest = createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex');
    assert.ok(manifest.includes(`SHA256(${name})= ${digest}\n`), name);
  }
  const root = ovfRoot(readFileSync(join(folder, 'vm.ovf'), 'utf8'));
  const [file] = elementsOf(root, 'References', 'File');
  assert.equal(file?.attributes['ovf:href'], 'vm-disk.vmdk');
  assert.equal(Number(file?.attributes['ovf:size']), readFileSync(disk).length);
  const [declared] = elementsOf(root, 'DiskSection', 'Disk');
  assert.equal(Number(declared?.attributes['ovf:capacity']), 8 * 2 ** 30);
});

test('the descriptor has the parts of DSP0243 in their order, and what it refers to is there', async (t) => {
  const root = ovfRoot(await descriptorOf(t));
  assert.equal(root.name, 'Envelope');
  assert.equal(root.attributes.xmlns, 'http://schemas.dmtf.org/ovf/envelope/1');
  assert.deepEqual(names(root), ['References', 'DiskSection', 'NetworkSection', 'VirtualSystem']);
  const [system] = elementsOf(root, 'VirtualSystem');
  assert.ok(system);
  assert.deepEqual(names(system), [
    'Info',
    'Name',
    'OperatingSystemSection',
    'VirtualHardwareSection',
    'ProductSection',
  ]);
  const sections = [
    ...elementsOf(root, 'DiskSection'),
    ...elementsOf(root, 'NetworkSection'),
    ...system.children.filter(
      (each): each is XmlElement => each instanceof XmlElement && each.name.endsWith('Section'),
    ),
  ];
  for (const section of sections) assert.equal(names(section)[0], 'Info', section.name);

  const [hardware] = elementsOf(system, 'VirtualHardwareSection');
  assert.equal(hardware?.attributes['ovf:transport'], 'iso com.vmware.guestInfo');
  const items = elementsOf(system, 'VirtualHardwareSection', 'Item').map((item) =>
    Object.fromEntries(item.children.flatMap((each) => (each instanceof XmlElement ? [[each.name, each.text]] : []))),
  );
  const ids = items.map((item) => item['rasd:InstanceID']);
  assert.equal(new Set(ids).size, items.length);
  for (const item of items) {
    assert.deepEqual(Object.keys(item), Object.keys(item).sort(), 'CIM wants its elements in alphabetical order');
    if (item['rasd:Parent'] !== undefined) assert.ok(ids.includes(item['rasd:Parent']));
  }
  const byType = (type: number) => items.find((item) => item['rasd:ResourceType'] === String(type));
  const [disk] = elementsOf(root, 'DiskSection', 'Disk');
  assert.equal(byType(17)?.['rasd:HostResource'], `ovf:/disk/${disk?.attributes['ovf:diskId']}`);
  assert.equal(disk?.attributes['ovf:fileRef'], elementsOf(root, 'References', 'File')[0]?.attributes['ovf:id']);
  assert.ok(byType(15), 'the transport iso needs a CD drive');
  assert.equal(
    byType(10)?.['rasd:Connection'],
    elementsOf(root, 'NetworkSection', 'Network')[0]?.attributes['ovf:name'],
  );
});

test('four properties are asked for; the token is a password, and no name has a character that OVF forbids', async (t) => {
  const root = ovfRoot(await descriptorOf(t));
  const [section] = elementsOf(root, 'VirtualSystem', 'ProductSection');
  assert.match(section?.attributes['ovf:class'] ?? '', /^[^.:]+$/);
  const properties = elementsOf(root, 'VirtualSystem', 'ProductSection', 'Property');
  assert.deepEqual(
    properties.map(({ attributes }) => attributes['ovf:key']),
    ['map-server', 'token', 'eid', 'name'],
  );
  for (const { attributes } of properties) {
    assert.match(attributes['ovf:key'] ?? '', /^[^.:]+$/);
    assert.equal(attributes['ovf:userConfigurable'], 'true');
    assert.equal(attributes['ovf:password'], attributes['ovf:key'] === 'token' ? 'true' : undefined);
  }
});

test('what is filled in at the deployment is what the host is told', async (t) => {
  const descriptor = await descriptorOf(t, '--map-server', 'https://map.example.org:4342');
  const environment = deploy(descriptor, { 'stayput.token': 'stp1.secret', 'stayput.eid': '10.77.0.5/32' });
  const files = { 'dev/disk/by-label/OVF\\x20ENV': isoImage({ 'ovf-env.xml': environment }) };
  const { facts } = await (await PlatformEmulator.start(t, { files })).examine();
  assert.deepEqual(facts?.provisioning, {
    'map-server': 'https://map.example.org:4342',
    token: 'stp1.secret',
    eid: '10.77.0.5/32',
  });
});

test('an OVA is an archive that tar reads, the descriptor first', async (t) => {
  const folder = temporaryFolder(t);
  await ovfCreate(vmdk(folder, 1), '--out', join(folder, 'vm.ova'));
  const listed = execFileSync('tar', ['-tf', join(folder, 'vm.ova')], { encoding: 'utf8' });
  assert.deepEqual(listed.trim().split('\n'), ['vm.ovf', 'vm.mf', 'vm-disk.vmdk']);
  execFileSync('tar', ['-xf', join(folder, 'vm.ova'), '-C', folder]);
  assert.deepEqual(readFileSync(join(folder, 'vm-disk.vmdk')), readFileSync(join(folder, 'disk.vmdk')));
});

test('images that no hypervisor would import, and names that are none, are refused with what to do', async (t) => {
  const folder = temporaryFolder(t);
  const raw = join(folder, 'disk.raw');
  writeFileSync(raw, Buffer.alloc(4096));
  const flat = join(folder, 'flat.vmdk');
  writeFileSync(flat, vmdkHeader(1, 1));
  const overlay = join(folder, 'overlay.qcow2');
  const ofBackingFile = Buffer.alloc(512);
  ofBackingFile.write('QFI\xfb', 0, 'latin1');
  ofBackingFile.writeBigUInt64BE(0x200n, 8);
  writeFileSync(overlay, ofBackingFile);
  const out = ['--out', join(folder, 'vm.ovf')];
  await assert.rejects(ovfCreate(overlay, ...out), /backing file/);
  await assert.rejects(ovfCreate(raw, ...out), /qemu-img convert/);
  await assert.rejects(ovfCreate(flat, ...out), /streamOptimized/);
  await assert.rejects(ovfCreate(join(folder, 'absent'), ...out), /cannot be read/);
  await assert.rejects(ovfCreate(vmdk(folder, 1), '--out', join(folder, 'vm.iso')), /NAME\.ova/);
  await assert.rejects(ovfCreate(vmdk(folder, 1), '--out', join(folder, 'a"b.ovf')), /letters/);
});

async function descriptorOf(t: TestContext, ...more: readonly string[]): Promise<string> {
  const folder = temporaryFolder(t);
  await ovfCreate(vmdk(folder, 1), '--out', join(folder, 'vm.ovf'), ...more);
  return readFileSync(join(folder, 'vm.ovf'), 'utf8');
}

async function ovfCreate(disk: string, ...options: readonly string[]): Promise<void> {
  const { write } = process.stdout;
  process.stdout.write = () => true;
  try {
    await buildProgram().parseAsync(['ovf', 'create', disk, ...options], { from: 'user' });
  } finally {
    process.stdout.write = write;
  }
}

function vmdk(folder: string, gigabytes: number): string {
  const path = join(folder, 'disk.vmdk');
  writeFileSync(path, Buffer.concat([vmdkHeader(gigabytes, (1 << 16) | (1 << 17) | 3), Buffer.alloc(3000, 7)]));
  return path;
}

function vmdkHeader(gigabytes: number, flags: number): Buffer {
  const header = Buffer.alloc(512);
  header.write('KDMV', 0, 'latin1');
  header.writeUInt32LE(3, 4);
  header.writeUInt32LE(flags, 8);
  header.writeBigUInt64LE(BigInt(gigabytes) * 2n ** 21n, 12);
  return header;
}

function names(parent: XmlElement): string[] {
  return parent.children.flatMap((child) => (child instanceof XmlElement ? [child.name] : []));
}
