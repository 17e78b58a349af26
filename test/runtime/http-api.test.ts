import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { UsageError } from '../../proto/errors.ts';
import { ApiError, type ApiRequest, apiListener, callApi, parseBody, type Route } from '../../runtime/http-api.ts';
import { temporaryFolder } from './temporary-folder.ts';

test('a route gets its decoded parameters, the query and the body, and its value is the answer', async (t) => {
  const handle = ({ params, query, body }: ApiRequest): unknown => ({ params, q: query.get('q'), body });
  const { socketPath } = await serve(t, [{ method: 'POST', path: '/v1/eids/:prefix', handle }]);
  const answer = await callApi({ socketPath }, 'POST', '/v1/eids/10.0.0.0%2F8?q=1', { body: { a: [1] } });
  assert.deepEqual(answer, { params: { prefix: '10.0.0.0/8' }, q: '1', body: { a: [1] } });
});

test('errors keep their status, code and message; unexpected ones are hidden and reported', async (t) => {
  const { socketPath, reported } = await serve(t, [
    get('/api-error', () => {
      throw new ApiError(409, 'STAYPUT_X', 'is taken');
    }),
    get('/usage', () => {
      throw new UsageError('not so');
    }),
    get('/bug', () => {
      throw new Error('secret internals');
    }),
    get('/nothing', () => undefined),
  ]);
  const call = (path: string): Promise<unknown> => callApi({ socketPath }, 'GET', path);
  await assert.rejects(call('/api-error'), { status: 409, code: 'STAYPUT_X', message: 'is taken' });
  await assert.rejects(call('/usage'), { status: 400, code: 'STAYPUT_USAGE', message: 'not so' });
  await assert.rejects(call('/bug'), { status: 500, code: 'STAYPUT_INTERNAL' });
  await assert.rejects(call('/none'), { status: 404 });
  await assert.rejects(callApi({ socketPath }, 'DELETE', '/bug'), { status: 405 });
  await assert.rejects(call('/%zz'), { status: 404 });
  assert.deepEqual(await call('/nothing'), {});
  assert.deepEqual(reported.map(String), ['Error: secret internals']);
});

test('a body that is too large is refused with 413, one that is no JSON with 400', async (t) => {
  const { socketPath } = await serve(t, [{ method: 'POST', path: '/', handle: () => ({}) }]);
  const large = { body: 'x'.repeat(1024 * 1024) };
  await assert.rejects(callApi({ socketPath }, 'POST', '/', large), { status: 413, code: 'STAYPUT_TOO_LARGE' });
  assert.match(await raw(socketPath, 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{'), /^HTTP\/1.1 400 /);
});

test('garbage, impossible addresses and broken-off requests are not reported as errors of ours', async (t) => {
  const { socketPath, reported } = await serve(t, [{ method: 'POST', path: '/', handle: () => ({}) }]);
  assert.match(await raw(socketPath, '\x16\x03\x01\x02\x00garbage\r\n\r\n'), /^HTTP\/1.1 400 /);
  assert.match(await raw(socketPath, 'GET // HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'), /^HTTP\/1.1 40[04] /);
  await raw(socketPath, 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{', true);
  assert.deepEqual(await callApi({ socketPath }, 'POST', '/'), {});
  assert.deepEqual(reported, []);
});

test('parseBody names the field that is wrong', () => {
  const schema = z.strictObject({ name: z.string() });
  assert.deepEqual(parseBody(schema, { name: 'db' }), { name: 'db' });
  assert.throws(() => parseBody(schema, { name: 5 }), { status: 400, message: /^name: / });
  assert.throws(() => parseBody(schema, undefined), { status: 400 });
});

test('a daemon that is not there, does not answer, or is none of ours is told apart', async (t) => {
  const folder = temporaryFolder(t);
  const call = (name: string): Promise<unknown> =>
    callApi({ socketPath: join(folder, name) }, 'GET', '/', { timeoutMs: 100 });
  await assert.rejects(call('none.sock'), { status: 0, code: 'STAYPUT_UNREACHABLE' });
  const silent = createTcpServer().listen(join(folder, 'silent.sock'));
  t.after(() => silent.close());
  silent.on('connection', (socket) => socket.on('error', () => undefined));
  await assert.rejects(call('silent.sock'), { status: 0, code: 'STAYPUT_TIMEOUT' });
  const other = createServer((_, response) => response.end('<html>')).listen(join(folder, 'other.sock'));
  t.after(() => other.close());
  await assert.rejects(call('other.sock'), { status: 0, code: 'STAYPUT_HTTP' });
});

function get(path: string, handle: () => unknown): Route {
  return { method: 'GET', path, handle };
}

async function serve(
  t: TestContext,
  routes: readonly Route[],
): Promise<{ readonly socketPath: string; readonly reported: unknown[] }> {
  const reported: unknown[] = [];
  const socketPath = join(temporaryFolder(t), 'api.sock');
  const server = createServer(apiListener(routes, (error) => reported.push(error)));
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { socketPath, reported };
}

/** What comes back for these bytes until the other end closes, or until we have sent them, if `hangUp`. */
function raw(socketPath: string, bytes: string, hangUp = false): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (text.includes('\r\n\r\n')) socket.destroy();
    });
    socket.on('close', () => resolve(text));
    socket.on('error', reject);
    socket.write(bytes, 'latin1', () => hangUp && socket.destroy());
  });
}
