import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type IpFamily, type IpPrefix, parseIpPrefix } from '../../proto/address.ts';
import { firstHost, lastHost, nodePrefix, prefixNode } from '../../proto/prefix-node.ts';

const cases: readonly (readonly [IpFamily, string, string, string])[] = [
  [4, '0.0.0.0/0', '0.0.0.0/32', '255.255.255.255/32'],
  [4, '10.77.0.0/16', '10.77.0.0/32', '10.77.255.255/32'],
  [4, '255.0.0.0/8', '255.0.0.0/32', '255.255.255.255/32'],
  [4, '10.77.0.5/32', '10.77.0.5/32', '10.77.0.5/32'],
  [6, '::/0', '::/128', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128'],
  [6, 'fd00:77::/126', 'fd00:77::/128', 'fd00:77::3/128'],
];

test('a prefix is a node, and its hosts are a range of numbers', () => {
  for (const [family, text, first, last] of cases) {
    const node = prefixNode(parseIpPrefix(text));
    assert.equal(nodePrefix(family, node), text);
    assert.equal(nodePrefix(family, firstHost(family, node)), first);
    assert.equal(nodePrefix(family, lastHost(family, node)), last);
  }
});

test('halves have one parent', () => {
  const [low, high] = ['10.77.0.4/31', '10.77.0.6/31'].map((text) => prefixNode(text as IpPrefix));
  assert.ok(low !== undefined && high !== undefined);
  assert.equal(low ^ 1n, high);
  assert.equal(nodePrefix(4, low >> 1n), '10.77.0.4/30');
});
