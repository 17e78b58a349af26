/** What the map server takes of the registrations of agents, and what it refuses. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CLOSE } from '../../mapserver/core/actions.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { instanceId, prefixEid } from '../../proto/eid.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { mapRegister } from '../../proto/lisp/native.ts';
import { type Generation, isRevocation, type Mapping } from '../../proto/mapping.ts';
import { minutes, seconds } from '../../proto/time.ts';
import { type CoreAgent, CoreWorld, kindOf, prefixOf, recordKey, stored } from './core-world.ts';

const EID = '10.77.0.5';
const GRANT = { eids: ['10.77.0.5/32'], names: ['db'] };

describe('registering', () => {
  test('an EID gets its first generation, and its owner a confirmation with it', () => {
    const agent = new CoreWorld().agent('a', GRANT);
    const [confirmed] = agent.claim(EID);
    assert.equal(confirmed?.generation, 1);
    assert.equal(confirmed?.owner, agent.xtrId);
    assert.equal(confirmed?.tunnelKey, agent.tunnelKey);
    assert.equal(confirmed?.ttl, minutes(3));
  });

  test('a refresh at the right generation keeps it, and an unchanged one writes nothing', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    agent.claim(EID);
    const before = world.store.entries.get(recordKey(EID))?.revision;
    assert.equal(agent.claim(EID, 1)[0]?.generation, 1);
    assert.equal(agent.claim(EID)[0]?.generation, 1, 'taking over what one owns changes nothing');
    world.advance(seconds(10));
    assert.equal(world.store.entries.get(recordKey(EID))?.revision, before);
  });

  test('nothing is acknowledged or published before the store has it', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    const client = world.agent('c');
    client.subscribe(EID);
    world.durable = false;
    assert.deepEqual(agent.claim(EID), []);
    assert.deepEqual(client.pushed(), []);
    assert.equal(kindOf(client.lookup(EID)), 'negative');
    world.release();
    assert.equal(agent.answer(1n)[0]?.generation, 1);
    assert.equal(client.pushed()[0]?.owner, agent.xtrId);
  });

  test('registrations that wait for the store share one commit and see each other', () => {
    const world = new CoreWorld();
    const [first, second, third] = ['a', 'b', 'c'].map((name) => world.agent(name, GRANT)) as [
      CoreAgent,
      CoreAgent,
      CoreAgent,
    ];
    world.durable = false;
    for (const agent of [first, second, third]) agent.claim(EID);
    world.release();
    world.release();
    assert.deepEqual(
      [first, second, third].map((agent) => agent.answer(1n)[0]?.generation),
      [1, 2, 3],
    );
    assert.equal(stored(world, EID)?.owner, third.xtrId);
  });

  test('a store that fails costs the session, and nothing is believed', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    world.durable = false;
    agent.claim(EID);
    world.release('failed');
    assert.equal(agent.closed, CLOSE.overload);
    world.durable = true;
    assert.equal(kindOf(world.agent('c').lookup(EID)), 'negative');
    agent.connect();
    assert.equal(agent.claim(EID)[0]?.generation, 1);
  });

  // Attack: claims of an EID of another agent, of a wider prefix and of two names | 4 | each denied by policy; owners
  // and generations stay
  test('attack: registering what was not granted', () => {
    const world = new CoreWorld();
    const owner = world.agent('a', GRANT);
    owner.claim(EID);
    const stranger = world.agent('b', { eids: ['10.77.1.0/24'], names: ['*.web'] });
    const [refused] = stranger.claim(EID);
    assert.equal(refused?.action, 'policy-denied');
    assert.equal(refused?.generation, 1);
    assert.deepEqual(refused?.locators, []);
    assert.equal(stranger.claim('10.77.1.0/24')[0]?.generation, 1);
    assert.equal(stranger.claim('10.77.1.77')[0]?.generation, 1);
    assert.equal(stranger.claim('10.77.0.0/16')[0]?.action, 'policy-denied');
    assert.equal(stranger.claim('a.web')[0]?.generation, 1);
    assert.equal(stranger.claim('web')[0]?.action, 'policy-denied');
    assert.equal(stranger.claim('db')[0]?.action, 'policy-denied');
    assert.equal(stored(world, EID)?.owner, owner.xtrId);
  });

  // Attack: claims with a foreign instance, tunnel key, owner or agent address, with a name that leads out of the
  // overlay, and with locators that are multicast, loopback, link-local or inside the overlay | 10 | each denied by
  // policy
  test('attack: registrations with a foreign key, instance, target or locator', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    const other = world.agent('b');
    const refused = (mapping: Mapping): void => {
      assert.equal(agent.register(mapping)[0]?.action, 'policy-denied');
    };
    refused(agent.mapping(EID, { eid: prefixEid(instanceId(7), prefixOf(EID)) }));
    refused(agent.mapping(EID, { tunnelKey: other.tunnelKey, locators: [] }));
    refused(agent.mapping(EID, { owner: other.xtrId }));
    refused(agent.mapping('db', { targets: [parseIpAddress('8.8.8.8')] }));
    for (const address of ['239.1.1.1', '127.0.0.1', '169.254.169.254', '10.77.0.6', 'fe80::1']) {
      refused(agent.mapping(EID, { locators: [{ ...locator(address) }] }));
    }
    refused(agent.mapping(EID, { eid: other.mapping('agent').eid }));
  });

  test('the agent address is granted by its key, to its agent alone', () => {
    const world = new CoreWorld();
    const agent = world.agent('a');
    assert.equal(agent.register(agent.mapping('agent'))[0]?.generation, 1);
  });

  test('names for an address that were not granted are left out', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    assert.deepEqual(agent.claim(EID, 0, { names: ['db', 'bank'] })[0]?.names, ['db']);
  });

  // Attack: a granted name claimed for an EID of another agent | 1 | both denied; the name stays
  test('attack: a name carried to an EID that is refused', () => {
    const world = new CoreWorld();
    const owner = world.agent('a', GRANT);
    const targets = [parseIpAddress(EID)];
    owner.register(owner.mapping(EID), owner.mapping('db', { targets }));
    const stranger = world.agent('b', { eids: ['10.77.1.0/24'], names: ['*'] });
    const answers = stranger.register(stranger.mapping(EID), stranger.mapping('db', { targets }));
    assert.deepEqual(
      answers.slice(0, 2).map(({ action }) => action),
      ['policy-denied', 'policy-denied'],
    );
    assert.equal(stored(world, 'db')?.owner, owner.xtrId);
    const both = [...targets, parseIpAddress('10.77.1.7')];
    const [, , taken] = stranger.register(
      stranger.mapping(EID),
      stranger.mapping('10.77.1.7'),
      stranger.mapping('db', { targets: both }),
    );
    assert.equal(taken?.owner, stranger.xtrId);
  });

  // Attack: claims beyond the limit of mappings | 3 at a limit of 2 | the excess is denied until one is given up
  test('attack: more EIDs than an agent may own', () => {
    const world = new CoreWorld({ limits: { mappingsPerAgent: 2 } });
    const agent = world.agent('a', { eids: ['10.77.0.0/24'] });
    const answers = agent.register(...[1, 2, 3].map((i) => agent.mapping(`10.77.0.${i}`)));
    assert.deepEqual(
      answers.map(({ action }) => action),
      ['no-action', 'no-action', 'policy-denied'],
    );
    agent.claim('10.77.0.1', 1, { ttl: 0 });
    assert.equal(agent.claim('10.77.0.3')[0]?.generation, 1);
  });

  test('an agent that is revoked again is told of once, now and in later sessions', () => {
    const world = new CoreWorld();
    const witness = world.agent('a');
    const rogue = world.agent('b');
    const revocations = (): number => witness.pushed().filter((mapping) => isRevocation(mapping)).length;
    world.operate({ kind: 'revoke-agent', xtrId: rogue.xtrId });
    assert.equal(revocations(), 1);
    world.operate({ kind: 'revoke-agent', xtrId: rogue.xtrId });
    assert.equal(revocations(), 0);
    witness.disconnect();
    witness.connect();
    assert.equal(revocations(), 1);
  });

  // Attack: names registered and released, again and again | 40 at a limit of 8 | 8 records; others and what it had go on
  test('attack: using up the records of all by releasing what was registered', () => {
    const limits = { mappings: 30, releasedPerAgent: 8 };
    const world = new CoreWorld({ limits });
    const greedy = world.agent('greedy', { names: ['*.web'] });
    for (let n = 0; n < 40; n++) {
      const name = `n${n}.web`;
      greedy.register(
        greedy.mapping(name),
        greedy.mapping(name, { generation: 1 as Generation, ttl: 0, targets: [] }),
        greedy.mapping(name),
        greedy.mapping(name, { generation: 2 as Generation, ttl: 0, targets: [] }),
      );
    }
    assert.equal([...world.core.state.records()].filter(({ kind }) => kind === 'eid').length, 8);
    assert.ok(world.count('limit', (event) => event.kind === 'limit' && event.limit === 'releasedPerAgent') > 0);
    assert.equal(greedy.claim('n0.web')[0]?.generation, 3, 'what it had it may have again');
    const other = world.agent('other', { names: ['*.web'] });
    assert.equal(other.claim('n1.web')[0]?.generation, 3, 'and so may others, at a newer generation');
    assert.equal(greedy.claim('n41.web')[0]?.generation, 1, 'whose it is then');
    const restarted = new CoreWorld({ store: world.store, agents: world.agents, limits });
    greedy.connect();
    assert.equal(greedy.claim('n42.web')[0]?.generation, 1);
    greedy.claim('n41.web', 1, { ttl: 0 });
    greedy.claim('n42.web', 1, { ttl: 0 });
    assert.equal(greedy.claim('n43.web')[0]?.action, 'policy-denied');
    assert.equal(restarted.core.state.statistics().names, 2);
  });

  // Attack: a Map-Register with an old nonce, and one with a foreign xTR-ID | 2 | dropped and counted; the session
  // ends
  test('attack: a registration replayed, and one in the name of another agent', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    const other = world.agent('b');
    agent.claim(EID);
    world.deliver(
      agent,
      mapRegister({ nonce: nonce(1n), xtrId: agent.xtrId, mappings: [agent.mapping(EID, { ttl: 0 })] }),
    );
    assert.equal(stored(world, EID)?.state, 'live');
    assert.equal(world.count('rejected'), 1);
    world.deliver(agent, mapRegister({ nonce: nonce(9n), xtrId: other.xtrId, mappings: [] }));
    assert.equal(agent.closed, CLOSE.foreignXtrId);
  });
});

function locator(address: string) {
  return { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
}
