/** An overlay with Prometheus at work while a VM roams, a workload moves, and names are asked for. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Agent } from './overlay.ts';
import { DISCOVERY_TOKEN, Prometheus } from './prometheus.ts';
import { type Narrator, play, type SceneName } from './scenes.ts';
import { waitFor } from './wait.ts';
import { VM_EID, World } from './world.ts';

export interface RecordedRun {
  readonly prometheus: Prometheus;
  /** Seconds since 1970. */
  readonly from: number;
  readonly to: number;
  close(): Promise<void>;
}

/** The caller closes it. */
export async function recordRun(scenes: readonly SceneName[], narrator: Narrator): Promise<RecordedRun> {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-recorded-'));
  try {
    return await recordIn(folder, scenes, narrator);
  } catch (error) {
    rmSync(folder, { recursive: true });
    throw error;
  }
}

async function recordIn(folder: string, scenes: readonly SceneName[], narrator: Narrator): Promise<RecordedRun> {
  const tokenFile = join(folder, 'token');
  const resolvConf = join(folder, 'resolv.conf');
  writeFileSync(tokenFile, DISCOVERY_TOKEN, { mode: 0o600 });
  writeFileSync(resolvConf, '');
  const world = await World.build({
    name: 'recorded',
    workload: true,
    agentConfig: { metricsListen: '0.0.0.0:9341', dns: { listen: ['127.0.0.1:53'], resolvConf } },
    mapServerConfig: { metricsListen: '0.0.0.0:9342', discoveryTokenFile: tokenFile },
  });
  try {
    const { overlay, internet, client } = world;
    const watcher = await internet.attach('watcher', 'c');
    watcher.host.spawn('dnsmasq', [
      ...['dnsmasq', '--no-daemon', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--user=root'],
      ...[`--listen-address=${watcher.address4}`, '--bind-interfaces', '--address=/example.org/192.0.2.80'],
      '--local-ttl=60',
    ]);
    writeFileSync(resolvConf, `nameserver ${watcher.address4}\n`);
    const agents = [...overlay.agents.values()];
    const names = await Promise.all(agents.map(async (agent) => [await xtrIdOf(agent), agent.host.name] as const));
    const prometheus = await Prometheus.start(watcher, {
      mapServer: overlay.mapServer,
      mapServerAddress: new URL(overlay.mapServer.url).hostname,
      names: new Map(names),
    });
    const isWatched = async (): Promise<boolean> => (await prometheus.value('sum(up)')) === agents.length + 1;
    await waitFor('all daemons in Prometheus', isWatched);
    const from = Date.now() / 1000;
    const questions = `while :; do dig +short +time=1 vm.${overlay.zone} www.example.org www$((i=i+1)).example.org none.${overlay.zone} >/dev/null; sleep 0.1; done`;
    client.host.spawn('questions', ['sh', '-c', questions]);
    const server = world.vm.host.spawn('iperf3', ['iperf3', '-s', '-B', VM_EID, '--forceflush']);
    await server.waitUntil('listening', () => server.output().includes('Server listening'));
    const load = [...['iperf3', '-c', VM_EID, '-t', '3', '-b', '100M', '--connect-timeout', '3000']];
    await client.host.exec(load);
    for (const scene of scenes) await play(scene, world, narrator);
    await client.host.exec([...load, '--reverse']);
    const to = Date.now() / 1000;
    const isRead = async (): Promise<boolean> => ((await prometheus.value('min(timestamp(up))')) ?? 0) > to;
    await waitFor('the last scrapes', isRead);
    const close = async (): Promise<void> => {
      await world.close();
      rmSync(folder, { recursive: true });
    };
    return { prometheus, from, to, close };
  } catch (error) {
    await world.close();
    throw error;
  }
}

async function xtrIdOf(agent: Agent): Promise<string> {
  const { stdout } = await agent.stayput(['status', '--json']);
  return (JSON.parse(stdout) as { xtrId: string }).xtrId;
}
