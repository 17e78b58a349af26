/** What agents and plain askers are told of each other when a gateway joins them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type OwnershipRecord, ownershipKey } from '../../../mapserver/core/records.ts';
import { parseIpAddress } from '../../../proto/address.ts';
import { eidKey, parseEid } from '../../../proto/eid.ts';
import { siteXtrIdOf } from '../../../proto/identity.ts';
import { ipLispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import { nonce } from '../../../proto/lisp/header.ts';
import { MAP_REQUEST } from '../../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../../proto/lisp/mapping-record.ts';
import { encodeLispMessage } from '../../../proto/lisp/message.ts';
import { mappingsOf } from '../../../proto/lisp/native.ts';
import type { Generation, Locator } from '../../../proto/mapping.ts';
import { minutes, seconds } from '../../../proto/time.ts';
import { CoreAgent, CoreWorld } from '../core-world.ts';

const SITE = '10.50.0.0/16';
const ITR = parseIpAddress('192.0.2.20');
const GATEWAYS = ['gateway', 'other gateway'].map((name) => new CoreAgent(name).xtrId);

test('agents are told of a site as if it were the gateway’s, and the gateway is told the truth', () => {
  const { agent, gateway } = overlay();
  const [seen] = told(agent, '10.50.1.1');
  assert.equal(seen?.owner, gateway.xtrId);
  assert.equal(seen?.tunnelKey, gateway.tunnelKey);
  assert.deepEqual(
    seen?.locators.map(({ address }) => address),
    ['198.51.100.7'],
  );
  const [truth] = told(gateway, '10.50.1.1');
  assert.equal(truth?.owner, siteXtrIdOf('paris'));
  assert.equal(truth?.tunnelKey, undefined);
  assert.deepEqual(
    truth?.locators.map(({ address }) => address),
    ['203.0.113.9'],
  );
});

test('without a gateway that is there, agents are told the RLOCs of the site itself', () => {
  const { world, agent, gateway, other } = overlay();
  for (const each of [gateway, other]) each.claim('agent', 1, { ttl: 0, locators: [] });
  world.advance(seconds(1));
  const [seen] = told(agent, '10.50.1.1');
  assert.equal(seen?.owner, siteXtrIdOf('paris'));
  assert.equal(seen?.tunnelKey, undefined);
});

test('who talks to a site is told when the gateway moves, and when another one takes its place', () => {
  const { world, agent, gateway, other } = overlay();
  agent.subscribe('10.50.1.1');
  agent.pushed();
  gateway.claim('agent', 1, { locators: [locator('198.51.100.70')] });
  const moved = agent.pushed().find(({ eid }) => eidKey(eid) === eidKey(parseEid(SITE)));
  assert.deepEqual(
    moved?.locators.map(({ address }) => address),
    ['198.51.100.70'],
  );
  gateway.claim('agent', 1, { ttl: 0, locators: [] });
  world.advance(seconds(1));
  const replaced = agent.pushed().find(({ eid }) => eidKey(eid) === eidKey(parseEid(SITE)));
  assert.equal(replaced?.tunnelKey, other.tunnelKey);
});

test('a gateway that loses its session gives way to another within seconds, until it is back', () => {
  const { world, agent, gateway, other } = overlay();
  agent.subscribe('10.50.1.1');
  const pushed = () => agent.pushed().find(({ eid }) => eidKey(eid) === eidKey(parseEid(SITE)))?.tunnelKey;
  pushed();
  world.close(gateway);
  world.advance(seconds(4));
  assert.equal(pushed(), undefined, 'it may be back at once');
  world.advance(seconds(2));
  assert.equal(pushed(), other.tunnelKey);
  assert.deepEqual(asked(world, '10.77.0.1'), ['198.51.100.8']);
  world.open(gateway);
  assert.equal(pushed(), gateway.tunnelKey);
});

test('a gateway that is away serves as long as no other is there', () => {
  const { world, agent, gateway, other } = overlay();
  other.claim('agent', 1, { ttl: 0, locators: [] });
  world.close(gateway);
  world.advance(seconds(60));
  const [seen] = told(agent, '10.50.1.1');
  assert.equal(seen?.tunnelKey, gateway.tunnelKey);
});

test('plain askers are told the RLOCs of the gateway for the EIDs of agents, and solicited when it moves', () => {
  const { world, gateway } = overlay();
  assert.deepEqual(asked(world, '10.77.0.1'), ['198.51.100.7']);
  world.datagrams.length = 0;
  gateway.claim('agent', 1, { locators: [locator('198.51.100.70')] });
  const smr = world.datagrams.find(({ message }) => message.type === 'map-request' && message.smr);
  assert.equal(smr?.to.address, ITR);
  world.advance(seconds(4));
  assert.deepEqual(asked(world, '10.77.0.1'), ['198.51.100.70']);
});

// Attack: an agent that is no gateway by the map server's configuration, and says nothing of it | 1 | nobody is sent to it
test('attack: an agent that nobody made a gateway', () => {
  const { world, agent } = overlay([]);
  const [seen] = told(agent, '10.50.1.1');
  assert.equal(seen?.tunnelKey, undefined);
  assert.deepEqual(asked(world, '10.77.0.1'), []);
});

function overlay(gateways = GATEWAYS) {
  const world = new CoreWorld({ lisp: { gateways } });
  const gateway = world.agent('gateway');
  const other = world.agent('other gateway');
  const agent = world.agent('agent', { eids: ['10.77.0.1/32'] });
  gateway.claim('agent', 0, { locators: [locator('198.51.100.7')] });
  other.claim('agent', 0, { locators: [locator('198.51.100.8')] });
  agent.claim('agent');
  agent.claim('10.77.0.1');
  const key = eidKey(parseEid(SITE));
  const record: OwnershipRecord = {
    kind: 'eid',
    eid: key,
    generation: 1 as Generation,
    owner: siteXtrIdOf('paris'),
    site: { name: 'paris', rlocs: '', rlocCount: 0, proxyReply: true, mapVersion: 0 },
    state: 'live',
    ownerSince: 0,
    ttl: minutes(3),
    locators: [locator('203.0.113.9')],
    names: [],
    targets: [],
  };
  world.learn(ownershipKey(key), record);
  return { world, agent, gateway, other };
}

function locator(address: string): Locator {
  return { address: parseIpAddress(address), port: 4341, priority: 1, weight: 100 };
}

function told(agent: CoreAgent, eid: string) {
  const message = agent.lookup(eid);
  assert.equal(message?.type, 'map-reply');
  return message?.type === 'map-reply' ? mappingsOf(message) : [];
}

/** The RLOCs that a plain ITR is told. */
function asked(world: CoreWorld, eid: string): readonly unknown[] {
  const key = eidToRecordKey(parseEid(`${eid}/32`));
  const request = {
    ...MAP_REQUEST,
    nonce: nonce(7n),
    sourceEid: NO_ADDRESS,
    itrRlocs: [ipLispAddress(ITR)],
    records: [{ notify: false, ...key }],
  } as const;
  world.receive({ address: ITR, port: 4342 }, encodeLispMessage(request));
  const reply = world.datagrams.findLast(({ message }) => message.type === 'map-reply')?.message;
  assert.equal(reply?.type, 'map-reply');
  const records = reply?.type === 'map-reply' ? reply.records : [];
  return records.flatMap(({ locators }) => locators.map(({ locator: each }) => each.kind === 'ip' && each.address));
}
