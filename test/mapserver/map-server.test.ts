import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CLOSE } from '../../mapserver/core/actions.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { eidKey, instanceId, parseEid, prefixEid } from '../../proto/eid.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { MAP_REQUEST } from '../../proto/lisp/map-request.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf, mapRegister } from '../../proto/lisp/native.ts';
import { type Generation, isRevocation, type Mapping } from '../../proto/mapping.ts';
import { minutes, seconds } from '../../proto/time.ts';
import { type CoreAgent, CoreWorld, GRACE, prefixOf, recordKey, stored } from './core-world.ts';

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

describe('resolving', () => {
  test('a subscription to an EID that is not there is answered negatively and served when it comes', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    const reply = client.subscribe(EID);
    assert.equal(kindOf(reply), 'negative');
    assert.equal(mappingsOf(reply!)[0]?.action, 'drop');
    world.advance(minutes(14));
    agent.claim(EID);
    assert.equal(client.pushed()[0]?.owner, agent.xtrId);
    world.advance(minutes(30));
    agent.claim(EID, 1, { locators: [] });
    assert.equal(client.pushed().length, 1, 'and goes on');
  });

  test('a subscription to an EID that does not come ends after 15 minutes', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    client.subscribe(EID);
    world.advance(minutes(16));
    assert.equal(world.core.state.statistics().subscriptions, 0);
    agent.claim(EID);
    assert.deepEqual(client.pushed(), []);
  });

  test('names are resolved, pushed and withdrawn like addresses', () => {
    const world = new CoreWorld();
    const [agent, client] = [world.agent('a', GRANT), world.agent('c')];
    client.subscribe('db');
    agent.claim('db');
    assert.deepEqual(client.pushed()[0]?.targets, ['10.77.0.5']);
    assert.deepEqual(mappingsOf(client.lookup('db')!)[0]?.targets, ['10.77.0.5']);
    agent.claim('db', 1, { ttl: 0 });
    assert.equal(client.pushed()[0]?.ttl, 0);
  });

  test('the longest prefix answers, with what is more specific, and changes inside it are published', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', { eids: ['10.77.4.0/24'] });
    const other = world.agent('b', { eids: ['10.77.4.0/24'] });
    const client = world.agent('c');
    agent.register(agent.mapping('10.77.4.0/24'));
    other.claim('10.77.4.9');
    const answer = mappingsOf(client.subscribe('10.77.4.200')!);
    assert.deepEqual(
      answer.map(({ eid }) => eidKey(eid)),
      ['[0]10.77.4.0/24', '[0]10.77.4.9/32'],
    );
    assert.equal(mappingsOf(client.lookup('10.77.4.9')!)[0]?.owner, other.xtrId);
    agent.claim('10.77.4.33');
    assert.equal(eidKey(client.pushed()[0]!.eid), '[0]10.77.4.33/32');
  });

  test('unsubscribing and losing the session end the pushes', () => {
    const world = new CoreWorld();
    const [agent, one, two] = [world.agent('a', GRANT), world.agent('c'), world.agent('d')];
    agent.claim(EID);
    one.subscribe(EID);
    two.subscribe(EID);
    one.subscribe(EID, false);
    two.disconnect();
    two.connect();
    agent.claim(EID, 1, { locators: [] });
    assert.deepEqual(one.pushed(), []);
    assert.deepEqual(two.pushed(), []);
    assert.equal(world.core.state.statistics().subscriptions, 0);
  });

  // Attack: subscriptions beyond the limit | 2 at a limit of 1 | answered once with a TTL of a minute; not kept
  test('attack: more subscriptions than an agent may have', () => {
    const world = new CoreWorld({ limits: { subscriptionsPerAgent: 1 } });
    const [agent, client] = [world.agent('a', { eids: ['10.77.0.0/24'] }), world.agent('c')];
    agent.register(agent.mapping('10.77.0.1'), agent.mapping('10.77.0.2'));
    assert.equal(client.subscribe('10.77.0.1')?.type, 'map-notify');
    const answer = client.subscribe('10.77.0.2');
    assert.equal(answer?.type, 'map-reply');
    assert.equal(mappingsOf(answer!)[0]?.ttl, minutes(1));
  });

  // Attack: a Map-Request for an EID of another instance | 1 | denied by policy
  test('attack: resolving in another instance', () => {
    const world = new CoreWorld();
    const client = world.agent('c');
    world.deliver(client, {
      ...lookupOf(client),
      records: [
        {
          notify: false,
          maskLength: 32,
          eid: { kind: 'instance-id', iid: 7, iidMaskLength: 0, address: { kind: 'ip', address: parseIpAddress(EID) } },
        },
      ],
    } as LispMessage);
    assert.equal(mappingsOf(client.inbox[0]!)[0]?.action, 'policy-denied');
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

function kindOf(message: LispMessage | undefined): 'positive' | 'negative' | 'none' {
  if (message === undefined) return 'none';
  return (mappingsOf(message)[0]?.locators.length ?? 0) > 0 ? 'positive' : 'negative';
}

function locator(address: string) {
  return { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
}

function lookupOf(client: CoreAgent): LispMessage {
  client.lookup('nobody');
  client.inbox.length = 0;
  return {
    ...MAP_REQUEST,
    nonce: nonce(99n),
    sourceEid: { kind: 'none' },
    itrRlocs: [{ kind: 'ip', address: client.address }],
    records: [],
  };
}
