import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RecordType } from 'dns-packet';
import type { Finding } from '../../agent/core/dns-zone.ts';
import { type IpAddress, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { NO_RECORDS } from '../../proto/dns/record-sets.ts';
import { type AskOptions, Bench, OVERLAY, query, type Seen } from './dns-support.ts';

const NOERROR = 0;
const NXDOMAIN = 3;

test('A and AAAA of a name come from the mapping system, authoritative, with a TTL of 30 s', () => {
  const a = askName('db.stayput.internal', 'A', found('10.77.0.5', '10.77.0.6', 'fd77::5'));
  assert.deepEqual([a.rcodeNumber, a.flag_aa, a.flag_ra, a.flag_tc], [NOERROR, true, true, false]);
  assert.deepEqual(summary(a), [
    ['db.stayput.internal', 'A', 30, '10.77.0.5'],
    ['db.stayput.internal', 'A', 30, '10.77.0.6'],
  ]);
  const aaaa = askName('db.stayput.internal', 'AAAA', found('10.77.0.5', 'fd77::5'));
  assert.deepEqual(summary(aaaa), [['db.stayput.internal', 'AAAA', 30, 'fd77::5']]);
});

test('The case of the question and of the owner is that of the client', () => {
  const seen = askName('Db.sTaYput.InterNAL', 'A', found('10.77.0.5'));
  assert.equal(seen.questions?.[0]?.name, 'Db.sTaYput.InterNAL');
  assert.equal(seen.answers?.[0]?.name, 'Db.sTaYput.InterNAL');
});

test('An IPv4-only name has no AAAA, which is NODATA with the SOA of the zone and not NXDOMAIN', () => {
  const seen = askName('db.stayput.internal', 'AAAA', found('10.77.0.5'));
  assert.deepEqual([seen.rcodeNumber, seen.answers?.length], [NOERROR, 0]);
  assertSoa(seen, 'stayput.internal');
});

test('HTTPS, SVCB, MX, TXT and private types of a name that exists are NODATA', () => {
  for (const type of [65, 64, 15, 16, 65280, 43]) {
    const bench = new Bench();
    bench.ask('db.stayput.internal', type);
    answerLookup(bench, found('10.77.0.5'));
    // dns-packet cannot encode every type, so the question is compared as octets.
    const packet = Buffer.from(bench.replies[0]!.packet);
    assert.equal(packet.readUInt8(3) & 0xf, NOERROR);
    assert.deepEqual([packet.readUInt16BE(6), packet.readUInt16BE(8)], [0, 1]);
    assert.deepEqual(packet.subarray(12, 37), query('db.stayput.internal', type).subarray(12, 37));
  }
});

test('ANY gets one RRset', () => {
  const seen = askName('db.stayput.internal', 'ANY' as RecordType, found('10.77.0.5', 'fd77::5', '10.77.0.6'));
  assert.deepEqual(
    summary(seen).map((record) => record[1]),
    ['A', 'A'],
  );
});

test('A name that does not exist is NXDOMAIN with the SOA of the zone, minimum 5 s', () => {
  const seen = askName('nobody.stayput.internal', 'A', { kind: 'absent' });
  assert.equal(seen.rcodeNumber, NXDOMAIN);
  assertSoa(seen, 'stayput.internal');
});

test('A name that nobody can register is NXDOMAIN without a lookup', () => {
  for (const name of ['-db.stayput.internal', 'd*b.stayput.internal', 'd b.stayput.internal']) {
    const bench = new Bench();
    bench.ask(name, 'A');
    assert.equal(bench.lookups.length, 0, name);
    assert.equal(bench.last().rcodeNumber, NXDOMAIN, name);
  }
});

test('A dot inside a label does not make it two labels', () => {
  const bench = new Bench();
  const packet = query('db.blue.stayput.internal', 'A');
  packet.writeUInt8(7, 12);
  packet.writeUInt8(0x2e, 15);
  bench.give(packet);
  assert.equal(bench.lookups.length, 0);
  assert.equal(bench.last().rcodeNumber, NXDOMAIN);
});

test('The apex has SOA and NS, and what is set there', () => {
  assert.deepEqual(summary(askNothing('stayput.internal', 'NS')), [['stayput.internal', 'NS', 30, 'stayput.internal']]);
  assert.equal(askNothing('stayput.internal', 'SOA').answers?.[0]?.type, 'SOA');
  const mx = askNothing('stayput.internal', 'MX');
  assert.deepEqual([mx.rcodeNumber, mx.answers?.length], [NOERROR, 0]);
  assertSoa(mx, 'stayput.internal');
  for (const finding of [{ kind: 'absent' }, { kind: 'found', values: [], stale: false }] as const) {
    const bench = new Bench();
    bench.ask('stayput.internal', 'A');
    assert.equal((bench.lookups[0] as { name: string }).name, '@');
    answerLookup(bench, finding);
    assert.deepEqual([bench.last().rcodeNumber, bench.last().answers?.length], [NOERROR, 0]);
    assertSoa(bench.last(), 'stayput.internal');
  }
  const bench = new Bench();
  bench.ask('stayput.internal', 'TXT');
  const zone = { weights: [], records: { ...NO_RECORDS, txt: ['v=spf1 -all'] }, cut: null };
  answerLookup(bench, { kind: 'found', values: [], zone, stale: false });
  assert.deepEqual([bench.last().answers?.[0]?.name, bench.last().answers?.[0]?.type], ['stayput.internal', 'TXT']);
});

test('A pointer gives the full names of an overlay address, for both families', () => {
  const four = askPointer('5.0.77.10.in-addr.arpa', 'PTR', { kind: 'found', values: ['db', 'db.blue'], stale: false });
  assert.deepEqual(
    summary(four).map((record) => record[3]),
    ['db.stayput.internal', 'db.blue.stayput.internal'],
  );
  const nibbles = `5.${'0.'.repeat(23)}0.0.0.0.7.7.d.f.ip6.arpa`;
  const six = askPointer(nibbles, 'PTR', { kind: 'found', values: ['db'], stale: false }, 'fd77::5');
  assert.deepEqual(
    summary(six).map((record) => record[3]),
    ['db.stayput.internal'],
  );
});

test('A pointer of what a platform has inside the overlay is asked of the resolvers', () => {
  for (const [address, own] of [
    ['201.100.100.100', true],
    ['200.100.100.100', false],
  ] as const) {
    const bench = new Bench();
    bench.service.setZone('stayput.internal', [...OVERLAY, parseIpPrefix('100.64.0.0/10')]);
    bench.upstreams('192.0.2.53');
    bench.ask(`${address}.in-addr.arpa`, 'PTR');
    assert.deepEqual([bench.lookups.length, bench.sent.length], own ? [1, 0] : [0, 1], address);
  }
});

test('A pointer leaves out a name that is too long for DNS together with the zone', () => {
  const long = Array.from({ length: 4 }, () => 'x'.repeat(60)).join('.');
  const seen = askPointer('5.0.77.10.in-addr.arpa', 'PTR', { kind: 'found', values: [long, 'db'], stale: false });
  assert.deepEqual(
    summary(seen).map((record) => record[3]),
    ['db.stayput.internal'],
  );
});

test('An unknown overlay address is NXDOMAIN in the reverse zone, and one without a name NODATA', () => {
  const absent = askPointer('9.0.77.10.in-addr.arpa', 'PTR', { kind: 'absent' }, '10.77.0.9');
  assert.equal(absent.rcodeNumber, NXDOMAIN);
  assertSoa(absent, '77.10.in-addr.arpa');
  const nameless = askPointer(
    '9.5.80.10.in-addr.arpa',
    'PTR',
    { kind: 'found', values: [], stale: false },
    '10.80.5.9',
  );
  assert.deepEqual([nameless.rcodeNumber, nameless.answers?.length], [NOERROR, 0]);
  assertSoa(nameless, '5.80.10.in-addr.arpa');
});

test('Nothing inside the overlay leaks and nothing outside it is claimed', () => {
  const cases: [string, 'here' | 'forward', number?][] = [
    ['77.10.in-addr.arpa', 'here', NOERROR],
    ['0.77.10.in-addr.arpa', 'here', NOERROR],
    ['b._dns-sd._udp.0.0.77.10.in-addr.arpa', 'here', NXDOMAIN],
    ['b._dns-sd._udp.0.77.10.in-addr.arpa', 'here', NXDOMAIN],
    ['x.77.10.in-addr.arpa', 'here', NXDOMAIN],
    ['256.0.77.10.in-addr.arpa', 'here', NXDOMAIN],
    ['10.in-addr.arpa', 'forward'],
    ['80.10.in-addr.arpa', 'forward'],
    ['5.80.10.in-addr.arpa', 'here', NOERROR],
    ['8.80.10.in-addr.arpa', 'forward'],
    ['1.0.78.10.in-addr.arpa', 'forward'],
    ['in-addr.arpa', 'forward'],
    ['arpa', 'forward'],
    ['0.0.0.0.7.7.d.f.ip6.arpa', 'here', NOERROR],
    ['0.0.7.7.d.f.ip6.arpa', 'forward'],
    ['1.0.0.0.7.7.d.f.ip6.arpa', 'forward'],
    ['internal', 'forward'],
    ['other.internal', 'forward'],
    ['notstayput.internal', 'forward'],
    ['localhost', 'here', NOERROR],
    ['a.b.localhost', 'here', NOERROR],
    ['invalid', 'here', NXDOMAIN],
    ['x.invalid', 'here', NXDOMAIN],
    ['x.onion', 'here', NXDOMAIN],
    ['x.alt', 'here', NXDOMAIN],
    ['1.0.0.127.in-addr.arpa', 'here', NOERROR],
    ['9.0.0.127.in-addr.arpa', 'here', NXDOMAIN],
    ['example.com', 'forward'],
    ['.', 'forward'],
  ];
  for (const [name, where, rcode] of cases) {
    const bench = new Bench();
    bench.upstreams('192.0.2.1');
    bench.ask(name, 'A');
    assert.equal(bench.sent.length, where === 'forward' ? 1 : 0, name);
    if (where === 'here') assert.equal(bench.last().rcodeNumber, rcode, name);
  }
});

test('localhost is answered on the host, in both directions', () => {
  assert.deepEqual(summary(askNothing('localhost', 'A')), [['localhost', 'A', 30, '127.0.0.1']]);
  assert.deepEqual(summary(askNothing('db.localhost', 'AAAA')), [['db.localhost', 'AAAA', 30, '::1']]);
  assert.deepEqual(
    summary(askNothing('1.0.0.127.in-addr.arpa', 'PTR')).map((record) => record[3]),
    ['localhost'],
  );
});

test('Without map server and without cache the answer is SERVFAIL with extended error 22', () => {
  const seen = askName('db.stayput.internal', 'A', { kind: 'unavailable' }, { udpSize: 1232 });
  assert.deepEqual([seen.rcodeNumber, seen.ede, seen.answers?.length], [2, 22, 0]);
});

test('A stale answer is given and marked with extended error 3', () => {
  const stale: Finding<IpAddress> = { ...found('10.77.0.5'), stale: true } as Finding<IpAddress>;
  const seen = askName('db.stayput.internal', 'A', stale, { udpSize: 1232 });
  assert.deepEqual([seen.rcodeNumber, seen.ede, seen.answers?.length], [NOERROR, 3, 1]);
  const plain = askName('db.stayput.internal', 'A', stale);
  assert.equal(plain.additionals?.length, 0);
});

test('Before the agent knows its zone everything but local names is forwarded', () => {
  const bench = new Bench();
  bench.service.setZone('', []);
  bench.upstreams('192.0.2.1');
  bench.ask('db.stayput.internal', 'A');
  bench.ask('5.0.77.10.in-addr.arpa', 'PTR');
  assert.equal(bench.sent.length, 2);
});

test('Equal lookups are joined, and each client gets its own ID and case back', () => {
  const bench = new Bench();
  bench.ask('db.stayput.internal', 'A', { id: 1, client: 'a' });
  bench.ask('DB.stayput.internal', 'AAAA', { id: 2, client: 'b' });
  assert.equal(bench.lookups.length, 1);
  answerLookup(bench, found('10.77.0.5', 'fd77::5'));
  assert.deepEqual(
    bench.replies.map((reply) => reply.client),
    ['a', 'b'],
  );
  const seen = bench.last();
  assert.deepEqual([seen.id, seen.questions?.[0]?.name, summary(seen)[0]?.[3]], [2, 'DB.stayput.internal', 'fd77::5']);
});

test('A lookup that never returns is SERVFAIL after four seconds', () => {
  const bench = new Bench();
  bench.ask('db.stayput.internal', 'A', { udpSize: 1232 });
  bench.pass(3999);
  assert.equal(bench.replies.length, 0);
  bench.pass(1);
  assert.deepEqual([bench.last().rcodeNumber, bench.last().ede], [2, 22]);
});

test('Lookups are bounded, and so are the clients of one', () => {
  const bench = new Bench({ lookups: 2, waitingPerFlight: 2 });
  for (const name of ['a', 'b', 'c']) bench.ask(`${name}.stayput.internal`, 'A');
  assert.equal(bench.lookups.length, 2);
  assert.equal(bench.last().rcodeNumber, 2);
  bench.ask('a.stayput.internal', 'A');
  assert.equal(bench.replies.length, 1);
  bench.ask('a.stayput.internal', 'A');
  assert.equal(bench.replies.length, 2);
});

test('An answer that does not fit is truncated to nothing with TC, and is whole over TCP', () => {
  const many = found(...Array.from({ length: 60 }, (_, i) => `10.77.1.${i}`));
  const small = askName('db.stayput.internal', 'A', many);
  assert.deepEqual([small.flag_tc, small.answers?.length, small.raw.length <= 512], [true, 0, true]);
  const fits = askName('db.stayput.internal', 'A', many, { udpSize: 1232 });
  assert.deepEqual([fits.flag_tc, fits.answers?.length, fits.raw.length <= 1232], [false, 60, true]);
  const more = found(...Array.from({ length: 100 }, (_, i) => `10.77.1.${i}`));
  // The client's offer of 4096 is not taken: fragments get lost.
  const large = askName('db.stayput.internal', 'A', more, { udpSize: 4096 });
  assert.deepEqual([large.flag_tc, large.answers?.length], [true, 0]);
  const tcp = askName('db.stayput.internal', 'A', more, { transport: 'tcp' });
  assert.deepEqual([tcp.flag_tc, tcp.answers?.length], [false, 100]);
});

test('Messages that are no proper query get what RFC 1035 and RFC 6891 say', () => {
  const rcodeOf = (change: (packet: Buffer) => Buffer): number | 'ignored' => {
    const bench = new Bench();
    bench.give(change(query('db.stayput.internal', 'A', { udpSize: 1232 })));
    if (bench.ignored.length > 0) return 'ignored';
    const reply = Buffer.from(bench.replies[0]!.packet);
    assert.equal(reply.readUInt16BE(0), 4711);
    return (reply.readUInt8(3) & 0xf) | (reply.length > 60 ? reply.readUInt8(reply.length - 6) << 4 : 0);
  };
  const patched = (offset: number, value: number) => (packet: Buffer) => {
    packet.writeUInt16BE(value, offset);
    return packet;
  };
  assert.equal(rcodeOf(patched(2, 0x8100)), 'ignored', 'a response');
  assert.equal(
    rcodeOf((packet) => packet.subarray(0, 11)),
    'ignored',
    'shorter than a header',
  );
  assert.equal(rcodeOf(patched(2, 0x2900)), 4, 'UPDATE');
  assert.equal(rcodeOf(patched(4, 2)), 1, 'two questions');
  assert.equal(rcodeOf(patched(4, 0)), 1, 'no question');
  assert.equal(rcodeOf(patched(6, 0xffff)), 1, 'answers in a query');
  assert.equal(rcodeOf(patched(10, 2)), 1, 'a record that is not there');
  assert.equal(rcodeOf(patched(10, 0xffff)), 1, 'too many additional records');
  assert.equal(rcodeOf(patched(12, 0xc00c)), 1, 'a compressed question');
  assert.equal(rcodeOf(patched(35, 3)), 5, 'class CHAOS');
  assert.equal(rcodeOf(patched(33, 252)), 5, 'AXFR');
  assert.equal(
    rcodeOf((packet) => {
      const twice = Buffer.concat([packet, packet.subarray(packet.length - 11)]);
      twice.writeUInt16BE(2, 10);
      return twice;
    }),
    1,
    'two OPT',
  );
  const bench = new Bench();
  bench.give(query('db.stayput.internal', 'A', { udpSize: 1232, ednsVersion: 1 }));
  const reply = Buffer.from(bench.replies[0]!.packet);
  assert.deepEqual([reply.readUInt8(3) & 0xf, reply.readUInt8(reply.length - 6)], [0, 1], 'BADVERS is 16');
});

// Attack: a question about a name of the overlay from an address that is not served | 1 | REFUSED; nothing is looked
// up
test('attack: a DNS question from a stranger', () => {
  const bench = new Bench();
  bench.service.handleStranger('far', query('db.stayput.internal', 'A', { udpSize: 1232 }), 'udp', 0);
  bench.drain();
  assert.deepEqual([bench.last().rcodeNumber, bench.last().ede, bench.lookups.length], [5, 18, 0]);
});

function found(...addresses: string[]): Finding<IpAddress> {
  return { kind: 'found', values: addresses.map(parseIpAddress), stale: false };
}

function askNothing(name: string, type: RecordType): Seen {
  const bench = new Bench();
  bench.ask(name, type);
  assert.equal(bench.lookups.length, 0);
  return bench.last();
}

function askName(name: string, type: RecordType, finding: Finding<IpAddress>, options: AskOptions = {}): Seen {
  const bench = new Bench();
  bench.ask(name, type, options);
  assert.deepEqual(bench.lookups[0], {
    kind: 'resolve-name',
    lookup: 1,
    name: name.toLowerCase().replace('.stayput.internal', ''),
  });
  answerLookup(bench, finding);
  return bench.last();
}

function askPointer(name: string, type: RecordType, finding: Finding<string>, address = '10.77.0.5'): Seen {
  const bench = new Bench();
  bench.ask(name, type);
  assert.deepEqual(bench.lookups[0], { kind: 'resolve-pointer', lookup: 1, address });
  bench.service.handlePointer(1, finding, bench.now);
  bench.drain();
  return bench.last();
}

function answerLookup(bench: Bench, finding: Finding<IpAddress>): void {
  bench.service.handleName(1, finding, bench.now);
  bench.drain();
}

function summary(seen: Seen): unknown[][] {
  return (seen.answers ?? []).map((record) => {
    const { name, type, ttl, data } = record as { name: string; type: string; ttl: number; data: unknown };
    return [name, type, ttl, data];
  });
}

function assertSoa(seen: Seen, owner: string): void {
  const record = seen.authorities?.[0];
  assert.equal(record?.name, owner);
  assert.ok(record?.type === 'SOA' && record.data.minimum === 5);
  assert.equal(record.ttl, 5, 'RFC 2308 3: not above the minimum');
}
