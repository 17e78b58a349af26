/** Which rules of a policy are about the EIDs of a host. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { overlapWith } from '../../agent/shell/reachability.ts';
import { type IpPrefix, parseIpPrefix, prefixContains } from '../../proto/address.ts';

const PREFIXES = [
  ...['10.77.0.0/16', '10.77.0.0/24', '10.77.0.128/25', '10.77.0.5/32', '10.77.0.6/32', '10.78.0.0/15', '10.0.0.0/8'],
  ...['fd77::/48', 'fd77::/64', 'fd77::5/128', 'fd77:0:0:1::/64', 'fd78::/16', '0.0.0.0/0', '::/0'],
].map(parseIpPrefix);

test('two prefixes have addresses in common if one contains the other', () => {
  const contains = (a: IpPrefix, b: IpPrefix): boolean => prefixContains(a, b) || prefixContains(b, a);
  for (let first = 0; first < PREFIXES.length; first++) {
    for (let length = 0; length <= 3; length++) {
      const own = PREFIXES.slice(first, first + length);
      const meetsOwn = overlapWith(own);
      for (const prefix of PREFIXES) {
        assert.equal(
          meetsOwn(prefix),
          own.some((each) => contains(each, prefix)),
          `${prefix} in ${own.join(', ')}`,
        );
      }
    }
  }
});

test('as many as a policy and a host can have', () => {
  const host = (at: number): IpPrefix => parseIpPrefix(`10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`);
  const meetsOwn = overlapWith(Array.from({ length: 4096 }, (_, at) => host(at)));
  const others = Array.from({ length: 65_536 }, (_, at) => host(at + 4090));
  assert.equal(others.filter(meetsOwn).length, 6);
});
