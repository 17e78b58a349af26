/**
 * The images of deploy/container and their compose files with the real podman: they are built, a map server and two hosts
 * are started as docs/containers.md says, and their containers are stopped, killed and replaced by a newer version. Needs
 * scripts/install-container-tools.sh. Budget of all: 120 s.
 */
import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { findHelm, parseYaml, renderChart } from '../../scripts/helm.ts';
import { type ComposeProject, ContainerEngine, type ImageContent, type ImageName } from '../lab/container-engine.ts';
import { missingContainerTools } from '../lab/container-tools.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { type ExecResult, type Host, Lab } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import { Pod, type PodSpec } from '../lab/pod.ts';
import type { HeartbeatReport } from '../lab/traffic/heartbeat.ts';
import { startHeartbeat, startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { imageContent, setVersion } from './container-content.ts';
import { requireLab } from './require.ts';

requireLab();

/** Each question is a container engine's start. */
const IMAGES: readonly ImageName[] = ['mapserver', 'agent', 'dataplane'];
const DB = '10.77.0.5';
const WEB = '10.77.0.6';

describe('the images', { skip: missingContainerTools() ?? false }, () => {
  let lab: Lab;
  let internet: Internet;
  let engine: ContainerEngine;
  let map: Attachment;
  let mapServer: Deployment;
  let db: Deployment;
  let web: Deployment;
  let content: ImageContent;
  let heartbeat: LabProcess;

  before(async () => {
    lab = await Lab.create({ name: 'containers' });
    internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], roundTripMs: 1 });
    map = await internet.attach('map', 'c');
    const [dbHost, webHost] = await Promise.all([internet.attach('db', 'a'), internet.attach('web', 'b')]);
    engine = await ContainerEngine.start(map.host);
    content = await imageContent(join(lab.dir, 'tree'), '0.1.0');
    for (const name of IMAGES) await engine.build(map.host, name, '0.1.0', content);
    mapServer = new Deployment(engine, map.host, 'mapserver');
    db = new Deployment(engine, dbHost.host, 'agent');
    web = new Deployment(engine, webHost.host, 'agent');
  });
  after(async () => {
    await engine?.close(map.host);
    await lab?.close();
  });

  it('are small, run without root or without its rights, and have no shell', async (t) => {
    for (const name of IMAGES) {
      const { stdout } = await engine.podman(map.host, ['image', 'inspect', `localhost/stayput-${name}:0.1.0`]);
      const [image] = JSON.parse(stdout) as [{ Size: number; User: string; Labels: Record<string, string> }];
      t.diagnostic(`${name}: ${Math.round(image.Size / 1e6)} MB, of which Debian's base 16 MB`);
      assert.ok(image.Size < (name === 'dataplane' ? 40e6 : 200e6), `${name}: ${image.Size}`);
      assert.equal(image.Labels['org.opencontainers.image.version'], '0.1.0');
      assert.equal(image.User, { mapserver: '64342:64342', agent: '64341:64341', dataplane: '0:64341' }[name]);
    }
    const shell = ['run', '--rm', '--no-healthcheck', '--entrypoint', '/bin/sh', 'localhost/stayput-agent:0.1.0'];
    assert.equal((await engine.podman(map.host, shell, { anyExit: true })).code, 127);
  });

  it('make an overlay of a map server and two hosts', async () => {
    const overlay = ['--host', map.address4, '--overlay', '10.77.0.0/16'];
    await mapServer.compose(['run', '--rm', '--no-deps', '-T', 'mapserver', 'mapserver', 'init', ...overlay]);
    await mapServer.up();
    await mapServer.ready('mapserver');
    for (const [host, eid, name] of [
      [db, DB, 'db'],
      [web, WEB, 'web'],
    ] as const) {
      const create = ['stayput', 'token', 'create', '--eid', `${eid}/32`, '--name', name];
      const token = await mapServer.compose(['exec', '-T', 'mapserver', ...create]);
      const join = ['agent', 'join', `https://${map.address4}`, '--eid', eid, '--name', name];
      await host.compose(['run', '--rm', '--no-deps', '-T', 'agent', ...join], token);
      await host.up();
      await host.ready('agent');
    }
    await startServer(db.host, DB);
    heartbeat = await startHeartbeat(web.host, DB);
  });

  it('stop cleanly and at once when they are told to', async (t) => {
    for (const [where, service] of [
      [db, 'agent'],
      [mapServer, 'mapserver'],
    ] as const) {
      const started = Date.now();
      await where.compose(['stop', service]);
      t.diagnostic(`${service}: ${Date.now() - started} ms`);
      assert.equal(await where.exitCode(service), 0, service);
      await where.compose(['start', service]);
      await where.ready(service);
    }
    await goesOn(t, heartbeat);
  });

  it('go on after their containers were killed', async (t) => {
    for (const [where, service] of [
      [mapServer, 'mapserver'],
      [db, 'agent'],
      [db, 'dataplane'],
    ] as const) {
      await where.kill(service);
      await where.compose(['start', service]);
    }
    await db.ready('agent');
    await mapServer.ready('mapserver');
    await goesOn(t, heartbeat);
  });

  it('are replaced by a newer version: identity, EID and connections stay', async (t) => {
    const before = await db.status();
    setVersion(content, '0.1.1');
    for (const name of IMAGES) await engine.build(map.host, name, '0.1.1', content);
    const forwarding = await db.startedAt('dataplane');
    for (const each of [mapServer, web, db]) each.tag = '0.1.1';
    await mapServer.up();
    await web.up();
    await db.up('--no-deps', 'agent');
    await Promise.all([mapServer.ready('mapserver'), web.ready('agent'), db.ready('agent')]);
    assert.equal(await db.startedAt('dataplane'), forwarding, 'not touched when the agent alone is replaced');
    const alive = async () => {
      const status = await db.status();
      return status.live ? status : undefined;
    };
    const present = await waitFor('the EID is live again', alive);
    assert.deepEqual([before.version, present.version], ['0.1.0', '0.1.1']);
    assert.equal(present.xtrId, before.xtrId);
    const again = ['agent', 'join', `https://${map.address4}`, '--token-file', '/nowhere'];
    assert.match(await db.compose(['run', '--rm', '--no-deps', '-T', 'agent', ...again]), /Already joined/);
    await goesOn(t, heartbeat);
  });

  it('run in the pods of the chart, and a pod that is replaced is the same agent', {
    skip: findHelm() === undefined ? 'helm not found' : false,
  }, async () => {
    const [control, node] = await Promise.all([internet.attach('control', 'c'), internet.attach('node', 'a')]);
    const objects = parseYaml(
      renderChart({
        image: { tag: '0.1.0' },
        mapserver: { hosts: [control.address4] },
        agent: { mapServer: `https://${control.address4}` },
      }),
    ) as ChartObject[];
    const files = Object.fromEntries(objects.flatMap(({ metadata, data }) => (data ? [[metadata.name, data]] : [])));
    const pod = (kind: string, host: Host): Pod => {
      const spec = objects.find((object) => object.kind === kind)?.spec?.template.spec;
      assert.ok(spec !== undefined, kind);
      return new Pod(engine, host, spec);
    };
    const server = pod('Deployment', control.host);
    await server.start(files);
    const create = ['stayput', 'token', 'create', '--pool', '10.77.8.0/24', '--name', '*.node'];
    const token = await server.exec('mapserver', ...create);

    const first = pod('DaemonSet', node.host);
    await first.start({ ...files, 'stayput-join-token': { token } });
    const eids = async (of: Pod): Promise<string[]> => {
      const own = JSON.parse(await of.exec('agent', 'stayput', 'eid', 'list', '--json')) as Record<string, string>[];
      return own.map(({ eid, state }) => `${eid} ${state}`).sort();
    };
    const hasBoth = async (): Promise<boolean> => (await eids(first)).filter((own) => / live$/.test(own)).length === 2;
    await waitFor('the node has an EID and a name', hasBoth);
    const owned = await eids(first);
    assert.match(owned.join(), /^10\.77\.8\.\d+ live,node\.node live$/);
    assert.deepEqual(await first.stop(), [0, 0]);

    // The Secret is gone by now.
    rmSync(join(node.host.dir, 'volumes', 'token'), { recursive: true });
    const second = pod('DaemonSet', node.host);
    await second.start(files);
    const areSame = async (): Promise<boolean> => (await eids(second)).join() === owned.join();
    await waitFor('the same EID and name', areSame);
    assert.deepEqual([await second.stop(), await server.stop()], [[0, 0], [0]]);
  });
});

interface ChartObject {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: { readonly template: { readonly spec: PodSpec } };
}

/** What one of the compose files describes, on one host. */
class Deployment {
  readonly host: Host;
  tag = '0.1.0';
  private readonly engine: ContainerEngine;
  private readonly file: string;

  constructor(engine: ContainerEngine, host: Host, role: 'mapserver' | 'agent') {
    this.engine = engine;
    this.host = host;
    this.file = join(host.dir, `compose.${role}.yaml`);
    for (const name of [`compose.${role}.yaml`, `${role}.json`])
      cpSync(join(PROJECT_ROOT, 'deploy/container', name), join(host.dir, name));
  }

  async compose(args: readonly string[], input?: string): Promise<string> {
    const options = { timeoutMs: 60_000, ...(input === undefined ? {} : { input }) };
    return (await this.engine.compose(this.host, this.project(), args, options)).stdout.trim();
  }

  /** Starts it, with containers of the present tag in place of those of another. */
  async up(...options: readonly string[]): Promise<void> {
    await this.compose(['up', '--detach', '--no-build', ...options]);
  }

  /** It serves its purpose, as does the image's own health check. */
  async ready(service: 'agent' | 'mapserver'): Promise<void> {
    const url = `http://127.0.0.1:${service === 'agent' ? 9341 : 9342}/readyz`;
    const asked = (): Promise<ExecResult> =>
      this.host.exec(['curl', '-s', '-w', '%{http_code}', url], { anyExit: true });
    await waitFor(`${this.container(service)} is ready`, async () => (await asked()).stdout.endsWith('200'));
    await this.engine.podman(this.host, ['healthcheck', 'run', this.container(service)]);
  }

  async kill(service: string): Promise<void> {
    await this.engine.podman(this.host, ['kill', this.container(service)]);
    await this.engine.podman(this.host, ['wait', this.container(service)]);
  }

  async exitCode(service: string): Promise<number> {
    return Number(await this.inspect(service, '{{.State.ExitCode}}'));
  }

  startedAt(service: string): Promise<string> {
    return this.inspect(service, '{{.State.StartedAt}}');
  }

  async status(): Promise<{ readonly version: string; readonly xtrId: string; readonly live: boolean }> {
    const version = await this.compose(['exec', '-T', 'agent', 'stayput', '--version']);
    const status = JSON.parse(await this.compose(['exec', '-T', 'agent', 'stayput', 'status', '--json'])) as {
      xtrId: string;
      eids: readonly { state: string }[];
    };
    return {
      version,
      xtrId: status.xtrId,
      live: status.eids.length > 0 && status.eids.every(({ state }) => state === 'live'),
    };
  }

  private async inspect(service: string, format: string): Promise<string> {
    const { stdout } = await this.engine.podman(this.host, ['inspect', '--format', format, this.container(service)]);
    return stdout.trim();
  }

  private project(): ComposeProject {
    return { name: this.host.name, file: this.file, tag: this.tag };
  }

  private container(service: string): string {
    return `${this.host.name}_${service}_1`;
  }
}

/** Every message that was sent so far and a second's more come back on the connection that was opened before. */
async function goesOn(t: TestContext, heartbeat: LabProcess): Promise<void> {
  const report = (): HeartbeatReport | undefined => heartbeat.lastReport<HeartbeatReport>('heartbeat');
  const sent = report()?.sent ?? 0;
  await heartbeat.waitUntil('echoes go on', () => (report()?.received ?? 0) >= sent + 100);
  const now = report();
  t.diagnostic(`longest gap so far ${Math.round(now?.longestGapMs ?? 0)} ms`);
  assert.deepEqual({ open: now?.open, resets: now?.resets }, { open: true, resets: 0 });
}
