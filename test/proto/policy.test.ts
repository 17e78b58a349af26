import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type IpPrefix, ipFromBytes, ipPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DecodeError } from '../../proto/errors.ts';
import {
  type AgentPolicy,
  decodeAgentPolicy,
  decodePolicyFrame,
  encodePolicyFrames,
  formatPolicyVersion,
  MAX_POLICY_FRAME,
  MAX_POLICY_PREFIXES,
  MAX_POLICY_RULES,
  MAX_RULE_PREFIXES,
  NO_POLICY,
  PolicyAssembly,
  type PolicyRule,
  verdictOf,
} from '../../proto/policy.ts';

const WEB = '10.77.1.0/24' as IpPrefix;
const DB = '10.77.2.0/24' as IpPrefix;

test('a policy arrives as it was sent, in frames that fit', () => {
  fc.assert(
    fc.property(policies, (policy) => {
      const frames = encodePolicyFrames(policy);
      assert.ok(frames.every((frame) => Buffer.byteLength(frame) <= MAX_POLICY_FRAME));
      assert.deepEqual(assembled(frames), policy);
      assert.deepEqual(decodeAgentPolicy(JSON.parse(JSON.stringify(policy))), policy);
    }),
  );
});

test('the largest policy fits into its parts', () => {
  const many = Array.from({ length: MAX_RULE_PREFIXES }, (_, i) =>
    parseIpPrefix(`fd00:7777:7777:7777:1111:2222:3333:${(4096 + i).toString(16)}`),
  );
  const rules = Array.from({ length: MAX_POLICY_PREFIXES / (2 * MAX_RULE_PREFIXES) }, () =>
    rule({ source: many, destination: many }),
  );
  const policy: AgentPolicy = { version: Number.MAX_SAFE_INTEGER, default: 'allow', rules };
  const frames = encodePolicyFrames(policy);
  assert.ok(frames.every((frame) => Buffer.byteLength(frame) <= MAX_POLICY_FRAME));
  assert.deepEqual(assembled(frames), policy);
});

test('the first rule that matches decides, otherwise the default', () => {
  const policy: AgentPolicy = {
    version: 1_000_000,
    default: 'deny',
    rules: [
      rule({ action: 'deny', source: [parseIpPrefix('10.77.1.9')], destination: [DB] }),
      rule({ source: [WEB], destination: [DB], protocol: 6, ports: [[5432, 5433]] }),
      rule({ source: [WEB], destination: [DB], protocol: 1 }),
    ],
  };
  const ask = (source: string, protocol: number, port?: number) =>
    verdictOf(policy, { source: parseIpAddress(source), destination: parseIpAddress('10.77.2.1'), protocol, port });
  assert.deepEqual(ask('10.77.1.1', 6, 5433), { action: 'allow', rule: 1 });
  assert.deepEqual(ask('10.77.1.1', 6, 5434), { action: 'deny', rule: null });
  assert.deepEqual(ask('10.77.1.1', 6), { action: 'deny', rule: null }, 'without a port no rule with ports matches');
  assert.deepEqual(ask('10.77.1.1', 17, 5432), { action: 'deny', rule: null });
  assert.deepEqual(ask('10.77.1.1', 58), { action: 'allow', rule: 2 }, 'ICMP is that of either family');
  assert.deepEqual(ask('10.77.1.9', 6, 5432), { action: 'deny', rule: 0 });
  assert.deepEqual(ask('10.77.2.1', 6, 5432), { action: 'deny', rule: null }, 'rules have a direction');
});

test('anything else than a policy is a DecodeError', () => {
  const good = {
    version: 1,
    default: 'deny',
    rules: [rule({ source: [WEB], destination: [DB], protocol: 6, ports: [[1, 2]] })],
  };
  const wrong: [string, (policy: ReturnType<typeof structuredClone<typeof good>>) => unknown][] = [
    ['not an object', () => []],
    ['an unknown key', (policy) => ({ ...policy, extra: 1 })],
    ['a key that is missing', ({ version, rules }) => ({ version, rules })],
    ['a version that is no number', (policy) => ({ ...policy, version: '1' })],
    ['an unsafe version', (policy) => ({ ...policy, version: 2 ** 53 })],
    ['another default', (policy) => ({ ...policy, default: 'drop' })],
    ['too many rules', (policy) => ({ ...policy, rules: Array(MAX_POLICY_RULES + 1).fill(policy.rules[0]) })],
    ['a rule without a source', (policy) => withRule(policy, { source: [] })],
    ['a rule with too many sources', (policy) => withRule(policy, { source: Array(MAX_RULE_PREFIXES + 1).fill(WEB) })],
    ['a prefix with host bits', (policy) => withRule(policy, { source: ['10.0.0.1/8'] })],
    ['a prefix that is no text', (policy) => withRule(policy, { destination: [7] })],
    ['ports of a protocol that has none', (policy) => withRule(policy, { protocol: 1 })],
    ['ports of any protocol', (policy) => withRule(policy, { protocol: null })],
    ['a range that is backwards', (policy) => withRule(policy, { ports: [[2, 1]] })],
    ['a port too large', (policy) => withRule(policy, { ports: [[1, 65_536]] })],
    ['half a range', (policy) => withRule(policy, { ports: [[1]] })],
    ['a protocol too large', (policy) => withRule(policy, { protocol: 256, ports: [] })],
  ];
  assert.deepEqual(decodeAgentPolicy(good), good);
  for (const [what, change] of wrong) {
    assert.throws(() => decodeAgentPolicy(change(structuredClone(good))), DecodeError, what);
  }
  const count = Math.ceil(MAX_POLICY_PREFIXES / (MAX_RULE_PREFIXES + 1)) + 1;
  const fat = rule({ source: Array<IpPrefix>(MAX_RULE_PREFIXES).fill(WEB), destination: [DB] });
  assert.throws(() => decodeAgentPolicy({ ...good, rules: Array(count).fill(fat) }), DecodeError, 'too many prefixes');
});

test('any JSON gives a policy frame or a DecodeError', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      try {
        decodePolicyFrame(value);
      } catch (error) {
        assert.ok(error instanceof DecodeError);
      }
    }),
  );
});

// Attack: parts of policies out of order, doubled, missing, of two versions or defaults, and too many rules in all | 7 | a typed error; the next policy is taken
test('attack: parts of a policy that do not belong together', () => {
  const rules = Array.from({ length: 3_000 }, (_, i) =>
    rule({ source: [WEB], destination: [DB], protocol: 6, ports: [[i, i]] }),
  );
  const frames = encodePolicyFrames({ version: 3, default: 'deny', rules }).map((text) =>
    decodePolicyFrame(JSON.parse(text)),
  );
  const [first, second, third] = frames;
  assert.ok(first && second && third);
  const fails = (...sequence: typeof frames): void => {
    const assembly = new PolicyAssembly();
    assert.throws(() => sequence.map((frame) => assembly.add(frame)), DecodeError);
    assert.deepEqual(frames.map((frame) => assembly.add(frame)).at(-1)?.rules, rules);
  };
  fails(second);
  fails(first, third);
  fails(first, second, second);
  fails(first, { ...second, version: 4 });
  fails(first, { ...second, default: 'allow' });
  fails(first, { ...second, parts: second.parts + 1 });
  fails(first, { ...second, rules: Array(MAX_POLICY_RULES).fill(rules[0]) });
  const assembly = new PolicyAssembly();
  assembly.add(first);
  assert.deepEqual(frames.map((frame) => assembly.add(frame)).at(-1)?.rules, rules, 'a part 0 starts anew');
});

test('a version reads as policy and change', () => {
  assert.equal(formatPolicyVersion(7_000_012), '7.12');
  assert.equal(formatPolicyVersion(0), 'none');
  assert.deepEqual(assembled(encodePolicyFrames(NO_POLICY)), NO_POLICY);
});

function rule(fields: Partial<PolicyRule> & Pick<PolicyRule, 'source' | 'destination'>): PolicyRule {
  return { action: 'allow', protocol: null, ports: [], ...fields };
}

function withRule<T extends { readonly rules: readonly PolicyRule[] }>(policy: T, fields: object): unknown {
  return { ...policy, rules: [{ ...policy.rules[0], ...fields }] };
}

function assembled(frames: readonly string[]): AgentPolicy | undefined {
  const assembly = new PolicyAssembly();
  return frames.map((text) => assembly.add(decodePolicyFrame(JSON.parse(text)))).at(-1);
}

const prefixes = fc
  .oneof(
    fc.tuple(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.integer({ min: 0, max: 32 })),
    fc.tuple(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.integer({ min: 0, max: 128 })),
  )
  .map(([bytes, length]) => ipPrefix(ipFromBytes(bytes), length));
const portRanges = fc
  .tuple(fc.integer({ min: 0, max: 65_535 }), fc.integer({ min: 0, max: 65_535 }))
  .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);
const someRules = fc
  .record(
    {
      action: fc.constantFrom('allow' as const, 'deny' as const),
      source: fc.array(prefixes, { minLength: 1, maxLength: 100 }),
      destination: fc.array(prefixes, { minLength: 1, maxLength: 100 }),
      protocol: fc.option(fc.integer({ min: 0, max: 255 })),
      ports: fc.array(portRanges, { maxLength: 5 }),
    },
    { noNullPrototype: true },
  )
  .map((made): PolicyRule => {
    const hasPorts = made.protocol === 6 || made.protocol === 17 || made.protocol === 132;
    return { ...made, ports: hasPorts ? made.ports : [] };
  });
const policies = fc.record(
  {
    version: fc.maxSafeNat(),
    default: fc.constantFrom('allow' as const, 'deny' as const),
    rules: fc.array(someRules, { maxLength: 60 }),
  },
  { noNullPrototype: true },
);
