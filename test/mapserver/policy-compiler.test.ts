import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type PolicyCompiler, PolicyTooLargeError } from '../../mapserver/core/policy/compiler.ts';
import type { PolicyDocument } from '../../mapserver/core/policy/document.ts';
import { compilePolicy } from '../../mapserver/core/policy/draft.ts';
import { decide } from '../../mapserver/core/policy/evaluation.ts';
import { MAX_NAMED_ADDRESSES, type Selection } from '../../mapserver/core/policy/selection.ts';
import {
  hostPrefix,
  type IpAddress,
  type IpPrefix,
  parseIpAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { decodeAgentPolicy, verdictOf } from '../../proto/policy.ts';
import { runs } from '../runs.ts';
import { TestRecords } from './policy-records.ts';

test('an agent gets the rules that concern its EIDs, and of them no more than that', () => {
  const records = new TestRecords();
  const web = records.grant('web', ['10.77.1.0/24']);
  const db = records.grant('db', ['10.77.2.0/24']);
  records.own(web, '10.77.1.1');
  records.own(web, '10.77.1.2');
  records.own(web, 'a.web', ['10.77.1.1']);
  records.own(web, 'b.web', ['10.77.1.2']);
  records.own(db, '10.77.2.1');
  records.own(db, 'db', ['10.77.2.1']);
  const { extract } = compiled(
    records,
    'default deny\nallow from *.web to db tcp 5432\nallow from 10.77.3.0/24 to 10.77.4.0/24',
  );
  const rule = {
    action: 'allow',
    source: ['10.77.1.1/32', '10.77.1.2/32'],
    destination: ['10.77.2.1/32'],
    protocol: 6,
    ports: [[5432, 5432]],
  };
  assert.deepEqual(extract('10.77.1.0/24').rules, [rule]);
  assert.deepEqual(extract('10.77.1.1/32').rules, [{ ...rule, source: ['10.77.1.1/32'] }], 'nothing of its neighbour');
  assert.deepEqual(extract('10.77.2.0/24').rules, [rule]);
  assert.deepEqual(extract('10.77.5.0/24').rules, []);
});

test('a name stands only for addresses that its owner may register', () => {
  const records = new TestRecords();
  const rogue = records.grant('rogue', ['10.77.9.0/24']);
  records.own(rogue, 'x.web', ['10.77.9.1', '10.77.5.5']);
  const { extract, records: followed } = compiled(records, 'allow from *.web to any');
  assert.deepEqual(extract('10.77.0.0/16').rules[0]?.source, ['10.77.9.1/32']);
  followed.grant('rogue', ['10.77.5.0/24']);
  assert.deepEqual(extract('10.77.0.0/16').rules[0]?.source, ['10.77.5.5/32'], 'also when the grant changes');
});

test('a group by grant has the EIDs that its agents own, wherever they are, and not their agent addresses', () => {
  const records = new TestRecords();
  const a = records.grant('a', ['10.77.1.0/24'], ['ops']);
  const b = records.grant('b', ['10.77.1.0/24']);
  records.own(a, '10.77.1.1');
  const { extract, selection } = compiled(records, 'group ops = 10.77.8.8\nallow from @ops to any tcp 22');
  const sources = (): readonly IpPrefix[] => extract('10.77.0.0/16').rules[0]?.source ?? [];
  assert.deepEqual(sources(), ['10.77.1.1/32', '10.77.8.8/32']);
  records.own(b, '10.77.1.1');
  assert.deepEqual(sources(), ['10.77.8.8/32'], 'it moved to an agent that is not in the group');
  records.grant('b', ['10.77.1.0/24'], ['ops']);
  assert.deepEqual(sources().toSorted(), ['10.77.1.1/32', '10.77.8.8/32'], 'which is now granted the group');
  records.release('10.77.1.1');
  assert.deepEqual(sources(), ['10.77.8.8/32']);
  assert.equal(selection.hasAddress({ kind: 'group', group: 'ops' }, parseIpAddress('10.77.8.8')), true);
});

test('more than an agent can enforce is a typed error', () => {
  const records = new TestRecords();
  const owners = Array.from({ length: 6 }, (_, i) => records.grant(`owner ${i}`, ['10.77.0.0/16']));
  for (let i = 0; i < 6_000; i++) {
    const owner = owners[i % owners.length] as XtrId;
    // No two next to one another, which would be one prefix.
    const address = `10.77.${i >> 7}.${(2 * i) & 255}`;
    records.own(owner, address);
    records.own(owner, `h${i}.web`, [address]);
  }
  const text = Array.from({ length: 12 }, (_, i) => `allow from *.web to 10.77.200.0/24 tcp ${i}`).join('\n');
  const { extract, compiler } = compiled(records, text);
  assert.ok(compiler.mayBeTooLarge(1));
  assert.throws(() => extract('10.77.0.0/16'), PolicyTooLargeError);
  assert.equal(extract('10.77.3.4/32').rules.length, 12, 'others are not concerned');
});

test('what an agent gets says of each of its packets what the whole policy says, through all changes', () => {
  fc.assert(
    fc.property(
      texts,
      fc.array(steps, { maxLength: 30 }),
      fc.array(openings, { minLength: 20, maxLength: 20 }),
      (text, changes, asked) => {
        const records = new TestRecords();
        const agents = GRANTS.map((grant, i) => records.grant(`agent ${i}`, grant));
        for (const change of changes.slice(0, 15)) change(records, agents);
        const { extract, selection, document } = compiled(records, text);
        for (const change of [...changes.slice(15), () => undefined]) {
          change(records, agents);
          for (const [i] of agents.entries()) {
            const grant = records.agent(agents[i] as XtrId)?.eids ?? [];
            const rules = extract(...grant).rules;
            const policy = decodeAgentPolicy(
              JSON.parse(JSON.stringify({ version: 1, default: document.default, rules })),
            );
            for (const { source, destination, protocol, port } of asked) {
              if (![source, destination].some((address) => grant.some((prefix) => prefixContains(prefix, address))))
                continue;
              const [decision] = decide(document, selection, {
                from: { address: source },
                to: { address: destination },
                protocol,
                port: port ?? null,
              });
              assert.equal(verdictOf(policy, { source, destination, protocol, port }).action, decision?.action);
            }
          }
        }
        const anew = compilePolicy(text, records).selection;
        const address = parseIpAddress('10.77.0.9');
        for (const selector of document.rules.flatMap(({ from, to }) => [...from, ...to])) {
          assert.equal(selection.hasAddress(selector, address), anew.hasAddress(selector, address));
          if (selector.kind !== 'name' || selector.pattern.startsWith('*')) continue;
          const meant = ADDRESSES.filter((each) => selection.hasAddress(selector, each));
          assert.deepEqual(new Set(selection.addressesOf(selector.pattern)), new Set(meant));
        }
      },
    ),
    { numRuns: runs(120) },
  );
});

function compiled(
  records: TestRecords,
  text: string,
): {
  document: PolicyDocument;
  selection: Selection;
  compiler: PolicyCompiler;
  records: TestRecords;
  extract: (...grant: readonly string[]) => ReturnType<PolicyCompiler['extract']>;
} {
  const { document, selection, compiler } = compilePolicy(text, records);
  records.selection = selection;
  const extract = (...grant: readonly string[]): ReturnType<PolicyCompiler['extract']> => {
    compiler.apply(selection.takeChanges());
    return compiler.extract(grant as readonly IpPrefix[]);
  };
  return { document, selection, compiler, records, extract };
}

/** Few addresses, so that rules meet. */
const GRANTS = [
  ['10.77.0.0/30'],
  ['10.77.0.4/30', '10.77.0.0/31'],
  ['10.77.0.0/28'],
  ['10.77.0.9/32', 'fd00::9/128'],
  [],
];
const ADDRESSES = ['fd00::9', ...Array.from({ length: 16 }, (_, i) => `10.77.0.${i}`)].map(parseIpAddress);
const addresses: fc.Arbitrary<IpAddress> = fc.oneof(
  fc.integer({ min: 0, max: 15 }).map((i) => parseIpAddress(`10.77.0.${i}`)),
  fc.constant(parseIpAddress('fd00::9')),
);
const names = fc.constantFrom('db', 'a.web', 'b.web', 'c.b.web');
const members = fc.oneof(
  fc.constantFrom(
    'any',
    '*',
    '*.web',
    '*.b.web',
    'db',
    'a.web',
    '@one',
    '@two',
    '10.77.0.0/29',
    '10.77.0.8/30',
    'fd00::/16',
  ),
  addresses,
);
const lists = fc.array(members, { minLength: 1, maxLength: 3 }).map((list) => list.join(', '));
const services = fc.constantFrom('', ' tcp', ' tcp 80', ' tcp 80-443,22', ' udp 53', ' icmp', ' 58', ' 47');
const rules = fc
  .tuple(fc.constantFrom('allow', 'deny'), lists, lists, services)
  .map(([action, from, to, service]) => `${action} from ${from} to ${to}${service}`);
const texts = fc
  .tuple(fc.constantFrom('allow', 'deny'), lists, fc.array(rules, { maxLength: 12 }))
  .map(([standard, group, lines]) =>
    [`default ${standard}`, `group one = ${group.replaceAll(/@\w+/g, '@two')}`, 'group two', ...lines].join('\n'),
  );
const agentIndex = fc.integer({ min: 0, max: GRANTS.length - 1 });
const steps: fc.Arbitrary<(records: TestRecords, agents: readonly XtrId[]) => void> = fc.oneof(
  fc
    .tuple(agentIndex, addresses, fc.uniqueArray(names, { maxLength: 2 }))
    .map(([i, address, carried]) => (records: TestRecords, agents: readonly XtrId[]) => {
      records.own(agents[i] as XtrId, hostPrefix(address), [], carried);
    }),
  fc.tuple(agentIndex, names, fc.array(addresses, { maxLength: 3 })).map(
    ([i, name, targets]) =>
      (records: TestRecords, agents: readonly XtrId[]) =>
        records.own(agents[i] as XtrId, name, targets),
  ),
  fc.oneof(names, addresses).map((text) => (records: TestRecords) => records.release(text)),
  fc
    .tuple(agentIndex, fc.subarray(['one', 'two']), fc.constantFrom(...GRANTS))
    .map(([i, groups, grant]) => (records: TestRecords) => {
      records.grant(`agent ${i}`, grant, groups);
    }),
);
const openings = fc
  .record({
    source: addresses,
    destination: addresses,
    protocol: fc.constantFrom(1, 6, 17, 47, 58),
    port: fc.constantFrom(22, 53, 80, 81, 443),
  })
  .map((opening) => (opening.protocol === 6 || opening.protocol === 17 ? opening : { ...opening, port: undefined }));

test('an address counts once for a name that both its EID and the registration of the name say', () => {
  const records = new TestRecords();
  const owner = records.grant('owner', ['10.77.0.0/16']);
  const { extract } = compiled(records, 'allow from *.web to any');
  const count = (): number => {
    const prefixes = extract('10.77.0.0/16').rules.flatMap(({ source }) => source);
    return prefixes.reduce((sum, prefix) => sum + 2 ** (32 - prefixLength(prefix)), 0);
  };
  for (let i = 0; i < MAX_NAMED_ADDRESSES; i++) {
    const address = `10.77.${i >> 8}.${i & 255}`;
    records.own(owner, address, [], [`n${i}.web`]);
    records.own(owner, `n${i}.web`, [address]);
  }
  assert.equal(count(), MAX_NAMED_ADDRESSES);
  records.own(owner, '10.77.200.1', [], ['late.web']);
  assert.equal(count(), MAX_NAMED_ADDRESSES);
  records.release('n0.web');
  assert.equal(count(), MAX_NAMED_ADDRESSES, 'the EID still carries it');
  records.release('10.77.0.0');
  const sources = extract('10.77.0.0/16').rules.flatMap(({ source }) => source);
  assert.ok(sources.includes('10.77.200.1/32' as IpPrefix));
});

test('of the names of one agent so many addresses count, and others when there is place again', () => {
  const records = new TestRecords();
  const owner = records.grant('owner', ['10.77.0.0/16']);
  for (let i = 0; i < MAX_NAMED_ADDRESSES; i++) {
    records.own(owner, `n${i}.web`, [`10.77.${i >> 8}.${i & 255}`]);
  }
  const { extract } = compiled(records, 'allow from *.web to any');
  const has = (prefix: string): boolean =>
    extract('10.77.0.0/16').rules.some(({ source }) => source.includes(prefix as IpPrefix));
  records.own(owner, 'late.web', ['10.77.200.1']);
  assert.equal(has('10.77.200.1/32'), false);
  records.own(records.grant('other', ['10.77.201.0/24']), 'other.web', ['10.77.201.1']);
  assert.equal(has('10.77.201.1/32'), true, 'another agent has its own share');
  records.release('n0.web');
  assert.equal(has('10.77.0.0/32'), false);
  assert.equal(has('10.77.200.1/32'), true);
  records.own(owner, 'n1.web', ['10.77.0.1', '10.77.200.2']);
  assert.equal(has('10.77.0.1/32'), false, 'a name counts with all of its addresses or none');
  records.release('late.web');
  assert.equal(has('10.77.200.2/32'), true);
});
