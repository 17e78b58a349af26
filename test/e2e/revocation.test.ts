/** An agent is revoked while it talks to others: how long it can go on, and that it does not come back. Budget: 40 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Agent } from '../lab/overlay.ts';
import { waitFor } from '../lab/wait.ts';
import { VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const AT_ONCE_MS = 1_000;

describe('an agent that is revoked', () => {
  let world: World;
  let xtrId: string;

  before(async () => {
    world = await World.build({ name: 'revoke', internet: { roundTripMs: 1, families: [4] } });
    xtrId = (await status(world.vm)).xtrId;
  });
  after(() => world?.close());

  it('is cut off from its peers within a second, while they go on', async (t) => {
    const { client, vm, overlay } = world;
    const ping = client.host.spawn('ping', ['ping', '-n', '-D', '-i', '0.02', VM_EID]);
    await waitFor('the vm answers', () => replies(ping.output()).length > 20);
    const revokedAt = Date.now();
    const { stdout } = await overlay.mapServer.stayput(['agents', 'revoke', xtrId, '--json']);
    assert.equal((JSON.parse(stdout) as { state: string }).state, 'revoked');
    await waitFor('its tunnel is gone at the client', async () => !(await peersOf(client)).includes(await keyOf(vm)));
    ping.signal('SIGINT');
    await ping.exited;
    const lasted = Math.max(...replies(ping.output())) - revokedAt;
    t.diagnostic(`the last answer came ${lasted} ms after the command to revoke was started`);
    // The command's own start is part of it.
    assert.ok(lasted < AT_ONCE_MS, `${lasted} ms`);
    assert.ok((await client.metrics()).get('stayput_agent_refused_total{what="revoked-peer"}') === 1);
  });

  it('has no session with the map server any more, and says why', async () => {
    const { vm } = world;
    await waitFor('the vm knows', async () => /revoked/.test((await status(vm)).mapServer.problem ?? ''));
  });

  it('is refused by a map server that was restarted, and cannot reach the client with the keys that it has', async () => {
    const { client, vm, overlay } = world;
    await overlay.mapServer.daemon.kill9();
    overlay.mapServer.daemon.start();
    await overlay.mapServer.ready();
    await waitFor('the client is connected again', async () => (await status(client)).mapServer.connected);
    const { stdout } = await overlay.mapServer.stayput(['agents', 'list', '--json']);
    const listed = (JSON.parse(stdout) as { xtrId: string; state: string }[]).find((each) => each.xtrId === xtrId);
    assert.equal(listed?.state, 'revoked');
    const { code } = await vm.host.exec(['ping', '-c', '3', '-i', '0.2', '-W', '1', '10.77.0.1'], { anyExit: true });
    assert.notEqual(code, 0);
    assert.equal((await peersOf(client)).includes(await keyOf(vm)), false);
  });
});

interface Status {
  readonly xtrId: string;
  readonly tunnelKey: string;
  readonly mapServer: { readonly connected: boolean; readonly problem: string | null };
}

async function status(agent: Agent): Promise<Status> {
  return JSON.parse((await agent.stayput(['status', '--json'], { anyExit: true })).stdout) as Status;
}

async function keyOf(agent: Agent): Promise<string> {
  return (await status(agent)).tunnelKey;
}

async function peersOf(agent: Agent): Promise<string[]> {
  const { stdout } = await agent.stayput(['peers', '--json']);
  return (JSON.parse(stdout) as { publicKey: string }[]).map(({ publicKey }) => publicKey);
}

/** When answers came, in milliseconds since 1970. */
function replies(output: string): number[] {
  return [...output.matchAll(/^\[(\d+\.\d+)\] .* bytes from/gm)].map(([, at]) => Number(at) * 1000);
}
