/** kill -9 of each process under traffic. No connection may die; budget of each story: 30 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { play } from '../lab/scenes.ts';
import { startServer, Traffic } from '../lab/traffic.ts';
import { VM_EID, World } from '../lab/world.ts';
import { MUTE, showFigures } from './figures.ts';
import { requireLab } from './require.ts';

requireLab();

describe('kill -9', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'crash', internet: { roundTripMs: 1 } });
  });
  after(() => world?.close());

  it('of both agents and of the map server is not noticed by traffic', async (t) => {
    const result = await play('crash', world, MUTE);
    showFigures(t, result);
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.udpLost, 0);
    assert.ok(result.tcpLongestGapMs <= 2_000, `TCP gap of ${result.tcpLongestGapMs} ms`);
    assert.ok(result.rssMb.agent <= 120 && result.rssMb.dataplane <= 30 && result.rssMb.mapServer <= 150);
  });

  it('of a data plane, started again, leaves the connections alive', async (t) => {
    const server = await startServer(world.vm.host, VM_EID);
    const traffic = await Traffic.start(world.client.host, {
      address: VM_EID,
      url: `http://${VM_EID}`,
      downloadBytes: 12_000_000,
      downloadRate: 3_000_000,
      datagramsPerSecond: 200,
    });
    await traffic.waitForBytes(3_000_000);
    await world.vm.dataplane.kill9();
    world.vm.startDataplane();
    await world.vm.ready();
    const result = await traffic.finish();
    await server.stop();
    t.diagnostic(
      `data plane started again at once: TCP gap ${result.tcpLongestGapMs} ms, datagrams lost ${result.udpLost}`,
    );
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.ok(result.tcpLongestGapMs <= 2_000, `TCP gap of ${result.tcpLongestGapMs} ms`);
  });

  it('of the map server loses nothing that was acknowledged: a new agent resolves what was registered before', async () => {
    const before = await world.overlay.mapServer.stayput(['mapserver', 'eids', '--json']);
    await world.overlay.mapServer.daemon.kill9();
    world.overlay.mapServer.daemon.start();
    await world.overlay.mapServer.ready();
    const after_ = await world.overlay.mapServer.stayput(['mapserver', 'eids', '--json']);
    const owners = (text: string): unknown =>
      (JSON.parse(text) as { eid: string; generation: unknown }[])
        .map(({ eid, generation }) => ({ eid, generation }))
        .sort((a, b) => a.eid.localeCompare(b.eid));
    assert.deepEqual(owners(after_.stdout), owners(before.stdout));
    const late = await world.overlay.join(await world.internet.attach('late', 'b'), { eids: ['10.77.0.30/32'] });
    const { stdout } = await late.stayput(['ping', VM_EID, '-c', '1']);
    assert.match(stdout, /ms/);
  });
});
