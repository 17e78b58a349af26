/** What people type on a host with an agent, with the program itself. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { generateKeys, StateFolder } from '../../agent/shell/identity.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import { writeJsonFile } from '../../runtime/json-file.ts';

const PROGRAM = fileURLToPath(import.meta.url.replace(/test\/agent\/commands\.test\.(ts|js)$/, 'cli/main.$1'));

describe('the command line on a host with an agent', () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-commands-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  test('a reader that goes away is no error', async () => {
    const { code, stderr } = await run('sh', ['-c', `"${process.execPath}" "${PROGRAM}" --help | true`]);
    assert.equal(stderr, '');
    assert.equal(code, 0);
  });

  test('what the agent finds wrong with what was typed ends with 2, what it tried in vain with 1', async () => {
    let status = 400;
    const server = createServer((request, response) => {
      request.resume();
      response
        .writeHead(status)
        .end(JSON.stringify({ error: { code: 'STAYPUT_BAD', message: 'name: not like this' } }));
    });
    const socket = join(folder, 'agent.sock');
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      const wrong = await stayput('resolve', 'a b', '--socket', socket);
      assert.deepEqual(wrong, { code: 2, stdout: '', stderr: 'stayput: name: not like this\n' });
      status = 503;
      assert.equal((await stayput('resolve', 'ab', '--socket', socket)).code, 1);
    } finally {
      server.close();
    }
  });

  test('a daemon from before an upgrade says the level of its log without modules', async () => {
    const server = createServer((_request, response) => {
      response.end(JSON.stringify({ level: 'info', configured: 'info', until: null }));
    });
    const socket = join(folder, 'older.sock');
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      const shown = await stayput('agent', 'log-level', '--socket', socket);
      assert.deepEqual(shown, { code: 0, stdout: 'info\n', stderr: '' });
      const ofOne = await stayput('agent', 'log-level', '--module', 'dns', '--socket', socket);
      assert.equal(ofOne.code, 1);
      assert.match(ofOne.stderr, /older than this command and has no modules: restart it/);
    } finally {
      server.close();
    }
  });

  test('a state file that was cut off is named in one line, with what to do, and left as it is', async () => {
    const stateDir = join(folder, 'cut');
    mkdirSync(stateDir);
    writeFileSync(join(stateDir, 'identity.json'), '{"tunnelPriv');
    const ended = await stayput('agent', 'run', '--state-dir', stateDir, '--socket', join(folder, 'cut.sock'));
    assert.equal(ended.code, 2);
    assert.match(
      ended.stderr,
      /^stayput: .*identity\.json: is not JSON .*; restore the file, or delete it and join again\n$/,
    );
    assert.equal(readFileSync(join(stateDir, 'identity.json'), 'utf8'), '{"tunnelPriv');
  });

  test('an identity is neither given up nor reset while the agent is at work; a fenced one does not mind', async () => {
    let fenced = false;
    const server = createServer((_request, response) => {
      response.end(JSON.stringify({ fenced }));
    });
    const [config, socket] = [join(folder, 'busy.json'), join(folder, 'busy.sock')];
    writeJsonFile(config, { stateDir: join(folder, 'busy'), socket });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    const attempts = [
      ['agent', 'join', 'https://127.0.0.1:9', '--force', '--token', 'none', '--config', config],
      ['agent', 'reset-identity', '--token', 'none', '--config', config],
    ];
    try {
      for (const attempt of attempts) {
        const { code, stderr } = await stayput(...attempt);
        assert.match(
          stderr,
          /^stayput: the agent is running with the identity in .*busy: stop it \(sudo systemctl stop/,
        );
        assert.equal(code, 2);
      }
      fenced = true;
      for (const attempt of attempts) assert.doesNotMatch((await stayput(...attempt)).stderr, /is running/);
    } finally {
      server.close();
    }
  });

  test('an agent that cannot start leaves session, data plane and files to the one that runs', async () => {
    const stateDir = join(folder, 'state');
    mkdirSync(stateDir);
    const state = new StateFolder(stateDir);
    const keys = generateKeys();
    state.writeIdentity({
      ...keys,
      mapServer: { host: '127.0.0.1', port: 9 },
      ca: '-----BEGIN CERTIFICATE-----',
      certificate: '-----BEGIN CERTIFICATE-----',
      presharedKey: Buffer.alloc(32).toString('base64'),
      xtrId: xtrIdOf(keys.tunnelKey),
      instance: 0,
      overlay: [parseIpPrefix('10.77.0.0/16')],
      zone: 'stayput.internal',
    });
    state.writeEids({ eids: [], withdrawals: [], targets: [], departures: [] });
    const before = statSync(join(stateDir, 'eids.json'));
    let connections = 0;
    const dataplane = createServer();
    dataplane.on('connection', () => connections++);
    const dataplaneSocket = join(folder, 'dataplane.sock');
    await new Promise<void>((resolve) => dataplane.listen(dataplaneSocket, resolve));
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as { port: number };
    const config = join(folder, 'agent.json');
    writeJsonFile(config, {
      stateDir,
      dataplaneSocket,
      socket: join(folder, 'second.sock'),
      metricsListen: `127.0.0.1:${port}`,
      dns: { enabled: false },
    });
    try {
      const ended = await stayput('agent', 'run', '--config', config);
      assert.equal(ended.code, 2);
      assert.equal(ended.stderr, `stayput: cannot listen on 127.0.0.1:${port} (EADDRINUSE)\n`);
      assert.equal(connections, 0);
      assert.equal(statSync(join(stateDir, 'eids.json')).ino, before.ino);
      assert.equal(JSON.parse(readFileSync(join(stateDir, 'eids.json'), 'utf8')).eids.length, 0);
    } finally {
      dataplane.close();
      taken.close();
    }
  });
});

function stayput(...args: string[]) {
  return run(process.execPath, [PROGRAM, ...args]);
}

function run(program: string, args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(program, args, { timeout: 20_000 }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode ?? -1, stdout, stderr });
    });
  });
}
