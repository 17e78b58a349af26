/** A policy for 10,000 agents and EIDs: how much is done in one go, and what it costs. Figures are of CPU time. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PolicyDistribution } from '../../mapserver/core/policy/distribution.ts';
import { TestRecords } from './policy-records.ts';

const AGENTS = 10_000;
const TIERS = ['web', 'app', 'db', 'cache'];
const TENANTS = 50;

test('10,000 agents get a policy in steps, and a name that changes concerns few of them', (t) => {
  const records = new TestRecords();
  const agents = Array.from({ length: AGENTS }, (_, i) => {
    const xtrId = records.grant(`agent ${i}`, [`${address(i)}/32`]);
    records.own(xtrId, address(i));
    records.own(xtrId, `h${i}.t${i % TENANTS}.${TIERS[i % TIERS.length]}`, [address(i)]);
    return xtrId;
  });
  let sent = 0;
  const distribution = new PolicyDistribution({
    records,
    prepared: () => undefined,
    send: () => {
      sent++;
    },
    event: () => undefined,
  });
  for (const xtrId of agents) distribution.opened(xtrId);
  sent = 0;
  let steps = 0;
  let largest = 0;
  const settle = (now: number): void => {
    do {
      const before = sent;
      distribution.settle(now);
      largest = Math.max(largest, sent - before);
      steps++;
    } while (distribution.pollTimeout() === 0);
  };
  const record = { kind: 'policy', version: 1, text: policy(), appliedAt: 0, previous: null } as const;
  const adopted = cpu(() => distribution.follow(undefined, record));
  const told = cpu(() => settle(1_000));
  assert.equal(sent, AGENTS);
  assert.ok(largest <= 100, `${largest} agents in one step`);
  t.diagnostic(
    `a policy of 150 rules for ${AGENTS} agents: taken in ${adopted} ms, told in ${told} ms, ${steps} steps`,
  );
  sent = 0;
  records.selection = distribution.inForce?.selection;
  const [owner] = agents;
  assert.ok(owner);
  const changed = cpu(() => {
    records.own(owner, 'new.t1.app', [address(0)]);
    settle(2_000);
  });
  assert.ok(sent > 0 && sent < (4 * AGENTS) / TENANTS, `${sent} agents are told of one name`);
  t.diagnostic(`a name that is new to ${sent} of them: ${changed} ms`);
});

describe('a group of 1,000 whose members come and go all the time', () => {
  test('its agents are told of all changes of a second at once', () => {
    const { distribution, records, told } = crowd();
    for (let i = 0; i < 300; i++) {
      records.release(address(2 * i));
      settle(distribution, 10_000 + i * 10);
    }
    assert.ok(told() <= 4 * 1_000, `${told()} policies in 3 s`);
    assert.equal(distribution.pollTimeout(), 13_000, 'the rest follows');
    settle(distribution, 13_000);
    assert.equal(distribution.pollTimeout(), undefined);
  });

  test('a revocation does not wait for the second to end', () => {
    const { distribution, records, told } = crowd();
    records.release(address(0));
    settle(distribution, 10_000);
    const before = told();
    const agent = records.agent(records.grant('agent 1', [`${address(2)}/32`], ['crowd']));
    assert.ok(agent);
    distribution.follow(agent, { ...agent, revokedAt: 1 });
    records.release(address(2));
    settle(distribution, 10_010);
    assert.equal(told() - before, 999, 'all but the one that owns nothing of the group any more');
  });
});

interface Crowd {
  readonly distribution: PolicyDistribution;
  readonly records: TestRecords;
  readonly told: () => number;
}

function crowd(): Crowd {
  const records = new TestRecords();
  // No two next to one another, so that each is a prefix of its own.
  const agents = Array.from({ length: 1_000 }, (_, i) => {
    const xtrId = records.grant(`agent ${i}`, [`${address(2 * i)}/32`], ['crowd']);
    records.own(xtrId, address(2 * i));
    return xtrId;
  });
  let told = 0;
  const send = (): void => {
    told++;
  };
  const distribution = new PolicyDistribution({ records, prepared: () => undefined, send, event: () => undefined });
  for (const xtrId of agents) distribution.opened(xtrId);
  const text = 'default deny\ngroup crowd\nallow from @crowd to @crowd';
  distribution.follow(undefined, { kind: 'policy', version: 1, text, appliedAt: 0, previous: null });
  records.selection = distribution.inForce?.selection;
  settle(distribution, 0);
  told = 0;
  return { distribution, records, told: () => told };
}

function settle(distribution: PolicyDistribution, now: number): void {
  do distribution.settle(now);
  while (distribution.pollTimeout() === 0);
}

function policy(): string {
  const rules = Array.from({ length: TENANTS }, (_, i) => [
    `allow from *.t${i}.web to *.t${i}.app tcp 8080`,
    `allow from *.t${i}.app to *.t${i}.db tcp 5432`,
    `allow from *.t${i}.app to *.t${i}.cache tcp 6379`,
  ]);
  return ['default deny', ...rules.flat()].join('\n');
}

function address(i: number): string {
  return `10.77.${i >> 8}.${i & 255}`;
}

function cpu(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return Math.round((user + system) / 1000);
}
