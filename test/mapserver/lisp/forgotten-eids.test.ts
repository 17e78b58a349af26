/** At its limits a site's oldest withdrawn EIDs are forgotten, and no generation is ever given again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FORGOTTEN_GENERATIONS_KEY } from '../../../mapserver/core/records.ts';
import type { Generation } from '../../../proto/mapping.ts';
import { type CoreAgent, CoreWorld, stored } from '../core-world.ts';
import { addSite, recordsText, SiteXtr } from '../site-world.ts';

test('what was withdrawn longest ago makes room, what is registered does not', () => {
  const { world, xtr } = paris({ mappingsPerSite: 3 });
  xtr.register(['10.77.1.0/32', '10.77.1.1/32', '10.77.1.2/32']);
  xtr.register('10.77.1.1/32', { ttl: 0 });
  xtr.register('10.77.1.0/32', { ttl: 0 });
  xtr.notifies();
  xtr.register(['10.77.1.3/32', '10.77.1.4/32', '10.77.1.5/32']);
  assert.deepEqual(recordsText(xtr.notifies()[0]), ['10.77.1.3/32 = 192.0.2.1', '10.77.1.4/32 = 192.0.2.1']);
  const left = [0, 1, 2, 3, 4, 5].map((i) => stored(world, `10.77.1.${i}`)?.state);
  assert.deepEqual(left, [undefined, undefined, 'live', 'live', 'live', undefined]);
});

test('a site whose EIDs come and go for ever is never refused, and takes no more room', () => {
  const { world, xtr } = paris({ mappingsPerSite: 4 });
  for (let i = 0; i < 200; i++) {
    const eid = `10.77.1.${i}/32`;
    assert.equal(xtr.register(eid), 'accepted');
    assert.equal(recordsText(xtr.notifies().at(-1)).length, 1, `EID ${i}`);
    xtr.register(eid, { ttl: 0 });
    xtr.notifies();
  }
  assert.equal([...world.store.entries.keys()].filter((key) => key.startsWith('eid/')).length, 4);
});

test('also at the limit of all EIDs', () => {
  const { world, xtr } = paris({ mappings: 3 });
  for (let i = 0; i < 20; i++) {
    xtr.register(`10.77.1.${i}/32`);
    xtr.register(`10.77.1.${i}/32`, { ttl: 0 });
  }
  world.advance(1_000);
  assert.equal(stored(world, '10.77.1.19')?.state, 'withdrawn');
});

test('EIDs of a site that was removed make room at the limit of all, for agents and other sites, at newer generations', () => {
  const { world, xtr, agent } = paris({ mappings: 4 });
  for (let i = 0; i < 3; i++) {
    agent.claim('10.77.1.1');
    xtr.register('10.77.1.1/32');
  }
  const last = stored(world, '10.77.1.1')?.generation ?? 0;
  xtr.register(['10.77.1.2/32', '10.77.1.3/32', '10.77.1.4/32']);
  assert.ok(world.operate({ kind: 'remove-site', name: 'paris' }).ok);
  world.advance(60_000);
  assert.equal(stored(world, '10.77.1.1')?.state, 'released', 'while there is room');
  const after = new CoreWorld({ store: world.store, agents: world.agents, limits: { mappings: 4 }, lisp: {} });
  agent.connect();
  for (const address of ['10.77.1.5', '10.77.1.6']) assert.equal(agent.claim(address)[0]?.action, 'no-action');
  addSite(after, 'rome', { within: ['10.77.2.0/24'] });
  const other = new SiteXtr(after, '192.0.2.2', 2);
  other.register(['10.77.2.1/32', '10.77.2.2/32', '10.77.2.3/32']);
  assert.deepEqual(recordsText(other.notifies()[0]), ['10.77.2.1/32 = 192.0.2.2', '10.77.2.2/32 = 192.0.2.2']);
  assert.equal(agent.claim('10.77.1.7')[0]?.action, 'policy-denied', 'what somebody has is not forgotten');
  assert.equal([...after.store.entries.keys()].filter((key) => key.startsWith('eid/')).length, 4);
  assert.equal(stored(after, '10.77.1.1'), undefined);
  for (const address of ['10.77.1.5', '10.77.1.6', '10.77.2.1', '10.77.2.2']) {
    assert.ok((stored(after, address)?.generation ?? 0) > last, address);
  }
});

test('who gets an EID that was forgotten gets a generation that it never had, also after a restart', () => {
  const { world, xtr, agent } = paris({ mappingsPerSite: 1 });
  for (let i = 0; i < 5; i++) {
    agent.claim('10.77.1.1');
    xtr.register('10.77.1.1/32');
  }
  const last = stored(world, '10.77.1.1')?.generation ?? 0;
  xtr.register('10.77.1.1/32', { ttl: 0 });
  xtr.register('10.77.1.2/32');
  assert.equal(stored(world, '10.77.1.1'), undefined);
  const after = world.restarted();
  agent.connect();
  const [claimed] = agent.claim('10.77.1.1');
  assert.ok((claimed?.generation ?? 0) > last);
  assert.equal(stored(after, '10.77.1.1')?.owner, agent.xtrId);
});

test('who had it long ago does not have it again by saying so', () => {
  const { world, xtr, agent } = paris({ mappingsPerSite: 1 });
  agent.claim('10.77.1.1');
  xtr.register('10.77.1.1/32');
  xtr.register('10.77.1.1/32', { ttl: 0 });
  xtr.register('10.77.1.2/32');
  const [answer] = agent.claim('10.77.1.1', 1);
  assert.equal(answer?.action, 'policy-denied');
  assert.equal(stored(world, '10.77.1.1'), undefined);
});

test('nor after a restore, where others are believed what the backup cannot know', () => {
  const { world, xtr, agent } = paris({ mappingsPerSite: 1 });
  agent.claim('10.77.1.1');
  xtr.register('10.77.1.1/32');
  xtr.register('10.77.1.1/32', { ttl: 0 });
  xtr.register('10.77.1.2/32');
  const after = new CoreWorld({ store: world.store.restored(1_000 as Generation), agents: world.agents });
  agent.connect();
  assert.equal(agent.claim('10.77.1.1', 1)[0]?.action, 'policy-denied');
  assert.equal(agent.claim('10.77.1.3', 9)[0]?.action, 'no-action', 'it was given this after the backup');
  assert.equal(stored(after, '10.77.1.1'), undefined);
});

test('generations of an EID grow, whatever comes and goes and is forgotten', () => {
  const step = fc.record({
    eid: fc.integer({ min: 0, max: 5 }),
    what: fc.constantFrom('register', 'withdraw', 'claim', 'restart'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      let { world, xtr, agent } = paris({ mappingsPerSite: 2 });
      const largest = new Map<string, { generation: number; owner: string }>();
      for (const { eid, what } of steps) {
        const address = `10.77.1.${eid}`;
        if (what === 'register') xtr.register(`${address}/32`);
        if (what === 'withdraw') xtr.register(`${address}/32`, { ttl: 0 });
        if (what === 'claim') agent.claim(address);
        if (what === 'restart') {
          world.advance(6_000);
          world = world.restarted();
          agent.connect();
          const { lastNonce } = xtr;
          xtr = new SiteXtr(world, '192.0.2.1');
          xtr.lastNonce = lastNonce;
        }
        const record = stored(world, address);
        if (record === undefined || record.state !== 'live') continue;
        const before = largest.get(address) ?? { generation: 0, owner: '' };
        assert.ok(record.generation >= before.generation);
        if (record.owner !== before.owner) assert.ok(record.generation > before.generation, 'a new owner');
        largest.set(address, record);
      }
    }),
    { numRuns: 50 },
  );
});

test('what was forgotten is one number in the store', () => {
  const { world, xtr } = paris({ mappingsPerSite: 1 });
  for (let i = 0; i < 5; i++) {
    xtr.register(`10.77.1.${i}/32`);
    xtr.register(`10.77.1.${i}/32`, { ttl: 0 });
  }
  assert.deepEqual(world.store.record(FORGOTTEN_GENERATIONS_KEY), { kind: 'forgotten-generations', floor: 4 });
});

function paris(limits: object): { world: CoreWorld; xtr: SiteXtr; agent: CoreAgent } {
  const world = new CoreWorld({ limits, lisp: {} });
  addSite(world, 'paris', { within: ['10.77.1.0/24'] });
  const agent = world.agent('a', { eids: ['10.77.1.0/24'] });
  return { world, xtr: new SiteXtr(world, '192.0.2.1'), agent };
}
