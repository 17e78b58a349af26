/** An IPv6 workload behind an interface: reached, and carried to another host with its connection open. Budget: 30 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { HeartbeatReport } from '../lab/traffic/heartbeat.ts';
import { startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { CLIENT_EID, DB_EID6, WORKLOAD_PORT, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const HEARTBEAT = fileURLToPath(new URL('../lab/traffic/heartbeat.js', import.meta.url));
const CLIENT_EID6 = 'fd77::1';

describe('an IPv6 workload', () => {
  let world: World;

  before(async () => {
    const clientEids = [`${CLIENT_EID}/32`, `${CLIENT_EID6}/128`];
    world = await World.build({ name: 'move-v6', internet: { roundTripMs: 1 }, workload: true, clientEids });
    await world.db.ip([`addr add ${DB_EID6}/128 dev eth0`, 'route add default via fe80::1 dev eth0']);
    await world.workload.here.attach(DB_EID6, 'live', { interface: WORKLOAD_PORT });
  });
  after(() => world?.close());

  it('is reached from another cloud and reaches it', async () => {
    await world.client.host.exec(['ping', '-c', '3', '-i', '0.1', '-W', '5', DB_EID6]);
    await world.db.exec(['ping', '-c', '3', '-i', '0.1', '-W', '5', '-I', DB_EID6, CLIENT_EID6]);
  });

  it('moves with its connection open', async () => {
    await startServer(world.db, DB_EID6);
    const heartbeat = world.client.host.spawn('heartbeat', [process.execPath, HEARTBEAT, DB_EID6, '7']);
    const beats = () => heartbeat.lastReport<HeartbeatReport>('heartbeat');
    await heartbeat.waitUntil('first echo', () => (beats()?.received ?? 0) > 0);
    const { here, there } = world.workload;
    await there.attach(DB_EID6, 'target', { interface: WORKLOAD_PORT });
    const move = await world.prepareMove();
    await move();
    await waitFor('both hosts agree', async () => {
      const [owner, former] = await Promise.all([there.eidState(DB_EID6), here.eidState(DB_EID6)]);
      return owner === 'live' && former !== 'live';
    });
    const before = beats()?.received ?? 0;
    await heartbeat.waitUntil('echoes after the move', () => (beats()?.received ?? 0) > before + 100);
    await heartbeat.stop();
    assert.deepEqual({ open: beats()?.open, resets: beats()?.resets }, { open: true, resets: 0 });
  });
});
