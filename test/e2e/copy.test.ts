/** A host is copied with its disk, and both are running. Budget: 30 s. */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Agent } from '../lab/overlay.ts';
import { waitFor } from '../lab/wait.ts';
import { VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a host and its copy', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'copy', internet: { families: [4] } });
  });
  after(() => world?.close());

  it('one goes on with the EIDs, the other stops registering and forwarding and says so; --keep turns it round', async () => {
    const { vm, client } = world;
    await pings(client);
    const dataplane = await ensureDataplaneBuilt(() => {});
    const copy = new Agent(await world.internet.attach('copy', 'b'), dataplane, { eids: vm.eids, names: ['vm'] });
    cpSync(vm.stateDir, copy.stateDir, { recursive: true });
    copy.startDataplane();
    copy.start();
    await copy.ready();
    await isFenced(vm);
    await pings(client);
    assert.equal(await locatorAt(client), copy.at.address4);

    await vm.daemon.stop();
    await vm.keepIdentity();
    vm.start();
    await vm.ready();
    await isFenced(copy);
    await pings(client);
    assert.equal(await locatorAt(client), vm.at.address4);
  });
});

/** Its status says what to do, and the EID is no address of the host any more. */
async function isFenced(agent: Agent): Promise<void> {
  await waitFor(`${agent.host.name} fenced`, async () => {
    const { stdout } = await agent.stayput(['status'], { anyExit: true });
    return /the newer one.*reset-identity/.test(stdout);
  });
  await waitFor(`${VM_EID} gone from ${agent.host.name}`, async () => {
    const { stdout } = await agent.host.exec(['ip', '-o', 'addr', 'show', 'dev', 'stayput0']);
    return !stdout.includes(`${VM_EID}/32`);
  });
  assert.equal((await agent.metrics()).get('stayput_agent_fenced'), 1);
}

async function pings(from: Agent): Promise<void> {
  await waitFor(`${from.host.name} reaches ${VM_EID}`, async () => {
    const { code } = await from.host.exec(['ping', '-c', '1', '-W', '1', VM_EID], { anyExit: true });
    return code === 0;
  });
}

/** Where the peer with the VM's EID is. */
async function locatorAt(agent: Agent): Promise<string | undefined> {
  const { stdout } = await agent.stayput(['peers', '--json']);
  const peers = JSON.parse(stdout) as { endpoint: { address: string } | null; eids: string[] }[];
  return peers.find(({ eids }) => eids.includes(`${VM_EID}/32`))?.endpoint?.address;
}
