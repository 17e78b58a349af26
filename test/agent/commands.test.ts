/** What people type on a host with an agent, with the program itself. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
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

  describe('a join token', () => {
    const joining = ['agent', 'join', 'https://127.0.0.1:9', '--state-dir', join(folder, 'asked')];
    const mistyped = /the join token is not complete or mistyped/;

    test('is asked for at a terminal, which does not show it and is as before afterwards', async () => {
      for (const more of [[], ['--token', '-'], ['--token-file', '-']]) {
        const { code, screen } = await atTerminal([...joining, ...more], 'stp1.secret\r');
        assert.match(screen, /^Join token \(is not shown\): \r\nstayput: the join token is not complete or mistyped/);
        assert.doesNotMatch(screen, /secret/);
        assert.match(screen, / icanon .* echo /s);
        assert.equal(code, 2);
      }
    });

    test('is not waited for after Ctrl-C, nor after Ctrl-D', async () => {
      const interrupted = await atTerminal(joining, 'stp1.secret\x03');
      assert.match(interrupted.screen, /^Join token \(is not shown\): \r\n(?!stayput)/);
      assert.match(interrupted.screen, / icanon .* echo /s);
      assert.equal(interrupted.code, 130);
      const ended = await atTerminal(joining, '\x04');
      assert.match(ended.screen, /\r\nstayput: a join token is needed, and none was typed\r\n/);
      assert.equal(ended.code, 2);
    });

    test('is read from standard input when that is no terminal, or from a file; an empty one is said to be', async () => {
      const [file, empty] = [join(folder, 'token'), join(folder, 'no-token')];
      writeFileSync(file, 'stp1.secret\n');
      writeFileSync(empty, '\n');
      const typed = `"${process.execPath}" "${PROGRAM}" ${joining.join(' ')}`;
      const said = async (rest: string) => (await run('sh', ['-c', `${typed} ${rest}`])).stderr;
      assert.match(await said(`< ${file}`), mistyped);
      assert.match(await said(`--token-file - < ${file}`), mistyped);
      assert.match(await said(`--token-file ${file} < /dev/null`), mistyped);
      assert.match(await said('< /dev/null'), /a join token is needed, and standard input is empty/);
      assert.match(await said(`--token-file ${empty}`), /a join token is needed, and .*no-token is empty/);
      assert.match(await said("--token ''"), /a join token is needed, and --token is empty/);
    });
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

/** What the screen shows, then the terminal's settings, when `keys` are typed at the prompt. */
function atTerminal(args: readonly string[], keys: string): Promise<{ code: number | null; screen: string }> {
  const words = [process.execPath, PROGRAM, ...args].map((word) => `'${word}'`).join(' ');
  const child = spawn('script', ['-qec', `${words}; code=$?; stty -a; exit $code`, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let screen = '';
  let asked = false;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    screen += text;
    if (asked || !screen.includes(': ')) return;
    asked = true;
    child.stdin.write(keys);
  });
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, screen })));
}

function run(program: string, args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(program, args, { timeout: 20_000 }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode ?? -1, stdout, stderr });
    });
  });
}
