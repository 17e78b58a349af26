/** What the map-cache asks for again, and what it lets go. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { MapCache } from '../../agent/core/map-cache.ts';
import { hostPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, type PrefixEid, prefixEid } from '../../proto/eid.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import type { Generation, Mapping, TunnelKey } from '../../proto/mapping.ts';
import { type Instant, minutes, seconds } from '../../proto/time.ts';

const NET = prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.77.8.0/24'));
const HOST = prefixEid(DEFAULT_INSTANCE, hostPrefix(parseIpAddress('10.77.8.5')));
const OTHER = prefixEid(DEFAULT_INSTANCE, hostPrefix(parseIpAddress('10.77.8.9')));
const TTL = minutes(10);
const START = 1_000 as Instant;
/** When four fifths of the TTL are over. */
const DUE = START + 0.8 * TTL;
const RETRY = seconds(5);

describe('a mapping that was asked for', () => {
  test('is asked for again once in a while until an answer came', () => {
    const cache = cacheWith(NET, HOST);
    assert.deepEqual(cache.sweep(DUE - 1).refresh, []);
    assert.deepEqual(cache.sweep(DUE).refresh, [HOST]);
    assert.deepEqual(cache.sweep(DUE + RETRY - 1).refresh, []);
    assert.deepEqual(cache.sweep(DUE + RETRY).refresh, [HOST]);
    cache.insert(mappingOf(NET), HOST, DUE + RETRY);
    assert.deepEqual(cache.sweep(DUE + 2 * RETRY).refresh, []);
  });

  test('is asked for again after an answer that is older than what is known', () => {
    const cache = cacheWith(NET, HOST);
    cache.sweep(DUE);
    assert.equal(cache.insert(mappingOf(NET, 1), HOST, DUE), 'older');
    assert.deepEqual(cache.sweep(START + TTL).refresh, [HOST]);
  });

  test('ends with its TTL when the answer is a more specific one', () => {
    const cache = cacheWith(NET, HOST);
    cache.insert(mappingOf(HOST), null, START + minutes(1));
    assert.deepEqual(cache.sweep(DUE).refresh, [HOST]);
    cache.insert(mappingOf(HOST), HOST, DUE);
    const { ended, refresh } = cache.sweep(START + TTL);
    assert.deepEqual([ended.map(({ key }) => key), refresh], [[eidKey(NET)], []]);
    assert.deepEqual(cache.sweep(DUE + 0.8 * TTL).refresh, [HOST], 'the more specific one is asked for again');
  });

  test('stays for the others that it answers', () => {
    const cache = cacheWith(NET, HOST);
    cache.insert(mappingOf(NET), OTHER, START);
    cache.insert(mappingOf(HOST), HOST, START);
    const { ended, refresh } = cache.sweep(START + TTL);
    assert.deepEqual(ended, []);
    assert.deepEqual(new Set(refresh), new Set([HOST, OTHER]));
  });

  test('ends with its TTL when the answer is a less specific one', () => {
    const cache = cacheWith(HOST, HOST);
    const half = prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.77.8.0/25'));
    cache.insert(mappingOf(half), HOST, START);
    cache.insert(mappingOf(NET), HOST, DUE);
    assert.deepEqual(
      cache.sweep(START + TTL).ended.map(({ key }) => key),
      [eidKey(HOST), eidKey(half)],
    );
    assert.deepEqual(cache.subscriptions(), [HOST]);
  });

  test('ends with its TTL when what was asked for is ours now', () => {
    const cache = cacheWith(NET, HOST);
    cache.release(HOST);
    assert.deepEqual(cache.sweep(DUE).refresh, []);
    assert.equal(cache.sweep(START + TTL).ended.length, 1);
  });
});

function cacheWith(eid: PrefixEid, asked: PrefixEid): MapCache {
  const cache = new MapCache(100);
  cache.insert(mappingOf(eid), asked, START);
  return cache;
}

function mappingOf(eid: PrefixEid, generation = 2): Mapping {
  const tunnelKey = Buffer.alloc(32, 'a').toString('base64') as TunnelKey;
  return {
    eid,
    ttl: TTL,
    action: 'no-action',
    generation: generation as Generation,
    owner: xtrIdOf(tunnelKey),
    tunnelKey,
    locators: [],
    names: [],
    targets: [],
  };
}
