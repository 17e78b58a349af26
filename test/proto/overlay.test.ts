import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { isPlausibleLocator, overlayProblem } from '../../proto/overlay.ts';

test('an overlay holds no default route and nothing that has a meaning of its own', () => {
  for (const text of ['10.77.0.0/16', '198.18.0.0/15', 'fd77::/48', '2001:db8::/32']) {
    assert.equal(overlayProblem(parseIpPrefix(text)), undefined, text);
  }
  for (const text of ['0.0.0.0/0', '::/0', '0.0.0.0/1', '128.0.0.0/1', '127.0.0.0/8', 'fe80::/10', 'fd53::/16']) {
    assert.notEqual(overlayProblem(parseIpPrefix(text)), undefined, text);
  }
});

test('an overlay holds no address at which a platform has its own services', () => {
  for (const text of ['168.63.129.16/32', '100.100.100.200/32', '100.64.0.0/10', 'fd00:ec2::254/128', 'fd00::/8']) {
    assert.notEqual(overlayProblem(parseIpPrefix(text)), undefined, text);
  }
  for (const text of ['100.64.0.0/11', '100.100.100.201/32', 'fd00:ec3::/32']) {
    assert.equal(overlayProblem(parseIpPrefix(text)), undefined, text);
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
