/**
 * Metadata services at their real addresses, asked by the real programs: each platform and each way to fail, never
 * through the tunnel, and the story of a VM whose move is announced and that wakes up in another cloud.
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { hostPrefix, parseIpAddress, prefixAddress } from '../../proto/address.ts';
import { PLATFORM_SERVICES } from '../../proto/overlay.ts';
import { Capture } from '../lab/capture.ts';
import { type Host, Lab } from '../lab/lab.ts';
import type { Agent } from '../lab/overlay.ts';
import { play } from '../lab/scenes.ts';
import { waitFor } from '../lab/wait.ts';
import { VM_EID, World } from '../lab/world.ts';
import type { Told } from '../platform/metadata-host.ts';
import { GCE_TREE, PLATFORMS } from '../platform/platforms.ts';
import { MUTE, showFigures } from './figures.ts';
import { requireLab } from './require.ts';

requireLab();

const STAYPUT = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
const SERVICE = fileURLToPath(new URL('../platform/metadata-host.js', import.meta.url));
/** Those that clouds have set aside, besides what a router has anyway. */
const ADDRESSES = ['169.254.169.254/32', '169.254.42.42/32', '100.100.100.200/32'];
const ADDRESSES_6 = ['fd00:ec2::254/128', 'fd20:ce::254/128', 'fd00:c1::a9fe:a9fe/128', 'fd00:42::42/128'];
const ADDRESSES_6_MORE = ['fd00:a9fe:a9fe::1/128', 'fe80::a9fe:a9fe/64'];

/** Of `stayput doctor platform --json`. */
interface Report {
  readonly platform: string;
  readonly detectionMs: number;
  readonly totalMs: number;
  readonly facts: { readonly instanceId: string | null; readonly locators: readonly { address: string }[] } | null;
  readonly problem: { readonly failure: string } | null;
}

/** A router that has the metadata service of a platform. */
class MetadataHost {
  private readonly host: Host;

  private constructor(host: Host) {
    this.host = host;
  }

  static async start(host: Host, networkInterface: string): Promise<MetadataHost> {
    await host.ip([
      ...ADDRESSES.map((address) => `addr add ${address} dev ${networkInterface}`),
      ...[...ADDRESSES_6, ...ADDRESSES_6_MORE].map((address) => `addr add ${address} dev ${networkInterface} nodad`),
    ]);
    const program = host.spawn('metadata', [process.execPath, SERVICE]);
    await program.waitUntil('serving', () => program.output().includes('serving'));
    return new MetadataHost(host);
  }

  async tell(told: Told): Promise<void> {
    await this.host.exec(['curl', '-sSf', '--data-binary', '@-', 'http://127.0.0.1:8080/'], {
      input: JSON.stringify(told),
    });
  }

  async requests(): Promise<readonly string[]> {
    return JSON.parse((await this.host.exec(['curl', '-sSf', 'http://127.0.0.1:8080/'])).stdout) as string[];
  }
}

/** From now on the host has the firmware of a machine of this platform. */
function becomes(host: Host, platform: string): void {
  const machine = join(host.dir, 'machine');
  const tables = join(machine, 'sys/class/dmi/id');
  mkdirSync(tables, { recursive: true });
  for (const name of ['sys_vendor', 'product_name', 'chassis_asset_tag', 'bios_vendor']) {
    writeFileSync(join(tables, name), '');
  }
  for (const [path, content] of Object.entries(PLATFORMS[platform]?.files ?? {})) {
    if (dirname(path) === 'sys/class/dmi/id') writeFileSync(join(machine, path), content);
  }
  host.machine = machine;
}

async function doctor(host: Host, platform = 'auto', env: Readonly<Record<string, string>> = {}): Promise<Report> {
  const argv = [process.execPath, STAYPUT, 'doctor', 'platform', '--json', '--platform', platform];
  return JSON.parse((await host.exec(argv, { anyExit: true, env })).stdout) as Report;
}

describe('a machine on each platform', () => {
  let lab: Lab;
  let vm: Host;
  let metadata: MetadataHost;

  before(async () => {
    lab = await Lab.create({ name: 'platform' });
    const router = await lab.host('router', { router: true });
    vm = await lab.host('vm');
    await lab.cable(router, 'lan0', vm, 'eth0');
    await router.ip(['addr add 10.1.1.1/24 dev lan0', 'addr add 2001:db8:1::1/64 dev lan0 nodad']);
    await vm.ip(['addr add 10.1.1.20/24 dev eth0', 'route add default via 10.1.1.1 dev eth0']);
    await vm.ip(['addr add 2001:db8:1::20/64 dev eth0 nodad', 'route add default via 2001:db8:1::1 dev eth0']);
    metadata = await MetadataHost.start(router, 'lan0');
  });
  after(() => lab?.close());

  /** Eucalyptus makes no mark. */
  const asked = (name: string): string => (name === 'eucalyptus' ? name : 'auto');

  it('finds it and asks it at its own address', async (t) => {
    for (const name of Object.keys(PLATFORMS)) {
      becomes(vm, name);
      await metadata.tell({ platform: name });
      const report = await doctor(vm, asked(name));
      assert.deepEqual([report.platform, report.problem], [name, null]);
      assert.notEqual(report.facts?.instanceId, null, name);
      show(t, name, report);
    }
  });

  it('ends in time when the service is silent, and says so', async (t) => {
    for (const name of ['ec2', 'gce', 'openstack', 'cloudstack', 'aliyun']) {
      becomes(vm, name);
      await metadata.tell({ platform: name, fault: 'accepts and is silent' });
      const report = await doctor(vm);
      assert.deepEqual([report.platform, report.facts, report.problem?.failure], [name, null, 'timeout']);
      show(t, `${name}, silent`, report);
    }
  });

  it('asks over IPv6 where there is no IPv4', async (t) => {
    await vm.ip(['addr del 10.1.1.20/24 dev eth0']);
    t.after(() => vm.ip(['addr add 10.1.1.20/24 dev eth0', 'route add default via 10.1.1.1 dev eth0']));
    for (const [name, host] of [
      ['ec2', '[fd00:ec2::254]'],
      ['gce', '[fd20:ce::254]'],
      ['oracle', '[fd00:c1::a9fe:a9fe]'],
      ['scaleway', '[fd00:42::42]'],
      ['akamai', '[fd00:a9fe:a9fe::1]'],
      ['openstack', '[fe80::a9fe:a9fe]'],
      ['hetzner', '[fe80::a9fe:a9fe]'],
    ] as const) {
      becomes(vm, name);
      await metadata.tell({ platform: name });
      const report = await doctor(vm);
      assert.deepEqual([report.platform, report.problem], [name, null]);
      const hosts = new Set((await metadata.requests()).map((request) => request.split(' ')[2]));
      assert.deepEqual([...hosts], [host], name);
      show(t, `${name} over IPv6`, report);
    }
  });
});

describe('a VM with an overlay of nearly everything', () => {
  let world: World;
  let a: MetadataHost;
  let b: MetadataHost;

  before(async () => {
    world = await World.build({
      name: 'platform-world',
      internet: { roundTripMs: 1 },
      prefixes: NEARLY_EVERYTHING,
      vmEids: [VM_EID, ...BESIDE].map((eid) => hostPrefix(parseIpAddress(eid))),
    });
    a = await MetadataHost.start(world.internet.cloud('a').router, 'lan0');
    b = await MetadataHost.start(world.internet.cloud('b').router, 'lan0');
    await a.tell({ platform: 'gce', routes: { [`${GCE_TREE}/maintenance-event`]: 'NONE' } });
    await b.tell({ platform: 'openstack' });
    becomes(world.vm.host, 'gce');
    await world.vm.daemon.stop();
    world.vm.configure({ maintenanceHook: hookProgram(world.vm) });
    world.vm.start();
    await world.vm.ready();
  });
  after(() => world?.close());

  it('has EIDs beside the services of platforms, which stay outside of the tunnel', async () => {
    const { host } = world.vm;
    const routeTo = async (address: string): Promise<string> =>
      / dev (\S+)/.exec((await host.exec(['ip', 'route', 'get', address], { anyExit: true })).stdout)?.[1] ?? 'none';
    for (const [prefix] of PLATFORM_SERVICES) assert.notEqual(await routeTo(prefixAddress(prefix)), 'stayput0', prefix);
    for (const address of ['100.100.100.199', '168.63.129.17', 'fd00:ec2::252', 'fd00:42::43', 'fdff::1'])
      assert.equal(await routeTo(address), 'stayput0', address);
    for (const eid of BESIDE) await world.client.host.exec(['ping', '-n', '-c', '1', '-W', '20', eid]);
    for (const address of ['http://100.100.100.200/', 'http://[fd00:ec2::254]/']) {
      const answer = ['curl', '-sS', '-o', '/dev/null', '-w', '%{http_code}', address];
      assert.match((await host.exec(answer)).stdout, /^[1-5]\d\d$/, address);
    }
  });

  it('asks nothing through the tunnel, and no proxy', async () => {
    const { host } = world.vm;
    const tunnel = await Capture.start(host, 'stayput0', { filter: 'tcp port 80 or tcp port 3128' });
    const outside = await Capture.start(host, 'eth0', { filter: 'tcp port 80' });
    const proxy = 'http://10.99.0.1:3128';
    const env = { http_proxy: proxy, HTTP_PROXY: proxy, ALL_PROXY: proxy, NODE_USE_ENV_PROXY: '1' };
    assert.equal((await doctor(host, 'auto', env)).platform, 'gce');
    for (const name of ['ec2', 'scaleway', 'aliyun', 'akamai']) await doctor(host, name, env);
    await outside.stop();
    assert.equal((await tunnel.stop()).length, PCAP_HEADER, 'nothing was captured in the tunnel');
    assert.ok(readFileSync(outside.file).length > PCAP_HEADER);
  });

  it('prepares when its move is announced, and finds itself in the other cloud, with nobody cut off', async (t) => {
    const { vm } = world;
    await waitFor('the public address of cloud a', async () => (await locators(vm)).includes('198.51.100.30'));
    await a.tell({ platform: 'gce' });
    const said = await waitFor('the announcement', async () => {
      const { maintenance } = await platformOf(vm);
      return maintenance.length > 0 ? maintenance : undefined;
    });
    assert.deepEqual(said, [{ action: 'MIGRATE_ON_HOST_MAINTENANCE', notBefore: null }]);
    const metrics = await vm.metrics();
    assert.equal(metrics.get('stayput_agent_platform_maintenance_total'), 1);
    assert.equal(metrics.get('stayput_agent_platform_maintenance_announced'), 1);
    await waitFor('the program for maintenance', () => told(vm) === 'announced gce MIGRATE_ON_HOST_MAINTENANCE\n');

    // The firmware tables stay those of Google, as after a live migration.
    const result = await play('roam', world, MUTE);
    showFigures(t, result);
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.udpDuplicated, 0);
    await waitFor('the platform of cloud b', async () => (await platformOf(vm)).name === 'openstack');
    await waitFor('its public address', async () => (await locators(vm)).includes('198.51.100.20'));
    assert.ok(!(await locators(vm)).includes('198.51.100.30'), 'that of cloud a is gone');
    const { reason, maintenance } = await platformOf(vm);
    assert.match(reason, /^its service answers here/);
    assert.deepEqual(maintenance, []);
    await waitFor('the end of the maintenance', () => told(vm).endsWith('over openstack \n'));
    const after = await vm.metrics();
    assert.equal(after.get('stayput_agent_platform_changes_total'), 1);
    assert.equal(after.get('stayput_agent_platform_maintenance_announced'), 0);
  });
});

/** Without what no overlay can have, and without the underlay of the lab. */
const NEARLY_EVERYTHING = [
  ...['10.0.0.0/8', '32.0.0.0/3', '100.64.0.0/10', '128.0.0.0/3', '160.0.0.0/5', '168.0.0.0/8', '172.0.0.0/8'],
  ...['192.0.0.0/6', '2400::/6', 'fc00::/8', 'fd00::/8'],
];
/** Next to services of platforms. */
const BESIDE = ['100.100.100.201', 'fd00:ec2::255'];
const PCAP_HEADER = 24;

function show(t: TestContext, name: string, { detectionMs, totalMs }: Report): void {
  t.diagnostic(`${name}: recognised in ${detectionMs} ms, asked in ${totalMs} ms`);
}

interface PlatformStatus {
  readonly name: string;
  readonly reason: string;
  readonly maintenance: readonly { readonly action: string; readonly notBefore: string | null }[];
}

async function statusOf(agent: Agent) {
  const { stdout } = await agent.stayput(['status', '--json'], { anyExit: true });
  return JSON.parse(stdout) as {
    readonly platform: PlatformStatus;
    readonly locators: readonly { readonly address: string }[];
  };
}

async function platformOf(agent: Agent): Promise<PlatformStatus> {
  return (await statusOf(agent)).platform;
}

async function locators(agent: Agent): Promise<readonly string[]> {
  return (await statusOf(agent)).locators.map(({ address }) => address);
}

function hookProgram({ host }: Agent): string {
  const program = join(host.dir, 'on-maintenance');
  const line = `echo "$STAYPUT_MAINTENANCE $STAYPUT_PLATFORM $STAYPUT_ACTION" >> ${join(host.dir, 'maintenance')}`;
  writeFileSync(program, `#!/bin/sh\n${line}\n`);
  chmodSync(program, 0o755);
  return program;
}

function told({ host }: Agent): string {
  const file = join(host.dir, 'maintenance');
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}
