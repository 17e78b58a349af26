/** How an agent finds out where EIDs and names are, and keeps it. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, prefixEid } from '../../proto/eid.ts';
import { A, B, found, P, talking } from './pair.ts';
import { World } from './world.ts';

describe('resolution', () => {
  test('a miss is resolved, subscribed to and forwarded', () => {
    const { world, a, b } = talking();
    assert.equal(b.dataplane?.route(A), a.key);
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['192.0.2.1:4341']);
    assert.equal(world.server.subscribersOf(A), 1);
  });

  // Attack: mappings with locators that are loopback, link-local, broadcast or inside the overlay | 5 | left out of
  // the forwarding table
  test('attack: locators that would turn a host against itself', () => {
    const { world, a, b } = talking();
    const key = eidKey(prefixEid(DEFAULT_INSTANCE, P(A)));
    const stored = world.server.mappings.get(key);
    assert.ok(stored);
    const at = (address: string) => ({ address: parseIpAddress(address), port: 53, priority: 1, weight: 100 });
    const locators = ['127.0.0.1', '169.254.169.254', '255.255.255.255', '::1', '10.77.0.6', '192.0.2.9'].map(at);
    world.server.push([{ ...stored, locators }], [b.xtrId]);
    world.pump();
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['192.0.2.9:53']);
  });

  test('an EID that nobody has is dropped until it is registered', () => {
    const { world, a, b } = talking();
    b.miss('10.77.0.9');
    assert.equal(b.dataplane?.route('10.77.0.9'), 'drop');
    a.attach('10.77.0.9');
    assert.equal(b.dataplane?.route('10.77.0.9'), a.key, 'the registration is pushed');
    b.miss('10.77.0.10');
    world.advance(61_000);
    assert.equal(b.dataplane?.route('10.77.0.10'), 'miss', 'a negative entry ends with its TTL');
  });

  test('a repeated miss is answered from the map-cache', () => {
    const { a, b } = talking();
    const sent = b.sent.length;
    b.dataplane?.mappings.clear();
    b.miss(A);
    assert.equal(b.dataplane?.route(A), a.key);
    assert.equal(b.sent.length, sent);
  });

  test('a name is resolved to its addresses, our own asked for once, since there may be more at it', () => {
    const { a, b } = talking();
    assert.deepEqual(found(b, b.resolve('db')).targets, [A]);
    assert.deepEqual(found(a, a.resolve('db')).targets, [A]);
    const sent = a.sent.length;
    assert.deepEqual(found(a, a.resolve('db')).targets, [A]);
    assert.deepEqual(found(a, a.resolve(A)).names, ['db']);
    assert.equal(a.sent.length, sent);
  });

  test('a mapping is asked for again before its TTL ends, and stays', () => {
    const { world, a, b } = talking();
    for (let minute = 0; minute < 30; minute++) {
      world.advance(60_000);
      assert.equal(b.dataplane?.route(A), a.key);
    }
    assert.equal(found(b, b.resolve(A)).generation, 1);
  });

  test('without the map server the map-cache goes on, and what is not in it is unavailable', () => {
    const { world, a, b } = talking();
    b.disconnect();
    world.advance(3_600_000);
    b.miss(A);
    assert.equal(b.dataplane?.route(A), a.key);
    const ticket = b.resolve(A);
    const answer = b.answers.get(ticket);
    assert.ok(answer?.kind === 'resolution' && answer.resolution.kind === 'found' && answer.resolution.stale);
    const unknown = b.resolve('10.77.0.99');
    assert.equal(b.answers.has(unknown), false);
    world.advance(2000);
    assert.deepEqual(b.answers.get(unknown), { kind: 'resolution', resolution: { kind: 'unavailable' } });
  });

  test('a request that was not answered is asked again', () => {
    const { world, a, b } = talking();
    world.server.silent = true;
    b.miss('10.77.0.9');
    a.attach('10.77.0.9');
    world.server.silent = false;
    world.advance(1000);
    assert.notEqual(b.dataplane?.route('10.77.0.9'), 'miss');
  });

  test('the map-cache is bounded and forgets negative entries first', () => {
    const { a, b } = crowded();
    assert.ok(b.agent.cached().length <= 32);
    assert.ok((b.dataplane?.mappings.size ?? 0) <= 32);
    assert.equal(b.dataplane?.route(A), a.key);
  });

  test('what leaves the map-cache is not subscribed to any more', () => {
    const { world, a, b } = crowded();
    world.advance(5000);
    assert.ok(world.server.subscriptionsOf(b) <= 32, `${world.server.subscriptionsOf(b)} subscriptions`);
    world.advance(300_000);
    assert.equal(world.server.subscriptionsOf(b), 1, 'negative entries end');
    a.plug('198.51.100.7');
    assert.deepEqual(b.dataplane?.peers.get(a.key), ['198.51.100.7:4341'], 'what is in use is followed');
  });
});

/** B has asked for A, and then for more than its map-cache holds. */
function crowded() {
  const world = new World();
  const a = world.host('a', { eids: [A], address: '192.0.2.1' });
  const b = world.host('b', { eids: [B], address: '192.0.2.2', cacheLimit: 32 });
  a.connect();
  b.connect();
  b.miss(A);
  for (let i = 0; i < 200; i++) b.miss(`10.77.1.${i}`);
  return { world, a, b };
}
