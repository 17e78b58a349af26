import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import {
  hostPrefix,
  ipFamily,
  ipFromBytes,
  ipPrefix,
  ipToBytes,
  isHostPrefix,
  isIpAddress,
  parseIpAddress,
  parseIpPrefix,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';
import { DecodeError } from '../../proto/errors.ts';
import { runs } from '../runs.ts';
import { ip, ipv4, ipv6, prefix } from './lisp-arbitraries.ts';

test('octets and text of an address agree with ipaddr.js', () => {
  fc.assert(
    fc.property(ip, (address) => {
      const oracle = ipaddr.parse(address);
      assert.deepEqual([...ipToBytes(address)], oracle.toByteArray());
      assert.equal(ipFamily(address), oracle.kind() === 'ipv4' ? 4 : 6);
      assert.equal(ipFromBytes(ipToBytes(address)), address);
      assert.equal(address, oracle.kind() === 'ipv4' ? oracle.toString() : (oracle as ipaddr.IPv6).toRFC5952String());
    }),
    { numRuns: runs(800) },
  );
});

test('every way of writing an IPv6 address parses to the same canonical text', () => {
  fc.assert(
    fc.property(ipv6, (address) => {
      const oracle = ipaddr.parse(address) as ipaddr.IPv6;
      const groups = oracle.toNormalizedString().split(':');
      const full = groups.map((group) => group.padStart(4, '0')).join(':');
      for (const text of [full, full.toUpperCase(), oracle.toNormalizedString(), oracle.toString()]) {
        assert.equal(parseIpAddress(text), address, text);
      }
      const dotted = `${full.split(':').slice(0, 6).join(':')}:${[...ipToBytes(address)].slice(12).join('.')}`;
      assert.equal(parseIpAddress(dotted), address, dotted);
    }),
    { numRuns: runs(500) },
  );
});

test('text is an address exactly when ipaddr.js says so, but for zeroes in front of decimal octets', () => {
  const text = fc.oneof(
    fc.string({
      unit: fc.constantFrom('0', '1', 'f', 'ffff', ':', '::', '.', '1.2.3.4', '10', '255', '256'),
      maxLength: 10,
    }),
    fc.tuple(ip, fc.nat(40), fc.constantFrom(':', '.', '0', 'g', ' ', '')).map(([address, at, c]) => {
      const i = at % (address.length + 1);
      return address.slice(0, i) + c + address.slice(i + (c === '' ? 1 : 0));
    }),
  );
  fc.assert(
    fc.property(text, (candidate) => {
      const octal = candidate.includes('.') && /(^|[:.])0\d+(\.|$)/.test(candidate);
      const oracle = ipaddr.IPv6.isValid(candidate) || ipaddr.IPv4.isValidFourPartDecimal(candidate);
      assert.equal(isIpAddress(candidate), oracle && !octal, candidate);
    }),
    { numRuns: runs(2500) },
  );
});

test('canonical IPv6 text follows RFC 5952', () => {
  for (const [text, canonical] of [
    ['2001:0DB8::0001', '2001:db8::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['1:0:0:0:0:0:0:0', '1::'],
    ['::ffff:192.0.2.1', '::ffff:c000:201'],
  ] as const) {
    assert.equal(parseIpAddress(text), canonical);
  }
});

test('what is not an address is a DecodeError', () => {
  for (const text of [
    '',
    ' ',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '1.2.3.256',
    '0x1.2.3.4',
    '1.2.3.4 ',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    'fe80::1%eth0',
    '12345::',
    '::1.2.3',
    '1.2.3.4::',
    '[::1]',
    '1:2:3:4:5:6:7:1.2.3.4',
    'g::',
    `${'0'.repeat(50)}::`,
    '١.2.3.4',
  ]) {
    assert.throws(() => parseIpAddress(text), DecodeError, text);
  }
  for (const length of [0, 3, 5, 15, 17]) assert.throws(() => ipFromBytes(new Uint8Array(length)), DecodeError);
});

test('prefixes agree with ipaddr.js and survive parsing', () => {
  fc.assert(
    fc.property(prefix, ip, (outer, address) => {
      assert.equal(parseIpPrefix(outer), outer);
      const [network, length] = ipaddr.parseCIDR(outer);
      assert.equal(prefixLength(outer), length);
      assert.deepEqual([...ipToBytes(prefixAddress(outer))], network.toByteArray());
      const oracle = ipaddr.parse(address);
      assert.equal(prefixContains(outer, address), oracle.kind() === network.kind() && oracle.match(network, length));
    }),
    { numRuns: runs(800) },
  );
});

test('an address is in every prefix cut from it, and a prefix in every shorter one', () => {
  fc.assert(
    fc.property(ip, fc.nat(128), fc.nat(128), (address, a, b) => {
      const width = ipFamily(address) === 4 ? 32 : 128;
      const [short, long] = [Math.min(a, b) % (width + 1), Math.max(a, b) % (width + 1)].sort((x, y) => x - y) as [
        number,
        number,
      ];
      const outer = ipPrefix(address, short);
      const inner = ipPrefix(address, long);
      assert.ok(prefixContains(outer, address) && prefixContains(outer, inner));
      assert.equal(prefixContains(inner, outer), short === long);
      assert.equal(isHostPrefix(inner), long === width);
    }),
  );
});

test('families do not contain each other', () => {
  assert.equal(prefixContains(parseIpPrefix('0.0.0.0/0'), parseIpAddress('::')), false);
  assert.equal(prefixContains(parseIpPrefix('::/0'), parseIpPrefix('10.0.0.0/8')), false);
});

test('an address alone is a host prefix', () => {
  fc.assert(fc.property(ipv4, (address) => parseIpPrefix(address) === `${address}/32`));
  fc.assert(fc.property(ipv6, (address) => parseIpPrefix(address) === hostPrefix(address)));
});

test('what is not a prefix is a DecodeError, with the prefix that was meant if there is one', () => {
  for (const text of [
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '10.0.0.0/08',
    '10.0.0.0/1e1',
    '::/129',
    '/8',
  ]) {
    assert.throws(() => parseIpPrefix(text), DecodeError, text);
  }
  assert.throws(() => parseIpPrefix('10.0.0.5/24'), /did you mean 10\.0\.0\.0\/24\?/);
  for (const length of [-1, 33, 1.5, Number.NaN]) {
    assert.throws(() => ipPrefix(parseIpAddress('10.0.0.0'), length), DecodeError);
  }
});
