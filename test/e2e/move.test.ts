/** A workload is carried from one host to another with its sockets open. Budget of a move with its traffic: 20 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { play } from '../lab/scenes.ts';
import { waitFor } from '../lab/wait.ts';
import { CLIENT_EID, DB_EID, World } from '../lab/world.ts';
import { MUTE, showFigures } from './figures.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a workload that moves to another host', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'move', internet: { roundTripMs: 1 }, workload: true });
  });
  after(() => world?.close());

  it('is at the same address by name before and after, and no download, heartbeat or datagram notices', async (t) => {
    const name = `db.${world.overlay.zone}`;
    const lookUp = async (): Promise<string> =>
      (await world.client.host.exec(['dig', '+short', '+time=2', name])).stdout.trim();
    assert.equal(await lookUp(), DB_EID);
    const result = await play('move', world, MUTE);
    showFigures(t, result);
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.ok, true, 'a gap of more than 2 s');
    assert.equal(result.udpDuplicated, 0);
    assert.equal(await lookUp(), DB_EID);
  });

  it('moves by order of the administrator, who is told when it is there', async () => {
    const { mapServer } = world.overlay;
    const { there } = world.workload;
    const { xtrId } = JSON.parse((await there.stayput(['status', '--json'], { anyExit: true })).stdout) as {
      xtrId: string;
    };
    const move = (...more: string[]) =>
      mapServer.stayput(['eid', 'move', DB_EID, '--to', xtrId.slice(0, 12), '--json', ...more]);
    const carry = await world.prepareMove();
    const ordered = move('--timeout', '20s');
    await carry();
    const moved = JSON.parse((await ordered).stdout) as { owner: string; state: string };
    assert.equal(moved.owner, xtrId);
    assert.equal(moved.state, 'live');
    const again = JSON.parse((await move()).stdout) as { already: boolean };
    assert.equal(again.already, true);
    const refused = await mapServer.stayput(['eid', 'move', '10.77.0.1', '--to', xtrId], { anyExit: true });
    assert.match(refused.stderr, /is not granted 10\.77\.0\.1\/32/);
  });

  it('moves back as well, and each side knows who owns it', async (t) => {
    const result = await play('move', world, MUTE);
    showFigures(t, result);
    assert.equal(result.ok, true);
    const { here, there } = world.workload;
    await waitFor('owner and former owner agree', async () => {
      const [owner, former] = await Promise.all([here.eidState(DB_EID), there.eidState(DB_EID)]);
      return owner === 'live' && former !== 'live';
    });
  });

  it('moves behind a bridge that is always up as soon as it is seen there', async () => {
    const { here, there, db } = world.workload;
    await there.host.ip(['link add br-wl type bridge', 'link set br-wl up']);
    await there.stayput(['eid', 'attach', DB_EID, '--name', 'db', '--interface', 'br-wl', '--when', 'seen']);
    await waitFor('target', async () => (await there.eidState(DB_EID)) === 'target');
    await here.host.ip([`link set wl-db netns ${there.host.namespace}`]);
    await there.host.ip(['link set wl-db master br-wl', 'link set wl-db up']);
    await waitFor('answered through the new host', async () => {
      const ping = await db.exec(['ping', '-c', '1', '-W', '1', CLIENT_EID], { anyExit: true });
      return ping.code === 0;
    });
    await waitFor('live there', async () => (await there.eidState(DB_EID)) === 'live');
    await world.client.host.exec(['ping', '-c', '1', '-W', '30', DB_EID]);
  });
});
