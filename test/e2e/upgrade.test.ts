/**
 * What a host goes through in its life: its agent is upgraded or crashes, its VM is rebooted, the map server is away
 * meanwhile. Budget of each story: 30 s.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { CAPABILITY } from '../../proto/capability.ts';
import { otherVersion } from '../lab/other-version.ts';
import type { Agent } from '../lab/overlay.ts';
import { startServer, Traffic, type TrafficResult } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { CLIENT_EID, VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

describe('the life of a host', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'life', internet: { roundTripMs: 1 } });
  });
  after(() => world?.close());

  it('an agent that is killed under traffic and started again loses no packet', async () => {
    const result = await underTraffic(world, async () => {
      await world.vm.daemon.kill9();
      world.vm.start();
      await world.vm.ready();
    });
    unnoticed(result);
  });

  for (const [which, capability] of [
    ['newer', CAPABILITY + 1],
    ['older', CAPABILITY - 1],
  ] as const) {
    it(`an agent that is stopped, replaced by one ${which} by one capability, and started loses no packet`, async () => {
      const main = otherVersion(join(world.lab.dir, which), capability);
      const result = await underTraffic(world, async () => {
        await world.vm.daemon.stop();
        world.vm.install(main);
        world.vm.start();
        await world.vm.ready();
      });
      unnoticed(result);
    });
  }

  it('an agent that is two capabilities away says which side to upgrade, and what is up goes on', async () => {
    const far = otherVersion(join(world.lab.dir, 'far'), CAPABILITY + 2);
    const near = otherVersion(join(world.lab.dir, 'near'), CAPABILITY);
    const result = await underTraffic(world, async () => {
      await world.vm.daemon.stop();
      world.vm.install(far);
      world.vm.start();
      await waitFor('the refusal in its status', async () => {
        const { stdout } = await world.vm.stayput(['status', '--json'], { anyExit: true });
        const { problems } = JSON.parse(stdout) as { problems: string[] };
        return problems.some((line) => /upgrade the (map server|data plane)/.test(line));
      });
      await world.vm.daemon.stop();
      world.vm.install(near);
      world.vm.start();
      await world.vm.ready();
    });
    unnoticed(result);
  });

  it('a roam while the map server is away reaches the peers, also one whose agent is restarted then', async () => {
    const { daemon } = world.overlay.mapServer;
    const result = await underTraffic(world, async () => {
      await daemon.kill9();
      await world.prepareRoam()();
      await reaches(world.client, VM_EID);
      await world.client.daemon.kill9();
      world.client.start();
      await attached(world.client);
      await reaches(world.client, VM_EID);
      await world.prepareRoam()();
      await reaches(world.client, VM_EID);
    });
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.udpDuplicated, 0);
    daemon.start();
    await world.overlay.mapServer.ready();
    await Promise.all([world.vm.ready(), world.client.ready()]);
    await waitFor('the new locator at the map server', async () => {
      const { stdout } = await world.overlay.mapServer.stayput(['mapserver', 'eids', '--json']);
      return stdout.includes(world.vm.at.address4);
    });
  });

  it('a rebooted VM is reachable at its EID, and reaches its peers, before the map server answers', async () => {
    const { daemon } = world.overlay.mapServer;
    await reaches(world.vm, CLIENT_EID);
    await cached(world.vm, CLIENT_EID);
    await daemon.kill9();
    await Promise.all([world.vm.daemon.kill9(), world.vm.dataplane.kill9()]);
    await world.vm.host.ip(['link del stayput0']);
    // In the order in which they are not meant to be started.
    world.vm.start();
    await waitFor('the agent without a data plane', async () => {
      const metrics = await world.vm.metrics();
      return metrics.get('stayput_agent_dataplane_connected') === 0;
    });
    world.vm.startDataplane();
    await attached(world.vm);
    const { stdout } = await world.vm.host.exec(['ip', '-o', 'addr', 'show', 'dev', 'stayput0']);
    assert.match(stdout, new RegExp(`\\b${VM_EID}/32`));
    await reaches(world.vm, CLIENT_EID);
    await reaches(world.client, VM_EID);
    assert.equal((await world.vm.metrics()).get('stayput_agent_map_server_connected'), 0);
    daemon.start();
    await world.overlay.mapServer.ready();
    await Promise.all([world.vm.ready(), world.client.ready()]);
  });

  it('a VM that runs on from a snapshot gives up its session keys, and its connections live', async () => {
    const age = async (): Promise<number | null> => {
      const { stdout } = await world.vm.stayput(['peers', '--json']);
      const peers = JSON.parse(stdout) as { sessionAgeMs: number | null }[];
      return peers[0]?.sessionAgeMs ?? null;
    };
    const run = async (): Promise<number> => {
      const { stdout } = await world.vm.host.exec(['cat', join(world.vm.stateDir, 'incarnation.json')]);
      return (JSON.parse(stdout) as { run: number }).run;
    };
    const before = await run();
    const result = await underTraffic(world, async () => {
      const old = (await age()) ?? 0;
      assert.ok(old > 0);
      const started = performance.now();
      await world.vm.host.exec(['perl', '-e', NEW_GENERATION]);
      await waitFor('a session that is younger than the event', async () => {
        const now = await age();
        return now !== null && now < performance.now() - started;
      });
    });
    assert.equal(result.sha256Match, true);
    assert.deepEqual([result.tcpResets, result.udpDuplicated], [0, 0]);
    await waitFor('a new run', async () => (await run()) === before + 1);
    await world.vm.ready();
  });

  it('a data plane that is up before the agent forwards as soon as the agent comes', async () => {
    await Promise.all([world.vm.daemon.kill9(), world.vm.dataplane.kill9()]);
    world.vm.startDataplane();
    await world.vm.dataplane.process.waitUntil('listening', async () => {
      const { code } = await world.vm.host.exec(['test', '-S', world.vm.dataplaneSocket], { anyExit: true });
      return code === 0;
    });
    world.vm.start();
    await world.vm.ready();
    await reaches(world.client, VM_EID);
  });
});

/**
 * The uevent of the kernel's vmgenid driver. The kernel passes what a privileged process sends it on to all listeners of
 * the network namespace, as its own.
 */
const NEW_GENERATION = `
  socket(my $kernel, 16, 3, 15) or die $!;
  my $address = pack('SSLL', 16, 0, 0, 0);
  bind($kernel, $address) or die $!;
  my $device = '/devices/platform/QEMUVGID:00';
  my $uevent = join("\\0", 'change@' . $device, 'ACTION=change', "DEVPATH=$device", 'SUBSYSTEM=platform', 'NEW_VMGENID=1', '');
  my $header = pack('LSSLL', 16 + length $uevent, 16, 1, 1, 0);
  send($kernel, $header . $uevent, 0, $address) or die $!;
`;

/** The event happens while a download, a TCP heartbeat and datagrams flow from the VM to the client and back. */
async function underTraffic(world: World, event: () => Promise<void>): Promise<TrafficResult> {
  const server = await startServer(world.vm.host, VM_EID);
  const traffic = await Traffic.start(world.client.host, {
    address: VM_EID,
    url: `http://${VM_EID}`,
    downloadBytes: 15_000_000,
    downloadRate: 3_000_000,
    datagramsPerSecond: 200,
  });
  await traffic.waitForBytes(3_000_000);
  await event();
  const result = await traffic.finish();
  await server.stop();
  return result;
}

function unnoticed(result: TrafficResult): void {
  assert.equal(result.sha256Match, true);
  assert.equal(result.tcpAlive, true);
  assert.deepEqual([result.tcpResets, result.udpLost, result.udpDuplicated], [0, 0, 0]);
}

async function reaches(from: Agent, eid: string): Promise<void> {
  await waitFor(`${from.host.name} reaches ${eid}`, async () => {
    const { code } = await from.host.exec(['ping', '-c', '1', '-W', '1', eid], { anyExit: true });
    return code === 0;
  });
}

/** To its data plane, whether or not there is a map server. */
async function attached(agent: Agent): Promise<void> {
  await agent.daemon.process.waitUntil(
    'attached to its data plane, EIDs in place',
    async () => (await agent.metrics()).get('stayput_agent_dataplane_connected') === 1,
  );
}

/** On disk, as it is after a second. */
async function cached(agent: Agent, eid: string): Promise<void> {
  await waitFor(`${eid} in the map-cache on disk`, async () => {
    const { stdout } = await agent.host.exec(['cat', join(agent.stateDir, 'map-cache.json')]);
    return stdout.includes(`${eid}/32`);
  });
}
