import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type IpPrefix, parseIpAddress, parseIpPrefix, prefixContains, prefixLength } from '../../proto/address.ts';
import { AGENT_PREFIX } from '../../proto/identity.ts';
import { eidProblem, eidSpace, isPlausibleLocator, overlayProblem, PLATFORM_SERVICES } from '../../proto/overlay.ts';
import { firstHost, prefixNode } from '../../proto/prefix-node.ts';

test('an overlay holds no default route and nothing that has a meaning of its own', () => {
  for (const text of ['10.77.0.0/16', '198.18.0.0/15', 'fd77::/48', '2001:db8::/32']) {
    assert.equal(overlayProblem(parseIpPrefix(text)), undefined, text);
  }
  for (const text of ['0.0.0.0/0', '::/0', '0.0.0.0/1', '128.0.0.0/1', '127.0.0.0/8', 'fe80::/10', 'fe00::/8']) {
    assert.notEqual(overlayProblem(parseIpPrefix(text)), undefined, text);
  }
});

test('an overlay may be around what platforms and agents have for themselves, but not within', () => {
  for (const text of ['168.63.129.16/32', '100.100.100.200/32', 'fd00:ec2::254/128', 'fd53:7461:7970:7574::/64']) {
    assert.notEqual(overlayProblem(parseIpPrefix(text)), undefined, text);
  }
  for (const text of ['100.64.0.0/10', 'fd00::/8', '100.64.0.0/11', '100.100.100.201/32', 'fd00:ec3::/32']) {
    assert.equal(overlayProblem(parseIpPrefix(text)), undefined, text);
  }
});

test('no EID is, or has in it, what platforms and agents have for themselves', () => {
  for (const text of ['100.100.100.200/32', '100.100.100.0/24', '100.64.0.0/10', 'fd00:ec2::/64', 'fd53:7461::/32']) {
    assert.match(eidProblem(parseIpPrefix(text)) ?? '', /^it overlaps .+ \(.+\)$/, text);
  }
  assert.match(eidProblem(parseIpPrefix('fd53:7461:7970:7574::1')) ?? '', /the addresses of the agents themselves/);
  for (const text of ['100.100.100.201/32', '100.100.101.0/24', 'fd00:ec2::255/128', 'fd00:ec2:0:1::/64']) {
    assert.equal(eidProblem(parseIpPrefix(text)), undefined, text);
  }
});

test('the space of EIDs is all of the overlay but that, in as few prefixes as there are', () => {
  assert.deepEqual(eidSpace([parseIpPrefix('10.77.0.0/16')]), ['10.77.0.0/16']);
  assert.deepEqual([...eidSpace([parseIpPrefix('100.100.100.192/28')])].sort(), [
    '100.100.100.192/29',
    '100.100.100.201/32',
    '100.100.100.202/31',
    '100.100.100.204/30',
  ]);
  for (const text of ['100.64.0.0/10', 'fd00::/8', '168.0.0.0/8'].map(parseIpPrefix)) {
    const space = eidSpace([text]);
    const width = text.includes(':') ? 128 : 32;
    const size = (prefix: IpPrefix) => 1n << BigInt(width - prefixLength(prefix));
    const kept = [AGENT_PREFIX, ...PLATFORM_SERVICES.map(([prefix]) => prefix)].filter((each) =>
      prefixContains(text, each),
    );
    assert.ok(kept.length > 0 && space.length <= 128 * kept.length);
    for (const each of kept) assert.ok(!space.some((prefix) => prefixContains(prefix, each)), each);
    // Together as many addresses, none of them twice: each prefix is within the overlay, and no two meet.
    const all = [...space, ...kept].reduce((sum, prefix) => sum + size(prefix), 0n);
    assert.equal(all, size(text));
    const nodes = space.map((prefix) => firstHost(width === 32 ? 4 : 6, prefixNode(prefix)));
    assert.equal(new Set(nodes).size, space.length);
    assert.ok(space.every((prefix) => prefixContains(text, prefix)));
  }
});

test('a locator is an address that another host can have on the underlay', () => {
  const overlay = [parseIpPrefix('10.77.0.0/16'), parseIpPrefix('fd77::/48')];
  const plausible = (text: string) => isPlausibleLocator(parseIpAddress(text), overlay);
  for (const text of ['192.0.2.1', '10.0.0.1', '100.64.0.1', '2001:db8::1', 'fd00::1'])
    assert.ok(plausible(text), text);
  for (const text of ['0.0.0.0', '127.0.0.1', '169.254.169.254', '224.0.0.1', '255.255.255.255', '10.77.0.5']) {
    assert.ok(!plausible(text), text);
  }
  for (const text of ['::', '::1', '::ffff:127.0.0.1', 'fe80::1', 'ff02::1', 'fd77::5', 'fd53:7461:7970:7574::1']) {
    assert.ok(!plausible(text), text);
  }
});
