/** An error of ours at one question: it is SERVFAIL, and everything else is answered as before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Answer, decode } from 'dns-packet';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Upstream } from '../../agent/core/dns-upstreams.ts';
import { askDns } from '../../agent/shell/dns-question.ts';
import { startDnsServer } from '../../agent/shell/dns-server.ts';
import type { NameAnswer } from '../../agent/shell/name-resolver.ts';
import { type IpAddress, parseIpAddress } from '../../proto/address.ts';
import { servFailTo } from '../../proto/dns/reply.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { InheritedSockets } from '../../runtime/inherited-sockets.ts';
import { Bench, query, read } from './dns-support.ts';

const GOOD = parseIpAddress('10.77.0.5');
/** What no decoder lets through. */
const POISON = null as unknown as IpAddress;

test('Everybody who waits for a poisoned name gets SERVFAIL, and the next question its answer', () => {
  const bench = new Bench();
  bench.ask('db.stayput.internal', 'AAAA', { id: 7, client: 'one' });
  bench.ask('db.stayput.internal', 'AAAA', { id: 8, client: 'two', transport: 'tcp' });
  resolve(bench, POISON);
  assert.deepEqual(
    bench.replies.map(({ client, packet }) => [client, read(packet).id, read(packet).rcodeNumber]),
    [
      ['one', 7, 2],
      ['two', 8, 2],
    ],
  );
  assert.equal(bench.faults.length, 2);
  bench.ask('db.stayput.internal', 'A');
  resolve(bench, GOOD);
  assert.deepEqual([bench.last().rcodeNumber, bench.last().answers?.length], [0, 1]);
  assert.equal(bench.service.pollTimeout(), undefined, 'nothing is left over');
});

test('A question whose forwarding fails is over, and others in flight are not', () => {
  const bench = new Bench();
  bench.upstreams('192.0.2.1');
  bench.ask('www.example', 'A', { client: 'poisoned' });
  bench.ask('good.example', 'A', { client: 'good' });
  const [first, second] = bench.sent;
  const data = { type: 'A', ttl: 60, data: '192.0.2.80' } as const;
  bench.service.handleUpstream(first!.transmit, null as unknown as Uint8Array, bench.now);
  bench.drain();
  bench.upstreamSays(0, [{ ...data, name: 'good.example' } as Answer], {}, second);
  assert.deepEqual(
    bench.replies.map(({ client, rcode }) => [client, rcode]),
    [
      ['poisoned', 2],
      ['good', 0],
    ],
  );
  assert.deepEqual([bench.faults.length, bench.open.size, bench.service.pollTimeout()], [1, 0, undefined]);
});

test('A question that cannot even be sent is answered once', () => {
  const bench = new Bench();
  bench.service.setUpstreams([null as unknown as Upstream], bench.now);
  bench.ask('www.example', 'A', { client: 'poisoned' });
  assert.deepEqual([bench.replies.length, bench.last().rcodeNumber, bench.faults.length], [1, 2, 1]);
  bench.pass(10_000);
  assert.deepEqual([bench.replies.length, bench.faults.length, bench.service.pollTimeout()], [1, 1, undefined]);
});

test('SERVFAIL echoes the question where it is whole, whatever else the octets are', () => {
  const asked = query('WWW.example', 'TXT', { id: 0xbeef, udpSize: 1232 });
  const reply = decode(Buffer.from(servFailTo(asked)));
  assert.deepEqual([reply.id, reply.questions], [0xbeef, decode(asked).questions]);
  for (let length = 12; length < asked.length; length++) {
    const cut = read(servFailTo(asked.subarray(0, length)));
    assert.deepEqual([cut.rcodeNumber, cut.type, cut.id], [2, 'response', 0xbeef], `of ${length} octets`);
  }
  assert.equal(servFailTo(Buffer.concat([asked.subarray(0, 12), Buffer.from('c00c00010001', 'hex')])).length, 12);
});

test('The server answers on after a poisoned name, counts each and logs the first', async (t) => {
  const registry = new Registry();
  const logged: string[] = [];
  const server = await startDnsServer({
    ...{ listen: ['127.0.0.1:0'], upstreams: [], zones: [], tlsAuthorities: null, queryLog: null },
    ...{ mapServer: 'ms.example', resolvConf: '/nonexistent/resolv.conf', cacheEntries: 100, registry },
    inherited: new InheritedSockets([]),
    resolver: {
      ...{ zone: 'stayput.internal', overlay: [], version: 0 },
      resolveName: async (name): Promise<NameAnswer> => {
        return { kind: 'found', addresses: [name === 'poisoned' ? POISON : GOOD], stale: false };
      },
      resolvePointer: async () => ({ kind: 'absent' }),
    },
    log: pino({ level: 'error' }, { write: (line) => logged.push(line) }),
  });
  t.after(() => server.close());
  const at = parseHostPort(server.addresses[0]!);
  for (let i = 0; i < 3; i++) {
    assert.equal((await askDns(at, 'poisoned.stayput.internal', 'AAAA', 5000))?.rcode, 'SERVFAIL');
    assert.equal((await askDns(at, `db${i}.stayput.internal`, 'A', 5000))?.rcode, 'NOERROR');
  }
  assert.match(await registry.metrics(), /^stayput_agent_dns_faults_total 3$/m);
  assert.equal(logged.length, 1);
  assert.match(logged[0]!, /an error of the agent at a DNS question/);
});

function resolve(bench: Bench, address: IpAddress): void {
  const { lookup } = bench.lookups.at(-1)!;
  bench.service.handleName(lookup, { kind: 'found', values: [address], stale: false }, bench.now);
  bench.drain();
}
