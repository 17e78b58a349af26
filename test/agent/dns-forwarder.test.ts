import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from 'dns-packet';
import { parseNameservers } from '../../agent/core/dns-resolv-conf.ts';
import { Bench, query, read, soa } from './dns-support.ts';

const A: Answer = { type: 'A', name: 'www.example', ttl: 60, data: '192.0.2.80' };
const HOSTS = ['192.0.2.1', '192.0.2.2'] as const;

test('A question is asked with a new ID and OPT 1232, and answered with the ID and case of the client', () => {
  const bench = started();
  bench.ask('WWW.Example', 'A', { id: 7 });
  const sent = read(bench.sent[0]!.packet);
  assert.notEqual(sent.id, 7);
  assert.equal((sent.additionals?.[0] as unknown as { udpPayloadSize: number } | undefined)?.udpPayloadSize, 1232);
  bench.upstreamSays(0, [A]);
  const seen = bench.last();
  assert.deepEqual(
    [seen.id, seen.questions?.[0]?.name, seen.flag_aa, seen.flag_ra, seen.zone, seen.additionals?.length],
    [7, 'WWW.Example', false, true, 'forward', 0],
  );
  assert.equal((seen.answers?.[0] as unknown as { data: string } | undefined)?.data, '192.0.2.80');
  assert.equal(bench.open.size, 0);
});

test('Equal questions in flight are joined, whatever their case', () => {
  const bench = started();
  bench.ask('www.example', 'A', { id: 1, client: 'a' });
  bench.ask('WWW.example', 'A', { id: 2, client: 'b' });
  bench.ask('www.example', 'AAAA', { id: 3, client: 'c' });
  assert.equal(bench.sent.length, 2);
  bench.upstreamSays(0, [A], {}, bench.sent[0]!);
  assert.deepEqual(
    bench.replies.map((reply) => [reply.client, read(reply.packet).id]),
    [
      ['a', 1],
      ['b', 2],
    ],
  );
});

test('A cached answer is given again with its TTL lowered, until it ends', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.upstreamSays(0, [A]);
  bench.pass(25_000);
  bench.ask('www.EXAMPLE', 'A');
  assert.equal(bench.sent.length, 1);
  assert.equal((bench.last().answers?.[0] as unknown as { ttl: number } | undefined)?.ttl, 35);
  bench.pass(35_000);
  bench.ask('www.example', 'A');
  assert.equal(bench.replies.length, 2);
  assert.ok(bench.sent.length > 1);
});

test('TTL 0 is not cached, and a TTL with the top bit set is a large one', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.upstreamSays(0, [{ ...A, ttl: 0 } as Answer]);
  bench.ask('www.example', 'A');
  assert.equal(bench.sent.length, 2);
  bench.upstreamSays(0, [{ ...A, ttl: 0xffffffff } as Answer]);
  assert.equal((bench.last().answers?.[0] as unknown as { ttl: number } | undefined)?.ttl, 604_800);
  bench.ask('www.example', 'A');
  assert.equal(bench.sent.length, 2);
});

test('A negative answer lives as long as the smaller of the SOA TTL and its MINIMUM, and not at all without SOA', () => {
  for (const rcode of [0, 3]) {
    const bench = started();
    bench.ask('no.example', 'A');
    bench.upstreamSays(rcode, [], { authorities: [soa('example', 600, 20)] });
    bench.pass(19_000);
    bench.ask('no.example', 'A');
    assert.deepEqual([bench.sent.length, bench.last().rcodeNumber], [1, rcode]);
    assert.equal((bench.last().authorities?.[0] as unknown as { ttl: number } | undefined)?.ttl, 581);
    bench.pass(1000);
    bench.ask('no.example', 'A');
    bench.upstreamSays(rcode, []);
    bench.ask('no.example', 'A');
    assert.equal(bench.sent.length, 3);
  }
});

test('The cache is bounded', () => {
  const bench = new Bench({ cacheEntries: 10 });
  bench.upstreams(...HOSTS);
  for (let i = 0; i < 50; i++) {
    bench.ask(`n${i}.example`, 'A');
    bench.upstreamSays(0, [A]);
  }
  assert.equal(bench.service.cacheEntries, 10);
});

test('A silent upstream costs 700 ms, then the next is asked, and an answer that is late still counts', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.pass(699);
  assert.equal(bench.sent.length, 1);
  bench.pass(1);
  assert.deepEqual(
    bench.sent.map((sent) => sent.upstream.host),
    [...HOSTS],
  );
  bench.upstreamSays(0, [A], {}, bench.sent[0]!);
  assert.equal(bench.replies.length, 1);
  assert.equal(bench.open.size, 0);
});

test('The upstream that answered last is asked first', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.pass(700);
  bench.upstreamSays(0, [A]);
  bench.ask('other.example', 'A');
  assert.equal(bench.sent.at(-1)!.upstream.host, HOSTS[1]);
});

test('SERVFAIL and REFUSED turn to the next upstream at once; when all fail, so does the answer, for one second', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.upstreamSays(2, []);
  assert.equal(bench.sent.length, 2);
  bench.upstreamSays(5, []);
  assert.equal(bench.replies.length, 1);
  assert.equal(bench.last().rcodeNumber, 5);
  bench.ask('www.example', 'A', { udpSize: 1232 });
  assert.deepEqual([bench.sent.length, bench.last().ede], [2, 13]);
  bench.pass(1000);
  bench.ask('www.example', 'A');
  assert.equal(bench.sent.length, 3);
});

test('When nobody answers, three questions go to each, and SERVFAIL with extended error 22 comes within eight seconds', () => {
  const bench = started();
  bench.ask('www.example', 'A', { udpSize: 1232 });
  bench.pass(8000);
  assert.deepEqual([bench.replies.length, bench.last().rcodeNumber, bench.last().ede], [1, 2, 22]);
  assert.ok(bench.sent.length <= 6);
  assert.equal(bench.open.size, 0);
  assert.equal(bench.service.pollTimeout(), undefined);
});

test('Without a route the question waits a little between rounds and not in a loop', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  for (let i = 0; i < 2; i++) {
    bench.service.handleUpstreamFailed(bench.sent.at(-1)!.transmit, bench.now);
    bench.drain();
  }
  assert.equal(bench.sent.length, 2);
  bench.pass(299);
  assert.equal(bench.sent.length, 2);
  bench.pass(1);
  assert.equal(bench.sent.length, 3);
});

test('A truncated answer is fetched over TCP from the same upstream', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.upstreamSays(0, [], { truncated: true });
  assert.deepEqual([bench.sent[1]!.transport, bench.sent[1]!.upstream.host], ['tcp', HOSTS[0]]);
  bench.upstreamSays(0, [], { truncated: true }, bench.sent[0]!);
  assert.equal(bench.sent.length, 2);
  bench.upstreamSays(0, [A]);
  assert.equal(bench.last().answers?.length, 1);
});

test('An upstream that does not know EDNS is asked without, and remembered', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  // A FORMERR without its question.
  const formErr = Buffer.alloc(12);
  formErr.set(Buffer.from(bench.sent[0]!.packet).subarray(0, 2));
  formErr.writeUInt16BE(0x8181, 2);
  bench.service.handleUpstream(bench.sent[0]!.transmit, formErr, bench.now);
  bench.drain();
  assert.deepEqual([bench.sent[1]!.upstream.host, read(bench.sent[1]!.packet).additionals?.length], [HOSTS[0], 0]);
  bench.upstreamSays(0, [A]);
  bench.ask('other.example', 'A');
  assert.equal(read(bench.sent[2]!.packet).additionals?.length, 0);
});

test('An upstream that does not like a question keeps its EDNS for others', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.upstreamSays(4, []);
  assert.equal(read(bench.sent.at(-1)!.packet).additionals?.length, 0);
  bench.upstreamSays(4, []);
  for (const transmit of bench.sent.slice(2)) bench.upstreamSays(2, [], {}, transmit);
  const before = bench.sent.length;
  bench.ask('other.example', 'A');
  const first = bench.sent.slice(before).find(({ upstream }) => upstream.host === HOSTS[0]);
  assert.equal(read(first!.packet).additionals?.length, 1);
});

// Attack: answers with a wrong ID, a wrong name, a wrong type, and the question itself | 4 | ignored; the real answer
// is used
test('attack: DNS answers forged with another ID or question', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  const id = read(bench.sent[0]!.packet).id ?? 0;
  bench.upstreamSays(0, [A], { id: id ^ 1 });
  bench.upstreamSays(0, [A], { questions: [{ name: 'evil.example', type: 'A', class: 'IN' }] });
  bench.upstreamSays(0, [A], { questions: [{ name: 'www.example', type: 'AAAA', class: 'IN' }] });
  bench.service.handleUpstream(bench.sent[0]!.transmit, query('www.example', 'A', { id }), bench.now);
  bench.drain();
  assert.deepEqual([bench.replies.length, bench.sent.length], [0, 1]);
  bench.upstreamSays(0, [A]);
  assert.equal(bench.replies.length, 1);
});

// Attack: an answer that promises 65,535 records | 1 | not passed on; the next upstream is asked
test('attack: a damaged DNS answer', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  const damaged = Buffer.from(bench.sent[0]!.packet);
  damaged.writeUInt16BE(0x8180, 2);
  damaged.writeUInt16BE(0xffff, 6);
  bench.service.handleUpstream(bench.sent[0]!.transmit, damaged, bench.now);
  bench.drain();
  assert.equal(bench.sent[1]?.upstream.host, HOSTS[1]);
});

test('New upstreams restart what is in flight and empty the cache', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.upstreamSays(0, [A]);
  bench.ask('slow.example', 'A');
  bench.upstreams('198.51.100.1');
  assert.equal(bench.sent.at(-1)!.upstream.host, '198.51.100.1');
  assert.deepEqual([...bench.open], [bench.sent.at(-1)!.transmit]);
  bench.upstreamSays(0, [A]);
  assert.equal(bench.replies.length, 2);
  bench.ask('www.example', 'A');
  assert.equal(bench.sent.length, 4);
});

test('Losing all upstreams ends what is in flight', () => {
  const bench = started();
  bench.ask('www.example', 'A');
  bench.upstreams();
  assert.equal(bench.last().rcodeNumber, 2);
  bench.ask('other.example', 'A', { udpSize: 1232 });
  assert.deepEqual([bench.last().rcodeNumber, bench.last().ede], [2, 22]);
});

// Attack: different questions, and equal ones, beyond the limits | 8 | the excess is answered at once with an error;
// nothing grows
test('attack: more DNS questions than fit', () => {
  const bench = new Bench({ flights: 3, waitingPerFlight: 2 });
  bench.upstreams(...HOSTS);
  for (let i = 0; i < 5; i++) bench.ask(`n${i}.example`, 'A');
  for (let i = 0; i < 3; i++) bench.ask('n0.example', 'A');
  assert.deepEqual([bench.sent.length, bench.replies.length], [3, 4]);
});

// Attack: a question that its own upstream sends back | 100 | joins the question in flight; one packet is sent
test('attack: a DNS loop', () => {
  const bench = started();
  bench.ask('www.example', 'A', { udpSize: 1232 });
  for (let i = 0; i < 100; i++) bench.give(bench.sent[0]!.packet);
  assert.equal(bench.sent.length, 1);
});

test('AD is shown only if the upstream is on this host and the client asked for it', () => {
  const shown = (host: string, authenticData: boolean): boolean => {
    const bench = new Bench();
    bench.upstreams(host);
    const packet = query('www.example', 'A');
    if (authenticData) packet.writeUInt16BE(0x0120, 2);
    bench.give(packet);
    bench.upstreamSays(0, [A], { authentic: true });
    return bench.last().flag_ad;
  };
  assert.deepEqual(
    [shown('127.0.0.53', true), shown('127.0.0.53', false), shown('192.0.2.1', true)],
    [true, false, false],
  );
});

test('A large answer loses its additional records first and is then truncated', () => {
  const bench = started();
  const many = (count: number): Answer[] =>
    Array.from({ length: count }, (_, i) => ({ ...A, data: `192.0.2.${i}` }) as Answer);
  bench.ask('www.example', 'A');
  bench.upstreamSays(0, many(10), { additionals: [] });
  assert.deepEqual([bench.last().answers?.length, bench.last().flag_tc], [10, false]);
  bench.ask('big.example', 'A');
  bench.upstreamSays(0, many(40));
  assert.deepEqual([bench.last().answers?.length, bench.last().flag_tc], [0, true]);
  bench.ask('big.example', 'A', { transport: 'tcp' });
  assert.deepEqual([bench.last().flag_tc, bench.last().questions?.length], [false, 1]);
});

test('Types that the codec does not know pass as octets', () => {
  const bench = started();
  bench.ask('www.example', 65, { udpSize: 1232 });
  const sent = Buffer.from(bench.sent[0]!.packet);
  const record = Buffer.from('c00c004100010000003c0003000100', 'hex');
  const response = Buffer.concat([sent.subarray(0, sent.length - 11), record, sent.subarray(sent.length - 11)]);
  response.writeUInt16BE(0x8180, 2);
  response.writeUInt16BE(1, 6);
  bench.service.handleUpstream(bench.sent[0]!.transmit, response, bench.now);
  bench.drain();
  const reply = Buffer.from(bench.replies[0]!.packet);
  assert.ok(reply.includes(record));
  assert.equal(reply.readUInt16BE(10), 1, 'our own OPT and not theirs');
});

test('resolv.conf is read as the libc reads it', () => {
  const text = `# made by hand
nameserver 192.0.2.1
  nameserver\t2001:db8::1   # second
nameserver fe80::1%eth0
nameserver 192.0.2.1
nameserver ns.example
nameserver 300.1.1.1
;nameserver 192.0.2.9
options edns0
search example`;
  assert.deepEqual(parseNameservers(text), ['192.0.2.1', '2001:db8::1', 'fe80::1%eth0']);
  assert.deepEqual(parseNameservers(''), []);
});

function started(): Bench {
  const bench = new Bench();
  bench.upstreams(...HOSTS);
  return bench;
}
