/** A policy holds through a move, and whoever is away. Budget: 90 s. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Agent } from '../lab/overlay.ts';
import type { HeartbeatReport } from '../lab/traffic/heartbeat.ts';
import { startHeartbeat, startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { DB_EID, VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const POLICY = `
default deny
allow from client to db tcp 7,80
expect deny from client to vm tcp 80
`;
/** curl: failed to connect, which is said at once, where a time-out is 28. */
const REFUSED = 7;

describe('an overlay with a policy', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'policy-holds', internet: { roundTripMs: 1 }, workload: true });
    await startServer(world.db, DB_EID);
    await startServer(world.vm.host, VM_EID);
    const { mapServer } = world.overlay;
    const file = join(mapServer.host.dir, 'policy');
    writeFileSync(file, POLICY);
    await mapServer.stayput(['policy', 'apply', file]);
    for (const agent of world.overlay.agents.values()) await enforces(agent);
  });
  after(() => world?.close());

  const curl = async (url: string): Promise<number> => {
    const argv = ['curl', '-sS', '-o', '/dev/null', '--connect-timeout', '8', url];
    return (await world.client.host.exec(argv, { anyExit: true })).code;
  };
  const isEnforced = async (): Promise<void> => {
    assert.equal(await curl(`http://${DB_EID}/hello`), 0);
    assert.equal(await curl(`http://${DB_EID}:22/`), REFUSED);
    assert.equal(await curl(`http://${VM_EID}/hello`), REFUSED);
  };

  it('is enforced, and shown by each agent', async () => {
    await isEnforced();
    const { stdout } = await world.client.stayput(['status', '--json'], { anyExit: true });
    const { policy } = JSON.parse(stdout) as { policy: { version: number; default: string; denied: { out: number } } };
    assert.equal(policy.default, 'deny');
    assert.ok(policy.denied.out >= 2);
    assert.match(
      (await world.client.stayput(['status'], { anyExit: true })).stdout,
      /^Policy +version \d+\.\d+, 1 rules, otherwise deny; /m,
    );
  });

  it('leaves a connection alone whose workload moves, and is enforced at its new host', async () => {
    const heartbeat = await startHeartbeat(world.client.host, DB_EID);
    const report = () => heartbeat.lastReport<HeartbeatReport>('heartbeat');
    const move = await world.prepareMove();
    await move();
    const { here, there } = world.workload;
    await waitFor('both hosts agree', async () => {
      const [owner, former] = await Promise.all([here.eidState(DB_EID), there.eidState(DB_EID)]);
      return owner === 'live' && former !== 'live';
    });
    const before = report()?.received ?? 0;
    await heartbeat.waitUntil('echoes after the move', () => (report()?.received ?? 0) > before + 100);
    await heartbeat.stop();
    assert.deepEqual({ open: report()?.open, resets: report()?.resets }, { open: true, resets: 0 });
    await isEnforced();
  });

  it('holds while the map server is away, when agents start again and when data planes do', async () => {
    const agents = [world.client, world.workload.here];
    await world.overlay.mapServer.daemon.kill9();
    for (const agent of agents) {
      await agent.daemon.kill9();
      agent.start();
    }
    for (const agent of agents) await enforces(agent);
    await isEnforced();
    for (const agent of agents) {
      await agent.dataplane.kill9();
      agent.startDataplane();
    }
    for (const agent of agents) await enforces(agent);
    await isEnforced();
    world.overlay.mapServer.daemon.start();
    await world.overlay.mapServer.ready();
    for (const agent of agents) await agent.ready();
    await isEnforced();
  });
});

/** Its data plane has a policy. */
function enforces(agent: Agent): Promise<unknown> {
  return waitFor(`${agent.host.name} enforces a policy`, async () => {
    const metrics = await agent.metrics();
    return (metrics.get('stayput_dataplane_policy_version') ?? 0) > 0;
  });
}
