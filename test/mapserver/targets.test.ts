/** Agents that are prepared for a move: they own nothing, and the owner knows them before it happens. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { IpPrefix } from '../../proto/address.ts';
import { eidKey } from '../../proto/eid.ts';
import { asTarget, type Generation, isTarget, type Mapping, NEVER_USE } from '../../proto/mapping.ts';
import { minutes, seconds } from '../../proto/time.ts';
import { type CoreAgent, CoreWorld } from './core-world.ts';

const EID = '10.77.0.5';
const GRANT = { eids: ['10.77.0.0/24'] };

/** `a` owns the EID, `b` may. */
function prepared() {
  const world = new CoreWorld();
  const a = world.agent('a', GRANT);
  const b = world.agent('b', GRANT);
  for (const agent of [a, b]) agent.claim('agent');
  a.claim(EID);
  a.pushed();
  return { world, a, b };
}

function asTargetOf(agent: CoreAgent, fields: Partial<Mapping> = {}): Mapping {
  return { ...asTarget(agent.mapping(EID)), ...fields };
}

describe('a target of a move', () => {
  test('is told who owns the EID, and the owner of it; nothing changes its owner', () => {
    const { world, a, b } = prepared();
    const [owner, ...companions] = b.register(asTargetOf(b));
    assert.equal(owner?.owner, a.xtrId);
    assert.equal(owner?.generation, 1);
    assert.deepEqual(
      companions.map(({ tunnelKey }) => tunnelKey),
      [a.tunnelKey],
    );
    const [told, agent, ...more] = a.pushed();
    assert.ok(told !== undefined && isTarget(told));
    assert.equal(told.owner, b.xtrId);
    assert.equal(told.generation, 1);
    assert.ok(told.locators.every(({ priority }) => priority === NEVER_USE));
    assert.equal(agent?.tunnelKey, b.tunnelKey);
    assert.ok(!isTarget(agent), 'its agent address is there to be used');
    assert.deepEqual(more, []);
    assert.equal(a.claim(EID, 1)[0]?.owner, a.xtrId);
    assert.equal(world.core.state.statistics().mappings, 3);
  });

  test('is told to the owner with each of its registrations, and in each session of the owner', () => {
    const { a, b } = prepared();
    b.register(asTargetOf(b));
    assert.equal(a.pushed().length, 2);
    a.claim(EID, 1);
    assert.equal(a.pushed().length, 0);
    b.register(asTargetOf(b));
    assert.equal(a.pushed().length, 2);
    a.disconnect();
    a.connect();
    a.claim(EID, 1);
    assert.equal(a.pushed().length, 2);
  });

  // Attack: a registration as target of an EID that is not granted | 1 | denied by policy; the owner is not told
  test('attack: becoming a target without a grant', () => {
    const { world, a } = prepared();
    const stranger = world.agent('stranger', { eids: ['10.77.1.0/24'] });
    stranger.claim('agent');
    const [answer] = stranger.register(asTargetOf(stranger));
    assert.equal(answer?.action, 'policy-denied');
    assert.deepEqual(a.pushed(), []);
  });

  test('that goes away, gives up, is revoked or moves in is none any more', () => {
    const { world, a, b } = prepared();
    const toldAfterReconnect = (): boolean => {
      a.disconnect();
      a.connect();
      a.claim('agent', 1);
      a.claim(EID, 1);
      return a.pushed().some((mapping) => isTarget(mapping));
    };
    b.register(asTargetOf(b));
    assert.ok(toldAfterReconnect());
    b.register(asTargetOf(b, { ttl: 0, locators: [] }));
    assert.ok(!toldAfterReconnect());

    b.register(asTargetOf(b));
    assert.ok(toldAfterReconnect());
    world.advance(minutes(3) + seconds(1));
    assert.ok(!toldAfterReconnect());

    b.register(asTargetOf(b));
    assert.equal(b.claim(EID)[0]?.generation, 2);
    assert.equal(a.claim(EID)[0]?.generation, 3);
    a.pushed();
    a.disconnect();
    a.connect();
    a.claim(EID, 3);
    assert.deepEqual(a.pushed(), []);

    b.register(asTargetOf(b));
    world.operate({ kind: 'revoke-agent', xtrId: b.xtrId });
    a.disconnect();
    a.connect();
    a.claim(EID, 3);
    assert.ok(!a.pushed().some((mapping) => isTarget(mapping)));
  });

  // Attack: an agent whose grant was taken away repeats its claims inside the tunnel | 3 ways to have been a target | the
  // owner is told in the same step that it is none
  test('attack: taking an EID over after the grant for it is gone', () => {
    for (const known of ['by its registration', 'for longer than it lasts here', 'by another agent'] as const) {
      const { world, a, b } = prepared();
      if (known !== 'by another agent') b.register(asTargetOf(b));
      if (known === 'for longer than it lasts here') world.advance(minutes(3) + seconds(1));
      a.pushed();
      world.operate({ kind: 'remove-grant', xtrId: b.xtrId, eids: GRANT.eids as IpPrefix[], names: [], groups: [] });
      const [told, ...more] = a.pushed();
      assert.ok(told !== undefined && isTarget(told), known);
      assert.deepEqual([told.ttl, told.owner, told.tunnelKey, more.length], [0, b.xtrId, b.tunnelKey, 0]);
      a.disconnect();
      a.connect();
      a.claim(EID, 1);
      assert.ok(a.pushed().every((mapping) => !isTarget(mapping) || mapping.ttl === 0));
    }
  });

  test('a grant that is taken away from many EIDs is told in steps, and none is left out', () => {
    const world = new CoreWorld({ limits: { mappingsPerAgent: 1_000 } });
    const owner = world.agent('owner', { eids: ['10.77.8.0/21'] });
    const other = world.agent('other', { eids: ['10.77.0.0/16'] });
    const eids = Array.from({ length: 600 }, (_, i) => `10.77.${8 + (i >> 8)}.${i & 255}`);
    for (let i = 0; i < eids.length; i += 20) owner.register(...eids.slice(i, i + 20).map((eid) => owner.mapping(eid)));
    owner.pushed();
    const grant = { eids: ['10.77.0.0/16'] as IpPrefix[], names: [], groups: [] };
    world.operate({ kind: 'remove-grant', xtrId: other.xtrId, ...grant });
    const first = owner.pushed();
    assert.ok(first.length > 0 && first.length < eids.length, `${first.length} at once`);
    world.advance(0);
    const told = [...first, ...owner.pushed()].filter((mapping) => isTarget(mapping) && mapping.ttl === 0);
    assert.equal(new Set(told.map(({ eid }) => eidKey(eid))).size, eids.length);
  });

  // Attack: claims inside the tunnel after the grant was taken away, while the owner had no session or the map server died
  // before it had told all owners | 600 EIDs | each owner hears that it is no target as soon as it registers the EID again
  test('attack: taking EIDs over after a grant that is gone was not told', () => {
    const world = new CoreWorld({ limits: { mappingsPerAgent: 1_000 } });
    const owner = world.agent('owner', { eids: ['10.77.8.0/21'] });
    const away = world.agent('away', GRANT);
    const rogue = world.agent('rogue', { eids: ['10.77.0.0/16', '10.77.8.1/32'] });
    const eids = Array.from({ length: 600 }, (_, i) => `10.77.${8 + (i >> 8)}.${i & 255}`);
    const claimAll = (generation: number): void => {
      const mappings = eids.map((eid) => owner.mapping(eid, { generation: generation as Generation }));
      for (let i = 0; i < mappings.length; i += 20) owner.register(...mappings.slice(i, i + 20));
    };
    claimAll(0);
    away.claim(EID);
    away.disconnect();
    owner.pushed();
    const grant = { eids: ['10.77.0.0/16'] as IpPrefix[], names: [], groups: [] };
    world.operate({ kind: 'remove-grant', xtrId: rogue.xtrId, ...grant });
    assert.ok(owner.pushed().length < eids.length, 'the map server dies before it has told all of it');

    const again = world.restarted();
    const gone = (agent: CoreAgent): ReadonlySet<string> => {
      again.advance(0);
      const told = agent.pushed().filter((mapping) => isTarget(mapping) && mapping.ttl === 0);
      assert.ok(told.every(({ owner: who }) => who === rogue.xtrId));
      return new Set(told.map(({ eid }) => eidKey(eid)));
    };
    for (const agent of [owner, away]) agent.connect();
    claimAll(1);
    away.claim(EID, 1);
    const lost = gone(owner);
    assert.equal(lost.size, eids.length - 1);
    assert.ok(!lost.has(eidKey(owner.mapping('10.77.8.1').eid)), 'of that one it still has a grant');
    assert.equal(gone(away).size, 1);
    away.claim(EID, 1);
    assert.equal(gone(away).size, 0, 'once in a session');

    again.operate({ kind: 'add-grant', xtrId: rogue.xtrId, ...grant });
    away.disconnect();
    away.connect();
    away.claim(EID, 1);
    assert.equal(gone(away).size, 0, 'it has the grant again');
  });

  test('stays one while another of its grants covers the EID', () => {
    const { world, a, b } = prepared();
    world.operate({ kind: 'add-grant', xtrId: b.xtrId, eids: [`${EID}/32` as IpPrefix], names: [], groups: [] });
    b.register(asTargetOf(b));
    a.pushed();
    world.operate({ kind: 'remove-grant', xtrId: b.xtrId, eids: GRANT.eids as IpPrefix[], names: [], groups: [] });
    assert.deepEqual(a.pushed(), []);
  });

  test('is none when its registration is refused, and the owner hears of it once', () => {
    const { a, b } = prepared();
    b.register(asTargetOf(b));
    a.pushed();
    const foreign = { ...b.mapping(EID), owner: a.xtrId, tunnelKey: a.tunnelKey };
    assert.equal(b.register(foreign)[0]?.action, 'policy-denied');
    const told = a.pushed();
    assert.deepEqual(
      told.map((mapping) => [isTarget(mapping), mapping.ttl, mapping.owner]),
      [[true, 0, b.xtrId]],
    );
    b.register(foreign);
    assert.deepEqual(a.pushed(), []);
  });

  test('is none when its grant was taken away in the transaction in which it said that it is one', () => {
    const { world, a, b } = prepared();
    world.durable = false;
    a.claim('10.77.0.77');
    const request = { xtrId: b.xtrId, eids: GRANT.eids as IpPrefix[], names: [], groups: [] };
    b.register(asTargetOf(b));
    world.core.handleOperation({ kind: 'remove-grant', ...request }, world.now);
    world.release();
    world.release();
    a.pushed();
    a.disconnect();
    a.connect();
    a.claim(EID, 1);
    assert.ok(a.pushed().every((mapping) => !isTarget(mapping) || mapping.ttl === 0));
  });

  test('of an EID that nobody owns is told so, and at most eight wait for one', () => {
    const world = new CoreWorld();
    for (let i = 0; i < 8; i++) {
      const agent = world.agent(`target ${i}`, GRANT);
      const [answer] = agent.register(asTargetOf(agent));
      assert.equal(answer?.owner, undefined);
      assert.equal(answer?.action, 'drop');
    }
    const late = world.agent('late', GRANT);
    assert.equal(late.register(asTargetOf(late))[0]?.action, 'policy-denied');
  });

  // Attack: registrations as target of different EIDs | 1100 | 1024 are taken, the others denied
  test('attack: a target of more EIDs than an agent attaches', () => {
    const world = new CoreWorld();
    const greedy = world.agent('greedy', { eids: ['10.77.0.0/16'] });
    const target = (n: number, fields: Partial<Mapping> = {}): Mapping => ({
      ...asTarget(greedy.mapping(`10.77.${n >> 8}.${n & 255}`)),
      ...fields,
    });
    let accepted = 0;
    for (let n = 0; n < 1100; n++) accepted += Number(greedy.register(target(n))[0]?.action === 'drop');
    assert.equal(accepted, 1024);
    assert.equal(greedy.register(target(0))[0]?.action, 'drop', 'one that is known may say so again');
    greedy.register(target(0, { ttl: 0, locators: [] }));
    assert.equal(greedy.register(target(2000))[0]?.action, 'drop');
    assert.equal(greedy.register(target(2001))[0]?.action, 'policy-denied');
    world.advance(minutes(3) + seconds(1));
    assert.equal(greedy.register(target(2001))[0]?.action, 'drop');
  });
});
