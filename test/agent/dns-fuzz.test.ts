import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode } from 'dns-packet';
import fc from 'fast-check';
import { runs } from '../runs.ts';
import { answer, Bench, query, soa } from './dns-support.ts';

const RUNS = runs(5_000);

/** A proper packet with some octets changed, cut or put in. */
function damaged(packets: readonly Buffer[]): fc.Arbitrary<Buffer> {
  const edit = fc.record({
    at: fc.nat(200),
    value: fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(0xc0, 0xff, 0x3f, 0x40, 0x0c)),
    kind: fc.constantFrom('set', 'set', 'set', 'set', 'insert', 'cut'),
  });
  return fc
    .tuple(fc.constantFrom(...packets), fc.array(edit, { minLength: 1, maxLength: 3 }))
    .map(([packet, edits]) => {
      let bytes = Buffer.from(packet);
      for (const { at, value, kind } of edits) {
        const offset = bytes.length === 0 ? 0 : at % bytes.length;
        if (kind === 'set' && bytes.length > 0) bytes[offset] = value;
        else if (kind === 'cut') bytes = bytes.subarray(0, offset);
        else bytes = Buffer.concat([bytes.subarray(0, offset), Buffer.of(value), bytes.subarray(offset)]);
      }
      return bytes;
    });
}

const QUERIES = [
  query('db.stayput.internal', 'A', { udpSize: 1232 }),
  query('5.0.77.10.in-addr.arpa', 'PTR'),
  query('www.example', 'AAAA', { udpSize: 512 }),
  query('stayput.internal', 'SOA'),
];

// Attack: queries with octets changed, cut or put in, and random octets | 5,000 | one well-formed answer of bounded
// size, or silence
test('attack: mutated DNS queries', () => {
  const anything = fc.oneof(
    { weight: 9, arbitrary: damaged(QUERIES) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)) },
  );
  fc.assert(
    fc.property(anything, fc.boolean(), (packet, found) => {
      const bench = new Bench();
      bench.upstreams('192.0.2.1');
      bench.give(packet, { client: 'x' });
      for (const { lookup, kind } of bench.lookups) {
        const finding = found ? { kind: 'found' as const, values: [], stale: false } : { kind: 'absent' as const };
        if (kind === 'resolve-name') bench.service.handleName(lookup, finding, bench.now);
        else bench.service.handlePointer(lookup, finding, bench.now);
      }
      bench.drain();
      bench.pass(8000);
      assert.equal(bench.replies.length + bench.ignored.length, 1);
      assert.equal(bench.service.pollTimeout(), undefined);
      assert.equal(bench.open.size, 0);
      for (const reply of bench.replies) {
        const bytes = Buffer.from(reply.packet);
        assert.ok(bytes.length <= 1232);
        assert.deepEqual([bytes.readUInt16BE(0), bytes.readUInt8(2) >> 7], [packet.readUInt16BE(0), 1]);
        decode(bytes);
      }
    }),
    { numRuns: RUNS },
  );
});

// Attack: answers of an upstream with octets changed, cut or put in | 5,000 | what passes is well-formed; the
// question is answered
test('attack: mutated DNS answers', () => {
  const name = 'www.example';
  const request = query(name, 'A');
  const address = { type: 'A' as const, name, ttl: 60, data: '192.0.2.80' };
  const answers = [
    answer(request, 0, [address, { type: 'TXT', name, ttl: 1, data: ['x'] }], { additionals: [address] }),
    answer(request, 3, [{ type: 'CNAME', name, ttl: 9, data: 'cdn.example' }], { authorities: [soa('example', 9, 9)] }),
    answer(request, 0, [], { authorities: [soa('example', 600, 5)] }),
    answer(request, 0, [], { truncated: true }),
  ];
  fc.assert(
    fc.property(damaged(answers), fc.nat(19), (packet, strange) => {
      const bench = new Bench();
      bench.upstreams('192.0.2.1');
      bench.ask(name, 'A', { id: 1 });
      const sent = bench.sent[0]!;
      if (strange !== 0 && packet.length >= 2) packet.set(Buffer.from(sent.packet).subarray(0, 2));
      bench.service.handleUpstream(sent.transmit, packet, bench.now);
      bench.drain();
      bench.ask(name, 'A', { id: 2 });
      bench.pass(8000);
      assert.equal(bench.replies.length, 2);
      for (const reply of bench.replies) {
        const bytes = Buffer.from(reply.packet);
        assert.ok(bytes.length <= 512 && reply.rcode < 16);
        assert.deepEqual(bytes.subarray(12, 29), request.subarray(12, 29));
      }
    }),
    { numRuns: RUNS },
  );
});

// Attack: queries of 17 octets with all counts at the maximum | 2000 | less than half a millisecond of a CPU each
test('attack: a DNS header that promises 65,535 records', () => {
  const packet = Buffer.alloc(17);
  for (const offset of [4, 6, 8, 10]) packet.writeUInt16BE(0xffff, offset);
  const bench = new Bench();
  const before = process.cpuUsage();
  for (let i = 0; i < 2000; i++) bench.give(packet);
  const each = process.cpuUsage(before).user / 1000 / 2000;
  assert.ok(each < 0.5, `${each} ms for one`);
});
