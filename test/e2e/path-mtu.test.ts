/**
 * Paths that become narrower or wider without a word (ICMP is filtered everywhere), and what a packet's outer header
 * says and brings back. A stall is what a user would see: a download that makes no progress.
 */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Capture } from '../lab/capture.ts';
import type { Host } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import type { Agent } from '../lab/overlay.ts';
import { increase, waitForIncrease } from '../lab/overlay.ts';
import { sha256OfBytes } from '../lab/traffic/bytes.ts';
import { sha256OfFile, startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { CLIENT_EID, VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const BLACK_HOLES = /^stayput_dataplane_path_mtu_black_holes_total/;
/** TCP's own timer doubles from 200 ms while the black hole is being found. */
const LONGEST_STALL_MS = 3000;
/** Octets a second, for which full packets are needed all the time. */
const RATE = 4_000_000;

for (const family of [4, 6] as const) {
  const largest = family === 4 ? 1480 : 1500;

  describe(`an underlay of IPv${family} in which no router says anything`, () => {
    let world: World;

    before(async () => {
      world = await World.build({ name: `pmtu${family}`, internet: { families: [family] } });
      await Promise.all(routers(world).map((router) => sayNothing(router, family)));
    });
    after(() => world?.close());

    it('does not stall a download when the path becomes narrower, and uses it when it is wide again', async (t) => {
      const download = await Download.start(world, 20 * RATE);
      await pathMtu(world.vm, (mtu) => mtu === largest);
      const before = await world.vm.metrics();
      await widthOf(world, 'c', 1400);
      await pathMtu(world.vm, (mtu) => mtu > 1280 && mtu <= 1400);
      assert.equal(increase(before, await world.vm.metrics(), BLACK_HOLES), 1);
      await download.waitForMore(RATE);
      await widthOf(world, 'c', 1500);
      await pathMtu(world.vm, (mtu) => mtu === largest);
      const stall = await download.finish();
      t.diagnostic(`longest stall ${stall} ms`);
      assert.ok(stall < LONGEST_STALL_MS, `stalled for ${stall} ms`);
    });

    it('does not stall a download when the sender roams to a path of 1280', async (t) => {
      await widthOf(world, 'b', 1280);
      const download = await Download.start(world, 4 * RATE);
      await download.waitForMore(RATE / 2);
      await world.prepareRoam()();
      await download.waitForMore(RATE);
      await pathMtu(world.vm, (mtu) => mtu >= 1272 && mtu <= 1280);
      const stall = await download.finish();
      t.diagnostic(`longest stall ${stall} ms`);
      assert.ok(stall < LONGEST_STALL_MS, `stalled for ${stall} ms`);
    });
  });
}

describe('an underlay that begins to take 9000 octets', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'jumbo', internet: { families: [4] }, agentConfig: { mtu: 8900 } });
  });
  after(() => world?.close());

  it('carries inner packets of 1440 octets before, and of 8900 after', async () => {
    const { vm, client, internet, lab } = world;
    await (await Download.start(world, RATE)).finish();
    await pathMtu(vm, (mtu) => mtu > 1492 && mtu <= 1500);
    const wires = await lab.wires.exec(['ip', '-j', 'link']);
    const names = (JSON.parse(wires.stdout) as { ifname: string }[]).map(({ ifname }) => ifname);
    await lab.wires.ip(names.filter((name) => name !== 'lo').map((name) => `link set ${name} mtu 9000`));
    for (const cloud of ['a', 'c']) {
      await internet.cloud(cloud).router.ip(['link set lan0 mtu 9000']);
      await widthOf(world, cloud, 9000);
    }
    // The VM last: who has been told of a limit remembers it for minutes.
    for (const { host } of [client, vm]) await host.ip(['link set eth0 mtu 9000']);
    const ping = ['ping', '-c1', '-W1', '-M', 'do', '-s', String(8900 - 28), CLIENT_EID];
    await waitFor('a ping of 8900 octets', async () => (await vm.host.exec(ping, { anyExit: true })).code === 0);
    await pathMtu(vm, (mtu) => mtu === 8960);
    await (await Download.start(world, RATE)).finish();
  });
});

describe('an underlay that speaks', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'icmp', internet: { families: [4] } });
  });
  after(() => world?.close());

  it('is heard and verified when it says that packets are too big, or that nobody listens', async () => {
    const { vm, client } = world;
    const download = await Download.start(world, 4 * RATE);
    await pathMtu(vm, (mtu) => mtu === 1480);
    const before = await vm.metrics();
    await widthOf(world, 'c', 1333);
    await pathMtu(vm, (mtu) => mtu === 1333);
    await widthOf(world, 'c', 1500);
    await download.finish();
    assert.ok(increase(before, await vm.metrics(), /^stayput_dataplane_outer_icmp_too_big_total/) > 0);
    await client.dataplane.kill9();
    await vm.host.exec(['ping', '-c1', '-W1', CLIENT_EID], { anyExit: true });
    await waitForIncrease('unreachable', () => vm.metrics(), before, /^stayput_dataplane_outer_icmp_unreachable_total/);
    assert.equal(increase(before, await vm.metrics(), /^stayput_dataplane_drops_total\{.*send_error/), 0);
    client.startDataplane();
    await client.ready();
    await vm.host.exec(['ping', '-c3', '-i0.2', '-W2', CLIENT_EID]);
  });

  it('shares DSCP and TTL: three routers on the way are three hops for the packet inside', async () => {
    const { vm, client } = world;
    await client.host.exec(['ping', '-c1', '-W2', VM_EID]);
    const outer = await Capture.start(client.host, 'eth0', { filter: 'udp port 4341' });
    const inner = await Capture.start(vm.host, 'stayput0', { filter: 'icmp' });
    await client.host.exec(['ping', '-c1', '-W2', '-t', '37', '-Q', '0xb8', VM_EID]);
    await outer.stop();
    await inner.stop();
    const wire = await fields(client.host, outer, `ip.src == ${client.at.address4} and udp.length > 100`);
    assert.deepEqual(wire, ['37 0xb8']);
    assert.deepEqual(await fields(vm.host, inner, 'icmp.type == 8'), ['34 0xb8']);
  });

  it('brings the mark of a congested router to the sender of a TCP connection', async () => {
    const { vm, client, internet } = world;
    for (const { host } of [vm, client]) await host.sysctl([['net/ipv4/tcp_ecn', '1']]);
    const mark = [
      '-m',
      'ecn',
      '--ecn-ip-ect',
      '2',
      '-m',
      'statistic',
      '--mode',
      'nth',
      '--every',
      '20',
      '--packet',
      '0',
    ];
    await internet.core.exec([
      ...['iptables', '-t', 'mangle', '-A', 'FORWARD', '-o', 'to-c', ...mark],
      ...['-j', 'TOS', '--set-tos', '0x03/0x03'],
    ]);
    const before = await client.metrics();
    await (await Download.start(world, RATE)).finish();
    await waitForIncrease('marks', () => client.metrics(), before, /^stayput_dataplane_congestion_marks_total/);
    const { stdout } = await vm.host.exec(['nstat', '-asz', 'TcpExtTCPDeliveredCE']);
    assert.match(stdout, /TCPDeliveredCE\s+[1-9]/);
    assert.equal(increase(before, await client.metrics(), /^stayput_dataplane_drops_total\{.*congestion/), 0);
  });
});

/** The client downloads from the VM by curl; how long it went without progress is watched. */
class Download {
  private readonly file: string;
  private readonly curl: LabProcess;
  private readonly server: LabProcess;
  private readonly size: number;
  private readonly watch: NodeJS.Timeout;
  private longest = 0;
  private last = { bytes: 0, at: performance.now() };

  private constructor(client: Host, server: LabProcess, size: number) {
    this.file = join(client.dir, `download-${Math.round(performance.now())}`);
    this.server = server;
    this.size = size;
    const url = `http://${VM_EID}/bytes?size=${size}&rate=${RATE}`;
    this.curl = client.spawn('curl', ['curl', '-sS', '--no-buffer', '-o', this.file, url]);
    this.watch = setInterval(() => this.look(), 20);
  }

  static async start(world: World, size: number): Promise<Download> {
    const server = await startServer(world.vm.host, VM_EID);
    const download = new Download(world.client.host, server, size);
    await download.waitForMore(1);
    return download;
  }

  async waitForMore(bytes: number): Promise<void> {
    const enough = this.last.bytes + bytes;
    await waitFor(`${bytes} more octets`, () => this.last.bytes >= enough, {
      unless: () => (this.curl.running ? undefined : `curl has ended: ${this.curl.output()}`),
    });
  }

  /** The longest time without progress, in milliseconds. */
  async finish(): Promise<number> {
    const limit = setTimeout(() => this.curl.signal('SIGKILL'), 60_000);
    const { code } = await this.curl.exited;
    clearTimeout(limit);
    this.look();
    clearInterval(this.watch);
    await this.server.stop();
    assert.equal(code, 0, this.curl.output());
    assert.equal(sha256OfFile(this.file), sha256OfBytes(this.size));
    return Math.round(this.longest);
  }

  private look(): void {
    const bytes = statSync(this.file, { throwIfNoEntry: false })?.size ?? 0;
    if (bytes === this.last.bytes) return;
    const now = performance.now();
    if (this.last.bytes > 0) this.longest = Math.max(this.longest, now - this.last.at);
    this.last = { bytes, at: now };
  }
}

function routers(world: World): Host[] {
  return [world.internet.core, ...['a', 'b', 'c'].map((cloud) => world.internet.cloud(cloud).router)];
}

/** What a router would say itself is not routed: no ICMP errors. */
function sayNothing(router: Host, family: 4 | 6): Promise<unknown> {
  return router.exec(['ip', `-${family}`, 'rule', 'add', 'pref', '10', 'iif', 'lo', 'blackhole']);
}

/** Sets the MTU between a cloud and the core, at both ends of the cable. */
async function widthOf(world: World, cloud: string, mtu: number): Promise<void> {
  await Promise.all([
    world.internet.core.ip([`link set to-${cloud} mtu ${mtu}`]),
    world.internet.cloud(cloud).router.ip([`link set wan0 mtu ${mtu}`]),
  ]);
}

/** Waits until the agent's path to the client's agent has such an MTU. */
function pathMtu(agent: Agent, fits: (mtu: number) => boolean): Promise<unknown> {
  return waitFor('the path MTU', async () => {
    const { stdout } = await agent.stayput(['peers', '--json']);
    const peers = JSON.parse(stdout) as { eids: string[]; pathMtu: number }[];
    const client = peers.find((peer) => peer.eids.some((eid) => eid.startsWith(CLIENT_EID)));
    if (client === undefined || !fits(client.pathMtu)) throw new Error(`it is ${client?.pathMtu}`);
    return true;
  });
}

/** TTL and DSCP with ECN of the outermost header. */
async function fields(host: Host, capture: Capture, filter: string): Promise<string[]> {
  const { stdout } = await host.exec([
    ...['tshark', '-n', '-r', capture.file, '-Y', filter, '-T', 'fields', '-E', 'separator= ', '-E', 'occurrence=f'],
    ...['-e', 'ip.ttl', '-e', 'ip.dsfield'],
  ]);
  return stdout.trim().split('\n');
}
