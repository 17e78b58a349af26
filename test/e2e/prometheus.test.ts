/** The real Prometheus finds the agents through the map server, reads them, and follows who joins and who goes. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Host } from '../lab/lab.ts';
import type { Agent } from '../lab/overlay.ts';
import { DISCOVERY_TOKEN, Prometheus } from '../lab/prometheus.ts';
import { waitFor } from '../lab/wait.ts';
import { World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

describe('Prometheus', () => {
  let world: World;
  let prometheus: Prometheus;
  const folder = mkdtempSync(join(tmpdir(), 'stayput-prometheus-'));
  const tokenFile = join(folder, 'token');

  before(async () => {
    writeFileSync(tokenFile, DISCOVERY_TOKEN, { mode: 0o600 });
    world = await World.build({
      name: 'prometheus',
      agentConfig: { metricsListen: '0.0.0.0:9341' },
      mapServerConfig: { metricsListen: '0.0.0.0:9342', discoveryTokenFile: tokenFile },
    });
    const { overlay, internet } = world;
    const mapServerAddress = new URL(overlay.mapServer.url).hostname;
    prometheus = await Prometheus.start(await internet.attach('prometheus', 'c'), {
      mapServer: overlay.mapServer,
      mapServerAddress,
    });
  });
  after(async () => {
    await world?.close();
    rmSync(folder, { recursive: true });
  });

  /** Until Prometheus reads the map server and these agents without trouble, and nobody else. */
  async function reads(...agents: Agent[]): Promise<void> {
    const wanted = ['', ...(await Promise.all(agents.map(idOf)))].sort();
    const read = async (): Promise<true> => {
      const targets = await prometheus.targets();
      const good = targets.filter(({ health }) => health === 'up').map(({ xtrId }) => xtrId ?? '');
      assert.deepEqual(good.sort(), wanted, JSON.stringify(targets));
      return true;
    };
    // Prometheus itself passes on what it has discovered every five seconds.
    await waitFor(`${agents.length} agents and the map server`, read);
  }

  it('reads the map server and the agents that it lists', async () => {
    await reads(world.client, world.vm);
    await waitFor('their metrics', async () => (await prometheus.value('stayput_agent_dataplane_connected')) === 2);
    assert.equal(await prometheus.value('stayput_mapserver_agents'), 2);
    assert.equal(await prometheus.value('sum(stayput_agent_build_info)'), 2);
  });

  it('goes on with the same series after a roam', async () => {
    const xtrId = await idOf(world.vm);
    const series = `count(count_over_time(stayput_agent_peers{xtr_id="${xtrId}"}[10m]))`;
    assert.equal(await prometheus.value(series), 1);
    await world.prepareRoam()();
    const url = `http://${world.vm.at.address4}:9341/metrics`;
    const isRead = async (): Promise<boolean> =>
      (await prometheus.targets()).some((target) => target.url === url && target.health === 'up');
    await waitFor('the new address', isRead);
    assert.equal(await prometheus.value(series), 1);
  });

  it('finds an agent that joins, and drops one that is revoked', async () => {
    const at = await world.internet.attach('third', 'b');
    const third = await world.overlay.join(at, {
      eids: ['10.77.0.3/32'],
      config: { metricsListen: '0.0.0.0:9341' },
    });
    await reads(world.client, world.vm, third);
    await world.overlay.mapServer.stayput(['agents', 'revoke', await idOf(third)]);
    await reads(world.client, world.vm);
  });

  it('sees in /readyz what an agent lacks, and that it has it again, while /healthz stays', async () => {
    const { vm, overlay } = world;
    const { mapServer } = overlay;
    const lacks = (...wanted: string[]): Promise<unknown> =>
      waitFor(`an agent that lacks ${wanted.join()}`, async () => {
        const { status, failed } = await readiness(vm.host, 9341);
        assert.deepEqual(failed, wanted);
        return status === (wanted.length === 0 ? 200 : 503);
      });
    await lacks();
    await vm.dataplane.kill9();
    await lacks('dataplane');
    assert.equal((await vm.host.exec(['curl', '-sf', 'http://127.0.0.1:9341/healthz'])).code, 0);
    vm.startDataplane();
    await lacks();
    await mapServer.daemon.kill9();
    await lacks('map-server');
    mapServer.daemon.start();
    await lacks();
    assert.deepEqual(await readiness(mapServer.host, 9342), { status: 200, failed: [] });
  });

  it('keeps an agent that is away, and sees that it is', async () => {
    const xtrId = await idOf(world.vm);
    await world.vm.daemon.stop();
    await waitFor('the loss', async () => (await prometheus.value(`up{xtr_id="${xtrId}"} == 0`)) === 0);
    world.vm.start();
    await world.vm.ready();
    await waitFor('its return', async () => (await prometheus.value(`up{xtr_id="${xtrId}"}`)) === 1);
  });
});

/** What `/readyz` says. */
async function readiness(host: Host, port: number): Promise<{ status: number; failed: readonly string[] }> {
  const { stdout } = await host.exec(['curl', '-s', '-w', '%{http_code}', `http://127.0.0.1:${port}/readyz`]);
  const [body = '', status] = stdout.split('\n');
  const { checks } = JSON.parse(body) as { checks: { name: string; status: string }[] };
  const failed = checks.filter((check) => check.status === 'failed').map(({ name }) => name);
  return { status: Number(status), failed };
}

async function idOf(agent: Agent): Promise<string> {
  const { stdout } = await agent.stayput(['status', '--json']);
  return (JSON.parse(stdout) as { xtrId: string }).xtrId;
}
