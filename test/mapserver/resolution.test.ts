/** What the map server answers and publishes to whom. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { eidKey } from '../../proto/eid.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { MAP_REQUEST } from '../../proto/lisp/map-request.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import { minutes } from '../../proto/time.ts';
import { type CoreAgent, CoreWorld, kindOf } from './core-world.ts';

const EID = '10.77.0.5';
const GRANT = { eids: ['10.77.0.5/32'], names: ['db'] };

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
