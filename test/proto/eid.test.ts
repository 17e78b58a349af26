import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { prefixContains } from '../../proto/address.ts';
import { CAPABILITY, compatible } from '../../proto/capability.ts';
import { DEFAULT_INSTANCE, eidKey, instanceId, nameEid, parseEid, parseEidKey } from '../../proto/eid.ts';
import { DecodeError, StayputError, UsageError } from '../../proto/errors.ts';
import {
  AGENT_PREFIX,
  agentAddressOf,
  parseTunnelKey,
  parseXtrId,
  tunnelKeyFromBytes,
  tunnelKeyToBytes,
  xtrIdFromBytes,
  xtrIdOf,
  xtrIdToBytes,
} from '../../proto/identity.ts';
import { type Generation, isWithdrawal, supersedes } from '../../proto/mapping.ts';
import { minutes, seconds } from '../../proto/time.ts';
import { mapping, nameEids, prefixEids, tunnelKey, xtrId } from './lisp-arbitraries.ts';

const eid = fc.oneof(prefixEids, nameEids);

test('the key of an EID parses to the EID, and differs between EIDs', () => {
  fc.assert(
    fc.property(eid, eid, (a, b) => {
      assert.deepEqual(parseEidKey(eidKey(a)), a);
      assert.equal(eidKey(a) === eidKey(b), JSON.stringify(a) === JSON.stringify(b));
    }),
  );
});

test('what is not a key is a DecodeError', () => {
  for (const key of [
    '',
    '10.0.0.0/8',
    '[]db',
    '[0]',
    '[16777216]10.0.0.0/8',
    '[-1]10.0.0.0/8',
    '[0]db',
    '[0]name:',
    '[0]10.0.0.1/8',
  ]) {
    assert.throws(() => parseEidKey(key), DecodeError, key);
  }
});

test('people type addresses, prefixes and names', () => {
  for (const [text, key] of [
    ['10.0.0.5', '[0]10.0.0.5/32'],
    ['10.0.0.0/24', '[0]10.0.0.0/24'],
    ['FD00::1', '[0]fd00::1/128'],
    ['db', '[0]name:db'],
    ['DB.Blue', '[0]name:db.blue'],
    ['_sip.2nd', '[0]name:_sip.2nd'],
  ] as const) {
    assert.equal(eidKey(parseEid(text)), key);
  }
  assert.equal(eidKey(parseEid('db', instanceId(7))), '[7]name:db');
});

test('a mistyped address is not taken for a name', () => {
  for (const text of ['10.0.0.300', '10.0.0', '10', '10.0.0.0/33', 'fd00:::1', 'db/24', 'db:1']) {
    assert.throws(() => parseEid(text), DecodeError, text);
  }
});

test('names are host names', () => {
  for (const name of [
    '',
    '.',
    'a.',
    '.a',
    'a..b',
    '-a',
    'a-',
    'a b',
    'ä',
    '\u212a',
    'a\n',
    `${'a'.repeat(64)}`,
    `${'a.'.repeat(126)}aa`,
  ]) {
    assert.throws(() => nameEid(DEFAULT_INSTANCE, name), DecodeError, JSON.stringify(name));
  }
  assert.equal(nameEid(DEFAULT_INSTANCE, 'a'.repeat(63)).name.length, 63);
  assert.equal(nameEid(DEFAULT_INSTANCE, `${'a.'.repeat(126)}a`).name.length, 253);
});

test('an instance ID has 24 bits', () => {
  assert.equal(instanceId(0xffffff), 0xffffff);
  for (const value of [-1, 0x1000000, 1.5, Number.NaN]) assert.throws(() => instanceId(value), DecodeError);
});

test('identifiers survive being octets and text', () => {
  fc.assert(
    fc.property(tunnelKey, xtrId, (key, id) => {
      assert.equal(parseTunnelKey(key), key);
      assert.equal(tunnelKeyFromBytes(tunnelKeyToBytes(key)), key);
      assert.equal(tunnelKeyToBytes(key).length, 32);
      assert.equal(parseXtrId(id), id);
      assert.equal(xtrIdFromBytes(xtrIdToBytes(id)), id);
    }),
  );
  for (const text of [
    '',
    'AAAA',
    `${'A'.repeat(43)}`,
    `${'A'.repeat(42)}B=`,
    `${'_'.repeat(43)}=`,
    `${'A'.repeat(43)}=\n`,
  ]) {
    assert.throws(() => parseTunnelKey(text), DecodeError, text);
  }
  for (const text of ['', '0'.repeat(31), '0'.repeat(33), 'A'.repeat(32), `${'0'.repeat(32)}\n`]) {
    assert.throws(() => parseXtrId(text), DecodeError, text);
  }
  assert.throws(() => tunnelKeyFromBytes(new Uint8Array(31)), DecodeError);
  assert.throws(() => xtrIdFromBytes(new Uint8Array(17)), DecodeError);
});

test('what is derived from a tunnel key never changes', () => {
  const key = tunnelKeyFromBytes(new Uint8Array(32));
  assert.equal(xtrIdOf(key), XTR_ID_OF_ZEROES);
  assert.equal(agentAddressOf(key), AGENT_ADDRESS_OF_ZEROES);
});

test('every agent address is in the agent prefix', () => {
  fc.assert(fc.property(tunnelKey, (key) => prefixContains(AGENT_PREFIX, agentAddressOf(key))));
});

test('a mapping supersedes those of its own and older generations', () => {
  fc.assert(
    fc.property(mapping, mapping, (a, b) => {
      assert.equal(supersedes(a, undefined), true);
      assert.equal(supersedes(a, b), a.generation >= b.generation);
      assert.equal(supersedes({ ...a, generation: (b.generation - 1) as Generation }, b), false);
      assert.equal(isWithdrawal(a), a.ttl === 0);
    }),
  );
});

test('capabilities may differ by one', () => {
  assert.deepEqual(
    [-2, -1, 0, 1, 2].map((d) => compatible(CAPABILITY + d)),
    [false, true, true, true, false],
  );
  assert.equal(compatible(Number.NaN), false);
  assert.equal(compatible(CAPABILITY + 0.5), false);
});

test('durations are milliseconds', () => {
  assert.deepEqual([seconds(2), minutes(3)], [2_000, 180_000]);
});

test('errors have codes, the name of their class and their cause', () => {
  const cause = new Error('cause');
  const decode = new DecodeError('EID', 7, 'is not there', { cause });
  assert.deepEqual(
    [decode.code, decode.name, decode.field, decode.offset, decode.message, decode.cause],
    ['STAYPUT_DECODE', 'DecodeError', 'EID', 7, 'EID at offset 7: is not there', cause],
  );
  const usage = new UsageError('no such command');
  assert.ok(usage instanceof StayputError && usage.code === 'STAYPUT_USAGE' && usage.name === 'UsageError');
});

const XTR_ID_OF_ZEROES = '1768ef28993a0a2b02ff6553a0363567';
const AGENT_ADDRESS_OF_ZEROES = 'fd53:7461:7970:7574:d093:f48b:87cf:413a';
