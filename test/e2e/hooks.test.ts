/**
 * The hooks of deploy/hooks with the real tools: guests of QEMU and of libvirt are migrated live, a container is dumped
 * and restored by CRIU, podman starts and stops one. Needs scripts/install-migration-tools.sh. Budget of each: 30 s;
 * libvirt's is 90 s, of which 30 s pass before an EID is given up.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Container } from '../lab/container.ts';
import { Guest } from '../lab/guest.ts';
import { hookEnvironment, hookScript } from '../lab/hooks.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { LabError } from '../lab/lab-error.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import { Libvirt } from '../lab/libvirt.ts';
import { missingMigrationTools } from '../lab/migration-tools.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { Podman } from '../lab/podman.ts';
import type { HeartbeatReport } from '../lab/traffic/heartbeat.ts';
import { startHeartbeat } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

const GUEST = '10.77.0.30';
const CONTAINER = '10.77.0.31';
const BOX = '10.77.0.32';
const DOMAIN = '10.77.0.33';

describe('a workload that another program moves', { skip: missingMigrationTools() ?? false }, () => {
  let lab: Lab;
  let from: Agent;
  let to: Agent;
  let client: Agent;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'hooks' });
    const internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], roundTripMs: 1 });
    const overlay = await Overlay.start(await internet.attach('mapserver', 'c'), { dataplane });
    const mayAlso = {
      eids: [GUEST, CONTAINER, BOX, DOMAIN].map((eid) => `${eid}/32`),
      names: ['guest', 'container', 'domain'],
    };
    const join = async (name: string, cloud: string, eid: string): Promise<Agent> =>
      await overlay.join(await internet.attach(name, cloud), { eids: [eid], names: [name], mayAlso });
    [from, to, client] = await Promise.all([
      join('host-a', 'a', '10.77.0.21/32'),
      join('host-b', 'b', '10.77.0.22/32'),
      join('client', 'c', '10.77.0.1/32'),
    ]);
  });
  after(() => lab?.close());

  it('is a guest that QEMU migrates live: its connection goes on, its EID follows it', async (t) => {
    const scripts = { script: hookScript('qemu', 'stayput-ifup'), downscript: hookScript('qemu', 'stayput-ifdown') };
    const options = (agent: Agent) => ({
      ...{ address: GUEST, mac: '52:54:00:00:00:30', tap: 'tap-guest', ...scripts },
      env: hookEnvironment(agent, { STAYPUT_EID: GUEST, STAYPUT_NAME: 'guest' }),
    });
    const source = await Guest.boot(from.host, options(from));
    await isLive(from, GUEST);
    const heartbeat = await startHeartbeat(client.host, GUEST);
    const url = `tcp:${to.at.address4}:4444`;
    const target = await Guest.incoming(to.host, options(to), url);
    assert.equal(await to.eidState(GUEST), 'target');
    assert.equal(await from.eidState(GUEST), 'live');

    await source.migrate(url);
    await source.quit();
    await isLive(to, GUEST, from, target);
    await goesOn(t, heartbeat);
    assert.notEqual(await from.eidState(GUEST), 'live');

    await target.quit();
    assert.equal(
      await to.eidState(GUEST),
      'live',
      'given up only after the patience, since it may have been sent away',
    );
  });

  it('is a guest of libvirt, which migrates it live and stops it', async (t) => {
    const [source, target] = await Promise.all([Libvirt.start(from), Libvirt.start(to)]);
    await source.boot({ name: 'domain', eid: DOMAIN, mac: '52:54:00:00:00:33', tap: 'tap-domain' });
    await isLive(from, DOMAIN);
    const heartbeat = await startHeartbeat(client.host, DOMAIN);

    await source.migrate('domain', target);
    await isLive(to, DOMAIN, from);
    assert.notEqual(await from.eidState(DOMAIN), 'live');
    await target.restart();
    await goesOn(t, heartbeat);
    assert.equal(await to.eidState(DOMAIN), 'live', 'libvirtd tells of it again when it is started again');

    await target.destroy('domain');
    await waitFor('the EID is given up', async () => (await to.eidState(DOMAIN)) === undefined);
    assert.deepEqual([source.complaints(), target.complaints()], ['', '']);
  });

  it('is a container that CRIU dumps on one host and restores on another', async (t) => {
    const env = (agent: Agent) =>
      hookEnvironment(agent, { STAYPUT_EID: CONTAINER, STAYPUT_INTERFACE: 'sp-box', STAYPUT_NAME: 'container' });
    const actionScript = hookScript('criu', 'stayput-action');
    const container = await Container.start(lab, from.host, { address: CONTAINER, port: 'sp-box', actionScript });
    try {
      await from.attach(CONTAINER, 'live', { interface: 'sp-box', name: 'container' });
      const heartbeat = await startHeartbeat(client.host, CONTAINER);
      await container.dump(from.host, env(from));
      await container.restore(to.host, env(to));
      await isLive(to, CONTAINER, from);
      await goesOn(t, heartbeat);
      assert.notEqual(await from.eidState(CONTAINER), 'live');
    } finally {
      container.end();
    }
  });

  it('is a container that podman starts on one host and then on another', async () => {
    const echo = ['/bin/busybox', 'nc', '-ll', '-p', '7', '-e', '/bin/busybox', 'cat'];
    for (const agent of [from, to]) {
      const podman = await Podman.prepare(agent);
      await podman.start('box', BOX, echo);
      try {
        await isLive(agent, BOX);
        const heartbeat = await startHeartbeat(client.host, BOX);
        await heartbeat.stop();
      } finally {
        await podman.remove('box');
        podman.close();
      }
    }
    assert.notEqual(await from.eidState(BOX), 'live');
  });
});

async function isLive(agent: Agent, eid: string, ...witnesses: readonly Witness[]): Promise<void> {
  try {
    await waitFor(`${eid} live on ${agent.host.name}`, async () => (await agent.eidState(eid)) === 'live');
  } catch (cause) {
    const accounts = await Promise.all([agent, ...witnesses].map((witness) => witness.account()));
    throw new LabError([(cause as Error).message, ...accounts].join('\n'), { cause });
  }
}

/** Every message sent so far and two seconds' more come back on the connection that was opened before. */
async function goesOn(t: TestContext, heartbeat: LabProcess): Promise<void> {
  const report = (): HeartbeatReport | undefined => heartbeat.lastReport<HeartbeatReport>('heartbeat');
  const sent = report()?.sent ?? 0;
  await heartbeat.waitUntil('echoes go on', () => (report()?.received ?? 0) >= sent + 200);
  await heartbeat.stop();
  const end = report();
  assert.ok(end !== undefined);
  t.diagnostic(`longest gap ${Math.round(end.longestGapMs)} ms, ${end.received} of ${end.sent} messages echoed`);
  assert.deepEqual(
    { open: end.open, resets: end.resets, echoed: end.received },
    { open: true, resets: 0, echoed: end.sent },
  );
}

/** Has something to say when what was waited for did not happen. */
interface Witness {
  account(): Promise<string>;
}
