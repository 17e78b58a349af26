/**
 * Hosts with several locators: silence on one of them, an uplink that is dead although its link is up, a link without
 * carrier, one that flaps, and a change from IPv4 to IPv6. Gaps are of a ping every 10 ms; the limits leave room for a
 * busy machine, the figures are printed.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import type { Uplink } from '../lab/internet.ts';
import type { Host } from '../lab/lab.ts';
import { type Agent, increase, type Metrics, waitForIncrease } from '../lab/overlay.ts';
import { waitFor } from '../lab/wait.ts';
import { VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const FAILOVERS = /^stayput_dataplane_path_failovers_total/;
const UPLINK_FAILURES = /^stayput_dataplane_uplink_failures_total/;
const PROBES = /^stayput_dataplane_probes_sent_total/;
const LAST_RESORT = 254;
const LONGEST_GAP_MS = 2000;

describe('a VM with two uplinks', () => {
  let world: World;
  let second: Uplink;

  before(async () => {
    world = await World.build({ name: 'uplinks', internet: { families: [4], roundTripMs: 1 } });
    second = await world.internet.addUplink(world.vm.at, 'b');
    await locatorsOf(world.vm, 2);
  });
  after(() => world?.close());

  for (const direction of ['in', 'out', 'both'] as const) {
    it(`leaves an uplink that loses everything in silence (${direction}), and does not come back too early`, async (t) => {
      const ping = await Pinging.start(world.client.host);
      const inUse = (await endpointSeen(world.client)) === second.address4 ? second.address4 : world.vm.at.address4;
      const before = await metricsOf(world);
      const silence = world.internet.prepareSilence(inUse, direction);
      await silence.begin();
      await waitForIncrease('a failover', () => metricsOf(world), before, FAILOVERS);
      await ping.waitForMore(50);
      assert.notEqual(await endpointSeen(world.client), inUse);
      const gap = await ping.stop();
      t.diagnostic(`silence (${direction}): gap ${gap} ms`);
      assert.ok(gap <= LONGEST_GAP_MS, `gap of ${gap} ms`);
      await silence.end();
      await locatorsOf(world.vm, 2);
    });
  }

  it('registers an uplink through which nobody answers as the last resort, until somebody does', async () => {
    const ping = await Pinging.start(world.client.host);
    const inUse = await endpointSeen(world.client);
    const before = await metricsOf(world);
    const silence = world.internet.prepareSilence(inUse, 'both');
    await silence.begin();
    await waitForIncrease('an uplink found dead', () => metricsOf(world), before, UPLINK_FAILURES);
    assert.ok(!(await locatorsOf(world.vm, 1)).includes(inUse));
    await silence.end();
    assert.ok((await locatorsOf(world.vm, 2)).includes(inUse));
    await ping.stop();
  });

  it('goes on by the other uplink when the first has no carrier and the kernel keeps its route', async (t) => {
    const { port } = world.vm.at.plug;
    const gap = await gapDuring(world, async () => {
      await world.lab.wires.ip([`link set ${port} down`]);
      await endpointBecomes(world.client, second.address4);
    });
    report(t, 'no carrier', gap);
    await world.lab.wires.ip([`link set ${port} up`]);
    await locatorsOf(world.vm, 2);
  });

  it('goes on by the other uplink when the address of the first is taken away', async (t) => {
    const { host, address4, cloud } = world.vm.at;
    const gap = await gapDuring(world, async () => {
      await host.ip([`addr del ${address4}/24 dev eth0`]);
      await endpointBecomes(world.client, second.address4);
    });
    report(t, 'address gone', gap);
    await host.ip([`addr add ${address4}/24 dev eth0`, `route add default via ${cloud.prefix4}.1 dev eth0`]);
    await locatorsOf(world.vm, 2);
  });

  it('works at once after a link has flapped five times, without a storm', async (t) => {
    const { host, cloud } = world.vm.at;
    const before = await metricsOf(world);
    const started = performance.now();
    const gap = await gapDuring(world, async () => {
      for (let i = 0; i < 5; i++) {
        await host.ip(['link set eth0 down']);
        await host.ip(['link set eth0 up', `route add default via ${cloud.prefix4}.1 dev eth0`]);
      }
    });
    const seconds = (performance.now() - started) / 1000;
    report(t, 'flapping', gap);
    const probes = increase(before, await metricsOf(world), PROBES);
    assert.ok(probes <= 200 * (seconds + 1), `${probes} probes in ${seconds.toFixed(1)} s`);
  });
});

describe('a VM with IPv4 and IPv6', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'families', internet: { families: [4, 6], roundTripMs: 1 } });
  });
  after(() => world?.close());

  it('goes on by IPv6 without IPv4, and by IPv4 without IPv6', async (t) => {
    const { host, cloud, address4, address6 } = world.vm.at;
    const four = [`addr add ${address4}/24 dev eth0`, `route add default via ${cloud.prefix4}.1 dev eth0`];
    const withoutFour = await gapDuring(world, async () => {
      await host.ip([`addr del ${address4}/24 dev eth0`]);
      await endpointBecomes(world.client, address6);
    });
    report(t, 'IPv4 to IPv6', withoutFour);
    // The default route of IPv6 stays behind, dead.
    const withoutSix = await gapDuring(world, async () => {
      await host.ip([`addr del ${address6}/64 dev eth0`, ...four]);
      await endpointBecomes(world.client, address4);
    });
    report(t, 'IPv6 to IPv4', withoutSix);
  });
});

/** Pings the VM from the client every 10 ms. */
class Pinging {
  private readonly process: ReturnType<Host['spawn']>;

  private constructor(client: Host) {
    this.process = client.spawn('ping', ['ping', '-n', '-D', '-i', '0.01', '-W', '1', VM_EID]);
  }

  static async start(client: Host): Promise<Pinging> {
    const ping = new Pinging(client);
    await ping.waitForMore(50);
    return ping;
  }

  async waitForMore(answers: number): Promise<void> {
    const wanted = this.arrivals().length + answers;
    await waitFor(`${answers} more answers`, () => this.arrivals().length >= wanted);
  }

  /** The longest time between two answers, in milliseconds. */
  async stop(): Promise<number> {
    await this.process.stop();
    const times = this.arrivals();
    assert.ok(times.length > 1);
    return Math.round(Math.max(...times.slice(1).map((at, i) => at - (times[i] ?? at))) * 1000);
  }

  private arrivals(): number[] {
    return [...this.process.output().matchAll(/^\[(\d+\.\d+)\] .*time=/gm)].map(([, seconds]) => Number(seconds));
  }
}

async function gapDuring(world: World, event: () => Promise<void>): Promise<number> {
  const ping = await Pinging.start(world.client.host);
  await event();
  await ping.waitForMore(50);
  return ping.stop();
}

function report(t: TestContext, what: string, gap: number): void {
  t.diagnostic(`${what}: gap ${gap} ms`);
  assert.ok(gap <= LONGEST_GAP_MS, `${what}: gap of ${gap} ms`);
}

/** Of both ends: either may be the one that notices. */
async function metricsOf(world: World): Promise<Metrics> {
  const sum = new Map(await world.vm.metrics());
  for (const [name, value] of await world.client.metrics()) sum.set(name, (sum.get(name) ?? 0) + value);
  return sum;
}

async function endpointSeen(agent: Agent): Promise<string> {
  const peers = JSON.parse((await agent.stayput(['peers', '--json'])).stdout) as PeerLine[];
  const busiest = peers.toSorted((a, b) => b.txBytes - a.txBytes)[0];
  assert.ok(busiest?.endpoint);
  return busiest.endpoint.address;
}

function endpointBecomes(agent: Agent, address: string): Promise<unknown> {
  return waitFor(`endpoint ${address}`, async () => (await endpointSeen(agent)) === parseIpAddress(address));
}

/** Those that are not the last resort. */
async function locatorsOf(agent: Agent, count: number): Promise<readonly string[]> {
  return await waitFor(`${count} locators`, async () => {
    const status = JSON.parse((await agent.stayput(['status', '--json'], { anyExit: true })).stdout) as StatusReply;
    const addresses = status.locators.flatMap(({ address, priority }) => (priority < LAST_RESORT ? [address] : []));
    return addresses.length === count ? addresses : undefined;
  });
}

interface PeerLine {
  readonly endpoint: { readonly address: string } | null;
  readonly txBytes: number;
}

interface StatusReply {
  readonly locators: readonly { readonly address: string; readonly priority: number }[];
}
