/** What agents do not believe of what others say inside the tunnel about moves. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, parseEid, prefixEid } from '../../proto/eid.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapNotify, queriesOf, solicitMapRequest } from '../../proto/lisp/native.ts';
import { asTarget, type Generation } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { agentOf, arrive, CLIENT, EID, heard, mappingOf, PREFIX, prepared, says, tells } from './prepared-move.ts';

describe('what is not believed', () => {
  // Attack: a claim of another host's EID, from an authenticated peer that the map server did not name | 1 | refused
  // and counted; the owner keeps the EID
  test('attack: a claim inside the tunnel by somebody who is no target', () => {
    const { world, a, c } = prepared();
    says(world, c, a, {});
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(heard(a, 'claim', 'refused'), 1);
  });

  // Attack: a target's claims at generations 0, 2 and 2^40 of an EID at 1 | 3 | refused and counted; the owner keeps
  // the EID
  test("attack: a claim at a generation that is not the owner's", () => {
    const { world, a, b } = prepared();
    for (const generation of [0, 2, 2 ** 40]) says(world, b, a, { generation: generation as Generation });
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(heard(a, 'claim', 'refused'), 3);
  });

  // Attack: a claim from a target whose agent address the map server has withdrawn | 1 | not believed; the owner keeps
  // the EID
  test('attack: a claim by a target that was removed', () => {
    const { world, a, b } = prepared();
    const agent = [...world.server.mappings.values()].find(
      (mapping) => mapping.owner === b.xtrId && eidKey(mapping.eid).includes('fd53'),
    );
    assert.ok(agent !== undefined);
    world.server.push([{ ...agent, ttl: 0, locators: [] }], [a.xtrId]);
    world.pump();
    says(world, b, a, {});
    assert.equal(a.stateOf(EID), 'live@1');
  });

  // Attack: claims with the xTR-ID of one agent and the key of another | 2 | refused as malformed and counted
  test('attack: a claim in the name of another agent', () => {
    const { world, a, b, c } = prepared();
    says(world, c, a, { owner: b.xtrId, tunnelKey: c.key });
    says(world, c, a, { owner: c.xtrId, tunnelKey: b.key });
    assert.equal(a.stateOf(EID), 'live@1');
    assert.equal(heard(a, 'notice', 'malformed'), 2);
  });

  // Attack: notices that an EID has moved, from agents that do not own it | 3 | the route stays; the map server is
  // asked at most once
  test('attack: a notice of a move by somebody who is not the owner', () => {
    const { world, a, b, c } = prepared();
    const requests = (): number => c.sent.filter(({ type }) => type === 'map-request').length;
    const before = requests();
    says(world, b, c, {}, nonce(1n));
    says(world, b, c, { owner: c.xtrId, tunnelKey: c.key }, nonce(2n));
    world.host('e', { address: '192.0.2.5' });
    says(world, b, c, { owner: a.xtrId, tunnelKey: a.key }, nonce(3n));
    assert.equal(c.dataplane?.route(EID), a.key);
    assert.ok(requests() <= before + 1);
  });

  // Attack: a notice at generation 1 of an EID at 2, and one that gives away the receiver's own EID | 2 | the routes
  // stay
  test("attack: a notice of an old generation, or about the receiver's own EID", () => {
    const { world, a, b, c } = prepared();
    a.detach(EID);
    a.attach(EID);
    world.advance(1000);
    const generation = c.dataplane?.mappings.get(PREFIX)?.generation;
    assert.equal(generation, 2);
    says(world, a, c, { owner: b.xtrId, tunnelKey: b.key });
    assert.equal(c.dataplane?.route(EID), a.key);
    says(world, a, c, { eid: parseEid(CLIENT), owner: b.xtrId, tunnelKey: b.key, generation: 9 as Generation });
    assert.equal(c.dataplane?.route(CLIENT), 'here');
  });

  // Attack: a notice with generation 2^50 | 1 | no generation is taken from it; the map server's word holds after a
  // moment
  test('attack: a generation made up to keep the next owner out', () => {
    const { world, a, b, c } = prepared();
    says(world, a, c, { owner: b.xtrId, tunnelKey: b.key, generation: (2 ** 50) as Generation });
    assert.equal(c.dataplane?.mappings.get(PREFIX)?.generation, 1);
    world.advance(10_000);
    assert.equal(c.dataplane?.route(EID), a.key, 'what the map server says holds after a moment');
  });

  // Attack: handovers from agents that do not own the EID | 2 | refused and counted; no peer is added
  test('attack: a handover that nobody waits for', () => {
    const { world, a, b, c } = prepared();
    a.disconnect();
    const before = a.dataplane?.peers.size;
    says(world, c, a, { owner: a.xtrId, tunnelKey: a.key });
    says(world, b, a, { owner: a.xtrId, tunnelKey: a.key });
    assert.equal(heard(a, 'handover', 'refused'), 2);
    assert.equal(a.dataplane?.peers.size, before);
    assert.equal(a.stateOf(EID), 'live@1');
  });

  // Attack: introductions of a rival target and its claims, with the map server there and away | 2 | the claims are
  // refused and counted; the new owner keeps the EID
  test('attack: a former owner who names an accomplice after the move', () => {
    const { world, a, b, hosts } = prepared();
    const d = world.host('d', { address: '192.0.2.4' });
    d.connect();
    arrive(b);
    assert.equal(b.stateOf(EID), 'live@2');
    const locators = [{ address: parseIpAddress('192.0.2.4'), port: 4341, priority: 1, weight: 1 }];
    const rival = asTarget({ ...mappingOf(d), locators });
    const name = (): void => {
      tells(world, a, b, [mappingOf(b), { ...rival, generation: 2 as Generation }, agentOf(world, d)]);
      says(world, d, b, { generation: 2 as Generation });
    };
    name();
    assert.equal(b.stateOf(EID), 'live@2');
    for (const host of hosts) host.disconnect();
    name();
    assert.equal(b.stateOf(EID), 'live@2');
    assert.equal(heard(b, 'claim', 'refused'), 2);
  });

  // Attack: a claim by a target that only the former owner had named | 1 | refused and counted once the map server is
  // back
  test('attack: a target named while the map server was away, used later', () => {
    const { world, a, b, hosts } = prepared();
    const d = world.host('d', { address: '192.0.2.4' });
    d.connect();
    for (const host of hosts) host.disconnect();
    arrive(b);
    const locators = [{ address: parseIpAddress('192.0.2.4'), port: 4341, priority: 1, weight: 1 }];
    tells(world, a, b, [mappingOf(b), asTarget({ ...mappingOf(d), locators }), agentOf(world, d)]);
    b.connect();
    world.advance(1000);
    assert.equal(b.stateOf(EID), 'live@2');
    says(world, d, b, { generation: 2 as Generation });
    assert.equal(b.stateOf(EID), 'live@2');
    assert.equal(heard(b, 'claim', 'refused'), 1);
  });

  // Attack: a handover two minutes after the move | 1 | refused and counted
  test('attack: an introduction by an owner of long ago', () => {
    const { world, a, b } = prepared();
    arrive(b);
    world.advance(minutes(2));
    says(world, a, b, { owner: b.xtrId, tunnelKey: b.key });
    assert.equal(heard(b, 'handover', 'refused'), 1);
  });

  // Attack: a mapping of somebody else's EID, at generation 2^50, brought by a handover | 1 | gives way to the map
  // server's word
  test('attack: false locators of others from a former owner', () => {
    const { world, a, b, c, hosts } = prepared();
    const e = world.host('e', { eids: ['10.77.0.66'], address: '192.0.2.5' });
    e.connect();
    for (const host of hosts) host.disconnect();
    arrive(b);
    const said = { ...mappingOf(c), eid: parseEid('10.77.0.66'), generation: (2 ** 50) as Generation };
    tells(world, a, b, [mappingOf(b), said]);
    assert.equal(b.dataplane?.route('10.77.0.66'), c.key, 'better than nothing');
    b.connect();
    world.advance(10_000);
    assert.equal(b.dataplane?.route('10.77.0.66'), e.key);
  });

  // Attack: a mapping of one address inside a prefix that another agent owns, brought by a handover | 1 | withdrawn as
  // soon as the map server names the prefix
  test("attack: an EID made up inside somebody else's prefix", () => {
    const { world, a, b, c, hosts } = prepared();
    for (const host of hosts) host.disconnect();
    arrive(b);
    const inside = parseEid('10.77.1.66');
    tells(world, a, b, [mappingOf(b), { ...mappingOf(c), eid: inside }]);
    assert.equal(b.dataplane?.route('10.77.1.66'), c.key);
    world.server.silent = true;
    b.connect();
    const asked = b.sent.findLast(
      (message) =>
        message.type === 'map-request' && queriesOf(message).some(({ eid }) => eidKey(eid) === eidKey(inside)),
    );
    assert.ok(asked?.type === 'map-request');
    const prefix = { ...mappingOf(a), eid: prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.77.1.0/24')) };
    b.deliver(mapNotify({ nonce: asked.nonce, mappings: [prefix, agentOf(world, a)] }));
    world.pump();
    assert.equal(b.dataplane?.mappings.has(parseIpPrefix('10.77.1.66')), false);
    assert.equal(b.dataplane?.mappings.get(parseIpPrefix('10.77.1.0/24'))?.to, a.key);
  });

  // Attack: octets that are no LISP message, an introduction of oneself, and a claim upon it | 4 | nothing changes
  test('attack: garbage inside the tunnel, and a target without locators', () => {
    const { world, a, c } = prepared();
    a.hear(c.key, Buffer.from('not LISP').toString('base64'));
    a.hear(c.key, '');
    says(world, c, a, asTarget({ ...mappingOf(c), locators: [] }));
    says(world, c, a, {});
    assert.equal(a.stateOf(EID), 'live@1');
  });

  // Attack: packets from 5000 sources that nobody owns | 5000 | bounded; the host's own packets are still resolved at
  // once
  test('attack: invented inner sources to exhaust the resolution', () => {
    const { world, a } = prepared();
    for (let i = 0; i < 5000; i++) {
      const eid = parseIpAddress(`10.77.${100 + (i >> 8)}.${i & 255}`);
      a.event({ type: 'miss', eid, reason: 'source' });
      world.pump();
    }
    const asked = a.sent.length;
    a.miss('10.77.0.200');
    assert.equal(a.sent.length, asked + 1);
  });

  // Attack: solicitations of a Map-Request for one EID | 5000 | answered by 1000 to 1100 requests; the route stays and
  // own packets are still resolved
  test('attack: a flood of solicitations (SMR)', () => {
    const { world, a, b, c } = prepared();
    const itr = 'fd53:7461:7970:7574::1' as never;
    const message = solicitMapRequest({ nonce: nonce(5n), eid: parseEid(CLIENT), itr });
    const before = a.sent.length;
    for (let i = 0; i < 5000; i++) {
      a.hear(b.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
      world.pump();
    }
    const asked = a.sent.length;
    assert.ok(asked - before >= 1000 && asked - before <= 1100, `${asked - before}`);
    assert.equal(a.dataplane?.route(CLIENT), c.key);
    a.miss('10.77.0.200');
    assert.equal(a.sent.length, asked + 1, 'our own packets are still resolved');
  });
});
