/** Who took the tree of EC2 over: CloudStack, on its virtual router, and Eucalyptus, without any mark. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { routersOnLink } from '../../agent/platform/routers.ts';
import { addresses, type EmulatedPlatform, PlatformEmulator } from './emulator.ts';

test('CloudStack answers from the virtual router: the DHCP server, else the gateway', async (t) => {
  const lease = { 'run/systemd/netif/leases/2': 'ADDRESS=10.1.1.20\nSERVER_ADDRESS=10.1.1.2\n' };
  for (const [files, address] of [
    [{ ...CLOUDSTACK.files, ...lease }, '10.1.1.2'],
    [{ ...CLOUDSTACK.files, ...lease }, '10.1.1.1'],
    [CLOUDSTACK.files, '10.1.1.1'],
  ] as const) {
    const examination = await (await PlatformEmulator.start(t, { ...CLOUDSTACK, files, address })).examine();
    assert.equal(examination.problem, null);
    assert.equal(examination.detected.chosen.driver.name, 'cloudstack');
    assert.equal(examination.facts?.zone, 'zone1');
    assert.deepEqual(addresses(examination, 'local'), ['10.1.1.20']);
    assert.deepEqual(addresses(examination, 'public'), ['198.51.100.70']);
  }
});

test('a router is asked only where it is on a link of this host that is no tunnel', async (t) => {
  const { root } = await PlatformEmulator.start(t, {
    files: {
      'proc/net/route': routes(['eth0', '10.1.1.0', '0.0.0.0', 24], ['stayput0', '10.77.0.0', '0.0.0.0', 16]),
      'sys/class/net/stayput0/tun_flags': '0x1\n',
      'run/systemd/netif/leases/1': 'SERVER_ADDRESS=192.0.2.1\n',
      'run/systemd/netif/leases/2': 'SERVER_ADDRESS=10.77.0.1\n',
      'run/systemd/netif/leases/3': 'SERVER_ADDRESS=nonsense\n',
      'run/systemd/netif/leases/4': 'SERVER_ADDRESS=10.1.1.9\n',
    },
  });
  assert.deepEqual(routersOnLink(root), ['10.1.1.9']);
});

test('Eucalyptus is possible on any QEMU machine, and asked only when it is named', async (t) => {
  const emulator = await PlatformEmulator.start(t, EUCALYPTUS);
  const { detected } = await emulator.examine();
  assert.equal(detected.chosen.driver.name, 'kvm');
  assert.equal(detected.verdicts.find(({ driver }) => driver.name === 'eucalyptus')?.confidence, 'possible');
  assert.deepEqual(emulator.requests, []);
  const examination = await emulator.examine('eucalyptus');
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.71']);
});

test('what answers like EC2 but has no image of Eucalyptus is not Eucalyptus', async (t) => {
  const other = { ...EUCALYPTUS.routes, '/latest/meta-data/ami-id': 'ami-0abc' };
  const { facts, problem } = await (await PlatformEmulator.start(t, { ...EUCALYPTUS, routes: other })).examine(
    'eucalyptus',
  );
  assert.equal(facts, null);
  assert.equal(problem?.failure, 'malformed');
});

/** As /proc/net/route shows them. */
function routes(...list: readonly (readonly [device: string, to: string, via: string, length: number])[]): string {
  const hex = (address: string): string =>
    Buffer.from(address.split('.').map(Number)).reverse().toString('hex').toUpperCase();
  const mask = (length: number): string => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(Number((0xffff_ffffn << BigInt(32 - length)) & 0xffff_ffffn));
    return hex([...bytes].reverse().join('.'));
  };
  return [
    'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
    ...list.map(([device, to, via, length]) =>
      [device, hex(to), hex(via), via === '0.0.0.0' ? '0001' : '0003', 0, 0, 0, mask(length), 0, 0, 0].join('\t'),
    ),
  ].join('\n');
}

const CLOUDSTACK = {
  files: {
    'sys/class/dmi/id/product_name': 'CloudStack KVM Hypervisor\n',
    'proc/net/route': routes(['eth0', '0.0.0.0', '10.1.1.1', 0], ['eth0', '10.1.1.0', '0.0.0.0', 24]),
  },
  routes: {
    '/latest/meta-data/instance-id': 'i-2-40-VM',
    '/latest/meta-data/availability-zone': 'zone1',
    '/latest/meta-data/local-ipv4': '10.1.1.20',
    '/latest/meta-data/public-ipv4': '198.51.100.70',
  },
} satisfies EmulatedPlatform;

const EUCALYPTUS = {
  files: { 'sys/class/dmi/id/sys_vendor': 'QEMU\n', 'sys/class/dmi/id/bios_vendor': 'SeaBIOS\n' },
  routes: {
    '/latest/meta-data/ami-id': 'emi-0AB12345',
    '/latest/meta-data/instance-id': 'i-4F3D0123',
    '/latest/meta-data/placement/availability-zone': 'one',
    '/latest/meta-data/local-ipv4': '172.30.0.5',
    '/latest/meta-data/public-ipv4': '198.51.100.71',
  },
} satisfies EmulatedPlatform;
