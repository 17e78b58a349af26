/** After an old backup was restored, EIDs are whose they were last, and nothing that is given is older than what was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Generation } from '../../proto/mapping.ts';
import { runs } from '../runs.ts';
import { type CoreAgent, CoreWorld, GRACE, stored } from './core-world.ts';
import { addSite, SiteXtr } from './site-world.ts';

const EID = '10.77.0.5';
const GRANT = { eids: ['10.77.0.0/24'] };
const FLOOR = 1_000_000 as Generation;

function scene() {
  const world = new CoreWorld();
  const agents = ['a', 'b', 'c'].map((name) => world.agent(name, GRANT)) as [CoreAgent, CoreAgent, CoreAgent];
  return { world, agents };
}

/** The same agents, connected to a map server with that store. */
function restored(world: CoreWorld, backup = world.store): CoreWorld {
  const next = new CoreWorld({ store: backup.restored(FLOOR), agents: world.agents });
  for (const agent of world.agents) agent.connect();
  return next;
}

test('an EID that moved after the backup stays where it is', () => {
  const { world, agents } = scene();
  const [a, b, c] = agents;
  a.claim(EID);
  const backup = world.store.restored(1 as Generation);
  b.claim(EID);
  const after = restored(world, backup);
  c.subscribe(EID);
  assert.equal(stored(after, EID)?.owner, a.xtrId);
  const [answer] = b.claim(EID, 2);
  assert.deepEqual([answer?.owner, answer?.generation], [b.xtrId, 2]);
  assert.equal(stored(after, EID)?.owner, b.xtrId);
  assert.deepEqual(
    c
      .pushed()
      .filter(({ owner }) => owner === b.xtrId)
      .map(({ generation }) => generation),
    [2],
    'subscribers hear of the owner',
  );
  assert.equal(
    after.count('registration', (event) => event.kind === 'registration' && event.result === 'recovered'),
    1,
  );
});

test('an EID that the backup does not know is its owner’s', () => {
  const { world, agents } = scene();
  const backup = world.store.restored(1 as Generation);
  const [a] = agents;
  a.claim(EID);
  const after = restored(world, backup);
  const [answer] = a.claim(EID, 1);
  assert.deepEqual([answer?.owner, answer?.generation, answer?.action], [a.xtrId, 1, 'no-action']);
  assert.equal(stored(after, EID)?.owner, a.xtrId);
});

test('who claims after the restore wins over an owner that comes back later', () => {
  const { world, agents } = scene();
  const [a, b, c] = agents;
  a.claim(EID);
  const backup = world.store.restored(1 as Generation);
  b.claim(EID);
  const after = restored(world, backup);
  const [claimed] = c.claim(EID);
  assert.ok((claimed?.generation ?? 0) > FLOOR);
  const [stale] = b.claim(EID, 2);
  assert.equal(stale?.owner, c.xtrId, 'it is told who has it');
  assert.equal(stored(after, EID)?.owner, c.xtrId);
});

test('the owner that the backup knows takes an EID back only by a claim, which is newer than all before', () => {
  const { world, agents } = scene();
  const [a, b] = agents;
  a.claim(EID);
  const backup = world.store.restored(1 as Generation);
  b.claim(EID);
  const after = restored(world, backup);
  a.claim(EID);
  b.claim(EID, 2);
  assert.equal(stored(after, EID)?.owner, a.xtrId);
});

test('an EID that was given up by its unknown owner is nobody’s', () => {
  const { world, agents } = scene();
  const [a, b] = agents;
  a.claim(EID);
  const backup = world.store.restored(1 as Generation);
  b.claim(EID);
  const after = restored(world, backup);
  b.claim(EID, 2, { ttl: 0 });
  assert.deepEqual([stored(after, EID)?.state, stored(after, EID)?.generation], ['released', 2]);
});

test('routers of a site claim with each registration, so the first one after a restore is newer than all before', () => {
  const world = new CoreWorld();
  addSite(world, 'berlin', { within: ['10.77.9.0/24'] });
  new SiteXtr(world, '192.0.2.9').register('10.77.9.0/28');
  const after = restored(world);
  const router = new SiteXtr(after, '192.0.2.9');
  router.lastNonce = BigInt(1_700_000_000_000 + after.now) << 16n;
  for (const generation of [FLOOR + 1, FLOOR + 1]) {
    assert.equal(router.register('10.77.9.0/28'), 'accepted');
    assert.equal(stored(after, '10.77.9.0/28')?.generation, generation);
  }
});

test('what is given up that the backup does not know counts as what its agent has released', () => {
  const { world, agents } = scene();
  const next = new CoreWorld({
    store: world.store.restored(FLOOR),
    agents: world.agents,
    limits: { releasedPerAgent: 8 },
  });
  const [agent] = agents;
  agent.connect();
  const results = Array.from({ length: 20 }, (_, i) => agent.claim(`10.77.0.${i + 1}`, 2, { ttl: 0 })[0]?.action);
  assert.equal(results.filter((action) => action === 'policy-denied').length, 12);
  assert.equal(stored(next, '10.77.0.20'), undefined);
});

// Attack: a generation that the map server cannot have given, after a restore | 1 | not believed; the owner stays
test('attack: a generation beyond all that were ever given', () => {
  const { world, agents } = scene();
  const [a, b] = agents;
  a.claim(EID);
  const after = restored(world);
  b.claim(EID, FLOOR + 1);
  assert.equal(stored(after, EID)?.owner, a.xtrId);
});

test('without a restore no agent is believed a generation that the store does not have', () => {
  const { world, agents } = scene();
  const [a, b] = agents;
  a.claim(EID);
  b.claim(EID, 2);
  assert.equal(stored(world, EID)?.owner, a.xtrId);
});

test('an agent that is not granted an EID is not believed that it owns it', () => {
  const { world, agents } = scene();
  agents[0].claim(EID);
  const stranger = world.agent('stranger', { eids: ['10.77.1.0/24'] });
  const after = restored(world);
  assert.equal(stranger.claim(EID, 7)[0]?.action, 'policy-denied');
  assert.equal(stored(after, EID)?.owner, agents[0].xtrId);
});

test('whatever happened since the backup, and in whatever order agents come back, the last owner has it', () => {
  const who = fc.nat(2);
  const order = fc.shuffledSubarray([0, 1, 2], { minLength: 3, maxLength: 3 });
  fc.assert(
    fc.property(
      fc.array(who, { maxLength: 6 }),
      fc.array(who, { minLength: 1, maxLength: 6 }),
      order,
      (before, since, back) => {
        const { world, agents } = scene();
        const believed = new Map<CoreAgent, number>();
        const claim = (index: number): void => {
          const agent = agents[index]!;
          const generation = agent.claim(EID)[0]?.generation ?? 0;
          // The others may not have heard of it: they go on to say what they believe.
          believed.set(agent, generation);
        };
        before.forEach(claim);
        const backup = world.store.restored(1 as Generation);
        since.forEach(claim);
        const last = agents[since.at(-1)!]!;
        const after = restored(world, backup);
        for (const index of back) {
          const generation = believed.get(agents[index]!);
          if (generation !== undefined) agents[index]!.claim(EID, generation);
        }
        assert.equal(stored(after, EID)?.owner, last.xtrId);
        after.advance(2 * GRACE);
        assert.equal(stored(after, EID)?.state, 'live', 'its registration counts as its confirmation');
      },
    ),
    { numRuns: runs(80) },
  );
});
