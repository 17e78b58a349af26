/** The fast path of the DNS service gives the octets that the general path gives. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from 'dns-packet';
import fc from 'fast-check';
import { parseIpAddress } from '../../proto/address.ts';
import { runs } from '../runs.ts';
import { answer, Bench, query, read, soa } from './dns-support.ts';

type Step =
  | {
      readonly kind: 'ask';
      readonly name: string;
      readonly type: 'A' | 'TXT';
      readonly udpSize: number;
      readonly id: number;
    }
  | { readonly kind: 'flags'; readonly name: string; readonly flags: number }
  | { readonly kind: 'pass'; readonly milliseconds: number }
  | { readonly kind: 'change'; readonly address: number }
  | { readonly kind: 'upstreams'; readonly last: number };

const NAMES = [
  'www.example',
  'WWW.example',
  'big.example',
  'no.example',
  'a.no.example',
  'db.stayput.internal',
  'none.stayput.internal',
];
const name = fc.constantFrom(...NAMES);
const STEP: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('ask' as const),
      name,
      type: fc.constantFrom('A' as const, 'A' as const, 'TXT' as const),
      udpSize: fc.constantFrom(0, 512, 1232),
      id: fc.nat(65_535),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('flags' as const), name, flags: fc.constantFrom(0, 0x0110, 0x0120) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('pass' as const),
      milliseconds: fc.constantFrom(1, 400, 999, 1000, 15_000, 31_000),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('change' as const), address: fc.nat(250) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('upstreams' as const), last: fc.nat(250) }) },
);

test('Whatever is asked and happens, answers are octet for octet those of the general path', () => {
  let prepared = 0;
  fc.assert(
    fc.property(fc.array(STEP, { minLength: 5, maxLength: 60 }), (steps) => {
      const fast = new Story(4096);
      const general = new Story(0);
      for (const step of steps) {
        fast.go(step);
        general.go(step);
      }
      assert.deepEqual(fast.packets, general.packets);
      prepared += fast.fastAnswers;
    }),
    { numRuns: runs(150) },
  );
  assert.ok(prepared > 100, `only ${prepared} answers came the fast way`);
});

test('A change in the overlay is seen by the next question', () => {
  const bench = new Bench();
  const ask = (): unknown => {
    const before = bench.lookups.length;
    bench.ask('db.stayput.internal', 'A');
    const lookup = bench.lookups[before];
    if (lookup !== undefined) {
      bench.service.handleName(
        lookup.lookup,
        { kind: 'found', values: [parseIpAddress('10.77.0.5')], stale: false },
        bench.now,
      );
      bench.drain();
    }
    return bench.lookups.length;
  };
  assert.deepEqual([ask(), ask(), ask()], [1, 1, 1]);
  bench.service.setVersion(1);
  assert.deepEqual([ask(), ask()], [2, 2]);
  bench.pass(1000);
  assert.equal(ask(), 3, 'what only time changes is seen within a second');
});

test('A prepared answer counts as a hit of the cache', () => {
  const bench = new Bench();
  bench.upstreams('192.0.2.1');
  bench.ask('www.example', 'A');
  bench.upstreamSays(0, [{ type: 'A', name: 'www.example', ttl: 60, data: '192.0.2.80' }]);
  for (let i = 0; i < 3; i++) bench.ask('www.example', 'A');
  assert.deepEqual(
    bench.replies.map(({ cache, zone, rcode }) => [cache, zone, rcode]),
    [
      ['miss', 'forward', 0],
      ['hit', 'forward', 0],
      ['hit', 'forward', 0],
      ['hit', 'forward', 0],
    ],
  );
  assert.equal(bench.replies.at(-1)!.question?.type, 1);
});

test('Questions that are filed under the same number get each its own answer', () => {
  const bench = new Bench();
  bench.upstreams('192.0.2.1');
  const data = (): unknown => read(bench.replies.at(-1)!.packet).answers?.map((each) => 'data' in each && each.data);
  for (const [name, address] of ALIKE) {
    bench.ask(name, 'A');
    bench.upstreamSays(0, [{ type: 'A', name, ttl: 60, data: address }]);
  }
  for (let i = 0; i < 3; i++) {
    for (const [name, address] of ALIKE) {
      bench.ask(name, 'A');
      assert.deepEqual(data(), [address]);
    }
  }
});

test('A prepared answer that had to leave records out grows old like any other', () => {
  for (const udpSize of [512, 600]) {
    const bench = new Bench();
    bench.upstreams('192.0.2.1');
    const ask = (): void => bench.ask('big.example', 'A', { udpSize });
    ask();
    const additionals = Array.from({ length: 12 }, (_, i): Answer => {
      return { type: 'A', name: `a-long-name-of-a-server-${i}.example`, ttl: 300, data: '192.0.2.80' };
    });
    const answers = additionals.slice(0, udpSize === 512 ? 12 : 2);
    bench.upstreamSays(0, answers, { additionals });
    ask();
    bench.pass(5000);
    ask();
    const aged = bench.replies.at(-1)!.packet;
    assert.deepEqual(
      read(aged).answers?.map((each) => 'ttl' in each && each.ttl),
      udpSize === 512 ? [] : [295, 295],
    );
    assert.equal(Buffer.from(aged.slice(-11)).toString('hex'), '00002904d0000000000000', `OPT for ${udpSize}`);
  }
});

/** Found by trying; the hash is FNV-1a in 30 bits. */
const ALIKE = [
  ['nu7pt583nw.example', '192.0.2.81'],
  ['nndctkrkrv.example', '192.0.2.82'],
] as const;

/** A service, its upstream that answers at once, and a map server that does. */
class Story {
  readonly #bench: Bench;
  #address = 0;
  #version = 0;
  #asked = 0;
  #sentSeen = 0;
  #lookupsSeen = 0;

  constructor(preparedAnswers: number) {
    this.#bench = new Bench({ preparedAnswers });
    this.#bench.upstreams('192.0.2.1');
  }

  get packets(): readonly string[] {
    return this.#bench.replies.map(({ packet }) => Buffer.from(packet).toString('hex'));
  }

  /** Answers for which nothing was looked up or sent. */
  get fastAnswers(): number {
    return this.#asked - this.#sentSeen - this.#lookupsSeen;
  }

  go(step: Step): void {
    switch (step.kind) {
      case 'ask':
        this.#give(
          query(step.name, step.type, { id: step.id, ...(step.udpSize === 0 ? {} : { udpSize: step.udpSize }) }),
        );
        return;
      case 'flags': {
        const packet = query(step.name, 'A', { udpSize: 1232 });
        packet.writeUInt16BE(step.flags, 2);
        this.#give(packet);
        return;
      }
      case 'pass':
        this.#bench.pass(step.milliseconds);
        return;
      case 'change':
        this.#address = step.address;
        this.#version += 1;
        this.#bench.service.setVersion(this.#version);
        return;
      case 'upstreams':
        this.#bench.upstreams(`192.0.2.${step.last}`);
        return;
      default:
        step satisfies never;
    }
  }

  #give(packet: Buffer): void {
    this.#asked += 1;
    this.#bench.give(packet);
    for (; this.#sentSeen < this.#bench.sent.length; this.#sentSeen++) {
      const sent = this.#bench.sent[this.#sentSeen]!;
      const asked = (read(sent.packet).questions?.[0]?.name ?? '').toLowerCase();
      const negative = asked === 'no.example' || asked === 'a.no.example';
      const records = Array.from({ length: asked === 'big.example' ? 40 : 2 }, (_, i): Answer => {
        return { type: 'A', name: asked, ttl: 20 + 30 * i, data: `192.0.2.${i}` };
      });
      const additionals = records.map((record): Answer => ({ ...record, name: `some.server.of.${asked}` }));
      const extra = negative ? { authorities: [soa('example', 40, 25)] } : { additionals };
      this.#bench.service.handleUpstream(
        sent.transmit,
        answer(sent.packet, negative ? 3 : 0, negative ? [] : records, extra),
        this.#bench.now,
      );
      this.#bench.drain();
    }
    for (; this.#lookupsSeen < this.#bench.lookups.length; this.#lookupsSeen++) {
      const lookup = this.#bench.lookups[this.#lookupsSeen]!;
      const found = lookup.kind === 'resolve-name' && lookup.name === 'db';
      const values = [parseIpAddress(`10.77.0.${this.#address}`)];
      this.#bench.service.handleName(
        lookup.lookup,
        found ? { kind: 'found', values, stale: false } : { kind: 'absent' },
        this.#bench.now,
      );
      this.#bench.drain();
    }
  }
}
