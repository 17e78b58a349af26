/** Who becomes a peer of an agent, and for how long. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, prefixEid } from '../../proto/eid.ts';
import type { Generation, TunnelKey } from '../../proto/mapping.ts';
import { A, B, P, talking } from './pair.ts';
import { World } from './world.ts';

describe('peers', () => {
  test('an unknown peer is authorised by the map server', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    const b = world.host('b', { eids: [B], address: '192.0.2.2' });
    a.connect();
    b.connect();
    a.event({ type: 'unknown-peer', publicKey: b.key });
    assert.deepEqual(a.dataplane?.peers.get(b.key), ['192.0.2.2:4341']);
  });

  // Attack: unknown keys | 2000 | none becomes a peer; fewer than 100 questions to the map server
  test('attack: handshakes from keys that nobody vouches for', () => {
    const world = new World();
    const a = world.host('a', { eids: [A], address: '192.0.2.1' });
    a.connect();
    for (let i = 0; i < 2000; i++) {
      const publicKey = Buffer.alloc(32, `stranger ${i}`).toString('base64') as TunnelKey;
      a.event({ type: 'unknown-peer', publicKey });
    }
    assert.equal(a.dataplane?.peers.size, 0);
    assert.ok(a.sent.length < 100, 'strangers do not make us flood the map server');
  });

  // Attack: a pushed mapping with a newer generation and a foreign tunnel key | 1 | refused and noted; the route stays
  test('attack: a mapping whose owner does not follow from its key', () => {
    const { world, a, b } = talking();
    const stored = world.server.mappings.get(eidKey(prefixEid(DEFAULT_INSTANCE, P(A))));
    assert.ok(stored);
    world.server.push([{ ...stored, generation: 9 as Generation, tunnelKey: b.key }], [b.xtrId]);
    world.pump();
    assert.equal(b.dataplane?.route(A), a.key);
    assert.ok(b.notes.some(({ type }) => type === 'mapping-refused'));
  });

  test('a peer goes when its last mapping goes', () => {
    const { world, a, b } = talking();
    a.detach(A);
    world.advance(700_000);
    assert.equal(b.dataplane?.peers.has(a.key), false);
  });

  test('a conflict is looked into', () => {
    const { world, a, b } = talking();
    const key = eidKey(prefixEid(DEFAULT_INSTANCE, P(A)));
    const stored = world.server.mappings.get(key);
    assert.ok(stored);
    const c = world.host('c', { address: '192.0.2.3' });
    world.server.mappings.set(key, { ...stored, generation: 2 as Generation, owner: c.xtrId, tunnelKey: c.key });
    b.event({ type: 'conflict', eid: parseIpAddress(A), publicKey: c.key });
    assert.equal(b.dataplane?.route(A), c.key);
    assert.equal(a.stateOf(A), 'live@1');
  });

  test('a probe is answered, or given up', () => {
    const { world, a, b } = talking();
    const first = b.probe(a.key);
    b.event({ type: 'probe-result', token: 1, rttUs: 321 });
    assert.deepEqual(b.answers.get(first), { kind: 'probe', rttUs: 321 });
    const second = b.probe(a.key);
    world.advance(6000);
    assert.deepEqual(b.answers.get(second), { kind: 'probe', rttUs: null });
  });
});
