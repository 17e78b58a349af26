/** A workload is carried to another host while the map server is dead. Budget: 60 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { increase, waitForIncrease } from '../lab/overlay.ts';
import { startServer, Traffic } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { DB_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a move while the map server is dead', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'alone', internet: { roundTripMs: 1 }, workload: true });
  });
  after(() => world?.close());

  it('is not noticed by a download, a heartbeat or datagrams, and is settled when it is back', async (t) => {
    const { mapServer } = world.overlay;
    const { here, there, db } = world.workload;
    const server = await startServer(db, DB_EID);
    const carry = await world.prepareMove();
    const beforehand = await here.metrics();
    // Each end has the other as a peer before anything moves.
    for (const agent of [here, there]) {
      await waitFor(`${agent.host.name} has a session with the other end`, async () => {
        const { stdout } = await agent.stayput(['peers', '--json']);
        const peers = JSON.parse(stdout) as { session: string }[];
        return peers.some(({ session }) => session === 'up');
      });
    }
    const traffic = await Traffic.start(world.client.host, {
      address: DB_EID,
      url: `http://${DB_EID}`,
      downloadBytes: 20_000_000,
      downloadRate: 4_000_000,
      datagramsPerSecond: 500,
    });
    await traffic.waitForBytes(4_000_000);
    await mapServer.daemon.kill9();
    await carry();
    await waitForIncrease('yielded', () => here.metrics(), beforehand, /moves_total\{.*yielded/);
    const result = await traffic.finish();
    await server.stop();
    t.diagnostic(
      `TCP gap ${result.tcpLongestGapMs} ms, datagrams sent ${result.udpSent} lost ${result.udpLost} duplicated ${result.udpDuplicated}`,
    );
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.udpDuplicated, 0);
    assert.ok(result.tcpLongestGapMs <= 2_000, `TCP gap of ${result.tcpLongestGapMs} ms`);
    assert.equal(await there.eidState(DB_EID), 'base');
    assert.equal(await here.eidState(DB_EID), 'drain');
    assert.ok(increase(beforehand, await here.metrics(), /correspondents_total/) >= 1);

    mapServer.daemon.start();
    await mapServer.ready();
    await waitFor('the ownership is settled', async () => (await there.eidState(DB_EID)) === 'live');
    const { stdout } = await mapServer.stayput(['mapserver', 'eids', '--json']);
    const record = (JSON.parse(stdout) as { eid: string; generation: number }[]).find(({ eid }) =>
      eid.startsWith(DB_EID),
    );
    assert.equal(record?.generation, 2);
    await waitFor('the former owner knows', async () => (await here.eidState(DB_EID)) !== 'live');
  });
});
