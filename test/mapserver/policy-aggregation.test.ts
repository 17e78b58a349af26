import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { aggregated } from '../../mapserver/core/policy/aggregation.ts';
import { type IpPrefix, ipPrefix, parseIpAddress, prefixContains } from '../../proto/address.ts';

const of = (...texts: string[]): string[] => aggregated(texts as IpPrefix[]).toSorted();

test('neighbours are joined as far as they go, in both families', () => {
  assert.deepEqual(of('10.0.0.0/32', '10.0.0.1/32', '10.0.0.2/31'), ['10.0.0.0/30']);
  assert.deepEqual(of('10.0.0.1/32', '10.0.0.2/32'), ['10.0.0.1/32', '10.0.0.2/32'], 'these are no halves of a whole');
  assert.deepEqual(of('fd00::/128', 'fd00::1/128', '10.0.0.1/32'), ['10.0.0.1/32', 'fd00::/127']);
  assert.deepEqual(of('0.0.0.0/1', '128.0.0.0/1'), ['0.0.0.0/0']);
  assert.deepEqual(of(), []);
});

test('what another prefix contains is left out, also when that was joined first', () => {
  assert.deepEqual(of('10.0.0.5/32', '10.0.0.0/24'), ['10.0.0.0/24']);
  assert.deepEqual(of('10.0.0.5/32', '10.0.0.0/25', '10.0.0.128/25'), ['10.0.0.0/24']);
  assert.deepEqual(of('0.0.0.0/0', '10.0.0.0/8', '::1/128'), ['0.0.0.0/0', '::1/128']);
});

test('the addresses are the same, in the fewest prefixes', () => {
  const prefix = fc
    .tuple(fc.nat(63), fc.integer({ min: 26, max: 32 }))
    .map(([host, length]) => ipPrefix(parseIpAddress(`10.0.0.${host}`), length));
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 30 }), (prefixes) => {
      const result = aggregated(prefixes);
      for (let host = 0; host < 64; host++) {
        const address = parseIpAddress(`10.0.0.${host}`);
        const before = prefixes.some((each) => prefixContains(each, address));
        assert.equal(result.filter((each) => prefixContains(each, address)).length, before ? 1 : 0);
      }
      for (const each of result) assert.ok(!result.includes(siblingOf(each)), `${each} has its sibling beside it`);
    }),
  );
});

function siblingOf(prefix: IpPrefix): IpPrefix {
  const [address = '', length = ''] = prefix.split('/');
  const host = Number(address.split('.')[3]);
  return `10.0.0.${host ^ (1 << (32 - Number(length)))}/${length}` as IpPrefix;
}
