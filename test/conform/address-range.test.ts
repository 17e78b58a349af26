/** Checks side by side have EIDs of their own. */
import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { AddressRange } from '../../conform/address-range.ts';
import { hostPrefix, type IpPrefix } from '../../proto/address.ts';

test('a block meets prefixes of its own addresses and around them, and none of the next block', () => {
  const range = new AddressRange([], { v4: '198.18.0.0/16', v6: '2001:2::/48' });
  const [block, next] = [range.next(), range.next()];
  for (const host of [0, 7]) {
    assert.ok(block.meets(hostPrefix(block.v4(host))));
    assert.ok(block.meets(hostPrefix(block.v6(host))));
    assert.ok(!block.meets(hostPrefix(next.v4(host))));
    assert.ok(!block.meets(hostPrefix(next.v6(host))));
  }
  for (const around of ['0.0.0.0/0', '198.18.0.0/28', '2001:2::/63'] as IpPrefix[]) {
    assert.ok(block.meets(around));
    assert.ok(next.meets(around));
  }
});
