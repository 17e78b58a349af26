/** Agents and the map server's own name server answer random zones as the reference does (`zone-reference.ts`). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { queryAnswer } from '../../mapserver/core/zone-answers.ts';
import { ZoneContent } from '../../mapserver/core/zone-content.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { CLASS, OPCODE } from '../../proto/dns/header.ts';
import { TYPE } from '../../proto/dns/message.ts';
import { absoluteTarget, NO_RECORDS } from '../../proto/dns/record-sets.ts';
import { decodeSections } from '../../proto/dns/sections.ts';
import { Bench, query, read, type Seen, ZONE } from '../agent/dns-support.ts';
import { CoreWorld } from '../mapserver/core-world.ts';
import { runs } from '../runs.ts';
import { type Content, type Outcome, outcome, type Type } from './zone-reference.ts';

interface Given extends Content {
  readonly name: string;
  /** Addresses whose agent has registered the name. */
  readonly claimed: readonly string[];
}

const label = fc.constantFrom('a', 'b', 'c');
const plainName = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'));
const ownerName = fc.oneof(
  { weight: 3, arbitrary: plainName },
  { weight: 1, arbitrary: fc.constantFrom('*', '*.a', '*.b.a') },
);
const target = fc.oneof({ weight: 4, arbitrary: plainName }, fc.constant('www.example.'));
/** The first three can be claimed; of the overlay are all but the last. */
const V4 = ['10.77.0.1', '10.77.0.2', '10.77.0.3', '192.0.2.1'];
const V6 = ['fd00:77::1', 'fd00:77::2'];
const nothing: Omit<Given, 'name'> = { a: [], aaaa: [], txt: [], srv: [], cname: null, ns: [], claimed: [] };
const server = fc.record({ host: fc.constant('ns.example.'), addresses: fc.subarray(['192.0.2.7', '192.0.2.8']) });
const content: fc.Arbitrary<Omit<Given, 'name'>> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      a: fc.subarray(V4),
      aaaa: fc.subarray(V6),
      txt: fc.subarray(['one', 'two']),
      srv: fc.uniqueArray(target, { maxLength: 2 }),
      cname: fc.constant(null),
      ns: fc.constant([]),
      claimed: fc.subarray(V4.slice(0, 3)),
    }),
  },
  { weight: 2, arbitrary: fc.record({ cname: target }).map((each) => ({ ...nothing, ...each })) },
  { weight: 1, arbitrary: fc.record({ ns: fc.tuple(server) }).map((each) => ({ ...nothing, ...each })) },
);
const zones = fc.uniqueArray(
  fc.tuple(ownerName, content).map(([name, rest]): Given => ({ name, ...rest })),
  { minLength: 1, maxLength: 10, selector: ({ name }) => name },
);
const TYPES: readonly Type[] = ['A', 'AAAA', 'TXT', 'SRV', 'CNAME', 'MX'];
const askedName = fc.oneof(
  { weight: 5, arbitrary: plainName },
  plainName.map((name) => `*.${name}`),
  fc.constant('*'),
);
const questions = fc.array(fc.tuple(askedName, fc.constantFrom(...TYPES)), { minLength: 12, maxLength: 12 });

test('agents and the zone of the map server answer as RFC 1034 and RFC 4592 say, whatever the zone', () => {
  fc.assert(
    fc.property(zones, questions, (given, asked) => {
      const world = new CoreWorld();
      const zone = built(world, given);
      const settings = { zone: ZONE, prefixes: [], nameServers: [] };
      const records = new ZoneContent(world.core.names, settings, 1).zones[0]!;
      for (const [name, type] of asked) {
        const expected = outcome(zone, name, type);
        assert.deepEqual(fromAgent(world, name, type), ofAgent(expected), `agent: ${name} ${type}`);
        const request = decodeSections(query(`${name}.${ZONE}`, type));
        const question = {
          name: `${name}.${ZONE}`,
          type: TYPE[type.toLowerCase() as keyof typeof TYPE],
          class: CLASS.in,
        };
        const message = { ...request, opcode: OPCODE.query, questions: [question] };
        const seen = read(queryAnswer({ message, transport: 'tcp', overhead: 0 }, records, question));
        // The agent gives up where this one stops following.
        if (expected.end !== 'too-long')
          assert.deepEqual(summary(seen), ofPrimary(expected), `primary: ${name} ${type}`);
      }
    }),
    { numRuns: runs(250) },
  );
});

/** Of what is accepted, what there is to be answered. */
function built(world: CoreWorld, given: readonly Given[]): ReadonlyMap<string, Content> {
  const agent = world.agent('a', { eids: ['10.77.0.0/24'], names: ['*'] });
  const zone = new Map<string, Content>();
  for (const { name, claimed, ...rest } of given) {
    const { a, aaaa, txt, cname, ns } = rest;
    const records = {
      ...NO_RECORDS,
      ...{ txt, cname, ns: ns.map((each) => ({ ...each, addresses: each.addresses.map(parseIpAddress) })) },
      addresses: [...a, ...aaaa].map(parseIpAddress),
      srv: rest.srv.map((each) => ({ priority: 0, weight: 0, port: 1, target: each })),
    };
    const { ok } = world.operate({ kind: 'change-names', changes: [{ name, records, ifVersion: null }] });
    if (ok) zone.set(name, rest);
  }
  const names = new Map<string, string[]>();
  for (const { name, claimed } of given) {
    for (const address of name.startsWith('*') ? [] : claimed)
      names.set(address, [...(names.get(address) ?? []), name]);
  }
  for (const [address, carried] of names) {
    agent.claim(address, 0, { names: carried });
    for (const name of carried) {
      const { cname: _, ...before } = zone.get(name) ?? { ...nothing };
      zone.set(name, { ...before, cname: null, a: [...new Set([...before.a, address])] });
    }
  }
  const lives = (address: string): boolean => names.has(address) || address.startsWith('192.');
  for (const [name, each] of zone) {
    const best = (addresses: readonly string[]): readonly string[] =>
      addresses.some(lives) ? addresses.filter(lives) : addresses;
    zone.set(name, { ...each, a: best(each.a), aaaa: best(each.aaaa) });
  }
  return zone;
}

function fromAgent(world: CoreWorld, name: string, type: Type): object {
  const bench = new Bench();
  bench.upstreams('192.0.2.53');
  bench.ask(`${name}.${ZONE}`, type);
  for (let asked = 0; bench.lookups.length > asked; ) {
    const lookup = bench.lookups[asked++]!;
    const mapping = lookup.kind === 'resolve-name' ? world.core.names.mapping(lookup.name) : undefined;
    const finding =
      mapping === undefined
        ? ({ kind: 'absent' } as const)
        : { kind: 'found' as const, values: mapping.targets, zone: mapping.zone, stale: false };
    bench.service.handleName(lookup.lookup, finding, bench.now);
    bench.drain();
  }
  const [sent] = bench.sent;
  if (sent !== undefined) {
    const [question] = read(sent.packet).questions ?? [];
    return { askedAt: sent.upstream.host, for: question?.name.toLowerCase() };
  }
  return summary(bench.last());
}

function ofAgent(expected: Outcome): object {
  const { end, at, servers } = expected;
  const [server] = servers;
  if (end === 'outside') return { askedAt: '192.0.2.53', for: absoluteTarget(at, ZONE) };
  if (end === 'delegated' && server !== undefined) return { askedAt: server, for: absoluteTarget(at, ZONE) };
  if (end === 'delegated' || end === 'too-long') return { rcode: 2, answers: [], soa: false };
  return ofPrimary(expected);
}

function ofPrimary({ end, answers }: Outcome): object {
  const soa = end === 'no-data' || end === 'nx-domain';
  return { rcode: end === 'nx-domain' ? 3 : 0, answers: answers.map(absolute).sort(), soa };
}

/** As it is on the wire. */
function absolute(answer: string): string {
  const [owner = '', type = '', data = ''] = answer.split(' ');
  const text = type === 'SRV' || type === 'CNAME' ? absoluteTarget(data, ZONE) : data;
  return `${absoluteTarget(owner, ZONE)} ${type} ${text}`;
}

function summary(seen: Seen): object {
  const answers = (seen.answers ?? []).map((each) => {
    const { data } = each as { data: unknown };
    const text = Array.isArray(data) ? String(data[0]) : ((data as { target?: string }).target ?? String(data));
    return `${each.name} ${each.type} ${text}`;
  });
  return {
    rcode: seen.rcodeNumber,
    answers: answers.sort(),
    soa: seen.authorities?.some(({ type }) => type === 'SOA') ?? false,
  };
}
