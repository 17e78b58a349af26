import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Finding } from '../../agent/core/dns-zone.ts';
import { type IpAddress, parseIpAddress } from '../../proto/address.ts';
import { NO_RECORDS, type RecordSets, type ZoneData } from '../../proto/dns/record-sets.ts';
import { answer, Bench, type Seen } from './dns-support.ts';

let version = 0;
const A = parseIpAddress('10.77.0.5');
const B = parseIpAddress('10.77.0.6');
const V6 = parseIpAddress('fd00:77::5');

describe('a name of the zone', () => {
  test('has SRV and TXT records, with their targets as whole names', () => {
    const bench = new Bench();
    const srv = [
      { priority: 1, weight: 2, port: 80, target: 'web' },
      { priority: 2, weight: 0, port: 81, target: 'www.example.' },
    ];
    ask(bench, '_http._tcp.web', 'SRV', found([], { srv }));
    answerLast(bench, { kind: 'unavailable' });
    const answers = bench.last().answers as { data: { target: string; port: number } }[];
    assert.deepEqual(
      answers.map(({ data }) => [data.target, data.port]),
      [
        ['web.stayput.internal', 80],
        ['www.example', 81],
      ],
    );
    const long = 'x'.repeat(300);
    ask(bench, 'web', 'TXT', found([A], { txt: [long], ttl: 7 }));
    const [text] = bench.last().answers as { ttl: number; data: Buffer[] }[];
    assert.equal(Buffer.concat(text?.data ?? []).toString(), long);
    assert.equal(text?.ttl, 7);
  });

  test('comes with the addresses of the services that it has in the zone', () => {
    const bench = new Bench();
    const srv = ['web', 'gone', 'www.example.'].map((target) => ({ priority: 1, weight: 2, port: 80, target }));
    ask(bench, '_http._tcp', 'SRV', found([], { srv }));
    assert.deepEqual([bench.replies.length, bench.lookups.length], [0, 2]);
    answerLast(bench, found([A, V6], {}));
    answerLast(bench, { kind: 'absent' });
    assert.deepEqual(
      [bench.last().answers?.length, bench.last().additionals?.map((each) => [each.type, each.name])],
      [
        3,
        [
          ['A', 'web.stayput.internal'],
          ['AAAA', 'web.stayput.internal'],
        ],
      ],
    );
  });

  test('is answered without the addresses of its services when those do not come', () => {
    const bench = new Bench();
    const srv = [{ priority: 1, weight: 2, port: 80, target: 'web' }];
    ask(bench, '_http._tcp', 'SRV', found([], { srv }));
    bench.pass(4000);
    assert.deepEqual([bench.last().rcodeNumber, types(bench.last())], [0, ['SRV']]);
  });

  test('that only has names below it is there, and has nothing', () => {
    const bench = new Bench();
    ask(bench, 'blue', 'A', found([], {}));
    const { rcodeNumber, answers, authorities } = bench.last();
    assert.deepEqual([rcodeNumber, answers?.length, authorities?.[0]?.type], [0, 0, 'SOA']);
    ask(bench, 'green', 'A', { kind: 'absent' });
    assert.equal(bench.last().rcodeNumber, 3);
  });

  test('ANY is answered with one record set', () => {
    const bench = new Bench();
    ask(bench, 'web', 255, found([A, V6], { txt: ['x'] }));
    assert.deepEqual(types(bench.last()), ['A']);
    ask(bench, 'web', 255, found([], { txt: ['x'] }));
    assert.deepEqual(types(bench.last()), ['TXT']);
  });

  test('stands for others by their weights, and for those that are not well only when no other is', () => {
    const first = new Map<string, number>();
    const bench = new Bench();
    const zone = { weights: [3, 1, 0], records: NO_RECORDS, cut: null };
    const values = [A, B, parseIpAddress('10.77.0.7')];
    for (let i = 0; i < 400; i++) {
      ask(bench, 'web', 'A', { kind: 'found', values, zone, stale: false });
      const addresses = dataOf(bench.last());
      assert.equal(addresses.length, 2, 'one of weight 0 is left out');
      first.set(addresses[0] ?? '', (first.get(addresses[0] ?? '') ?? 0) + 1);
    }
    const share = (first.get(A) ?? 0) / 400;
    assert.ok(share > 0.6 && share < 0.9, `weight 3 of 4 comes first in ${share} of the answers`);
    ask(bench, 'web', 'A', { kind: 'found', values: [A], zone: { ...zone, weights: [0] }, stale: false });
    assert.deepEqual(dataOf(bench.last()), [A]);
  });
});

describe('an alias', () => {
  test('leads on inside the zone, as far as a chain may be', () => {
    const bench = new Bench();
    ask(bench, 'www', 'A', found([], { cname: 'web' }));
    assert.equal(bench.replies.length, 0);
    assert.deepEqual(bench.lookups.at(-1), { kind: 'resolve-name', lookup: 2, name: 'web' });
    answerLast(bench, found([A], {}));
    const answers = bench.last().answers as { name: string; type: string; data: string }[];
    assert.deepEqual(
      answers.map(({ name, type, data }) => [name, type, data]),
      [
        ['www.stayput.internal', 'CNAME', 'web.stayput.internal'],
        ['web.stayput.internal', 'A', A],
      ],
    );
    ask(bench, 'www', 'CNAME', found([], { cname: 'web' }));
    assert.deepEqual(types(bench.last()), ['CNAME']);
  });

  test('in a circle is an error and no endless search', () => {
    const bench = new Bench();
    ask(bench, 'a', 'A', found([], { cname: 'a' }));
    for (let i = 0; i < 20 && bench.replies.length === 0; i++) answerLast(bench, found([], { cname: 'a' }));
    assert.equal(bench.last().rcodeNumber, 2);
  });

  test('to nothing tells the alias, and that its target is not there', () => {
    const bench = new Bench();
    ask(bench, 'www', 'A', found([], { cname: 'gone' }));
    answerLast(bench, { kind: 'absent' });
    assert.deepEqual([bench.last().rcodeNumber, types(bench.last())], [3, ['CNAME']]);
  });

  test('out of the zone is followed by the resolvers of the place', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    ask(bench, 'www', 'A', found([], { cname: 'cdn.example.' }));
    const sent = bench.sent.at(-1);
    assert.ok(sent);
    const packet = answer(sent.packet, 0, [{ type: 'A', name: 'cdn.example', ttl: 60, data: '192.0.2.80' }]);
    bench.service.handleUpstream(sent.transmit, packet, bench.now);
    bench.drain();
    assert.deepEqual(types(bench.last()), ['CNAME', 'A']);
    assert.equal(dataOf(bench.last())[1], '192.0.2.80');
  });

  test('out of the zone is followed for every type, with the names in the data written out', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    ask(bench, 'www', 'MX', found([], { cname: 'cdn.example.' }));
    const mail = { preference: 10, exchange: 'mail.cdn.example' };
    bench.upstreamSays(0, [{ type: 'MX', name: 'cdn.example', ttl: 60, data: mail }]);
    const [, mx] = bench.last().answers as { name: string; data: unknown }[];
    assert.deepEqual([types(bench.last()), mx?.name, mx?.data], [['CNAME', 'MX'], 'cdn.example', mail]);
  });

  test('out of the zone to what has expired is short-lived, and marked', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    const www = found([], { cname: 'cdn.example.' });
    ask(bench, 'www', 'A', www);
    bench.upstreamSays(0, [{ type: 'A', name: 'cdn.example', ttl: 600, data: '192.0.2.80' }]);
    bench.pass(700_000);
    bench.service.setVersion(++version);
    bench.ask('www.stayput.internal', 'A', { udpSize: 1232 });
    answerLast(bench, www);
    bench.pass(8000);
    const { answers, ede } = bench.last();
    assert.deepEqual(
      answers?.map((each) => 'ttl' in each && each.ttl),
      [30, 30],
    );
    assert.equal(ede, 3);
  });
});

describe('a delegated name', () => {
  const records = { ...NO_RECORDS, ns: [{ host: 'ns.example.', addresses: [parseIpAddress('192.0.2.1')] }] };
  const finding: Finding<IpAddress> = {
    kind: 'found',
    values: [],
    zone: { weights: [], records, cut: 'sub' },
    stale: false,
  };

  test('is asked of its own servers, and so is what is below it', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    ask(bench, 'x.sub', 'MX', finding);
    assert.equal(bench.sent.at(-1)?.upstream.host, '192.0.2.1');
  });

  test('is forgotten as soon as it is withdrawn, however often it was asked', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    ask(bench, 'x.sub', 'A', finding);
    bench.upstreamSays(0, [{ type: 'A', name: 'x.sub.stayput.internal', ttl: 600, data: '192.0.2.80' }]);
    for (let i = 0; i < 3; i++) {
      ask(bench, 'x.sub', 'A', finding);
      assert.equal(dataOf(bench.last())[0], '192.0.2.80');
    }
    ask(bench, 'x.sub', 'A', { kind: 'absent' });
    assert.equal(bench.last().rcodeNumber, 3);
  });

  test('is not known any more when nobody has asked for it for ten minutes', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    ask(bench, 'x.sub', 'A', finding);
    bench.upstreamSays(0, [{ type: 'A', name: 'x.sub.stayput.internal', ttl: 600, data: '192.0.2.80' }]);
    bench.pass(599_999);
    assert.equal(bench.service.upstreamHealth.length, 2);
    bench.pass(1);
    assert.equal(bench.service.upstreamHealth.length, 1);
  });

  test('that is one too many takes the place of the one that was not asked for the longest', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    const delegated = (n: number): Finding<IpAddress> => ({
      ...finding,
      zone: {
        weights: [],
        records: { ...NO_RECORDS, ns: [{ host: 'ns.example.', addresses: [parseIpAddress(`192.0.2.${100 + n}`)] }] },
        cut: `sub${n}`,
      },
    });
    for (let n = 0; n < 64; n++) ask(bench, `x.sub${n}`, 'A', delegated(n));
    ask(bench, 'x.sub64', 'A', delegated(64));
    assert.equal(bench.last().rcodeNumber, 2, 'the others may still be answered');
    bench.pass(10_000);
    ask(bench, 'y.sub64', 'A', delegated(64));
    assert.equal(bench.sent.at(-1)?.upstream.host, '192.0.2.164');
    const known = bench.service.upstreamHealth.map(({ upstream }) => upstream.host);
    assert.deepEqual([known.length, known.includes('192.0.2.100')], [65, false]);
  });

  test('that is met for the first time leaves what is known of other names alone', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    const www = { type: 'A', name: 'www.example', ttl: 600, data: '192.0.2.80' } as const;
    bench.ask('www.example', 'A');
    bench.upstreamSays(0, [www]);
    ask(bench, 'x.sub', 'A', finding);
    bench.upstreamSays(0, [{ ...www, name: 'x.sub.stayput.internal' }]);
    const elsewhere = { ...records, ns: [{ host: 'ns.example.', addresses: [parseIpAddress('192.0.2.2')] }] };
    const sent = bench.sent.length;
    bench.ask('www.example', 'A');
    assert.equal(bench.sent.length, sent);
    ask(bench, 'x.sub', 'A', { ...finding, zone: { weights: [], records: elsewhere, cut: 'sub' } });
    assert.equal(bench.sent.at(-1)?.upstream.host, '192.0.2.2', 'what its former servers said counts no more');
    assert.equal(bench.sent.length, sent + 1);
  });

  test('whose servers nobody can find is an error', () => {
    const bench = new Bench();
    bench.upstreams('192.0.2.53');
    const nowhere = { ...records, ns: [{ host: 'ns.example.', addresses: [] }] };
    ask(bench, 'x.sub', 'A', { ...finding, zone: { weights: [], records: nowhere, cut: 'sub' } });
    assert.equal(bench.last().rcodeNumber, 2);
  });
});

test('every name is answered as its record sets say, whatever they are', () => {
  const records = fc.record({
    a: fc.uniqueArray(fc.constantFrom(A, B, V6)),
    txt: fc.uniqueArray(fc.constantFrom('one', 'two', 'three'), { maxLength: 2 }),
    srv: fc.uniqueArray(fc.constantFrom('web', 'db', 'x.example.'), { maxLength: 2 }),
    type: fc.constantFrom('A' as const, 'AAAA' as const, 'TXT' as const, 'SRV' as const, 'MX' as const),
  });
  fc.assert(
    fc.property(records, ({ a, txt, srv, type }) => {
      const bench = new Bench();
      const services = srv.map((target) => ({ priority: 0, weight: 0, port: 1, target }));
      ask(bench, 'web', type, found(a, { txt, srv: services }));
      while (bench.replies.length === 0) answerLast(bench, { kind: 'unavailable' });
      const expected = {
        A: a.filter((each) => !each.includes(':')),
        AAAA: a.filter((each) => each.includes(':')),
        TXT: txt,
        SRV: srv.map((target) => (target.endsWith('.') ? target.slice(0, -1) : `${target}.stayput.internal`)),
        MX: [],
      }[type];
      const seen = bench.last();
      assert.equal(seen.rcodeNumber, 0, 'it exists');
      assert.deepEqual(dataOf(seen).sort(), [...expected].sort());
      assert.equal(seen.authorities?.length ?? 0, expected.length === 0 ? 1 : 0, 'NODATA comes with the SOA');
    }),
  );
});

function found(values: readonly IpAddress[], records: Partial<RecordSets>): Finding<IpAddress> {
  const zone: ZoneData = { weights: values.map(() => 1), records: { ...NO_RECORDS, ...records }, cut: null };
  return { kind: 'found', values, zone, stale: false };
}

function ask(bench: Bench, name: string, type: Parameters<Bench['ask']>[1], finding: Finding<IpAddress>): void {
  bench.replies.length = 0;
  // The mapping system has news, so nothing that was prepared is given.
  bench.service.setVersion(++version);
  bench.ask(`${name}.stayput.internal`, type);
  answerLast(bench, finding);
}

function answerLast(bench: Bench, finding: Finding<IpAddress>): void {
  bench.service.handleName(bench.lookups.at(-1)?.lookup ?? 0, finding, bench.now);
  bench.drain();
}

function types(seen: Seen): string[] {
  return (seen.answers ?? []).map(({ type }) => type);
}

function dataOf(seen: Seen): string[] {
  return (seen.answers ?? []).map((record) => {
    const { data } = record as { data: unknown };
    if (Array.isArray(data)) return Buffer.concat(data as Buffer[]).toString();
    return typeof data === 'string' ? data : (data as { target: string }).target;
  });
}
