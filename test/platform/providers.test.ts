/** Clouds with one document each: Oracle, DigitalOcean, Hetzner. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses, needing, PlatformEmulator } from './emulator.ts';

test('Oracle: the addresses of the network cards, and no public one', async (t) => {
  const told = (value: unknown) => needing('authorization', 'Bearer Oracle', JSON.stringify(value));
  const emulator = await PlatformEmulator.start(t, {
    files: { 'sys/class/dmi/id/chassis_asset_tag': 'OracleCloud.com\n' },
    routes: {
      '/opc/v2/instance/': told({
        availabilityDomain: 'qnsG:EU-FRANKFURT-1-AD-1',
        canonicalRegionName: 'eu-frankfurt-1',
        freeformTags: { 'stayput.name': 'db', costs: 7 },
        id: 'ocid1.instance.oc1.eu-frankfurt-1.abc',
        metadata: { ssh_authorized_keys: 'ssh-rsa AAAA', 'stayput-eid': '10.77.0.5/32' },
        region: 'eu-frankfurt-1',
      }),
      '/opc/v2/vnics/': told([
        { macAddr: '02:00:17:05:ea:1e', privateIp: '10.0.0.30', subnetCidrBlock: '10.0.0.0/24', vlanTag: 3470 },
        { privateIp: '10.0.1.30', ipv6Addresses: ['2603:c020::30'] },
      ]),
    },
  });
  const examination = await emulator.examine();
  assert.equal(examination.problem, null);
  assert.equal(examination.detected.chosen.driver.name, 'oracle');
  assert.equal(examination.facts?.zone, 'qnsG:EU-FRANKFURT-1-AD-1');
  assert.deepEqual(addresses(examination, 'local'), ['10.0.0.30', '10.0.1.30', '2603:c020::30']);
  assert.deepEqual(addresses(examination, 'public'), []);
  assert.deepEqual(examination.facts?.provisioning, { name: 'db', eid: '10.77.0.5/32' });
});

test('DigitalOcean: public and private addresses, and the reserved one while it leads here', async (t) => {
  for (const active of [true, false]) {
    const emulator = await PlatformEmulator.start(t, {
      files: { 'sys/class/dmi/id/sys_vendor': 'DigitalOcean\n' },
      routes: {
        '/metadata/v1.json': JSON.stringify({
          droplet_id: 2756294,
          hostname: 'vm',
          region: 'fra1',
          interfaces: {
            public: [
              {
                ipv4: { ip_address: '198.51.100.50', netmask: '255.255.240.0', gateway: '198.51.100.1' },
                ipv6: { ip_address: '2A03:B0C0::50', cidr: 64, gateway: '2A03:B0C0::1' },
                anchor_ipv4: { ip_address: '10.19.0.5' },
                mac: '04:01:2a:0f:2a:01',
                type: 'public',
              },
            ],
            private: [{ ipv4: { ip_address: '10.132.255.113' }, type: 'private' }],
          },
          reserved_ip: { ipv4: active ? { active, ip_address: '198.51.100.51' } : { active } },
        }),
      },
    });
    const examination = await emulator.examine();
    assert.equal(examination.problem, null);
    assert.equal(examination.facts?.instanceId, '2756294');
    assert.deepEqual(addresses(examination, 'local'), ['10.132.255.113']);
    const fixed = ['198.51.100.50', '2a03:b0c0::50'];
    assert.deepEqual(addresses(examination, 'public'), active ? [...fixed, '198.51.100.51'] : fixed);
  }
});

test('Hetzner: the public address, and those of private networks', async (t) => {
  const emulator = await PlatformEmulator.start(t, {
    files: { 'sys/class/dmi/id/sys_vendor': 'Hetzner\n' },
    routes: {
      '/hetzner/v1/metadata/instance-id': '42',
      '/hetzner/v1/metadata/availability-zone': 'fsn1-dc14',
      '/hetzner/v1/metadata/region': 'eu-central',
      '/hetzner/v1/metadata/public-ipv4': '198.51.100.60',
      '/hetzner/v1/metadata/private-networks': [
        '- ip: 10.0.0.2',
        '  alias_ips: [10.0.0.3, 10.0.0.4]',
        '  interface_num: 1',
        '  mac_address: 86:00:00:2a:7d:e0',
        '  network_id: 1234',
        '  subnet: 10.0.0.0/24',
        '- ip: 192.168.0.2',
        '  gateway: 192.168.0.1',
      ].join('\n'),
    },
  });
  const examination = await emulator.examine();
  assert.equal(examination.problem, null);
  assert.equal(examination.facts?.zone, 'fsn1-dc14');
  assert.deepEqual(addresses(examination, 'public'), ['198.51.100.60']);
  assert.deepEqual(addresses(examination, 'local'), ['10.0.0.2', '192.168.0.2']);
});
