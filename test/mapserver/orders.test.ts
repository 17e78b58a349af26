/** What administrators want done by agents: sent as an order, done when the agent's registration says so. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { EidOrder } from '../../mapserver/core/orders.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, prefixEid } from '../../proto/eid.ts';
import { type Order, orderOf } from '../../proto/lisp/order.ts';
import { isTarget, type XtrId } from '../../proto/mapping.ts';
import { seconds } from '../../proto/time.ts';
import { type CoreAgent, CoreWorld } from './core-world.ts';

const EID = '10.77.0.5';
const eid = prefixEid(DEFAULT_INSTANCE, parseIpPrefix(EID));
const patience = seconds(10);

/** `a` owns the EID, `b` may. */
function overlay() {
  const world = new CoreWorld();
  const a = world.agent('a', { eids: ['10.77.0.0/24'] });
  const b = world.agent('b', { eids: ['10.77.0.0/24'] });
  for (const agent of [a, b]) agent.claim('agent');
  a.claim(EID);
  for (const agent of [a, b]) agent.pushed();
  return { world, a, b };
}

function move(xtrId: XtrId, fields: Partial<Extract<EidOrder, { kind: 'attach' }>> = {}): EidOrder {
  return { kind: 'attach', eid, xtrId, interface: null, move: true, patience, ...fields };
}

/** Orders that reached the agent. */
function ordersTo(agent: CoreAgent): Order[] {
  return agent.inbox.flatMap((message) => (message.type === 'map-request' ? (orderOf(message) ?? []) : []));
}

function refusal(world: CoreWorld, order: EidOrder): string | undefined {
  const result = world.ordered.get(world.order(order));
  return result?.ok === false ? result.error.code : undefined;
}

describe('an order to move', () => {
  test('reaches the agent after its owner has heard of the target, and is done when the agent has the EID', () => {
    const { world, a, b } = overlay();
    const id = world.order(move(b.xtrId, { interface: 'veth0' }));
    assert.deepEqual(ordersTo(b), [{ what: 'attach', eid, interface: 'veth0' }]);
    assert.ok(a.pushed().some((mapping) => isTarget(mapping) && mapping.owner === b.xtrId));
    assert.equal(world.ordered.get(id), undefined);
    b.claim(EID);
    const result = world.ordered.get(id);
    assert.ok(result?.ok === true && !result.already);
    assert.equal(result.record?.generation, 2);
    assert.equal(world.count('order'), 1);
  });

  test('of an EID that is there already is done, and sends nothing', () => {
    const { world, a } = overlay();
    const result = world.ordered.get(world.order(move(a.xtrId)));
    assert.ok(result?.ok === true && result.already);
    assert.deepEqual(ordersTo(a), []);
  });

  test('that cannot work is refused before anything is sent', () => {
    const { world, b } = overlay();
    const other = world.agent('other', { eids: ['10.77.1.0/24'] });
    assert.equal(refusal(world, move('0'.repeat(32) as XtrId)), 'STAYPUT_AGENT_UNKNOWN');
    assert.equal(refusal(world, move(other.xtrId)), 'STAYPUT_NOT_GRANTED');
    const free = prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.77.0.99'));
    assert.equal(refusal(world, move(b.xtrId, { eid: free })), 'STAYPUT_NOT_REGISTERED');
    const outside = prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.78.0.1'));
    assert.equal(refusal(world, move(b.xtrId, { eid: outside })), 'STAYPUT_OUTSIDE_OVERLAY');
    b.disconnect();
    assert.equal(refusal(world, move(b.xtrId)), 'STAYPUT_NOT_CONNECTED');
    world.operate({ kind: 'revoke-agent', xtrId: b.xtrId });
    assert.equal(refusal(world, move(b.xtrId)), 'STAYPUT_AGENT_REVOKED');
    assert.deepEqual([...ordersTo(b), ...ordersTo(other)], []);
  });

  test('that is not fulfilled ends with why', () => {
    const { world, b } = overlay();
    const id = world.order(move(b.xtrId));
    world.advance(patience + 1);
    const result = world.ordered.get(id);
    assert.ok(result?.ok === false);
    assert.equal(result.error.code, 'STAYPUT_TIMEOUT');
    assert.match(result.error.message, /interface is not up/);
    assert.equal(b.claim(EID)[0]?.generation, 2, 'it may still do so later');
  });
});

test('an order to attach needs no owner before', () => {
  const { world, b } = overlay();
  const free = prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.77.0.99'));
  const id = world.order(move(b.xtrId, { eid: free, move: false }));
  b.claim('10.77.0.99');
  assert.ok(world.ordered.get(id)?.ok);
});

test('an order to detach goes to the owner, and is done when nobody has the EID', () => {
  const { world, a } = overlay();
  const id = world.order({ kind: 'detach', eid, patience });
  assert.deepEqual(ordersTo(a), [{ what: 'detach', eid, interface: null }]);
  a.register(a.mapping(EID, { ttl: 0, generation: 1 as never, locators: [] }));
  assert.ok(world.ordered.get(id)?.ok);
  const again = world.ordered.get(world.order({ kind: 'detach', eid, patience }));
  assert.ok(again?.ok === true && again.already);
});
