/**
 * Whole platforms, each as a machine on it sees it: made from the documented formats. A platform whose machines have the
 * service at several addresses has it at the first.
 */
import { type EmulatedPlatform, needing, type Route, routeTable } from './emulator.ts';

const EC2_TOKEN = 'AQAEAK-token==';

function tokenNeeded(values: Readonly<Record<string, string>>): Record<string, Route> {
  return Object.fromEntries(
    Object.entries(values).map(([path, body]) => [
      `/latest/meta-data/${path}`,
      needing('x-aws-ec2-metadata-token', EC2_TOKEN, body),
    ]),
  );
}

export const EC2_VALUES = {
  'instance-id': 'i-0123456789abcdef0',
  'local-ipv4': '172.31.5.9',
  'public-ipv4': '198.51.100.7',
  ipv6: '2a05:d018:1::9',
  mac: '02:a1:b2:c3:d4:e5',
  'placement/availability-zone': 'eu-west-1a',
  'placement/region': 'eu-west-1',
  'network/interfaces/macs/02:a1:b2:c3:d4:e5/vpc-id': 'vpc-0a1b2c3d',
  'network/interfaces/macs/02:a1:b2:c3:d4:e5/local-ipv4s': '172.31.5.9\n172.31.5.10',
  'network/interfaces/macs/02:a1:b2:c3:d4:e5/public-ipv4s': '198.51.100.7',
  'tags/instance': 'Name\nstayput.eid\nstayput.name\nstayput.other',
  'tags/instance/stayput.eid': '10.77.0.5/32',
  'tags/instance/stayput.name': 'db',
  'tags/instance/stayput.other': 'x',
  'events/maintenance/scheduled': JSON.stringify([
    {
      NotBefore: '21 Jan 2027 09:00:43 GMT',
      Code: 'system-reboot',
      Description: 'scheduled reboot',
      EventId: 'instance-event-1',
      NotAfter: '21 Jan 2027 09:17:23 GMT',
      State: 'active',
    },
    { Code: 'system-reboot', EventId: 'instance-event-0', State: 'completed' },
  ]),
  'spot/instance-action': '{"action": "terminate", "time": "2027-01-20T08:22:00Z"}',
};

export const EC2 = {
  files: { 'sys/class/dmi/id/sys_vendor': 'Amazon EC2\n', 'sys/class/dmi/id/product_name': 't3.micro\n' },
  routes: {
    '/latest/api/token': ({ method, headers }) =>
      method === 'PUT' && headers['x-aws-ec2-metadata-token-ttl-seconds'] !== undefined ? EC2_TOKEN : { status: 405 },
    ...tokenNeeded(EC2_VALUES),
    '/latest/dynamic/instance-identity/document': needing(
      'x-aws-ec2-metadata-token',
      EC2_TOKEN,
      JSON.stringify({ imageId: 'ami-0abc', instanceId: EC2_VALUES['instance-id'], region: 'eu-west-1' }),
    ),
  } as Record<string, Route>,
} satisfies EmulatedPlatform;

export function azure(publicIpAddress: string): EmulatedPlatform {
  const told = (value: unknown): Route => needing('metadata', 'true', JSON.stringify(value));
  return {
    files: { 'sys/class/dmi/id/chassis_asset_tag': '7783-7084-3265-9085-8269-3286-77\n' },
    routes: {
      '/metadata/instance?api-version=2021-08-01': told({
        compute: {
          location: 'westeurope',
          name: 'vm',
          tagsList: [{ name: 'stayput-name', value: 'db' }],
          vmId: '02aab8a4-74ef-476e-8182-f6d2ba4166a6',
          zone: '2',
        },
        network: {
          interface: [
            {
              ipv4: {
                ipAddress: [{ privateIpAddress: '10.1.0.4', publicIpAddress }],
                subnet: [{ address: '10.1.0.0', prefix: '24' }],
              },
              ipv6: { ipAddress: [{ privateIpAddress: 'fd00::4' }] },
              macAddress: '000D3A047598',
            },
          ],
        },
      }),
      '/metadata/loadbalancer?api-version=2020-10-01': told({
        loadbalancer: {
          publicIpAddresses: [{ frontendIpAddress: '198.51.100.41', privateIpAddress: '10.1.0.4' }],
          inboundRules: [],
          outboundRules: [],
        },
      }),
      '/metadata/scheduledevents?api-version=2020-07-01': told({
        DocumentIncarnation: 2,
        Events: [
          {
            EventId: 'C7061BAC',
            EventStatus: 'Scheduled',
            EventType: 'Freeze',
            ResourceType: 'VirtualMachine',
            Resources: ['vm'],
            NotBefore: 'Mon, 11 Apr 2027 22:26:58 GMT',
          },
        ],
      }),
    },
  };
}

export const GCE_TREE = '/computeMetadata/v1/instance';

export function marked(body: string): Route {
  return ({ headers }) =>
    headers['metadata-flavor'] === 'Google'
      ? { headers: { 'metadata-flavor': 'Google', etag: 'e1' }, body }
      : { status: 403 };
}

export const GCE = {
  files: { 'sys/class/dmi/id/product_name': 'Google Compute Engine\n' },
  routes: {
    [`${GCE_TREE}/id`]: marked('9007199254740993123'),
    [`${GCE_TREE}/?recursive=true&alt=json`]: marked(
      JSON.stringify({
        attributes: { 'ssh-keys': 'x', 'stayput-eid': '10.77.0.5/32' },
        id: 9007199254740992000,
        name: 'vm',
        networkInterfaces: [
          {
            accessConfigs: [{ externalIp: '198.51.100.30', type: 'ONE_TO_ONE_NAT' }],
            forwardedIps: ['198.51.100.31'],
            ip: '10.132.0.2',
            ipv6s: ['2600:1900::2'],
            mac: '42:01:0a:84:00:02',
            network: 'projects/123/networks/default',
          },
        ],
        zone: 'projects/123/zones/europe-west1-b',
      }),
    ),
    [`${GCE_TREE}/maintenance-event`]: marked('MIGRATE_ON_HOST_MAINTENANCE'),
  } as Record<string, Route>,
} satisfies EmulatedPlatform;

export const CLOUDSTACK = {
  address: '10.1.1.1',
  files: {
    'sys/class/dmi/id/product_name': 'CloudStack KVM Hypervisor\n',
    'proc/net/route': routeTable(['eth0', '0.0.0.0', '10.1.1.1', 0], ['eth0', '10.1.1.0', '0.0.0.0', 24]),
  },
  routes: {
    '/latest/meta-data/instance-id': 'i-2-40-VM',
    '/latest/meta-data/cloud-identifier': 'CloudStack-{7a1f0b6e}',
    '/latest/meta-data/availability-zone': 'zone1',
    '/latest/meta-data/local-ipv4': '10.1.1.20',
    '/latest/meta-data/public-ipv4': '198.51.100.70',
  },
} satisfies EmulatedPlatform;

export const EUCALYPTUS = {
  files: { 'sys/class/dmi/id/sys_vendor': 'QEMU\n', 'sys/class/dmi/id/bios_vendor': 'SeaBIOS\n' },
  routes: {
    '/latest/meta-data/ami-id': 'emi-0AB12345',
    '/latest/meta-data/instance-id': 'i-4F3D0123',
    '/latest/meta-data/placement/availability-zone': 'one',
    '/latest/meta-data/local-ipv4': '172.30.0.5',
    '/latest/meta-data/public-ipv4': '198.51.100.71',
  },
} satisfies EmulatedPlatform;

export const OPENSTACK_METADATA = JSON.stringify({
  uuid: 'b0fa911b-69d4-4476-bbe2-1c92bff6535c',
  name: 'vm',
  availability_zone: 'nova',
  project_id: '7f1e',
  meta: { role: 'db', 'stayput-map-server': 'https://map.example.org:4342', 'stayput.token': 'stp1.secret' },
  keys: [],
  random_seed: 'yWQ=',
});

export const OPENSTACK_NETWORKS = JSON.stringify({
  links: [{ id: 'tap1', ethernet_mac_address: 'fa:16:3e:9c:bf:3d', type: 'bridge', mtu: 1450 }],
  networks: [
    {
      id: 'network0',
      link: 'tap1',
      type: 'ipv4',
      ip_address: '10.0.0.3',
      netmask: '255.255.255.0',
      routes: [{ network: '0.0.0.0', netmask: '0.0.0.0', gateway: '10.0.0.1' }],
      network_id: 'net-1',
    },
    { id: 'network1', link: 'tap1', type: 'ipv6', ip_address: '2001:db8::3', network_id: 'net-2' },
    { id: 'network2', link: 'tap1', type: 'ipv4_dhcp', network_id: 'net-3' },
  ],
  services: [{ type: 'dns', address: '10.0.0.2' }],
});

export const OPENSTACK = {
  files: { 'sys/class/dmi/id/sys_vendor': 'OpenStack Foundation', 'sys/class/dmi/id/product_name': 'OpenStack Nova' },
  routes: {
    '/openstack/latest/meta_data.json': OPENSTACK_METADATA,
    '/openstack/latest/network_data.json': OPENSTACK_NETWORKS,
    '/latest/meta-data/instance-id': 'i-00000012',
    '/latest/meta-data/local-ipv4': '10.0.0.3',
    '/latest/meta-data/public-ipv4': '198.51.100.20',
    '/latest/meta-data/placement/availability-zone': 'nova',
  },
} satisfies EmulatedPlatform;

const told = (value: unknown): Route => needing('authorization', 'Bearer Oracle', JSON.stringify(value));

export const ORACLE = {
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
} satisfies EmulatedPlatform;

/** `active`: the reserved address leads to this droplet. */
export function digitalocean(active: boolean): EmulatedPlatform {
  return {
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
  };
}

export const HETZNER = {
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
} satisfies EmulatedPlatform;

export const VULTR = {
  files: { 'sys/class/dmi/id/sys_vendor': 'Vultr\n' },
  routes: {
    '/v1.json': JSON.stringify({
      hostname: 'vm',
      'instance-v2-id': '29bea708-2e6e-480a-90ad-0e6b5d5ad62f',
      interfaces: [
        {
          ipv4: { additional: [{ address: '198.51.100.91', netmask: '255.255.255.0' }], address: '198.51.100.90' },
          ipv6: { additional: [{ network: '2001:db8:5::', prefix: '64' }], address: '2001:db8:4::90', prefix: '64' },
          mac: '56:00:03:1b:4e:ca',
          'network-type': 'public',
        },
        {
          ipv4: { additional: [], address: '10.1.112.3', gateway: '', netmask: '255.255.240.0' },
          ipv6: { additional: [], network: '', prefix: '' },
          'network-type': 'private',
          'network-v2-id': 'fbbe2b5b-b986-4396-87f5-7246660ccb64',
        },
      ],
      region: { regioncode: 'EWR', countrycode: 'US' },
      'user-data': [],
    }),
  },
} satisfies EmulatedPlatform;

export const AKAMAI = {
  files: { 'sys/class/dmi/id/sys_vendor': 'Akamai\n' },
  routes: {
    '/v1/token': ({ method, headers }) =>
      method === 'PUT' && headers['metadata-token-expiry-seconds'] !== undefined ? 'akamai-token' : { status: 405 },
    '/v1/instance': needing(
      'metadata-token',
      'akamai-token',
      JSON.stringify({ id: 12345, label: 'vm', region: 'eu-central', tags: ['db', 'stayput-eid=10.77.0.5/32'] }),
    ),
    '/v1/network': needing(
      'metadata-token',
      'akamai-token',
      JSON.stringify({
        interfaces: [],
        ipv4: { public: ['198.51.100.95/32'], private: ['192.168.139.7/17'], shared: [] },
        ipv6: { slaac: '2001:db8:a::95/128', 'link-local': 'fe80::1/128', ranges: [] },
      }),
    ),
  } as Record<string, Route>,
} satisfies EmulatedPlatform;

export const UPCLOUD = {
  files: { 'sys/class/dmi/id/sys_vendor': 'UpCloud\n' },
  routes: {
    '/metadata/v1.json': JSON.stringify({
      cloud_name: 'upcloud',
      instance_id: '00322b68-0096-4042-9406-faad61922128',
      region: 'fi-hel2',
      network: {
        interfaces: [
          {
            index: 1,
            type: 'public',
            network_id: 'n-public',
            ip_addresses: [
              { address: '198.51.100.100', family: 'IPv4', floating: false },
              { address: '198.51.100.101', family: 'IPv4', floating: true },
            ],
          },
          { index: 2, type: 'utility', ip_addresses: [{ address: '10.6.3.27', family: 'IPv4' }] },
          { index: 4, type: 'private', network_id: 'n-private', ip_addresses: [{ address: '172.30.1.10' }] },
        ],
      },
      tags: ['stayput-name=db'],
    }),
  },
} satisfies EmulatedPlatform;

export const SCALEWAY = {
  files: { 'sys/class/dmi/id/sys_vendor': 'Scaleway\n' },
  address: '169.254.42.42',
  routes: {
    '/conf?format=json': JSON.stringify({
      id: '11111111-2222-3333-4444-555555555555',
      hostname: 'vm',
      location: { zone_id: 'fr-par-1', node_id: '5' },
      private_ip: '10.66.0.4',
      public_ip: { address: '198.51.100.105', dynamic: false, family: 'inet' },
      public_ips: [{ address: '198.51.100.105', family: 'inet' }],
      public_ips_v6: [{ address: '2001:db8:b::105', family: 'inet6' }],
      ipv6: null,
      tags: ['web', 'stayput-eid=10.77.0.5/32'],
    }),
  },
} satisfies EmulatedPlatform;

const ALIYUN_VALUES = {
  'instance-id': 'i-bp1abcdefg',
  'zone-id': 'eu-central-1a',
  'region-id': 'eu-central-1',
  'vpc-id': 'vpc-gw8',
  'private-ipv4': '192.168.0.9',
  eipv4: '198.51.100.110',
};

export const ALIYUN = {
  files: { 'sys/class/dmi/id/product_name': 'Alibaba Cloud ECS\n' },
  address: '100.100.100.200',
  routes: {
    '/latest/api/token': ({ method, headers }) =>
      method === 'PUT' && headers['x-aliyun-ecs-metadata-token-ttl-seconds'] !== undefined
        ? 'aliyun-token'
        : { status: 405 },
    ...Object.fromEntries(
      Object.entries(ALIYUN_VALUES).map(([path, body]) => [
        `/latest/meta-data/${path}`,
        needing('x-aliyun-ecs-metadata-token', 'aliyun-token', body),
      ]),
    ),
  } as Record<string, Route>,
} satisfies EmulatedPlatform;

export const EXOSCALE = {
  files: { 'sys/class/dmi/id/product_name': 'Exoscale Compute Platform\n' },
  routes: {
    '/1.0/meta-data/instance-id': 'a1b2c3',
    '/1.0/meta-data/availability-zone': 'ch-gva-2',
    '/1.0/meta-data/local-ipv4': '10.0.0.9',
    '/1.0/meta-data/public-ipv4': '198.51.100.115',
  },
} satisfies EmulatedPlatform;

/** By their names. */
export const PLATFORMS: Readonly<Record<string, EmulatedPlatform>> = {
  ec2: EC2,
  azure: azure('198.51.100.40'),
  gce: GCE,
  oracle: ORACLE,
  digitalocean: digitalocean(true),
  hetzner: HETZNER,
  vultr: VULTR,
  akamai: AKAMAI,
  upcloud: UPCLOUD,
  scaleway: SCALEWAY,
  aliyun: ALIYUN,
  exoscale: EXOSCALE,
  cloudstack: CLOUDSTACK,
  openstack: OPENSTACK,
  eucalyptus: EUCALYPTUS,
};
