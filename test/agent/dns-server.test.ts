import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { promises as dns } from 'node:dns';
import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { type Answer, decode, streamDecode, streamEncode } from 'dns-packet';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { watchResolvConf } from '../../agent/shell/dns-host-resolvers.ts';
import { type DnsServer, startDnsServer } from '../../agent/shell/dns-server.ts';
import type { NameAnswer, NameResolver, PointerAnswer } from '../../agent/shell/name-resolver.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { onBothTransports } from '../../runtime/any-port.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { InheritedSockets } from '../../runtime/inherited-sockets.ts';
import { waitFor } from '../lab/wait.ts';
import { answer, OVERLAY, query, ZONE } from './dns-support.ts';

const run = promisify(execFile);

const DEFAULTS = {
  inherited: new InheritedSockets([]),
  cacheEntries: 100,
  zones: [],
  tlsAuthorities: null,
  queryLog: null,
  mapServer: 'ms.example',
};

test('dig gets names and pointers over UDP and TCP', async (t) => {
  const { port } = await started(t);
  for (const transport of ['+notcp', '+tcp']) {
    assert.equal(await dig(port, transport, '+short', 'db.stayput.internal', 'A'), '10.77.0.5');
    assert.equal(await dig(port, transport, '+short', 'db.stayput.internal', 'AAAA'), 'fd77::5');
    assert.equal(await dig(port, transport, '+short', '-x', '10.77.0.5'), 'db.stayput.internal.');
    assert.equal(await dig(port, transport, '+short', '-x', 'fd77::5'), 'db.stayput.internal.');
  }
});

test('dig sees NXDOMAIN, NODATA, SERVFAIL with its extended error, and no complaint', async (t) => {
  const { port } = await started(t);
  const absent = await dig(port, 'nobody.stayput.internal', 'A');
  assert.match(absent, /status: NXDOMAIN/);
  assert.match(absent, /stayput\.internal\.\s+5\s+IN\s+SOA\s+stayput\.internal\. nobody\.invalid\. 1 3600 600 86400 5/);
  assert.match(await dig(port, 'db.stayput.internal', 'HTTPS'), /status: NOERROR.*\n.*flags: qr aa rd ra.*ANSWER: 0/);
  assert.match(await dig(port, 'broken.stayput.internal', 'A'), /status: SERVFAIL[\s\S]*EDE: 22/);
  assert.match(await dig(port, 'AXFR', 'stayput.internal', '+tcp'), /Transfer failed/);
  assert.match(await dig(port, '+edns=1', '+noednsneg', 'db.stayput.internal'), /status: BADVERS/);
  assert.match(await dig(port, 'version.bind', 'TXT', 'CH'), /status: REFUSED/);
  for (const text of [absent, await dig(port, '+bufsize=1232', 'db.stayput.internal')]) {
    assert.doesNotMatch(text, /WARNING|mismatch|malformed|extra bytes/i);
  }
});

test('A long answer comes over TCP after a truncated one', async (t) => {
  const { port } = await started(t);
  const text = await dig(port, '+short', 'many.stayput.internal', 'A');
  assert.equal(text.split('\n').length, 100);
  assert.match(await dig(port, '+ignore', 'many.stayput.internal', 'A'), /flags: qr aa tc/);
});

test("Node's own resolver resolves, reverses and gets the right error codes", async (t) => {
  const { port } = await started(t);
  const resolver = new dns.Resolver({ timeout: 2000, tries: 1 });
  resolver.setServers([`127.0.0.1:${port}`]);
  assert.deepEqual(await resolver.resolve4('db.stayput.internal', { ttl: true }), [{ address: '10.77.0.5', ttl: 30 }]);
  assert.deepEqual(await resolver.resolve6('db.stayput.internal'), ['fd77::5']);
  assert.deepEqual(await resolver.reverse('10.77.0.5'), ['db.stayput.internal']);
  assert.deepEqual(await resolver.resolve4('x.localhost'), ['127.0.0.1']);
  await assert.rejects(resolver.resolve4('nobody.stayput.internal'), { code: 'ENOTFOUND' });
  await assert.rejects(resolver.resolveMx('db.stayput.internal'), { code: 'ENODATA' });
  await assert.rejects(resolver.resolve4('broken.stayput.internal'), { code: 'ESERVFAIL' });
});

test('Other names are asked of the upstream, over TCP when truncated, and cached', async (t) => {
  const upstream = await startUpstream(t);
  const { port, registry } = await started(t, { upstreams: [`127.0.0.1:${upstream.port}`] });
  assert.equal(await dig(port, '+short', 'www.example', 'A'), '192.0.2.80');
  assert.equal(await dig(port, '+short', 'www.example', 'A'), '192.0.2.80');
  assert.deepEqual(upstream.asked.map(lowerCase), ['udp www.example']);
  assert.equal((await dig(port, '+short', 'big.example', 'A')).split('\n').length, 200);
  assert.deepEqual(upstream.asked.slice(1, 3).map(lowerCase), ['udp big.example', 'tcp big.example']);
  const metrics = await registry.metrics();
  assert.match(metrics, /stayput_agent_dns_queries_total\{zone="forward",type="A",rcode="NOERROR"\} \d/);
  assert.match(metrics, /stayput_agent_dns_query_seconds_count\{zone="forward"\} \d/);
  assert.match(metrics, /stayput_agent_dns_cache_entries 1/);
});

/** The case in which an upstream is asked is random. */
function lowerCase(text: string): string {
  return text.toLowerCase();
}

test('An upstream where nobody listens is left for the next at once', async (t) => {
  const upstream = await startUpstream(t);
  // Another server for each attempt, as one that has met the silence remembers it; a busy machine needs several.
  await waitFor('an answer before the first would have been given up', async () => {
    const { port } = await started(t, { upstreams: ['127.0.0.1:1', `127.0.0.1:${upstream.port}`] });
    const start = performance.now();
    assert.equal(await dig(port, '+short', 'www.example', 'A'), '192.0.2.80');
    return performance.now() - start < 650;
  });
});

test('A wildcard address serves the host itself', async (t) => {
  const { port } = await started(t, {}, (free) => [`0.0.0.0:${free}`]);
  assert.equal(await dig(port, '+short', 'db.stayput.internal', 'A'), '10.77.0.5');
  assert.equal(await dig(port, '+short', '+tcp', 'db.stayput.internal', 'A'), '10.77.0.5');
});

test('Nothing is forwarded to the server itself', async (t) => {
  const { port } = await started(t, { upstreams: ['127.0.0.1:0'] }, (free) => [`127.0.0.1:${free}`]);
  const text = await dig(port, 'www.example', 'A');
  assert.match(text, /status: SERVFAIL[\s\S]*EDE: 22/);
});

test('Pipelined questions on one connection are all answered, the last after a half-close', async (t) => {
  const { port } = await started(t);
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  const names = ['slow.stayput.internal', ...Array.from({ length: 79 }, () => 'db.stayput.internal')];
  const queries = names.map((name, id) => {
    const packet = query(name, 'A', { id });
    return Buffer.concat([Buffer.of(0, packet.length), packet]);
  });
  const stream = Buffer.concat(queries);
  // Cut inside a length and inside a message.
  socket.write(stream.subarray(0, 1));
  socket.write(stream.subarray(1, 50));
  socket.end(stream.subarray(50));
  const received = await drained(socket);
  const ids: number[] = [];
  for (let at = 0; at < received.length; at += 2 + received.readUInt16BE(at)) {
    ids.push(streamDecode(received.subarray(at)).id ?? -1);
  }
  assert.deepEqual(
    ids.toSorted((a, b) => a - b),
    names.map((_, id) => id),
  );
  assert.notEqual(ids[0], 0, 'the slow one does not hold up the others');
});

test('A connection that sends an oversized message is closed', async (t) => {
  const { port } = await started(t);
  const socket = connect(port, '127.0.0.1');
  socket.write(Buffer.of(0xff, 0xff, 0, 0));
  socket.on('error', () => {});
  assert.equal((await drained(socket)).length, 0);
});

test('A name resolver that throws is SERVFAIL and no crash', async (t) => {
  const { port } = await started(t);
  assert.match(await dig(port, 'throws.stayput.internal', 'A'), /status: SERVFAIL/);
  assert.equal(await dig(port, '+short', 'db.stayput.internal', 'A'), '10.77.0.5');
});

test('A taken address and an upstream by name are errors that say what to do', async (t) => {
  const { port } = await started(t);
  const options = {
    resolver: RESOLVER,
    resolvConf: '/nonexistent/resolv.conf',
    ...DEFAULTS,
    log: pino({ level: 'silent' }),
  };
  await assert.rejects(
    startDnsServer({ ...options, listen: [`127.0.0.1:${port}`], upstreams: [], registry: new Registry() }),
    (error: Error) => error instanceof UsageError && /EADDRINUSE.*choose another address/.test(error.message),
  );
  await assert.rejects(
    startDnsServer({ ...options, listen: ['127.0.0.1:0'], upstreams: ['dns.example'], registry: new Registry() }),
    UsageError,
  );
});

test('Resolvers that are set anew while it begins to listen are those that it asks', async (t) => {
  const upstream = await startUpstream(t);
  let wanted = ['192.0.2.1'];
  const starting = startDnsServer({
    resolver: RESOLVER,
    resolvConf: '/nonexistent/resolv.conf',
    ...DEFAULTS,
    registry: new Registry(),
    log: pino({ level: 'silent' }),
    listen: ['127.0.0.1:0'],
    get upstreams() {
      return wanted;
    },
  });
  wanted = [`127.0.0.1:${upstream.port}`];
  const server = await starting;
  t.after(() => server.close());
  assert.deepEqual(server.upstreams, wanted);
  const { port } = parseHostPort(server.addresses[0]!);
  await dig(port, 'www.example', 'A');
  assert.ok(upstream.asked.length > 0);
});

test('A change of resolv.conf is seen, whether it is rewritten or replaced, and an empty file is not', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'stayput-dns-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'resolv.conf');
  writeFileSync(path, 'nameserver 192.0.2.1\n');
  const seen: string[] = [];
  let wake = (): void => {};
  const watch = watchResolvConf(path, (hosts) => {
    seen.push(hosts.join());
    wake();
  });
  // The watch does not keep the process alive.
  const alive = setInterval(() => {}, 1000);
  t.after(() => {
    watch.close();
    clearInterval(alive);
  });
  const next = (): Promise<void> => new Promise((resolve) => (wake = resolve));
  const rewritten = next();
  writeFileSync(path, '');
  writeFileSync(path, 'nameserver 192.0.2.2\n');
  await rewritten;
  const replaced = next();
  writeFileSync(`${path}.new`, 'nameserver 192.0.2.3\nnameserver 192.0.2.4\n');
  renameSync(`${path}.new`, path);
  await replaced;
  assert.deepEqual(seen, ['192.0.2.1', '192.0.2.2', '192.0.2.3,192.0.2.4']);
});

const RESOLVER: NameResolver = {
  zone: ZONE,
  overlay: OVERLAY,
  version: 0,
  resolveName: async (name): Promise<NameAnswer> => {
    const found = (...addresses: string[]): NameAnswer => ({
      kind: 'found',
      addresses: addresses.map(parseIpAddress),
      stale: false,
    });
    if (name === 'db') return found('10.77.0.5', 'fd77::5');
    if (name === 'many') return found(...Array.from({ length: 100 }, (_, i) => `10.77.1.${i}`));
    if (name === 'broken') return { kind: 'unavailable' };
    if (name === 'throws') throw new Error('on purpose');
    if (name === 'slow') return new Promise((resolve) => setTimeout(() => resolve(found('10.77.0.9')), 50));
    return { kind: 'absent' };
  },
  resolvePointer: async (address): Promise<PointerAnswer> =>
    address === '10.77.0.5' || address === 'fd77::5'
      ? { kind: 'found', names: ['db'], stale: false }
      : { kind: 'absent' },
};

async function started(
  t: TestContext,
  { upstreams = [] as string[] } = {},
  listenOn?: (freePort: number) => string[],
): Promise<{ server: DnsServer; port: number; registry: Registry }> {
  const registry = new Registry();
  const common = {
    resolver: RESOLVER,
    resolvConf: '/nonexistent/resolv.conf',
    ...DEFAULTS,
    registry,
    log: pino({ level: 'silent' }),
  };
  const free = listenOn === undefined ? 0 : await freePort();
  const server = await startDnsServer({
    ...common,
    listen: listenOn?.(free) ?? ['127.0.0.1:0'],
    upstreams: listenOn === undefined ? upstreams : [`127.0.0.1:${free}`],
  });
  t.after(() => server.close());
  return { server, port: parseHostPort(server.addresses[0]!).port, registry };
}

/** Answers `www` with one address, and `big` with 200 over TCP only. */
async function startUpstream(t: TestContext): Promise<{ port: number; asked: string[] }> {
  const asked: string[] = [];
  const respond = (packet: Buffer, transport: string): Buffer => {
    const name = decode(packet).questions?.[0]?.name ?? '';
    asked.push(`${transport} ${name}`);
    const big = name.toLowerCase() === 'big.example';
    const records = Array.from({ length: big ? 200 : 1 }, (_, i): Answer => {
      return { type: 'A', name, ttl: big ? 0 : 60, data: big ? `192.0.2.${i}` : '192.0.2.80' };
    });
    const truncated = big && transport === 'udp';
    return answer(packet, 0, truncated ? [] : records, { truncated });
  };
  const port = await onBothTransports(0, async () => {
    const tcp = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', (chunk) => {
        const response = respond(chunk.subarray(2), 'tcp');
        socket.end(streamEncode(decode(response)));
      });
    });
    const udp = createSocket('udp4');
    udp.on('message', (packet, from) => udp.send(respond(packet, 'udp'), from.port, from.address));
    t.after(() => {
      udp.close();
      tcp.close();
    });
    udp.bind(0, '127.0.0.1');
    await once(udp, 'listening');
    const { port: bound } = udp.address();
    tcp.listen(bound, '127.0.0.1');
    await once(tcp, 'listening');
    return bound;
  });
  return { port, asked };
}

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function dig(port: number, ...args: string[]): Promise<string> {
  const common = ['@127.0.0.1', '-p', String(port), '+tries=1', '+time=9', '+nocookie'];
  const { stdout } = await run('dig', [...common, ...args]);
  return stdout.trim();
}

function drained(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  return new Promise((resolve) => socket.once('close', () => resolve(Buffer.concat(chunks))));
}
