/** Names set on a map server, asked of an agent with the clients that people use. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { Resolver } from 'node:dns/promises';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { NEVER_RUN } from '../../agent/core/incarnation.ts';
import { CachedNameResolver } from '../../agent/shell/cached-name-resolver.ts';
import { type DnsServer, startDnsServer } from '../../agent/shell/dns-server.ts';
import { AgentDriver } from '../../agent/shell/driver.ts';
import { join } from '../../agent/shell/enrolment.ts';
import { StateFolder } from '../../agent/shell/identity.ts';
import { AgentMetrics } from '../../agent/shell/metrics.ts';
import { APEX, DEFAULT_INSTANCE } from '../../proto/eid.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { InheritedSockets } from '../../runtime/inherited-sockets.ts';
import { waitFor } from '../lab/wait.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { FakeDataplane } from './fake-dataplane.ts';

const PROGRAM = fileURLToPath(import.meta.url.replace(/test\/agent\/names-process\.test\.(ts|js)$/, 'cli/main.$1'));
const run = promisify(execFile);
const log = pino({ level: 'silent' });

const overlay = new TestOverlay();
const folder = mkdtempSync(joinPath(tmpdir(), 'stayput-names-'));
const dataplane = new FakeDataplane();
let driver: AgentDriver | undefined;
let dns: DnsServer | undefined;
let port = 0;

before(async () => {
  await overlay.start();
  const token = await overlay.token({ eids: ['10.77.0.0/24'], names: ['*'] });
  const state = new StateFolder(joinPath(folder, 'state'));
  const url = `https://127.0.0.1:${overlay.port}`;
  await join(state, { url, token, eids: ['10.77.0.5'], names: ['web'], force: false, software: 'test' });
  const machine = { machineId: 'a', productUuid: 'b' };
  state.writeIncarnation({ ...NEVER_RUN, machine });
  const socket = joinPath(folder, 'dataplane.sock');
  await dataplane.listen(socket);
  const config = AGENT_CONFIG.parse({ stateDir: state.path, dataplaneSocket: socket });
  const identity = state.requireIdentity();
  const started = new AgentDriver(config, identity, state, 'test', log, () => machine);
  driver = started;
  const metrics = new AgentMetrics(
    () => ({
      certificateNotAfter: started.certificate.notAfter,
      fenced: false,
      mapServerConnected: started.mapServer.connected,
      dataplaneConnected: started.dataplane.connected,
      cache: started.agent.snapshot(started.now()).cache,
      eids: { base: 0, target: 0, live: 1, drain: 0, lost: 0 },
      takenOver: 0,
      peers: 0,
      rlocs: { up: 0, down: 0, unknown: 0 },
      policy: { version: 0, rules: 0 },
    }),
    () => started.dataplane.stats(),
  );
  started.start(metrics);
  dns = await startDnsServer({
    listen: ['127.0.0.1:0'],
    inherited: new InheritedSockets([]),
    resolver: new CachedNameResolver(started, DEFAULT_INSTANCE),
    upstreams: ['192.0.2.53'],
    zones: config.dns.zones,
    tlsAuthorities: config.dns.tlsAuthorities,
    queryLog: config.dns.queryLog,
    mapServer: identity.mapServer.host,
    resolvConf: config.dns.resolvConf,
    cacheEntries: config.dns.cacheEntries,
    registry: new Registry(),
    log,
  });
  port = parseHostPort(dns.addresses[0] ?? '').port;
});

after(async () => {
  await dns?.close();
  driver?.close();
  await dataplane.close();
  await overlay.remove();
  rmSync(folder, { recursive: true, force: true });
});

test('what an operator sets is answered at once, also when the map server is gone afterwards', async () => {
  await waitFor('the registered name is answered', async () => (await dig('web', 'A')) === '10.77.0.5');
  assert.equal(await dig('web', 'TXT'), '');

  await name('set', 'web', '--txt', 'hello world', '--address', '10.77.0.6', '--weight', '10.77.0.6=0');
  await waitFor('the news is pushed', async () => (await dig('web', 'TXT')) === '"hello world"');
  assert.equal(await dig('web', 'A'), '10.77.0.5', 'nobody answers for the other address');

  await name('set', '_http._tcp.web', '--srv', '0 5 80 web');
  await name('set', 'www', '--cname', 'web');
  await name('set', '*.apps', '--cname', 'www');
  const resolver = new Resolver();
  resolver.setServers([`127.0.0.1:${port}`]);
  // Newer versions of Node also say that it is an SRV record.
  const [service, ...others] = await resolver.resolveSrv('_http._tcp.web.stayput.internal');
  assert.deepEqual(
    [service?.name, service?.port, service?.priority, service?.weight],
    ['web.stayput.internal', 80, 0, 5],
  );
  assert.deepEqual(others, []);
  assert.deepEqual(await resolver.resolve4('any.apps.stayput.internal'), ['10.77.0.5']);
  assert.match(await dig('apps', 'A', '+comments'), /status: NOERROR/);
  assert.match(await dig('nobody', 'A', '+comments'), /status: NXDOMAIN/);
  assert.deepEqual((await dig('any.apps', 'A')).split('\n'), [
    'www.stayput.internal.',
    'web.stayput.internal.',
    '10.77.0.5',
  ]);
  assert.match(await name('list'), /^\*\.apps +CNAME www$/m);
  assert.equal(await digZone('TXT'), '');
  await name('set', '@', '--txt', 'of the zone');
  await waitFor('the news of the zone itself', async () => (await digZone('TXT')) === '"of the zone"');

  await overlay.stop();
  await waitFor('the agent has noticed', () => driver?.mapServer.connected === false);
  assert.equal(await dig('web', 'TXT'), '"hello world"');
  assert.equal(await digZone('TXT'), '"of the zone"');
  assert.deepEqual(await resolver.resolve4('any.apps.stayput.internal'), ['10.77.0.5']);
  assert.match(await dig('never-asked', 'A', '+comments'), /status: SERVFAIL/);

  driver?.close();
  const state = new StateFolder(joinPath(folder, 'state'));
  const again = new AgentDriver(
    AGENT_CONFIG.parse({ stateDir: state.path }),
    state.requireIdentity(),
    state,
    'test',
    log,
  );
  driver = again;
  const restarted = new CachedNameResolver(again, DEFAULT_INSTANCE);
  for (const [at, txt] of [
    [APEX, 'of the zone'],
    ['web', 'hello world'],
  ] as const) {
    const answer = await restarted.resolveName(at);
    assert.ok(answer.kind === 'found' && answer.stale, at);
    assert.deepEqual(answer.zone?.records.txt, [txt]);
  }
});

function dig(label: string, type: string, ...more: string[]): Promise<string> {
  return digName(`${label}.stayput.internal`, type, ...more);
}

function digZone(type: string): Promise<string> {
  return digName('stayput.internal', type);
}

async function digName(whole: string, type: string, ...more: string[]): Promise<string> {
  const how = more.length === 0 ? ['+short'] : ['+noall', ...more];
  const args = ['@127.0.0.1', '-p', String(port), ...how, '+tries=1', whole, type];
  return (await run('dig', args)).stdout.trim();
}

async function name(...args: string[]): Promise<string> {
  return (await run(process.execPath, [PROGRAM, 'name', ...args, '--data-dir', overlay.dataDir])).stdout;
}
