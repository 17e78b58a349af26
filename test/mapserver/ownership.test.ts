/** Whatever agents, restarts and the store do: an EID has one owner per generation, and generations only grow. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eidKey, parseEid } from '../../proto/eid.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import type { Mapping } from '../../proto/mapping.ts';
import { runs } from '../runs.ts';
import { type CoreAgent, CoreWorld, GRACE } from './core-world.ts';

const EIDS = ['10.77.0.1', '10.77.0.2', 'db'];
const GRANT = { eids: ['10.77.0.0/24'], names: ['db'] };

const agentIndex = fc.nat(2);
const eid = fc.constantFrom(...EIDS);
const command = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('take' as const), agent: agentIndex, eid }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('refresh' as const),
      agent: agentIndex,
      eid,
      guess: fc.integer({ min: -1, max: 1 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('release' as const), agent: agentIndex, eid }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('reconnect' as const), agent: agentIndex }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('disconnect' as const), agent: agentIndex }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('subscribe' as const), agent: agentIndex, eid }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.integer({ min: 1, max: 2 * GRACE }) }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'restart' as const }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('revoke' as const), agent: fc.constant(2) }) },
  { weight: 3, arbitrary: fc.constant({ do: 'hold' as const }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('settle' as const),
      how: fc.constantFrom('committed' as const, 'failed' as const),
    }),
  },
);

test('each generation of an EID has one owner, and every new owner a larger one', () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
      const ledger = new Ledger();
      let world = new CoreWorld();
      const agents = ['a', 'b', 'c'].map((name) => world.agent(name, GRANT));
      for (const step of commands) {
        let answer: readonly Mapping[] = [];
        switch (step.do) {
          case 'take':
            answer = agents[step.agent]!.claim(step.eid);
            break;
          case 'refresh': {
            const agent = agents[step.agent]!;
            answer = agent.claim(step.eid, Math.max(1, ledger.newest(step.eid) + step.guess));
            break;
          }
          case 'release':
            answer = agents[step.agent]!.claim(step.eid, ledger.newest(step.eid), { ttl: 0 });
            break;
          case 'reconnect':
            if (agents[step.agent]?.closed !== 4003) agents[step.agent]?.connect();
            break;
          case 'disconnect':
            agents[step.agent]?.disconnect();
            break;
          case 'subscribe':
            agents[step.agent]?.subscribe(step.eid);
            break;
          case 'advance':
            world.advance(step.ms);
            break;
          case 'restart':
            world = world.restarted();
            break;
          case 'revoke':
            if (world.durable) world.operate({ kind: 'revoke-agent', xtrId: agents[step.agent]!.xtrId });
            break;
          case 'hold':
            world.durable = false;
            break;
          case 'settle':
            world.release(step.how);
            world.durable = true;
            world.release();
            break;
          default:
            step satisfies never;
        }
        checkStore(world, ledger);
        for (const mapping of answer) ledger.told(mapping);
        observe(agents, ledger);
      }
    }),
    { numRuns: runs(120) },
  );
});

/** All that anybody was ever told, and all that was ever durable. */
class Ledger {
  private readonly owners = new Map<string, string>();
  private readonly durable = new Map<string, { generation: number; owner: string }>();

  /** The newest generation that is durable. */
  newest(text: string): number {
    return this.durable.get(eidKey(parseEid(text)))?.generation ?? 0;
  }

  told({ eid: subject, generation, owner }: Mapping): void {
    if (generation === 0 || owner === undefined) return;
    const id = `${eidKey(subject)} ${generation}`;
    assert.equal(this.owners.get(id) ?? owner, owner, `${id} has two owners`);
    this.owners.set(id, owner);
    const { generation: newest = 0 } = this.durable.get(eidKey(subject)) ?? {};
    assert.ok(generation <= newest, `${id} was told before it was durable`);
  }

  stored(key: string, generation: number, owner: string): void {
    const known = this.durable.get(key);
    assert.ok(known === undefined || generation >= known.generation, `${key} fell to generation ${generation}`);
    if (known?.generation === generation) assert.equal(owner, known.owner, `${key} changed its owner at ${generation}`);
    this.durable.set(key, { generation, owner });
  }
}

function observe(agents: readonly CoreAgent[], ledger: Ledger): void {
  for (const agent of agents) {
    for (const mapping of agent.inbox.splice(0).flatMap((message) => mappingsOf(message))) ledger.told(mapping);
  }
}

function checkStore(world: CoreWorld, ledger: Ledger): void {
  for (const { record } of world.store.all()) {
    if (record?.kind === 'eid') ledger.stored(record.eid, record.generation, record.owner);
  }
  const live = [...world.core.state.records()].filter((record) => record.kind === 'eid' && record.state === 'live');
  assert.equal(new Set(live.map((record) => record.kind === 'eid' && record.eid)).size, live.length);
}
