import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type IpAddress, parseIpAddress } from '../../proto/address.ts';
import { parseEid, parseEidKey } from '../../proto/eid.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import type { LispAddress } from '../../proto/lisp/afi.ts';
import type { EidRecord, RlocRecord } from '../../proto/lisp/eid-record.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { mappingToRecord, recordToMapping } from '../../proto/lisp/mapping-record.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import {
  lookupRequest,
  mapNotify,
  mapNotifyAck,
  mappingsOf,
  mapRegister,
  mapReply,
  negativeReply,
  queriesOf,
  subscribeRequest,
} from '../../proto/lisp/native.ts';
import type { Generation, Mapping, TunnelKey } from '../../proto/mapping.ts';
import { anyNonce, ip, mapping, nameEids, prefixEids, xtrId } from './lisp-arbitraries.ts';

test('a mapping survives being a record, also on the wire', () => {
  fc.assert(
    fc.property(mapping, anyNonce, (value, n) => {
      assert.deepEqual(recordToMapping(mappingToRecord(value)), value);
      const bytes = encodeLispMessage(mapNotify({ nonce: n, mappings: [value, value] }));
      assert.deepEqual(mappingsOf(decodeLispMessage(bytes)), [value, value]);
    }),
    { numRuns: 1000 },
  );
});

test('the RLOC-records come in the order and form that the control protocol documents', () => {
  const record = mappingToRecord(DB);
  assert.deepEqual(
    [record.ttl, record.maskLength, record.action, record.eid],
    [5, 32, 0, { kind: 'instance-id', iid: 7, iidMaskLength: 0, address: { kind: 'ip', address: '10.77.0.5' } }],
  );
  assert.deepEqual(
    record.locators.map(({ priority, weight, local, reachable, probed }) => [
      priority,
      weight,
      local,
      reachable,
      probed,
    ]),
    [
      [1, 100, true, true, false],
      [255, 0, true, true, false],
      [255, 0, true, true, false],
    ],
  );
  assert.deepEqual(
    record.locators.map(({ locator }) => locator),
    [
      {
        kind: 'security-key',
        algorithm: 0x53,
        revoked: false,
        keys: [new Uint8Array(32).fill(1)],
        address: {
          kind: 'nat',
          msPort: 0,
          etrPort: 40000,
          globalEtr: { kind: 'ip', address: '192.0.2.7' },
          ms: { kind: 'none' },
          privateEtr: { kind: 'none' },
          rtrs: [],
        },
      },
      { kind: 'name', name: 'db' },
      {
        kind: 'vendor',
        oui: 0x025350,
        data: Uint8Array.from(Buffer.from(`01010000000000000003${xtrIdOf(KEY)}20${'01'.repeat(32)}`, 'hex')),
      },
    ],
  );
});

test('a name has its targets as plain locators and mask length 0', () => {
  const record = mappingToRecord({
    ...NEGATIVE,
    eid: parseEid('db'),
    targets: [address('10.77.0.5'), address('fd00::5')],
  });
  assert.deepEqual([record.eid, record.maskLength], [{ kind: 'name', name: 'db' }, 0]);
  assert.deepEqual(
    record.locators.map(({ priority, locator }) => [priority, locator]),
    [
      [1, { kind: 'ip', address: '10.77.0.5' }],
      [1, { kind: 'ip', address: 'fd00::5' }],
    ],
  );
});

test('only a name has targets', () => {
  assert.throws(() => mappingToRecord({ ...NEGATIVE, targets: [address('10.0.0.1')] }), { code: 'STAYPUT_ENCODE' });
});

test('a part of a minute is rounded up, so that only 0 withdraws', () => {
  const minutesOf = (ttl: number): number => mappingToRecord({ ...NEGATIVE, ttl }).ttl;
  assert.deepEqual([0, 1, 60_000, 60_001, Number.MAX_SAFE_INTEGER].map(minutesOf), [0, 1, 1, 2, 0xfffffffe]);
});

test('no ownership means generation 0 and no owner', () => {
  assert.equal(mappingToRecord(NEGATIVE).locators.length, 0);
  const refused = recordToMapping(
    mappingToRecord({ ...NEGATIVE, action: 'policy-denied', generation: 4 as Generation }),
  );
  assert.deepEqual([refused.action, refused.generation, refused.owner], ['policy-denied', 4, undefined]);
});

test('longer ownership data is accepted, shorter is not', () => {
  const record = mappingToRecord(DB);
  const ownership = record.locators[2]!;
  assert.ok(ownership.locator.kind === 'vendor');
  const { data } = ownership.locator;
  const withData = (bytes: Uint8Array): EidRecord => ({
    ...record,
    locators: [{ ...ownership, locator: { kind: 'vendor', oui: 0x025350, data: bytes } }],
  });
  assert.equal(recordToMapping(withData(Uint8Array.of(...data, 1, 2, 3))).owner, DB.owner);
  for (let length = 0; length < data.length; length++) {
    assert.throws(() => recordToMapping(withData(data.subarray(0, length))), { code: 'STAYPUT_DECODE' });
  }
});

test('vendor data of others and of later subtypes is ignored', () => {
  for (const locator of [
    { kind: 'vendor', oui: 0x00000c, data: Uint8Array.of(1) },
    { kind: 'vendor', oui: 0x025350, data: Uint8Array.of(2) },
  ] as const) {
    assert.equal(recordToMapping(foreign([rloc(locator)])).generation, 0);
  }
});

test('a record that contradicts itself is refused', () => {
  const record = mappingToRecord(DB);
  const other = mappingToRecord({ ...DB, tunnelKey: Buffer.alloc(32, 2).toString('base64') as TunnelKey });
  const [locator, , ownership] = record.locators;
  assert.throws(() => recordToMapping({ ...record, locators: [locator!, other.locators[2]!] }), /more than one/);
  assert.throws(() => recordToMapping({ ...record, locators: [ownership!, ownership!] }), /twice/);
});

test('locators of other implementations are used as far as they are underlay addresses', () => {
  const nat = (globalEtr: LispAddress, etrPort: number): LispAddress => ({
    kind: 'nat',
    msPort: 4342,
    etrPort,
    globalEtr,
    ms: { kind: 'none' },
    privateEtr: { kind: 'none' },
    rtrs: [],
  });
  const ip4: LispAddress = { kind: 'ip', address: address('192.0.2.1') };
  const mappingOf = recordToMapping(
    foreign([
      rloc(ip4),
      rloc({ kind: 'ip', address: address('192.0.2.2') }, false),
      rloc({
        kind: 'afi-list',
        addresses: [
          { kind: 'name', name: 'eth0' },
          { kind: 'ip', address: address('192.0.2.3') },
        ],
      }),
      rloc(nat({ kind: 'ip', address: address('192.0.2.4') }, 5000)),
      rloc(nat({ kind: 'ip', address: address('192.0.2.5') }, 0)),
      rloc(nat({ kind: 'none' }, 5000)),
      rloc({ kind: 'security-key', algorithm: 5, revoked: false, keys: [new Uint8Array(32)], address: ip4 }),
      rloc({ kind: 'lcaf', type: 10, flags: 0, rsvd2: 0, body: new Uint8Array(3) }),
      rloc({ kind: 'mac', mac: '00:11:22:33:44:55' }),
      rloc({ kind: 'name', name: 'not a host name!' }),
      rloc({ kind: 'none' }),
    ]),
  );
  assert.deepEqual(
    mappingOf.locators.map(({ address: a, port, priority }) => [a, port, priority]),
    [
      ['192.0.2.1', 4341, 1],
      ['192.0.2.2', 4341, 255],
      ['192.0.2.3', 4341, 1],
      ['192.0.2.4', 5000, 1],
      ['192.0.2.5', 4341, 1],
      ['192.0.2.1', 4341, 1],
    ],
  );
  assert.deepEqual([mappingOf.names, mappingOf.tunnelKey, mappingOf.generation], [[], undefined, 0]);
});

test('the receiver decides a TTL of all ones, and unknown actions drop', () => {
  const record = { ...foreign([]), ttl: 0xffffffff, action: 7 };
  assert.equal(recordToMapping(record).ttl, 24 * 3600_000);
  assert.equal(recordToMapping(record, { ttl: 5 }).ttl, 5);
  assert.equal(recordToMapping(record).action, 'drop');
});

test('an EID that is no prefix or name is refused, and bits behind its mask are dropped', () => {
  const of = (eid: LispAddress, maskLength: number): string => {
    const { eid: e } = recordToMapping({ ...foreign([]), eid, maskLength });
    return e.kind === 'prefix' ? e.prefix : e.name;
  };
  assert.equal(of({ kind: 'ip', address: address('10.1.2.3') }, 16), '10.1.0.0/16');
  assert.equal(of({ kind: 'name', name: 'DB' }, 16), 'db');
  const scoped = (iid: number, inner: LispAddress): LispAddress => ({
    kind: 'instance-id',
    iid,
    iidMaskLength: 0,
    address: inner,
  });
  for (const [eid, maskLength] of [
    [{ kind: 'ip', address: address('10.1.2.3') }, 33],
    [{ kind: 'none' }, 0],
    [{ kind: 'mac', mac: '00:11:22:33:44:55' }, 48],
    [{ kind: 'name', name: 'a b' }, 0],
    [scoped(0x1000000, { kind: 'name', name: 'db' }), 0],
    [scoped(1, scoped(2, { kind: 'name', name: 'db' })), 0],
  ] as const) {
    assert.throws(() => of(eid, maskLength), { code: 'STAYPUT_DECODE' });
  }
});

test('requests ask what they were made for', () => {
  fc.assert(
    fc.property(anyNonce, xtrId, fc.oneof(prefixEids, nameEids), ip, fc.boolean(), (n, id, eid, itr, subscribe) => {
      const request = decodeLispMessage(
        encodeLispMessage(subscribeRequest({ nonce: n, xtrId: id, eid, itr, subscribe })),
      );
      assert.ok(request.type === 'map-request');
      assert.deepEqual(queriesOf(request), [{ eid, intent: subscribe ? 'subscribe' : 'unsubscribe' }]);
      assert.deepEqual([request.xtrId, request.nonce], [id, n]);
      const lookup = decodeLispMessage(encodeLispMessage(lookupRequest({ nonce: n, eid, itr })));
      assert.ok(lookup.type === 'map-request' && lookup.xtrId === undefined);
      assert.deepEqual(queriesOf(lookup), [{ eid, intent: 'lookup' }]);
    }),
  );
});

test('a subscription without an xTR-ID is refused', () => {
  const request = subscribeRequest({
    nonce: nonce(1n),
    xtrId: xtrIdOf(KEY),
    eid: DB.eid,
    itr: address('::1'),
    subscribe: true,
  });
  const { xtrId: _, siteId: __, ...anonymous } = request;
  assert.throws(() => queriesOf(anonymous), { code: 'STAYPUT_DECODE', field: 'xTR-ID' });
});

test('messages have the flags that the control protocol documents', () => {
  const id = xtrIdOf(KEY);
  const register = decodeLispMessage(encodeLispMessage(mapRegister({ nonce: nonce(5n), xtrId: id, mappings: [DB] })));
  assert.ok(register.type === 'map-register');
  const { proxyReply, useTtl, wantMapNotify, authentication } = register;
  assert.deepEqual([proxyReply, useTtl, wantMapNotify, register.xtrId, register.siteId], [true, true, true, id, 0n]);
  assert.deepEqual(authentication, { keyId: 0, algorithm: 0, data: new Uint8Array(0) });
  assert.deepEqual(mappingsOf(register), [DB]);

  const reply = negativeReply({ nonce: nonce(5n), eid: DB.eid, action: 'policy-denied', ttl: 60_000 });
  const [record] = reply.records;
  assert.deepEqual([record?.action, record?.ttl, record?.locators, record?.authoritative], [4, 1, [], false]);
  assert.deepEqual(mappingsOf(mapReply({ nonce: nonce(5n), mappings: [DB] })), [DB]);
  assert.deepEqual(mappingsOf(mapNotifyAck(nonce(5n))), []);
  assert.equal(mapNotify({ nonce: nonce(5n), xtrId: id, mappings: [] }).xtrId, id);
});

const KEY = Buffer.alloc(32, 1).toString('base64') as TunnelKey;

const DB: Mapping = {
  eid: parseEidKey('[7]10.77.0.5/32'),
  ttl: 300_000,
  action: 'no-action',
  generation: 3 as Generation,
  owner: xtrIdOf(KEY),
  tunnelKey: KEY,
  locators: [{ address: address('192.0.2.7'), port: 40000, priority: 1, weight: 100 }],
  names: ['db'],
  targets: [],
};

const NEGATIVE: Mapping = {
  eid: parseEid('10.77.0.5'),
  ttl: 60_000,
  action: 'drop',
  generation: 0 as Generation,
  locators: [],
  names: [],
  targets: [],
};

function address(text: string): IpAddress {
  return parseIpAddress(text);
}

function foreign(locators: RlocRecord[]): EidRecord {
  return {
    ttl: 10,
    eid: { kind: 'ip', address: address('10.1.1.1') },
    maskLength: 32,
    action: 0,
    authoritative: true,
    mapVersion: 0,
    locators,
  };
}

function rloc(locator: LispAddress, reachable = true): RlocRecord {
  return {
    priority: 1,
    weight: 100,
    multicastPriority: 255,
    multicastWeight: 0,
    local: true,
    probed: false,
    reachable,
    locator,
  };
}
