/** A policy is prepared in steps, between which the map server does everything else. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { compilePolicy, PolicyDraft } from '../../mapserver/core/policy/draft.ts';
import { type IpPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { verdictOf } from '../../proto/policy.ts';
import { type CoreAgent, CoreWorld } from './core-world.ts';
import { TestRecords } from './policy-records.ts';

const TEXT = 'default deny\ngroup all\nallow from *.web to @all tcp 80\nallow from 10.77.8.0/24 to late.web';

test('what changes while a policy is prepared is in it as if it had been there before', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ budget: fc.integer({ min: 1, max: 30 }), agent: fc.nat(19), change: fc.nat(5) }), {
        maxLength: 60,
      }),
      (steps) => {
        const records = new TestRecords();
        const agents = Array.from({ length: 20 }, (_, i) => {
          const xtrId = records.grant(`agent ${i}`, [`10.77.${i}.0/24`], i % 2 === 0 ? ['all'] : []);
          for (let host = 0; host < 5; host++) records.own(xtrId, `10.77.${i}.${host}`, [], [`h${host}.a${i}.web`]);
          return xtrId;
        });
        const draft = draftOf(records, agents);
        records.selection = draft;
        for (const { budget, agent, change } of steps) {
          draft.advance(budget);
          const xtrId = agents[agent] as XtrId;
          if (change === 0) records.release(`10.77.${agent}.1`);
          else if (change === 1) records.own(xtrId, `10.77.${agent}.9`, [], [`new.a${agent}.web`]);
          else if (change === 2) records.own(xtrId, 'late.web', [`10.77.${agent}.2`]);
          else if (change === 3) records.grant(`agent ${agent}`, [`10.77.${agent}.0/24`], ['all']);
          else if (change === 4) records.grant(`agent ${agent}`, [`10.77.${agent}.0/24`], []);
        }
        while (!draft.isPrepared) draft.advance(30);
        assert.equal(draft.check().ok, true);
        const prepared = draft.take();
        const anew = compilePolicy(TEXT, records);
        for (const xtrId of agents) {
          const grant = records.agent(xtrId)?.eids ?? [];
          assert.deepEqual(sorted(prepared?.compiler.extract(grant)), sorted(anew.compiler.extract(grant)));
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('a text that is no policy needs no preparation, and one that is too large says so', () => {
  const records = new TestRecords();
  const agents = [records.grant('agent', ['10.77.0.0/16'])];
  const broken = new PolicyDraft('allow all', { overlay, records, grants: () => [] });
  broken.advance(1);
  assert.equal(broken.isPrepared, true);
  assert.equal(broken.check().problems[0]?.line, 1);
  const members = Array.from({ length: 600 }, (_, i) => `10.77.${i >> 7}.${(2 * i) & 255}`).join(', ');
  const text = [`group many = ${members}`, ...Array.from({ length: 1_900 }, () => 'allow from @many to @many')].join(
    '\n',
  );
  const large = draftOf(records, agents, text);
  while (!large.isPrepared) large.advance(30);
  assert.match(large.check().problems[0]?.message ?? '', /one agent would have to enforce/);
});

describe('while a policy is prepared for hundreds of agents', () => {
  test('registrations are answered between its steps, and are in it', () => {
    const { world, agents } = fleet();
    const [first] = agents;
    assert.ok(first);
    const id = world.core.handleOperation({ kind: 'set-policy', text: TEXT, ifVersion: null }, world.now);
    world.drain();
    let turns = 0;
    for (const agent of agents) {
      if (world.outcome(id) !== undefined) break;
      assert.equal(world.core.pollTimeout(), 0, 'it goes on as soon as nothing else is to be done');
      const name = `n${turns}.web`;
      const [answer] = agent.register(agent.mapping(name, { targets: [parseIpAddress(agent.own)] }));
      assert.equal(answer?.action, 'no-action', 'the registration is acknowledged');
      turns++;
    }
    assert.ok(turns >= 5, `${turns} registrations meanwhile`);
    assert.equal(world.outcome(id)?.ok, true);
    world.advance(2_000);
    const policy = first.policies.at(-1);
    assert.ok(policy);
    const opening = {
      source: parseIpAddress(first.own),
      destination: parseIpAddress(agents[1]?.own ?? ''),
      protocol: 6,
    };
    assert.equal(verdictOf(policy, { ...opening, port: 80 }).action, 'allow');
    assert.equal(verdictOf(policy, { ...opening, port: 81 }).action, 'deny');
  });

  test('a question what a text would be is answered in steps as well', () => {
    const { world } = fleet();
    world.core.handlePolicyQuestion(TEXT, world.now);
    let turns = 0;
    for (; world.checks.length === 0; turns++) {
      assert.equal(world.core.pollTimeout(), 0);
      world.core.handleTimeout(world.now);
      world.drain();
    }
    assert.ok(turns >= 3, `${turns} turns`);
    assert.equal(world.checks[0]?.ok, true);
    assert.equal(world.core.state.policyInForce(), undefined);
  });

  test('questions beyond those that may wait are refused', () => {
    const { world } = fleet();
    for (let i = 0; i < 40; i++) world.core.handlePolicyQuestion(TEXT, world.now);
    world.drain();
    const refused = world.checks.filter((check) => check === undefined).length;
    assert.ok(refused >= 20, `${refused} refused`);
    while (world.core.pollTimeout() === 0) {
      world.core.handleTimeout(world.now);
      world.drain();
    }
    assert.equal(world.checks.length, 40);
  });
});

const overlay = { instance: new TestRecords().instance, prefixes: [parseIpPrefix('10.77.0.0/16')] };

function draftOf(records: TestRecords, agents: readonly XtrId[], text = TEXT): PolicyDraft {
  const grants = (): readonly (readonly IpPrefix[])[] => agents.map((xtrId) => records.agent(xtrId)?.eids ?? []);
  return new PolicyDraft(text, { overlay, records, grants });
}

/** In no particular order are prefixes, of which rules consist. */
function sorted(extract: ReturnType<ReturnType<typeof compilePolicy>['compiler']['extract']> | undefined): unknown {
  assert.ok(extract);
  const rules = extract.rules.map((rule) => ({
    ...rule,
    source: [...rule.source].sort(),
    destination: [...rule.destination].sort(),
  }));
  return { rules, concerned: [...extract.concerned] };
}

/** Of 300 agents with ten EIDs each. */
function fleet(): { world: CoreWorld; agents: readonly (CoreAgent & { own: string })[] } {
  const world = new CoreWorld({ limits: { agents: 1_000, tokens: 1_000, mappings: 10_000, pending: 1_000 } });
  const agents = Array.from({ length: 300 }, (_, i) => {
    const network = `10.77.${i & 127}`;
    const first = (i >> 7) * 16;
    const eids = Array.from({ length: 10 }, (_, host) => `${network}.${first + host}/32`);
    const agent = world.agent(`agent ${i}`, { eids, names: ['*.web'], groups: ['all'] });
    agent.register(...eids.map((eid) => agent.mapping(eid.replace('/32', ''))));
    return Object.assign(agent, { own: `${network}.${first}` });
  });
  return { world, agents };
}
