/** Random histories of several agents: whatever happened, when everybody is back there is one owner, known to all. */
import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseIpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, prefixEid } from '../../proto/eid.ts';
import { runs } from '../runs.ts';
import { type Host, World } from './world.ts';
import { FakeDataplaneState } from './world-dataplane.ts';

const EIDS = ['10.77.0.1', '10.77.0.2', '10.77.0.3'];
const HOSTS = 3;

const host = fc.nat({ max: HOSTS - 1 });
const eid = fc.constantFrom(...EIDS);
const step = fc.oneof(
  fc.record({ do: fc.constant('attach' as const), host, eid, via: fc.boolean() }),
  fc.record({ do: fc.constant('interface' as const), host, up: fc.boolean() }),
  fc.record({ do: fc.constant('detach' as const), host, eid }),
  fc.record({ do: fc.constant('miss' as const), host, eid }),
  fc.record({ do: fc.constant('roam' as const), host, to: fc.integer({ min: 1, max: 250 }) }),
  fc.record({ do: fc.constant('disconnect' as const), host }),
  fc.record({ do: fc.constant('connect' as const), host }),
  fc.record({ do: fc.constant('restart' as const), host }),
  fc.record({ do: fc.constant('new data plane' as const), host }),
  fc.record({ do: fc.constant('lag' as const), host, late: fc.boolean() }),
  fc.record({ do: fc.constant('silence' as const), silent: fc.boolean() }),
  fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 200_000 }) }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

test('after any history there is one owner per EID, and every data plane sends to it', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const world = new World();
      const hosts = Array.from({ length: HOSTS }, (_, i) => world.host(`h${i}`, { address: `192.0.2.${i + 1}` }));
      const generations = new Map<string, number>();
      for (const each of steps) {
        apply(world, hosts, each);
        for (const [key, { generation }] of world.server.mappings) {
          assert.ok(generation >= (generations.get(key) ?? 0), 'generations only grow');
          generations.set(key, generation);
        }
      }
      settle(world, hosts);
      for (const text of EIDS) check(world, hosts, text);
    }),
    { numRuns: runs(150) },
  );
});

function apply(world: World, hosts: readonly Host[], step: Step): void {
  if (step.do === 'silence') {
    world.server.silent = step.silent;
    return;
  }
  if (step.do === 'pass') {
    world.advance(step.ms);
    return;
  }
  const host = hosts[step.host]!;
  switch (step.do) {
    case 'attach':
      host.attach(step.eid, step.via ? { interface: 'veth0' } : {});
      return;
    case 'interface':
      host.event({ type: 'interface', name: 'veth0', up: step.up });
      return;
    case 'detach':
      if (host.stateOf(step.eid) !== 'none') host.detach(step.eid);
      return;
    case 'miss':
      if (host.dataplane?.route(step.eid) !== 'here') host.miss(step.eid);
      return;
    case 'roam':
      host.plug(`198.51.100.${step.to}`);
      return;
    case 'lag':
      if (step.late) host.lag();
      else host.catchUp();
      return;
    case 'disconnect':
      host.disconnect();
      return;
    case 'connect':
      host.connect();
      return;
    case 'restart': {
      const state = host.dataplane;
      host.restart();
      host.attachDataplane(state ?? undefined);
      host.plug('192.0.2.77');
      return;
    }
    case 'new data plane':
      host.loseDataplane();
      host.attachDataplane(new FakeDataplaneState(`process ${world.now}`));
      return;
    default:
      step satisfies never;
  }
}

/** Everybody is connected, plugged in and has had time for a refresh. */
function settle(world: World, hosts: readonly Host[]): void {
  world.server.silent = false;
  for (const host of hosts) host.catchUp();
  for (const [i, host] of hosts.entries()) {
    host.plug(`203.0.113.${i + 1}`);
    host.connect();
  }
  world.advance(130_000);
  for (const host of hosts) {
    for (const text of EIDS) if (host.dataplane?.route(text) === 'miss') host.miss(text);
  }
  world.advance(5000);
}

function check(world: World, hosts: readonly Host[], text: string): void {
  const stored = world.server.mappings.get(eidKey(prefixEid(DEFAULT_INSTANCE, parseIpPrefix(text))));
  const owners = hosts.filter((each) => each.stateOf(text).startsWith('live'));
  assert.ok(owners.length <= 1, `${text} has ${owners.length} owners`);
  const [owner] = owners;
  assert.equal(stored?.owner, owner?.xtrId);
  if (owner !== undefined) assert.equal(owner.stateOf(text), `live@${stored?.generation}`);
  for (const [i, host] of hosts.entries()) {
    const way = host.dataplane?.route(text);
    if (host === owner) {
      assert.equal(way, 'here');
    } else {
      assert.equal(way, owner?.key ?? 'drop', `${host.name} sends ${text} elsewhere (${host.stateOf(text)})`);
      if (owner === undefined) continue;
      assert.deepEqual(host.dataplane?.peers.get(owner.key), [`203.0.113.${hosts.indexOf(owner) + 1}:4341`]);
    }
    assert.ok(i < HOSTS);
  }
}
