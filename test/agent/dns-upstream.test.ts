/** The ways to upstream resolvers: connections that are shared and kept, TLS, zones of their own, and what is logged. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { pino } from 'pino';
import { DnsQueryLog } from '../../agent/shell/dns-query-log.ts';
import { UpstreamSockets } from '../../agent/shell/dns-upstream.ts';
import { formatUpstream, parseUpstream } from '../../agent/shell/dns-upstream-address.ts';
import { UsageError } from '../../proto/errors.ts';
import { FrameReader, frame } from '../../runtime/dns-stream.ts';
import { selfSigned } from '../lab/self-signed.ts';
import { waitFor } from '../lab/wait.ts';
import { answer, query } from './dns-support.ts';

test('Questions over TCP share one connection, and answers find their questions in any order', async (t) => {
  const held: { socket: Socket; packet: Buffer }[] = [];
  const server = await resolver(t, (socket, packet) => {
    held.push({ socket, packet });
    if (held.length === 3) for (const each of held.reverse()) respond(each.socket, each.packet);
  });
  const { sockets, received } = upstreams(t);
  for (const id of [11, 12, 13]) sockets.send(id, server.upstream, 'tcp', query(`n${id}.example`, 'A', { id }));
  await waitFor('three answers', () => received.size === 3);
  assert.deepEqual([...received].sort(), [
    [11, 11],
    [12, 12],
    [13, 13],
  ]);
  assert.equal(server.connections(), 1);
});

test('A question that is lost because the server finds the connection idle is asked on a new one', async (t) => {
  let asked = 0;
  const server = await resolver(t, (socket, packet) => {
    asked += 1;
    if (asked === 2) socket.destroy();
    else respond(socket, packet);
  });
  const { sockets, received, failed } = upstreams(t);
  sockets.send(1, server.upstream, 'tcp', query('a.example', 'A', { id: 1 }));
  await waitFor('the first answer', () => received.has(1));
  // As the forwarder does with whatever is answered.
  sockets.cancel(1);
  sockets.send(2, server.upstream, 'tcp', query('b.example', 'A', { id: 2 }));
  await waitFor('the second answer', () => received.has(2));
  assert.deepEqual([asked, server.connections(), failed.length], [3, 2, 0]);
});

test('A server that always hangs up is failed once', async (t) => {
  const server = await resolver(t, (socket) => socket.destroy());
  const { sockets, failed } = upstreams(t);
  sockets.send(1, server.upstream, 'tcp', query('a.example', 'A'));
  await waitFor('the failure', () => failed.length === 1);
  assert.equal(server.connections(), 1);
});

test('New resolvers mean new connections; what was asked is still answered', async (t) => {
  const held: (() => void)[] = [];
  const server = await resolver(t, (socket, packet) => held.push(() => respond(socket, packet)));
  const { sockets, received } = upstreams(t);
  sockets.send(1, server.upstream, 'tcp', query('a.example', 'A', { id: 1 }));
  await waitFor('the first question', () => held.length === 1);
  sockets.renew();
  sockets.send(2, server.upstream, 'tcp', query('b.example', 'A', { id: 2 }));
  await waitFor('the second question', () => held.length === 2);
  for (const reply of held) reply();
  await waitFor('both answers', () => received.size === 2);
  assert.equal(server.connections(), 2);
});

test('Over TLS only the server is asked whose certificate has the name, and is from a trusted authority', async (t) => {
  const own = selfSigned('dns.example', [
    { name: 'basicConstraints', cA: true },
    { name: 'subjectAltName', altNames: [{ type: 2, value: 'dns.example' }] },
  ]);
  const server = await resolver(t, respond, own);
  const trusting = upstreams(t, own.cert);
  trusting.sockets.send(
    1,
    { ...server.upstream, tls: { name: 'dns.example' } },
    'tls',
    query('a.example', 'A', { id: 1 }),
  );
  await waitFor('the answer', () => trusting.received.has(1));
  trusting.sockets.send(
    2,
    { ...server.upstream, tls: { name: 'other.example' } },
    'tls',
    query('a.example', 'A', { id: 2 }),
  );
  await waitFor('the refusal', () => trusting.failed.includes(2));
  trusting.sockets.send(3, { ...server.upstream, tls: { name: '' } }, 'tls', query('a.example', 'A', { id: 3 }));
  await waitFor('the refusal of an address that the certificate does not have', () => trusting.failed.includes(3));
  const distrustful = upstreams(t);
  distrustful.sockets.send(
    4,
    { ...server.upstream, tls: { name: 'dns.example' } },
    'tls',
    query('a.example', 'A', { id: 4 }),
  );
  await waitFor('the refusal of the authority', () => distrustful.failed.includes(4));
  assert.deepEqual(server.asked(), 1);
});

test('Resolvers are written as addresses, with TLS as URLs', () => {
  const forms = ['192.0.2.1', '192.0.2.1:5353', '2001:db8::1', '[2001:db8::1]:53', 'tls://192.0.2.1#dns.example'];
  const long = ['tls://[2001:db8::1]:8853#dns.example', 'tls://192.0.2.1'];
  assert.deepEqual(
    [...forms, ...long].map((form) => formatUpstream(parseUpstream(form))),
    [
      ...['192.0.2.1:53', '192.0.2.1:5353', '[2001:db8::1]:53', '[2001:db8::1]:53', 'tls://192.0.2.1:853#dns.example'],
      ...['tls://[2001:db8::1]:8853#dns.example', 'tls://192.0.2.1:853'],
    ],
  );
  for (const wrong of [
    'dns.example',
    'dns.example:53',
    'tls://dns.example',
    '192.0.2.1#dns.example',
    'tls://192.0.2.1#',
    '',
  ]) {
    assert.throws(() => parseUpstream(wrong), UsageError, wrong);
  }
});

test('The query log has a line for each question, and what cannot be written is counted', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'stayput-dns-log-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const log = pino({ level: 'silent' });
  const line = { time: 'now', client: '127.0.0.1', name: 'a"b', type: 'A', rcode: 'NOERROR', zone: 'forward', ms: 1 };
  const path = join(dir, 'queries.jsonl');
  const written = new DnsQueryLog(path, log, () => assert.fail());
  written.write(line);
  written.write({ ...line, cache: 'hit' });
  await written.close();
  assert.deepEqual(
    readFileSync(path, 'utf8')
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text)),
    [line, { ...line, cache: 'hit' }],
  );
  let lost = 0;
  const broken = new DnsQueryLog(join(dir, 'missing', 'queries.jsonl'), log, (lines) => (lost += lines));
  for (let i = 0; i < 10_005; i++) broken.write(line);
  assert.equal(lost, 5);
  await broken.close();
  assert.equal(lost, 10_005);
});

function upstreams(t: TestContext, authorities?: string) {
  const received = new Map<number, number>();
  const failed: number[] = [];
  const events = {
    received: (transmit: number, packet: Uint8Array) =>
      void received.set(transmit, Buffer.from(packet).readUInt16BE(0)),
    failed: (transmit: number) => void failed.push(transmit),
  };
  const sockets = new UpstreamSockets(events, authorities);
  t.after(() => sockets.close());
  return { sockets, received, failed };
}

async function resolver(
  t: TestContext,
  handle: (socket: Socket, packet: Buffer) => void,
  tls?: { readonly key: string; readonly cert: string },
) {
  let connections = 0;
  let asked = 0;
  const open = new Set<Socket>();
  const serve = (socket: Socket): void => {
    connections += 1;
    open.add(socket);
    const reader = new FrameReader(65_535);
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      for (const packet of reader.push(chunk)) {
        asked += 1;
        handle(socket, packet);
      }
    });
  };
  const server: Server = tls === undefined ? createServer(serve) : createTlsServer(tls, serve);
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { upstream: { host: '127.0.0.1', port }, connections: () => connections, asked: () => asked };
}

function respond(socket: Socket, packet: Buffer): void {
  socket.write(frame(answer(packet, 0, [])));
}
