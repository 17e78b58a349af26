/** Who took the tree of EC2 over: CloudStack, on its virtual router, and Eucalyptus, without any mark. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { CLOUDSTACK as DRIVER } from '../../agent/platform/cloudstack.ts';
import { openAccess } from '../../agent/platform/examination.ts';
import { readLocalFacts } from '../../agent/platform/local-facts.ts';
import { routersOnLink } from '../../agent/platform/routers.ts';
import { addresses, PlatformEmulator, routeTable } from './emulator.ts';
import { CLOUDSTACK, EUCALYPTUS } from './platforms.ts';

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

test('CloudStack: the routers are asked at once, and the DHCP server is believed before the gateway', async (t) => {
  const lease = { 'run/systemd/netif/leases/2': 'ADDRESS=10.1.1.20\nSERVER_ADDRESS=10.1.1.2\n' };
  const { root } = await PlatformEmulator.start(t, { files: { ...CLOUDSTACK.files, ...lease } });
  const serve = async (answer: (response: ServerResponse) => void): Promise<number> => {
    const server = createServer((_, response) => answer(response)).listen(0, '127.0.0.1');
    t.after(() => server.close());
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  let gatewayAsked = (): void => undefined;
  const bothAsked = new Promise<void>((resolve) => {
    gatewayAsked = resolve;
  });
  const ports = new Map([
    ['10.1.1.2', await serve((response) => void bothAsked.then(() => response.end('i-of-dhcp-server')))],
    [
      '10.1.1.1',
      await serve((response) => {
        gatewayAsked();
        response.end('i-of-gateway');
      }),
    ],
  ]);
  const reach = (address: string) => [{ host: '127.0.0.1', port: ports.get(address) ?? assert.fail(address) }];
  const { access, close } = openAccess(root, readLocalFacts(root), reach);
  t.after(close);
  assert.equal((await DRIVER.read(access)).instanceId, 'i-of-dhcp-server');
});

test('a router is asked only where it is on a link of this host that is no tunnel', async (t) => {
  const { root } = await PlatformEmulator.start(t, {
    files: {
      'proc/net/route': routeTable(['eth0', '10.1.1.0', '0.0.0.0', 24], ['stayput0', '10.77.0.0', '0.0.0.0', 16]),
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
