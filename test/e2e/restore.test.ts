/** A map server that is lost and comes back from an old backup: agents go on, and nobody joins anew. Budget: 40 s. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { waitFor } from '../lab/wait.ts';
import { CLIENT_EID, DB_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a map server whose disk is lost', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'restore', internet: { roundTripMs: 1 }, workload: true });
  });
  after(() => world?.close());

  it('comes back from a backup from before a move; the workload stays where it is, and moves on', async () => {
    const { mapServer } = world.overlay;
    const { here, there, db } = world.workload;
    const dataDir = join(mapServer.host.dir, 'mapserver');
    const file = join(mapServer.host.dir, 'stayput.backup');
    const owners = async (): Promise<Map<string, { owner: string; generation: number }>> => {
      const { stdout } = await mapServer.stayput(['mapserver', 'eids', '--json']);
      const eids = JSON.parse(stdout) as { eid: string; owner: string; generation: number }[];
      return new Map(eids.map((each) => [each.eid, each]));
    };
    const move = async (to: typeof there): Promise<void> => {
      const carry = await world.prepareMove();
      await carry();
      await waitFor('live at the other host', async () => (await to.eidState(DB_EID)) === 'live');
    };
    await mapServer.stayput(['mapserver', 'backup', file]);
    await move(there);
    const moved = (await owners()).get(`${DB_EID}/32`);
    await mapServer.daemon.kill9();
    rmSync(dataDir, { recursive: true });
    await mapServer.stayput(['mapserver', 'restore', file]);
    mapServer.daemon.start();
    await mapServer.ready();
    await waitFor('the map server knows the owner', async () => {
      const known = (await owners()).get(`${DB_EID}/32`);
      return known?.owner === moved?.owner && known?.generation === moved?.generation;
    });
    await db.exec(['ping', '-c', '1', '-W', '30', CLIENT_EID]);
    await world.client.host.exec(['ping', '-c', '1', '-W', '30', DB_EID]);
    await move(here);
    const now = (await owners()).get(`${DB_EID}/32`);
    assert.notEqual(now?.owner, moved?.owner);
    assert.ok((now?.generation ?? 0) > (moved?.generation ?? 0));
    await world.client.host.exec(['ping', '-c', '1', '-W', '30', DB_EID]);
  });
});
