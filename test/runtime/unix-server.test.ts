import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { UsageError } from '../../proto/errors.ts';
import { apiListener, callApi } from '../../runtime/http-api.ts';
import { listenOnUnixSocket } from '../../runtime/unix-server.ts';
import { temporaryFolder } from './temporary-folder.ts';

test('a second daemon on the same socket is told so, and the first goes on', async (t) => {
  const path = join(temporaryFolder(t), 'run', 'agent.sock');
  await listen(t, path);
  await assert.rejects(
    listen(t, path),
    (error) => error instanceof UsageError && /already running/.test(error.message),
  );
  assert.deepEqual(await callApi({ socketPath: path }, 'GET', '/v1/status'), { ok: true });
});

test('the socket has the mode that was asked for', async (t) => {
  const path = join(temporaryFolder(t), 'agent.sock');
  await listen(t, path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('the socket of a daemon that was killed is taken over', async (t) => {
  const path = join(temporaryFolder(t), 'agent.sock');
  await abandonedSocket(path);
  await listen(t, path);
  assert.deepEqual(await callApi({ socketPath: path }, 'GET', '/v1/status'), { ok: true });
});

test('a file that is no socket is not deleted', async (t) => {
  const path = join(temporaryFolder(t), 'precious.txt');
  writeFileSync(path, 'precious');
  await assert.rejects(listen(t, path), (error) => error instanceof UsageError && /not a socket/.test(error.message));
  assert.ok(existsSync(path));
});

test('a path that is too long or cannot be made is a usage error', async (t) => {
  await assert.rejects(listen(t, `/tmp/${'x'.repeat(120)}.sock`), /at most 107 octets/);
  const file = join(temporaryFolder(t), 'file');
  writeFileSync(file, '');
  await assert.rejects(listen(t, join(file, 'agent.sock')), UsageError);
});

async function listen(t: TestContext, path: string): Promise<Server> {
  const listener = apiListener([{ method: 'GET', path: '/v1/status', handle: () => ({ ok: true }) }], (error) =>
    assert.fail(String(error)),
  );
  const server = await listenOnUnixSocket(path, 0o600, listener);
  t.after(() => server.close());
  return server;
}

/** Leaves a socket file that nobody listens on, as kill -9 does. */
async function abandonedSocket(path: string): Promise<void> {
  const program = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  const child = spawn(process.execPath, ['-e', program], { stdio: 'ignore' });
  await new Promise((resolve) => child.once('exit', resolve));
  assert.ok(existsSync(path));
}
