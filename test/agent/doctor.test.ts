/** Checks of `stayput doctor` on machines that are wrong in one thing each. */
import assert from 'node:assert/strict';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { checkAgent, checkIdentity, checkVersions, judgeUnits } from '../../agent/doctor/agent-checks.ts';
import { CHECK_NAMES, examine } from '../../agent/doctor/checkup.ts';
import { checkKernel, checkOffloads, checkState } from '../../agent/doctor/host-checks.ts';
import { checkClock, checkMapServer, contact } from '../../agent/doctor/map-server-checks.ts';
import { checkReversePath, checkUdp, closedChains, overlappingRoutes } from '../../agent/doctor/network-checks.ts';
import type { AgentStatus, Subject } from '../../agent/doctor/subject.ts';
import { generateKeys } from '../../agent/shell/identity.ts';
import { certifyAgent, createAuthority, createServerCertificate } from '../../mapserver/shell/certificate-authority.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import type { Outcome } from '../../runtime/finding.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';

const DAY = 86_400_000;
const STATUS: AgentStatus = {
  version: VERSION,
  overlay: ['10.77.0.0/16'],
  registered: true,
  fenced: false,
  agentAddress: 'fd53:7461:7970:7574::1',
  locators: [{ address: '192.0.2.7' }],
  uplinks: [{ address: '192.0.2.7', interface: 'eth0', silent: false }],
  mapServer: { host: 'ms', port: 4342, connected: true },
  dataplane: {
    connected: true,
    software: `stayput-dataplane/${VERSION}`,
    offloads: ['vnet-hdr', 'tso', 'udp-gso', 'udp-gro'],
  },
  eids: [],
  heard: [],
  problems: [],
};
const SUBJECT: Subject = {
  config: AGENT_CONFIG.parse({}),
  status: STATUS,
  away: null,
  mapServer: null,
  joined: null,
  unreadable: null,
  overlay: ['10.77.0.0/16'],
};

function levels(outcomes: readonly Outcome[]): string {
  return outcomes.map(({ level }) => level).join(' ');
}

/** What is wrong has a remedy. */
function assertWrong(outcomes: readonly Outcome[], level: 'warn' | 'fail', found: RegExp, advice: RegExp): void {
  const outcome = outcomes.find((each) => each.level === level);
  assert.ok(outcome !== undefined, JSON.stringify(outcomes));
  assert.match(outcome.found, found);
  assert.match(outcome.advice ?? '', advice);
}

/** A file system with what a kernel shows. */
function machine(t: TestContext, without: string | null, lsm = 'capability,landlock'): string {
  const root = temporaryFolder(t);
  const files = { 'dev/net/tun': '', 'proc/net/packet': '', 'proc/net/if_inet6': '', 'sys/kernel/security/lsm': lsm };
  for (const [path, text] of Object.entries(files)) {
    if (path === without) continue;
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

test('kernel: what is missing, and what to do', (t) => {
  assert.equal(levels(checkKernel(machine(t, null), '6.12.1')), 'ok');
  assertWrong(checkKernel(machine(t, 'dev/net/tun'), '6.12.1'), 'fail', /no \/dev\/net\/tun/, /modprobe tun/);
  assertWrong(checkKernel(machine(t, null), '4.19.0'), 'fail', /too old/, /5\.4/);
  assertWrong(checkKernel(machine(t, 'proc/net/if_inet6'), '6.12.1'), 'fail', /IPv6/, /ipv6\.disable/);
  assertWrong(checkKernel(machine(t, null), '5.10.0'), 'warn', /USO/, /works without/);
  assertWrong(checkKernel(machine(t, null, 'capability'), '6.12.1'), 'warn', /Landlock/, /works without/);
  assertWrong(checkKernel(machine(t, 'proc/net/packet'), '6.12.1'), 'warn', /AF_PACKET/, /works without/);
});

test('state: open to others', (t) => {
  const stateDir = temporaryFolder(t);
  chmodSync(stateDir, 0o700);
  const subject = { ...SUBJECT, config: AGENT_CONFIG.parse({ stateDir }) };
  assert.equal(levels(checkState(subject)), 'ok');
  chmodSync(stateDir, 0o755);
  assertWrong(checkState(subject), 'fail', /open to others/, /chmod 700/);
  assert.equal(levels(checkState({ ...SUBJECT, config: AGENT_CONFIG.parse({ stateDir: '/nowhere' }) })), 'skipped');
});

test('identity: not joined, a copy, a certificate that ends or has ended', () => {
  assertWrong(checkIdentity(SUBJECT), 'warn', /not joined/, /agent join/);
  assertWrong(
    checkIdentity({ ...SUBJECT, status: { ...STATUS, fenced: true } }),
    'fail',
    /another host/,
    /reset-identity/,
  );
  const authority = createAuthority('test', Date.now() - 100 * DAY);
  const keys = generateKeys();
  const joined = (began: number, life: number): Subject => {
    const publicKey = createPublicKey(authority.key);
    const certificate = certifyAgent(authority, publicKey, xtrIdOf(keys.tunnelKey), began, life);
    return { ...SUBJECT, joined: { certificate: new X509Certificate(certificate) } };
  };
  const now = Date.now();
  assert.equal(levels(checkIdentity(joined(now - DAY, 30 * DAY))), 'ok');
  assertWrong(checkIdentity(joined(now - 25 * DAY, 30 * DAY)), 'warn', /ends in \d+ days and was not renewed/, /reach/);
  assertWrong(checkIdentity(joined(now - 40 * DAY, 30 * DAY)), 'fail', /ended/, /--force/);
});

test('units: one that is down, that the next boot will not start, or that lets keys be in the memory of a sleeping machine', () => {
  const unit = (name: string, enabled = 'enabled', state = 'active') => ({ unit: `${name}.service`, state, enabled });
  const [agent, dataplane] = [unit('stayput-agent'), unit('stayput-dataplane')];
  const sleep = (enabled: string) => unit('stayput-sleep', enabled, enabled === '' ? 'missing' : 'inactive');
  assert.equal(levels(judgeUnits([agent, dataplane, sleep('enabled')])), 'ok ok', 'it runs only when there is a need');
  const old = judgeUnits([agent, dataplane, sleep('disabled')]);
  assert.equal(levels(old), 'ok ok warn');
  assertWrong(old, 'warn', /^stayput-sleep\.service is not enabled: .* keys/, /systemctl enable stayput-sleep$/);
  for (const meant of ['masked', '']) assert.equal(levels(judgeUnits([agent, dataplane, sleep(meant)])), 'ok ok');
  const once = judgeUnits([unit('stayput-agent', 'disabled'), dataplane, sleep('disabled')]);
  assert.equal(levels(once), 'warn ok');
  assertWrong(once, 'warn', /not after the next boot/, /enable stayput-agent/);
  const down = judgeUnits([agent, unit('stayput-dataplane', 'enabled', 'failed'), sleep('enabled')]);
  assertWrong(down, 'fail', /stayput-dataplane\.service is failed/, /start stayput-dataplane/);
  assert.equal(levels(judgeUnits(null)), 'skipped');
  const none = ['stayput-agent', 'stayput-dataplane', 'stayput-sleep'].map((name) => unit(name, '', 'missing'));
  assert.equal(levels(judgeUnits(none)), 'skipped');
});

test('agent: what it says of itself, and that it does not answer', () => {
  assert.equal(levels(checkAgent(SUBJECT)), 'ok');
  assertWrong(
    checkAgent({ ...SUBJECT, status: { ...STATUS, problems: ['no locator'] } }),
    'fail',
    /no locator/,
    /troubleshooting/,
  );
  const away = { ...SUBJECT, status: null, away: 'no answer', unreadable: 'EACCES' };
  assertWrong(checkAgent(away), 'fail', /no answer/, /systemctl start/);
});

test('versions: a daemon that was not restarted', () => {
  assert.equal(levels(checkVersions(SUBJECT)), 'ok');
  assertWrong(
    checkVersions({ ...SUBJECT, status: { ...STATUS, version: '0.0.1' } }),
    'warn',
    /0\.0\.1/,
    /restart stayput-agent/,
  );
  const dataplane = { ...STATUS.dataplane, software: 'stayput-dataplane/0.0.1' };
  assertWrong(
    checkVersions({ ...SUBJECT, status: { ...STATUS, dataplane } }),
    'warn',
    /0\.0\.1/,
    /restart stayput-dataplane/,
  );
});

test('offloads: one that is off', () => {
  assert.equal(levels(checkOffloads(SUBJECT)), 'ok');
  const dataplane = { ...STATUS.dataplane, offloads: ['vnet-hdr'] };
  assertWrong(
    checkOffloads({ ...SUBJECT, status: { ...STATUS, dataplane } }),
    'warn',
    /without tso, udp-gso, udp-gro/,
    /--offload/,
  );
});

test('udp: no reflector, and nobody to try with', async () => {
  const answer = { address: '127.0.0.1', ms: 1, aheadMs: 0, untrusted: null, reflector: [] };
  const outcomes = await checkUdp(SUBJECT, { answer, problem: null });
  assert.ok(outcomes.some(({ level, found }) => level === 'skipped' && /has no reflector/.test(found)));
  assert.ok(outcomes.some(({ level, found }) => level === 'skipped' && /no peer yet/.test(found)));
});

test('rp-filter: strict on a host with two uplinks', () => {
  const uplinks = ['eth0', 'eth1'].map((name) => ({ address: '192.0.2.7', interface: name, silent: false }));
  const two = { ...SUBJECT, status: { ...STATUS, uplinks } };
  assert.equal(levels(checkReversePath(SUBJECT, () => 1)), 'ok');
  assert.equal(levels(checkReversePath(two, () => 2)), 'ok');
  assertWrong(
    checkReversePath(two, (name) => (name === 'eth1' ? 1 : 0)),
    'warn',
    /strict on eth1/,
    /rp_filter=2/,
  );
  assertWrong(
    checkReversePath(two, (name) => (name === 'all' ? 1 : 0)),
    'warn',
    /strict on eth0, eth1/,
    /rp_filter=2/,
  );
});

test('overlap: routes into the overlay that are not the tunnel’s', () => {
  const overlay = ['10.77.0.0/16', 'fd00:77::/48'];
  const of = (dst: string, dev = 'eth0', type?: string) =>
    overlappingRoutes([{ dst, dev, ...(type === undefined ? {} : { type }) }], overlay).length;
  assert.equal(of('default'), 0);
  assert.equal(of('10.77.0.0/16', 'stayput0'), 0);
  assert.equal(of('192.0.2.0/24'), 0);
  assert.equal(of('10.77.0.0/16', 'eth0', 'blackhole'), 0);
  assert.equal(of('10.0.0.0/8'), 1);
  assert.equal(of('10.77.3.0/24'), 1);
  assert.equal(of('fd00:77:0:1::/64'), 1);
  const ofWide = (dst: string) => overlappingRoutes([{ dst, dev: 'eth0' }], ['100.64.0.0/10']).length;
  assert.equal(ofWide('100.100.100.200'), 0, 'the metadata service of a platform');
  assert.equal(ofWide('100.100.0.0/16'), 1);
});

test('firewall: a chain that drops, unless a rule of its table lets the port in', () => {
  const chain = { family: 'inet', table: 'filter', name: 'input', hook: 'input', policy: 'drop' };
  const rule = (expr: unknown) => ({ rule: { family: 'inet', table: 'filter', expr } });
  const match = (right: unknown) => ({ match: { left: { payload: { protocol: 'udp', field: 'dport' } }, right } });
  const accept = { accept: null };
  const closed = (...more: object[]) => closedChains({ nftables: [{ chain }, ...more] }, 4341);
  assert.deepEqual(closed(), ['inet filter input']);
  assert.deepEqual(closed(rule([match(22), accept])), ['inet filter input']);
  assert.deepEqual(closed(rule([match(4341), { drop: null }])), ['inet filter input']);
  assert.deepEqual(closed(rule([match(4341), accept])), []);
  assert.deepEqual(closed(rule([match({ set: [53, { range: [4000, 5000] }] }), accept])), []);
  assert.deepEqual(closedChains({ nftables: [{ chain: { ...chain, policy: 'accept' } }] }, 4341), []);
});

test('map server and clock: another one, one with another time, none', async (t) => {
  const authority = createAuthority('test', Date.now());
  const { key, certificate } = createServerCertificate(authority, ['127.0.0.1'], Date.now());
  let ahead = 0;
  const server = createServer({ key, cert: certificate }, (_request, response) => {
    response.setHeader('date', new Date(Date.now() + ahead).toUTCString());
    response.end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const mapServer = { host: '127.0.0.1', port, ca: authority.certificate };
  const subject = { ...SUBJECT, mapServer };
  const well = await contact(mapServer);
  assert.equal(levels(checkMapServer(subject, well)), 'ok');
  assert.equal(levels(checkClock(well)), 'ok');
  assertWrong(checkMapServer({ ...subject, overlay: ['127.0.0.0/8'] }, well), 'fail', /of the overlay/, /outside of/);
  const other = { ...mapServer, ca: createAuthority('other', Date.now()).certificate };
  assertWrong(
    checkMapServer(subject, await contact(other)),
    'fail',
    /not the map server of this overlay/,
    /who answers/,
  );
  ahead = 60_000;
  assertWrong(checkClock(await contact(mapServer)), 'warn', /(59|60|61) s behind/, /ntp/);
  ahead = -3_600_000;
  assertWrong(checkClock(await contact(mapServer)), 'fail', /3\d\d\d s ahead/, /certificates/);
  server.close();
  server.closeAllConnections();
  assertWrong(checkMapServer(subject, await contact(mapServer)), 'fail', /nobody listens/, /nc -vz/);
  assert.equal(levels(checkClock(await contact(mapServer))), 'skipped');
});

test('map server: an answer that ends in the middle, or never', async (t) => {
  const authority = createAuthority('test', Date.now());
  const { key, certificate } = createServerCertificate(authority, ['127.0.0.1'], Date.now());
  let cut = true;
  const server = createServer({ key, cert: certificate }, (_request, response) => {
    response.writeHead(200, { 'content-length': 100 });
    response.write('{', () => {
      if (cut) response.socket?.destroy();
    });
    const drip = setInterval(() => response.write(' '), 20);
    response.on('close', () => clearInterval(drip));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const mapServer = { host: '127.0.0.1', port: (server.address() as AddressInfo).port, ca: authority.certificate };
  assert.deepEqual(await contact(mapServer), { answer: null, problem: 'the connection was cut (ECONNRESET)' });
  cut = false;
  assert.deepEqual(await contact(mapServer, 200), { answer: null, problem: 'no answer in time' });
});

test('before joining, every check is there and none throws', async (t) => {
  const folder = temporaryFolder(t);
  const config = AGENT_CONFIG.parse({
    stateDir: join(folder, 'none'),
    socket: join(folder, 'none.sock'),
    platform: 'off',
  });
  const told: string[][] = [];
  const findings = await examine(config, CHECK_NAMES, 'https://127.0.0.1:9', (part) => {
    told.push(part.map(({ check }) => check));
  });
  assert.deepEqual(
    told.map(([check]) => check),
    CHECK_NAMES,
    'each is told by itself',
  );
  assert.deepEqual([...new Set(findings.map(({ check }) => check))], CHECK_NAMES);
  assert.equal(findings.find(({ check }) => check === 'map-server')?.level, 'fail');
});
