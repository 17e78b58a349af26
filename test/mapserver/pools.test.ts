/** EIDs from pools: which one is next, and that it costs no more when there are many agents. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { HeldAddresses } from '../../mapserver/core/held-addresses.ts';
import type { AgentRecord } from '../../mapserver/core/records.ts';
import { hostPrefix, type IpPrefix, ipFromBytes } from '../../proto/address.ts';
import { parseTunnelKey, xtrIdOf } from '../../proto/identity.ts';
import { firstHost, lastHost, nodePrefix, prefixNode } from '../../proto/prefix-node.ts';
import { minutes } from '../../proto/time.ts';
import { CERTIFICATE, CoreWorld } from './core-world.ts';

const SECRET = '77'.repeat(32);

describe('what a pool gives', () => {
  test('50,000 agents that join get the addresses in their order, and what is given back goes to the next ones', () => {
    const world = withPool('10.77.0.0/16', 60_000);
    for (let i = 1; i <= 50_000; i++) assert.equal(join(world, `agent ${i}`), address(i));
    for (const i of [40_000, 7, 12_345]) world.operate({ kind: 'revoke-agent', xtrId: keyOf(`agent ${i}`).xtrId });
    assert.deepEqual(
      ['a', 'b', 'c', 'd'].map((name) => join(world, name)),
      [7, 12_345, 40_000, 50_001].map(address),
    );
  });

  test('a restart changes nothing in what is free', () => {
    const world = withPool('10.77.0.0/16', 10);
    for (const name of ['a', 'b', 'c']) join(world, name);
    world.operate({ kind: 'revoke-agent', xtrId: keyOf('b').xtrId });
    const restarted = world.restarted();
    assert.deepEqual([join(restarted, 'd'), join(restarted, 'e')], [2, 4].map(address));
  });

  test('what joins at once gets different ones', () => {
    const world = withPool('10.77.0.0/16', 400);
    world.durable = false;
    for (let i = 0; i < 300; i++) enrol(world, `agent ${i}`);
    while (world.core.state.statistics().pending > 0) world.release();
    const eids = [...world.core.state.records()].flatMap((record) => (record.kind === 'agent' ? record.eids : []));
    assert.deepEqual(new Set(eids), new Set(Array.from({ length: 300 }, (_, i) => address(i + 1))));
  });

  test('what an agent was granted by name of its address is not given, and is when the grant is gone', () => {
    const world = withPool('10.77.0.0/29', 10);
    const holder = world.enrolled('holder', { eids: [address(1), address(3)] });
    assert.deepEqual([join(world, 'a'), join(world, 'b')], [2, 4].map(address));
    const less = { eids: [address(1)] as IpPrefix[], names: [], groups: [] };
    world.operate({ kind: 'remove-grant', xtrId: holder.xtrId, ...less });
    assert.deepEqual([join(world, 'c'), join(world, 'd'), join(world, 'e')], [1, 5, 6].map(address));
    assert.equal(join(world, 'f'), 'STAYPUT_POOL_EMPTY');
  });

  for (const [pool, given] of [
    ['100.100.100.200/30', ['100.100.100.201/32', '100.100.100.202/32']],
    ['fd00:42::40/125', ['fd00:42::41/128', 'fd00:42::43/128']],
    ['fd53:7461:7970:7574::/63', ['fd53:7461:7970:7575::/128', 'fd53:7461:7970:7575::1/128']],
  ] as const) {
    test(`of ${pool} no address that platforms or agents have for themselves`, () => {
      const world = withPool(pool, 10, ['100.64.0.0/10', 'fd00::/8'] as IpPrefix[]);
      assert.deepEqual([join(world, 'a'), join(world, 'b')], given);
    });
  }
});

test('the first free address is the one that a look at all of them finds', () => {
  const pool = '10.77.0.16/28' as IpPrefix;
  const [first, last] = [firstHost(4, prefixNode(pool)), lastHost(4, prefixNode(pool))];
  const grant = fc.array(
    fc.nat(40).map((i) => address(i)),
    { maxLength: 6 },
  );
  const changes = fc.array(fc.record({ agent: fc.nat(5), eids: grant, revoked: fc.boolean() }), { maxLength: 40 });
  fc.assert(
    fc.property(changes, (steps) => {
      const held = new HeldAddresses();
      const agents = new Map<number, AgentRecord>();
      for (const { agent, eids, revoked } of steps) {
        const after = record(`agent ${agent}`, eids, revoked);
        held.follow(agents.get(agent), after);
        agents.set(agent, after);
        const taken = new Set([...agents.values()].flatMap((each) => (each.revokedAt === undefined ? each.eids : [])));
        const expected = Array.from({ length: 16 }, (_, i) => first + BigInt(i)).find(
          (host) => !taken.has(nodePrefix(4, host)),
        );
        assert.equal(held.firstFree(4, first, last), expected);
      }
      for (const each of agents.values()) held.follow(each, undefined);
      assert.equal(held.firstFree(4, first, last), first);
    }),
  );
});

function withPool(pool: string, uses: number, prefixes?: readonly IpPrefix[]): CoreWorld {
  const world = new CoreWorld({
    ...(prefixes === undefined ? {} : { prefixes }),
    limits: { agents: 100_000, pending: 1_000 },
  });
  const nothing = { eids: [], names: [], groups: [] };
  const pools = [pool as IpPrefix];
  world.operate({
    kind: 'create-token',
    secretHash: SECRET,
    authority: 'ca',
    pools,
    uses,
    ttl: minutes(60),
    ...nothing,
  });
  return world;
}

/** What it was given, or why it was not. */
function join(world: CoreWorld, name: string): string | undefined {
  const result = world.operate(enrolment(name));
  if (!result.ok) return result.error.code;
  return result.record.kind === 'agent' ? result.record.assigned?.[0] : undefined;
}

function enrol(world: CoreWorld, name: string): void {
  world.core.handleOperation(enrolment(name), world.now);
}

function enrolment(name: string) {
  const { tunnelKey } = keyOf(name);
  const certificate = { certificateKey: name, certificate: CERTIFICATE };
  return { kind: 'enrol', secretHash: SECRET, tunnelKey, ...certificate, software: '', eids: [], names: [] } as const;
}

function keyOf(name: string) {
  const tunnelKey = parseTunnelKey(createHash('sha256').update(name).digest('base64'));
  return { tunnelKey, xtrId: xtrIdOf(tunnelKey) };
}

function record(name: string, eids: readonly IpPrefix[], revoked: boolean): AgentRecord {
  return {
    kind: 'agent',
    ...keyOf(name),
    certificateKey: name,
    tokenId: '',
    software: '',
    enrolledAt: 0,
    eids,
    names: [],
    groups: [],
    ...(revoked ? { revokedAt: 1 } : {}),
  };
}

function address(i: number): IpPrefix {
  return hostPrefix(ipFromBytes(Uint8Array.from([10, 77, i >> 8, i & 255])));
}
