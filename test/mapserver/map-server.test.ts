/** How EIDs change their owner, and what is left of agents and servers that come and go. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { eidKey, parseEid } from '../../proto/eid.ts';
import { minutes, seconds } from '../../proto/time.ts';
import { CoreWorld, GRACE, kindOf, stored } from './core-world.ts';

const EID = '10.77.0.5';
const GRANT = { eids: ['10.77.0.5/32'], names: ['db'] };

describe('moving', () => {
  test('a take-over raises the generation and tells the new owner, the previous one and the subscribers', () => {
    const world = new CoreWorld();
    const [from, to] = [world.agent('a', GRANT), world.agent('b', GRANT)];
    const client = world.agent('c');
    from.register(from.mapping('agent'), from.mapping(EID));
    to.register(to.mapping('agent'));
    client.subscribe(EID);
    const answer = to.claim(EID);
    assert.deepEqual(
      answer.map(({ eid, generation, owner }) => [eidKey(eid), generation, owner]),
      [
        [eidKey(parseEid(EID)), 2, to.xtrId],
        [eidKey(from.mapping('agent').eid), 1, from.xtrId],
      ],
    );
    for (const informed of [from, client]) {
      assert.deepEqual(
        informed.pushed().map(({ eid, generation, owner }) => [eidKey(eid), generation, owner]),
        [
          [eidKey(parseEid(EID)), 2, to.xtrId],
          [eidKey(to.mapping('agent').eid), 1, to.xtrId],
        ],
      );
    }
    assert.equal(world.count('moved'), 1);
    assert.deepEqual(to.pushed(), [], 'the new owner has its acknowledgement');
  });

  test('several EIDs that move together are published in one message', () => {
    const world = new CoreWorld();
    const grant = { eids: ['10.77.0.0/28'] };
    const [from, to, client] = [world.agent('a', grant), world.agent('b', grant), world.agent('c')];
    from.register(from.mapping('10.77.0.1'), from.mapping('10.77.0.2'));
    client.subscribe('10.77.0.1');
    client.subscribe('10.77.0.2');
    client.pushed();
    to.register(to.mapping('agent'), to.mapping('10.77.0.1'), to.mapping('10.77.0.2'));
    assert.equal(client.inbox.length, 1);
    assert.equal(client.pushed().length, 3);
  });

  // Attack: a refresh at the former generation after the EID was taken over | 1 | the owner stays; the sender is told
  // who it is
  test('attack: a refresh by an owner from before', () => {
    const world = new CoreWorld();
    const [from, to] = [world.agent('a', GRANT), world.agent('b', GRANT)];
    from.claim(EID);
    from.disconnect();
    to.register(to.mapping('agent'), to.mapping(EID));
    from.connect();
    const [told, companion] = from.claim(EID, 1);
    assert.equal(told?.owner, to.xtrId);
    assert.equal(told?.generation, 2);
    assert.equal(companion?.tunnelKey, to.tunnelKey);
    assert.equal(stored(world, EID)?.owner, to.xtrId);
    assert.equal(from.claim(EID)[0]?.generation, 3, 'a move back is a move');
  });

  test('a roam keeps owner and generation, and is pushed to the subscribers only', () => {
    const world = new CoreWorld();
    const [agent, client, other] = [world.agent('a', GRANT), world.agent('c'), world.agent('d')];
    agent.claim(EID);
    client.subscribe(EID);
    agent.claim(EID, 1, { locators: [locator('198.51.100.9')] });
    const [pushed] = client.pushed();
    assert.equal(pushed?.generation, 1);
    assert.equal(pushed?.locators[0]?.address, '198.51.100.9');
    assert.deepEqual(other.pushed(), []);
    world.advance(seconds(1));
    assert.equal(stored(world, EID)?.locators[0]?.address, '198.51.100.9');
  });

  test('the generation grows over giving up, and the EID has no owner meanwhile', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    agent.claim(EID);
    client.subscribe(EID);
    assert.equal(agent.claim(EID, 2, { ttl: 0 })[0]?.ttl, minutes(3), 'not at a generation that it does not have');
    assert.equal(agent.claim(EID, 1, { ttl: 0 })[0]?.ttl, 0);
    assert.equal(client.pushed()[0]?.ttl, 0);
    assert.equal(kindOf(client.lookup(EID)), 'negative');
    const [stale] = agent.claim(EID, 1);
    assert.equal(stale?.owner, undefined);
    assert.equal(agent.claim(EID)[0]?.generation, 2);
    assert.equal(client.pushed()[0]?.generation, 2);
  });
});

describe('coming and going', () => {
  test('an agent that is back within the grace period disturbs nobody', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    agent.claim(EID);
    client.subscribe(EID);
    agent.disconnect();
    world.advance(GRACE - 1);
    assert.equal(kindOf(client.lookup(EID)), 'positive');
    agent.connect();
    agent.claim(EID, 1);
    world.advance(2 * GRACE);
    assert.deepEqual(client.pushed(), []);
    assert.equal(kindOf(client.lookup(EID)), 'positive');
  });

  test('the mappings of an agent that stays away are withdrawn, and come back at their generation', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    agent.claim(EID);
    client.subscribe(EID);
    agent.disconnect();
    world.advance(GRACE);
    assert.equal(client.pushed()[0]?.ttl, 0);
    assert.equal(kindOf(client.lookup(EID)), 'negative');
    agent.connect();
    assert.equal(agent.claim(EID, 1)[0]?.generation, 1);
    const [back] = client.pushed();
    assert.equal(back?.generation, 1);
    assert.equal(back?.locators.length, 1);
  });

  test('what an agent does not confirm after it came back is withdrawn', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', { eids: ['10.77.0.0/24'] });
    agent.register(agent.mapping('10.77.0.1'), agent.mapping('10.77.0.2'));
    agent.disconnect();
    agent.connect();
    agent.claim('10.77.0.1', 1);
    world.advance(GRACE);
    assert.equal(stored(world, '10.77.0.1')?.state, 'live');
    world.advance(seconds(1));
    assert.equal(stored(world, '10.77.0.2')?.state, 'withdrawn');
  });

  test('a second session of the same agent supersedes the first', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    const first = agent.session;
    agent.claim(EID);
    const second = world.open(agent);
    assert.notEqual(second, first);
    assert.equal(world.core.state.statistics().sessions, 1);
    world.core.handleSessionClosed(first!, world.now);
    assert.equal(world.core.state.agentState(agent.xtrId).connectedSince !== undefined, true);
    assert.equal(agent.claim(EID, 1)[0]?.generation, 1);
  });

  test('a restarted server answers at once, continues the generations and gives everybody a grace period', () => {
    const before = new CoreWorld();
    const [a, b] = [before.agent('a', GRANT), before.agent('b', GRANT)];
    const gone = before.agent('g', { eids: ['10.77.9.9/32'] });
    const client = before.agent('c');
    a.claim(EID);
    gone.claim('10.77.9.9');
    const world = before.restarted();
    client.connect();
    assert.equal(kindOf(client.subscribe(EID)), 'positive');
    client.subscribe('10.77.9.9');
    a.connect();
    assert.equal(a.claim(EID, 1)[0]?.generation, 1);
    assert.deepEqual(client.pushed(), []);
    b.connect();
    assert.equal(b.claim(EID)[0]?.generation, 2);
    client.pushed();
    world.advance(GRACE);
    assert.deepEqual(
      client.pushed().map(({ eid, ttl }) => [eidKey(eid), ttl]),
      [['[0]10.77.9.9/32', 0]],
    );
  });
});

describe('two map servers on one store', () => {
  test('a registration that lost against another server is judged again', () => {
    const one = new CoreWorld();
    const [a, b] = [one.agent('a', GRANT), one.agent('b', GRANT)];
    one.agents.splice(one.agents.indexOf(b), 1);
    const two = new CoreWorld({ store: one.store, agents: [b] });
    b.connect();
    a.claim(EID);
    assert.equal(b.claim(EID)[0]?.generation, 2, 'though the second server did not know of the first owner');
    assert.equal(stored(two, EID)?.owner, b.xtrId);
  });

  test('what another server committed is published to the sessions here', () => {
    const one = new CoreWorld();
    const [a, b] = [one.agent('a', GRANT), one.agent('b', GRANT)];
    a.claim(EID);
    one.agents.splice(one.agents.indexOf(b), 1);
    const two = new CoreWorld({ store: one.store, agents: [b] });
    b.connect();
    b.claim(EID);
    one.core.handleStoreChanges(two.store.all(), one.now);
    for (const action of one.core.pollActions()) {
      if (action.kind === 'send' && action.session === a.session) a.inbox.push(action.message);
    }
    assert.equal(a.pushed()[0]?.owner, b.xtrId);
    assert.deepEqual(a.claim(EID, 1)[0]?.generation, 2);
  });
});

function locator(address: string) {
  return { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
}
