/** Clouds with a document or a tree of their own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses, type EmulatedPlatform, PlatformEmulator } from './emulator.ts';
import { isoImage } from './iso-image.ts';
import { AKAMAI, ALIYUN, digitalocean, EXOSCALE, HETZNER, ORACLE, SCALEWAY, UPCLOUD, VULTR } from './platforms.ts';

interface Said {
  readonly zone?: string;
  readonly region?: string;
  readonly network?: string;
  readonly local: readonly string[];
  readonly public: readonly string[];
  readonly provisioning?: Readonly<Record<string, string>>;
}

const DIGITALOCEAN_FIXED = ['198.51.100.50', '2a03:b0c0::50'];

const CASES: readonly [what: string, name: string, platform: EmulatedPlatform, said: Said][] = [
  [
    'Oracle: the addresses of the network cards, and no public one',
    'oracle',
    ORACLE,
    {
      zone: 'qnsG:EU-FRANKFURT-1-AD-1',
      local: ['10.0.0.30', '10.0.1.30', '2603:c020::30'],
      public: [],
      provisioning: { name: 'db', eid: '10.77.0.5/32' },
    },
  ],
  [
    'DigitalOcean: public and private addresses, and the reserved one that leads here',
    'digitalocean',
    digitalocean(true),
    { region: 'fra1', local: ['10.132.255.113'], public: [...DIGITALOCEAN_FIXED, '198.51.100.51'] },
  ],
  [
    'DigitalOcean: a reserved address that leads elsewhere is none',
    'digitalocean',
    digitalocean(false),
    { local: ['10.132.255.113'], public: DIGITALOCEAN_FIXED },
  ],
  [
    'Hetzner: the public address, and those of private networks',
    'hetzner',
    HETZNER,
    { zone: 'fsn1-dc14', local: ['10.0.0.2', '192.168.0.2'], public: ['198.51.100.60'] },
  ],
  [
    'Vultr: by the kind of the network; what is no address is passed over',
    'vultr',
    VULTR,
    {
      region: 'EWR',
      network: 'fbbe2b5b-b986-4396-87f5-7246660ccb64',
      local: ['10.1.112.3'],
      public: ['198.51.100.90', '198.51.100.91', '2001:db8:4::90'],
    },
  ],
  [
    'Akamai: with a token, addresses with their prefixes, tags of the operator',
    'akamai',
    AKAMAI,
    {
      region: 'eu-central',
      local: ['192.168.139.7'],
      public: ['198.51.100.95', '2001:db8:a::95'],
      provisioning: { eid: '10.77.0.5/32' },
    },
  ],
  [
    'UpCloud: public, utility and private networks',
    'upcloud',
    UPCLOUD,
    {
      region: 'fi-hel2',
      network: 'n-private',
      local: ['10.6.3.27', '172.30.1.10'],
      public: ['198.51.100.100', '198.51.100.101'],
      provisioning: { name: 'db' },
    },
  ],
  [
    'Scaleway, at an address of its own',
    'scaleway',
    SCALEWAY,
    {
      zone: 'fr-par-1',
      region: 'fr-par',
      local: ['10.66.0.4'],
      public: ['198.51.100.105', '2001:db8:b::105'],
      provisioning: { eid: '10.77.0.5/32' },
    },
  ],
  [
    'Alibaba Cloud, with a token, at an address that is not link-local',
    'aliyun',
    ALIYUN,
    {
      zone: 'eu-central-1a',
      region: 'eu-central-1',
      network: 'vpc-gw8',
      local: ['192.168.0.9'],
      public: ['198.51.100.110'],
    },
  ],
  [
    'Exoscale: the first version of the tree',
    'exoscale',
    EXOSCALE,
    { zone: 'ch-gva-2', local: ['10.0.0.9'], public: ['198.51.100.115'] },
  ],
];

for (const [what, name, platform, said] of CASES) {
  test(what, async (t) => {
    const examination = await (await PlatformEmulator.start(t, platform)).examine();
    const { detected, facts, problem } = examination;
    assert.equal(problem, null);
    assert.equal(detected.chosen.driver.name, name);
    assert.notEqual(facts?.instanceId, null);
    for (const field of ['zone', 'region', 'network'] as const) {
      if (said[field] !== undefined) assert.equal(facts?.[field], said[field]);
    }
    assert.deepEqual(addresses(examination, 'local'), said.local);
    assert.deepEqual(addresses(examination, 'public'), said.public);
    assert.deepEqual(facts?.provisioning, said.provisioning ?? {});
    assert.deepEqual(facts?.refused, []);
  });
}

test('a NoCloud seed: plain lines of its meta-data, as of the boot', async (t) => {
  const seed = isoImage({
    'meta-data':
      'instance-id: "vm-1"\nlocal-hostname: vm\nstayput-eid: 10.77.0.5/32 \nnested:\n  stayput-name: no\n' +
      `blank:${' '.repeat(50_000)}-${' '.repeat(50_000)}x\n`,
    'user-data': '#cloud-config\n',
  });
  const emulator = await PlatformEmulator.start(t, {
    files: { 'dev/disk/by-label/cidata': seed, 'sys/class/dmi/id/sys_vendor': 'QEMU\n' },
  });
  const { detected, facts, problem } = await emulator.examine();
  assert.equal(problem, null);
  assert.equal(detected.chosen.driver.name, 'nocloud');
  assert.equal(facts?.instanceId, 'vm-1');
  assert.equal(facts?.asOf, 'boot');
  assert.deepEqual(facts?.provisioning, { eid: '10.77.0.5/32' });
});
