/** What `stayput status` shows, and what its exit code says. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inboundOf } from '../../agent/shell/reachability.ts';
import { type Status, statusLines } from '../../cli/status-screen.ts';
import { styleOf } from '../../cli/style.ts';
import type { IpPrefix } from '../../proto/address.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';

const PROGRAM = fileURLToPath(import.meta.url.replace(/test\/cli\/status\.test\.(ts|js)$/, 'cli/main.$1'));

const STATUS: Status = {
  version: '1.2.3',
  xtrId: '3f'.repeat(16),
  agentAddress: 'fd53:7461:7970:7574::1',
  overlay: ['10.77.0.0/16'],
  zone: 'stayput.internal',
  registered: true,
  locators: [{ address: '192.0.2.7', port: 4341, priority: 1 }],
  uplinks: [
    { address: '192.0.2.7', interface: 'eth0', silent: false },
    { address: '198.51.100.7', interface: 'eth1', silent: true },
  ],
  mapServer: { host: 'ms', port: 4342, connected: true, connectedMs: 90_000, problem: null, localAddress: '192.0.2.7' },
  dataplane: { connected: true, software: 'd 1', cipher: 'c', offloads: ['udp-gso'], sandbox: [] },
  policy: { version: 7_000_012, default: 'deny', rules: 3, denied: { out: 1, in: 2 } },
  inbound: {
    rules: [{ action: 'allow', from: ['10.77.0.0/24'], more: 2, service: 'tcp 443' }],
    more: 0,
    otherwise: 'deny',
  },
  eids: [],
  mapCache: { positive: 1, negative: 0, stale: 0 },
  peers: 1,
  heard: [
    {
      publicKey: 'abcdefghijklmnop',
      endpoint: { address: '192.0.2.9', port: 4341 },
      session: 'up',
      lastReceivedMs: 500,
      rttUs: 1_250,
      pathMtu: 1_480,
      eids: ['fd53:7461:7970:7574::9/128', '10.77.0.9/32'],
    },
  ],
  problems: [],
};

const plain = styleOf(process.stdout, { NO_COLOR: '1' });

test('one screen says since when, from where, who gets in, and who answers', () => {
  const screen = statusLines(STATUS, plain).join('\n');
  assert.match(screen, /^Healthy: registered, and nothing is wrong\n/);
  assert.match(screen, /^Registered {3}yes, for 2 min$/m);
  assert.match(screen, /^Map server {3}ms:4342, connected from 192\.0\.2\.7 for 2 min$/m);
  assert.match(screen, /^Locators {5}192\.0\.2\.7:4341 \(eth0, priority 1\)$/m);
  assert.match(screen, /^ +198\.51\.100\.7 \(eth1\) is not used: nobody answers through it$/m);
  assert.match(screen, /^Reached by {3}yes 10\.77\.0\.0\/24 and 2 more: tcp 443\n +no {2}everybody else$/m);
  assert.match(screen, /^10\.77\.0\.9\/32 +192\.0\.2\.9:4341 +up +500 ms ago +1\.25 ms +1480$/m);
});

test('what is wrong comes first', () => {
  const [first, second] = statusLines({ ...STATUS, registered: false, problems: ['no locator'] }, plain);
  assert.equal(first, 'NOT healthy: see below');
  assert.equal(second, '! no locator');
});

test('an agent of the version before says less, and is shown', () => {
  const { uplinks: _uplinks, inbound: _inbound, heard: _heard, ...less } = STATUS;
  assert.match(statusLines(less, plain).join('\n'), /^Locators {5}192\.0\.2\.7:4341/m);
});

test('colour is for terminals that want it', () => {
  const terminal = { isTTY: true } as NodeJS.WriteStream;
  assert.equal(styleOf(terminal, {}).bad('x'), '\u001b[31mx\u001b[0m');
  assert.equal(styleOf(terminal, { NO_COLOR: '1' }).bad('x'), 'x');
  assert.equal(styleOf(terminal, { TERM: 'dumb' }).bad('x'), 'x');
  assert.equal(styleOf({ isTTY: false } as NodeJS.WriteStream, {}).bad('x'), 'x');
});

test('of a policy, the rules that let others to this host count', () => {
  const [all, mine, other] = ['10.77.0.0/16', '10.77.0.5/32', '10.77.0.6/32'] as IpPrefix[];
  const allow = { action: 'allow' as const, source: [all!], protocol: 6, ports: [[443, 443] as const] };
  const rules = [
    { ...allow, destination: [other!] },
    { ...allow, destination: [mine!] },
    { ...allow, destination: [all!], protocol: null, ports: [] },
  ];
  const inbound = inboundOf({ version: 1, default: 'deny', rules }, [mine!]);
  assert.deepEqual(
    inbound.rules.map(({ service }) => service),
    ['tcp 443', 'any'],
  );
  assert.equal(inbound.otherwise, 'deny');
});

test('the exit code says whether it is healthy, also as JSON', async (t) => {
  const ask = async (status: Status) => {
    const socket = await serve(t, status);
    return stayput('status', '--json', '--socket', socket);
  };
  const well = await ask(STATUS);
  assert.equal(well.code, 0);
  assert.equal(JSON.parse(well.stdout).healthy, true);
  const ill = await ask({ ...STATUS, problems: ['no locator'] });
  assert.equal(ill.code, 1);
  assert.deepEqual(JSON.parse(ill.stdout).problems, ['no locator']);
});

test('without an agent it says so, and what to do', async (t) => {
  const socket = join(temporaryFolder(t), 'agent.sock');
  const ended = await stayput('status', '--socket', socket);
  assert.equal(ended.code, 1);
  assert.match(
    ended.stdout,
    /^NOT healthy: the agent does not answer\n! no answer from the agent at .*: is the agent running\?\n/,
  );
  assert.match(
    ended.stdout,
    /! there is no interface stayput0: nothing is forwarded|! the interface stayput0 is there/,
  );
  const { healthy, problems } = JSON.parse((await stayput('status', '--json', '--socket', socket)).stdout);
  assert.equal(healthy, false);
  assert.ok(problems.length >= 2);
});

let sockets = 0;

async function serve(t: TestContext, status: Status): Promise<string> {
  const socket = join(temporaryFolder(t), `${++sockets}.sock`);
  const server = createServer((_request, response) => response.end(JSON.stringify(status)));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(() => server.close());
  return socket;
}

function stayput(...words: string[]): Promise<{ code: number; stdout: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [PROGRAM, ...words], (_error, stdout) => {
      resolve({ code: child.exitCode ?? -1, stdout });
    });
  });
}
