/** The map server revokes an agent: whoever knows it, by an EID or by its key alone, ends its tunnel and believes it nothing. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { agentEid } from '../../agent/core/remote-mappings.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, parseEid } from '../../proto/eid.ts';
import { agentAddressOf } from '../../proto/identity.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapNotify } from '../../proto/lisp/native.ts';
import { type Generation, type Mapping, TARGET_GENERATION } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { type Host, World } from './world.ts';

const EID = '10.77.0.5';
const PREFIX = parseIpPrefix(EID);
const CLIENT = '10.77.0.9';
const ROGUE = '10.77.0.66';

/** `owner` has the EID, `rogue` is prepared to take it and has one of its own, `client` talks to both. */
function overlay() {
  const world = new World();
  const owner = world.host('owner', { address: '192.0.2.1' });
  const rogue = world.host('rogue', { eids: [ROGUE], address: '192.0.2.66' });
  const client = world.host('client', { eids: [CLIENT], address: '192.0.2.3' });
  for (const host of [owner, rogue, client]) host.connect();
  owner.attach(EID);
  client.miss(EID);
  client.miss(ROGUE);
  rogue.miss(CLIENT);
  owner.miss(CLIENT);
  owner.dataplane?.correspondents.set(PREFIX, [client.key]);
  rogue.attach(EID, { interface: 'veth0' });
  rogue.event({ type: 'interface', name: 'veth0', up: false });
  world.advance(2000);
  return { world, owner, rogue, client };
}

function revoke(world: World, rogue: Host): void {
  rogue.disconnect();
  world.server.revoke(rogue);
  world.pump();
}

function isForgotten(host: Host, rogue: Host): boolean {
  const { dataplane } = host;
  assert.ok(dataplane);
  const named = [
    ...[...dataplane.mappings.values()].map(({ to }) => to),
    ...[...dataplane.locals.values()].map(({ redirectFrom }) => redirectFrom),
    ...dataplane.redirects.values(),
  ];
  return !dataplane.peers.has(rogue.key) && !named.includes(rogue.key);
}

describe('an agent that is revoked', () => {
  test('loses its tunnels in the call that brings the news, also where it is known by its key alone', () => {
    const { world, owner, rogue, client } = overlay();
    assert.ok(owner.dataplane?.peers.has(rogue.key), 'a target, of which no EID is known here');
    assert.equal(client.dataplane?.route(ROGUE), rogue.key);
    revoke(world, rogue);
    assert.ok(isForgotten(owner, rogue));
    assert.ok(isForgotten(client, rogue));
    assert.notEqual(client.dataplane?.route(ROGUE), rogue.key);
    world.advance(minutes(5));
    assert.ok(isForgotten(client, rogue));
    assert.equal(client.dataplane?.route(EID), owner.key, 'others notice nothing');
  });

  test('gives back what it took while the map server was away: the owner has it again, and its correspondents know', () => {
    const { world, owner, rogue, client } = overlay();
    for (const host of [owner, rogue, client]) host.disconnect();
    rogue.event({ type: 'interface', name: 'veth0', up: true });
    assert.equal(owner.stateOf(EID), 'drain@1');
    assert.equal(client.dataplane?.route(EID), rogue.key);
    world.server.silent = true;
    for (const host of [owner, client]) host.connect();
    world.server.silent = false;
    revoke(world, rogue);
    assert.equal(owner.stateOf(EID), 'live@1');
    assert.equal(owner.dataplane?.route(EID), 'here');
    assert.ok(isForgotten(owner, rogue));
    world.advance(10_000);
    assert.ok(isForgotten(client, rogue));
    assert.equal(client.dataplane?.route(EID), owner.key);
  });

  test('while an agent had no session is found out when it has one again', () => {
    const { world, owner, rogue } = overlay();
    owner.disconnect();
    revoke(world, rogue);
    assert.ok(owner.dataplane?.peers.has(rogue.key), 'nobody has told it');
    owner.connect();
    world.server.remind(owner);
    world.pump();
    assert.ok(isForgotten(owner, rogue));
  });

  test('is looked at once, however often the map server says it again', () => {
    const { world, owner, rogue, client } = overlay();
    revoke(world, rogue);
    for (let i = 0; i < 3; i++) {
      owner.disconnect();
      owner.connect();
      world.server.remind(owner);
      world.pump();
    }
    assert.equal(owner.notes.filter(({ type }) => type === 'peer-revoked').length, 1);
    assert.ok(isForgotten(owner, rogue));
    assert.equal(client.dataplane?.route(EID), owner.key);
  });

  test('is not a peer again, whoever it knocks at and whoever introduces it', () => {
    const { world, owner, rogue, client } = overlay();
    revoke(world, rogue);
    client.event({ type: 'unknown-peer', publicKey: rogue.key });
    assert.ok(isForgotten(client, rogue));
    const { xtrId, key: tunnelKey } = rogue;
    const said = { ttl: minutes(3), action: 'no-action' as const, owner: xtrId, tunnelKey, names: [], targets: [] };
    const subject: Mapping = { ...said, eid: parseEid(EID), generation: 1 as Generation, locators: [] };
    const agent: Mapping = { ...subject, eid: agentEid(DEFAULT_INSTANCE, rogue.key) };
    const message = mapNotify({ nonce: nonce(7n), xtrId: owner.xtrId, mappings: [subject, agent] });
    client.hear(owner.key, Buffer.from(encodeLispMessage(message)).toString('base64'));
    world.advance(1000);
    assert.ok(isForgotten(client, rogue));
    assert.equal(client.dataplane?.route(EID), owner.key);
  });

  test('cannot be made up: an owner that does not follow from the key changes nothing', () => {
    const { world, owner, rogue, client } = overlay();
    const eid = agentEid(DEFAULT_INSTANCE, rogue.key);
    const nothing = { ttl: 0, locators: [], names: [], targets: [], generation: 1 as Generation };
    const wrong: Mapping = { eid, action: 'auth-failure', owner: owner.xtrId, tunnelKey: rogue.key, ...nothing };
    world.server.push([wrong], [client.xtrId]);
    world.pump();
    assert.ok(client.dataplane?.peers.has(rogue.key));
    assert.ok(agentAddressOf(rogue.key));
  });
});

describe('an agent that may not take an EID over any more', () => {
  test('is not believed when it claims the EID, and what it took comes back', () => {
    for (const yielded of [false, true]) {
      const { world, owner, rogue, client } = overlay();
      rogue.disconnect();
      if (yielded) rogue.event({ type: 'interface', name: 'veth0', up: true });
      assert.equal(owner.stateOf(EID), yielded ? 'drain@1' : 'live@1');
      ungrant(world, owner, rogue);
      if (!yielded) rogue.event({ type: 'interface', name: 'veth0', up: true });
      world.advance(1000);
      assert.equal(owner.stateOf(EID), 'live@1');
      assert.equal(owner.dataplane?.route(EID), 'here');
      world.advance(minutes(3));
      assert.equal(owner.stateOf(EID), 'live@1');
      assert.equal(client.dataplane?.route(EID), owner.key);
      assert.ok(owner.dataplane?.peers.has(rogue.key) || client.dataplane?.peers.has(rogue.key), 'and is a peer still');
    }
  });

  function ungrant(world: World, owner: Host, { xtrId, key: tunnelKey }: Host): void {
    const nothing = { ttl: 0, locators: [], names: [], targets: [] };
    const generation = TARGET_GENERATION;
    for (const targets of world.server.targets.values()) targets.delete(xtrId);
    world.server.push(
      [{ eid: parseEid(EID), action: 'drop', generation, owner: xtrId, tunnelKey, ...nothing }],
      [owner.xtrId],
    );
    world.pump();
  }
});
