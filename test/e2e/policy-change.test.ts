/** What a policy lets through follows the commands that change it, and what it refers to, at once. Budget: 60 s. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ExecResult } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import type { Agent } from '../lab/overlay.ts';
import type { HeartbeatReport } from '../lab/traffic/heartbeat.ts';
import { startHeartbeat, startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { CLIENT_EID, VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const AT_ONCE_MS = 1_000;
/** curl: failed to connect. */
const REFUSED = 7;

describe('a policy that changes', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'rules', internet: { roundTripMs: 1, families: [4] } });
    await startServer(world.vm.host, VM_EID);
  });
  after(() => world?.close());

  const policy = (...args: string[]): Promise<ExecResult> =>
    world.overlay.mapServer.stayput(['policy', ...args], { anyExit: true });
  const apply = (...lines: string[]): Promise<ExecResult> => {
    const file = join(world.lab.dir, 'overlay.policy');
    writeFileSync(file, `${lines.join('\n')}\n`);
    return policy('apply', file);
  };
  const holds = async (...lines: string[]): Promise<void> => {
    const { code, stderr } = await apply(...lines);
    assert.equal(code, 0, stderr);
    const { version } = JSON.parse((await policy('show', '--json')).stdout) as { version: number };
    await waitFor('all agents have it', async () => {
      const agents = [...world.overlay.agents.values()];
      return (await Promise.all(agents.map(policyOf))).every((has) => Math.floor(has / 1_000_000) === version);
    });
  };
  const curl = (address: string, port: number): Promise<ExecResult> =>
    world.client.host.exec(['curl', '-sS', '--connect-timeout', '5', `http://${address}:${port}/hello`], {
      anyExit: true,
    });

  it('lets through what is allowed by name, and refuses the rest at once', async () => {
    assert.equal((await curl(VM_EID, 80)).code, 0, 'before there is any');
    await holds('default deny', 'allow from client to vm tcp 80', 'expect deny from client to vm tcp 7');
    assert.equal((await curl(VM_EID, 80)).stdout, `hello from ${VM_EID}\n`);
    assert.equal((await curl(VM_EID, 7)).code, REFUSED);
  });

  it('explains what it does', async () => {
    const allowed = await policy('explain', 'client', 'vm', '--protocol', 'tcp', '--port', '80');
    assert.equal(allowed.code, 0);
    assert.match(allowed.stdout, /line 2: allow from client to vm tcp 80/);
    const denied = await policy('explain', VM_EID, CLIENT_EID, '--protocol', 'tcp', '--port', '80');
    assert.equal(denied.code, 1);
    assert.match(denied.stdout, /deny +by default/);
  });

  it('stays as it is when a new one is not as expected', async () => {
    const refused = await apply('default allow', 'expect deny from client to vm tcp 7');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /line 2: .* it is allowed by default/);
    assert.equal((await curl(VM_EID, 7)).code, REFUSED);
  });

  it('follows the groups that agents are granted', async () => {
    await holds('default deny', 'group ops', 'allow from @ops to vm tcp 80');
    assert.equal((await curl(VM_EID, 80)).code, REFUSED);
    const { xtrId } = JSON.parse((await world.client.stayput(['status', '--json'], { anyExit: true })).stdout) as {
      xtrId: string;
    };
    await world.overlay.mapServer.stayput(['agents', 'grant', xtrId, '--group', 'ops']);
    await waitFor('the client may', async () => (await curl(VM_EID, 80)).code === 0);
    await world.overlay.mapServer.stayput(['agents', 'ungrant', xtrId, '--group', 'ops']);
    await waitFor('the client may not', async () => (await curl(VM_EID, 80)).code === REFUSED);
  });

  it('cuts a connection within a second when its rule is withdrawn', async (t) => {
    await holds('default deny', 'allow from client to vm tcp 7');
    const heartbeat = await startHeartbeat(world.client.host, VM_EID);
    await heartbeat.waitUntil('it beats', () => beats(heartbeat) > 20);
    assert.equal((await apply('default deny')).code, 0);
    await heartbeat.waitUntil('nothing comes any more', () => silence(heartbeat) > 1_500);
    const lastBeat = Date.now() - silence(heartbeat);
    await heartbeat.stop();
    const { appliedAt } = JSON.parse((await policy('show', '--json')).stdout) as { appliedAt: number };
    const lasted = lastBeat - appliedAt;
    t.diagnostic(`the last beat came ${lasted} ms after the map server took the policy, to within a report's time`);
    assert.ok(lasted < AT_ONCE_MS + REPORT_MS, `${lasted} ms`);
  });
});

async function policyOf(agent: Agent): Promise<number> {
  return (await agent.metrics()).get('stayput_agent_policy_version') ?? 0;
}

function beats(heartbeat: LabProcess): number {
  return heartbeat.lastReport<HeartbeatReport>('heartbeat')?.received ?? 0;
}

function silence(heartbeat: LabProcess): number {
  return heartbeat.lastReport<HeartbeatReport>('heartbeat')?.silentMs ?? 0;
}

/** Between two reports of the heartbeat. */
const REPORT_MS = 250;
