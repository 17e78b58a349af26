import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type IpPrefix,
  ipPrefix,
  parseIpAddress,
  parseIpPrefix,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';
import { PrefixTrie } from '../../proto/prefix-trie.ts';
import { runs } from '../runs.ts';
import { ip, prefix } from './lisp-arbitraries.ts';

test('a trie behaves as a linear scan over its prefixes', () => {
  fc.assert(
    fc.property(
      fc.array(operation(), { maxLength: 60 }),
      fc.array(fc.oneof(crowded(), prefix), { maxLength: 20 }),
      (operations, queries) => {
        const trie = new PrefixTrie<number>();
        const model = new Map<IpPrefix, number>();
        for (const { kind, target, value } of operations) {
          if (kind === 'set') {
            trie.set(target, value);
            model.set(target, value);
          } else {
            assert.equal(trie.delete(target), model.delete(target));
          }
          assert.equal(trie.size, model.size);
        }
        for (const query of [...queries, ...model.keys()]) {
          assert.equal(trie.get(query), model.get(query));
          assert.equal(trie.has(query), model.has(query));
          assert.deepEqual(trie.longestMatch(query), scan(model, query));
          const covered = [...model].filter(([inner]) => prefixContains(query, inner));
          assert.deepEqual(sorted([...trie.covered(query)].map((e) => [e.prefix, e.value])), sorted(covered));
        }
        assert.deepEqual(sorted([...trie].map((e) => [e.prefix, e.value])), sorted([...model]));
      },
    ),
    { numRuns: runs(400) },
  );
});

test('the vacant prefix around a prefix is the shortest that holds no entry and leaves none that covers it', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(crowded(), prefix), { maxLength: 30 }),
      fc.oneof(crowded(), prefix),
      (entries, target) => {
        const trie = new PrefixTrie<true>();
        for (const entry of entries) trie.set(entry, true);
        const free = (length: number): boolean => {
          const candidate = ipPrefix(prefixAddress(target), length);
          return entries.every(
            (entry) => prefixContains(entry, candidate) || !(prefixContains(candidate, entry) && entry !== candidate),
          );
        };
        const holdsNone = Array.from({ length: prefixLength(target) }, (_, length) => length).find(free);
        assert.equal(trie.vacantLength(target), holdsNone ?? prefixLength(target));
      },
    ),
    { numRuns: runs(800) },
  );
});

test('an address matches the most specific prefix around it', () => {
  const trie = new PrefixTrie<string>();
  for (const text of ['0.0.0.0/0', '10.0.0.0/8', '10.1.0.0/16', '10.1.2.3/32', '::/0', 'fd00::/8']) {
    trie.set(parseIpPrefix(text), text);
  }
  for (const [address, match] of [
    ['10.1.2.3', '10.1.2.3/32'],
    ['10.1.2.4', '10.1.0.0/16'],
    ['10.2.0.1', '10.0.0.0/8'],
    ['11.0.0.1', '0.0.0.0/0'],
    ['fd00::1', 'fd00::/8'],
    ['2001:db8::1', '::/0'],
  ] as const) {
    assert.equal(trie.longestMatch(parseIpAddress(address))?.value, match);
  }
});

test('iteration is in address order, a prefix before what it covers', () => {
  const trie = new PrefixTrie<true>();
  const order = [
    '0.0.0.0/0',
    '9.0.0.0/8',
    '10.0.0.0/8',
    '10.0.0.0/9',
    '10.128.0.0/9',
    '::/0',
    'fd00::/8',
  ] as IpPrefix[];
  for (const target of [3, 6, 0, 4, 2, 5, 1].map((i) => order[i]!)) trie.set(target, true);
  assert.deepEqual(
    [...trie].map((entry) => entry.prefix),
    order,
  );
});

test('a value may be undefined, and clearing empties the trie', () => {
  const trie = new PrefixTrie<undefined>();
  const target = parseIpPrefix('10.0.0.0/8');
  trie.set(target, undefined);
  assert.deepEqual([trie.size, trie.has(target), trie.get(target)], [1, true, undefined]);
  assert.deepEqual(trie.longestMatch(parseIpAddress('10.9.9.9')), { prefix: target, value: undefined });
  trie.clear();
  assert.deepEqual([trie.size, trie.has(target), [...trie]], [0, false, []]);
});

function scan(model: Map<IpPrefix, number>, query: IpPrefix): { prefix: IpPrefix; value: number } | undefined {
  const [best] = [...model]
    .filter(([outer]) => prefixContains(outer, query))
    .sort(([a], [b]) => prefixLength(b) - prefixLength(a));
  return best === undefined ? undefined : { prefix: best[0], value: best[1] };
}

function operation(): fc.Arbitrary<{ kind: 'set' | 'delete'; target: IpPrefix; value: number }> {
  return fc.record({
    kind: fc.constantFrom('set', 'set', 'delete'),
    target: fc.oneof({ weight: 5, arbitrary: crowded() }, { weight: 1, arbitrary: prefix }),
    value: fc.nat(),
  });
}

/** Few prefixes that often nest, fork and repeat. */
function crowded(): fc.Arbitrary<IpPrefix> {
  const bits = fc.constantFrom(
    '10.0.0.0',
    '10.0.0.1',
    '10.128.0.0',
    '10.0.3.255',
    '11.0.0.0',
    'fd00::',
    'fd00::1',
    'fe00::',
  );
  return fc
    .tuple(fc.oneof({ weight: 9, arbitrary: bits.map(parseIpAddress) }, { weight: 1, arbitrary: ip }), fc.nat(128))
    .map(([address, length]) => ipPrefix(address, address.includes(':') ? length : length % 33));
}

function sorted(entries: [IpPrefix, number][]): [IpPrefix, number][] {
  return entries.sort(([a], [b]) => (a < b ? -1 : 1));
}
