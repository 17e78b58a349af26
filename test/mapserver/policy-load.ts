/**
 * What a policy costs the map server: 10,000 agents in groups, from the check to the last agent that is told.
 *
 *   npm run build && node --expose-gc dist/test/mapserver/policy-load.js [--agents 10000] [--groups 10]
 *
 * The members of a group have consecutive addresses, or the groups take turns, which is the worst case: nothing of that
 * can be said in wider prefixes. Frames are made as for agents, and thrown away. Times are of the CPU; a go is what the
 * map server does without looking at its sockets.
 */
import { parseArgs } from 'node:util';
import { PolicyDistribution } from '../../mapserver/core/policy/distribution.ts';
import { PolicyDraft } from '../../mapserver/core/policy/draft.ts';
import { type IpPrefix, parseIpPrefix } from '../../proto/address.ts';
import { encodePolicyFrames } from '../../proto/policy.ts';
import { TestRecords } from './policy-records.ts';

const { values } = parseArgs({
  options: { agents: { type: 'string', default: '10000' }, groups: { type: 'string', default: '10' } },
});
const AGENTS = Number(values.agents);
const GROUPS = Number(values.groups);

for (const layout of ['consecutive', 'taking turns'] as const) {
  for (const groups of [GROUPS, 1]) measure(layout, groups);
}

function measure(layout: 'consecutive' | 'taking turns', groups: number): void {
  const records = new TestRecords();
  const size = Math.ceil(AGENTS / groups);
  const groupOf = (i: number): number => (layout === 'consecutive' ? Math.floor(i / size) : i % groups);
  const spread = layout === 'consecutive' ? 1 : 2;
  const agents = Array.from({ length: AGENTS }, (_, i) => {
    const address = addressOf(i * spread);
    const xtrId = records.grant(`agent ${i}`, [`${address}/32`], [`g${groupOf(i)}`]);
    records.own(xtrId, address);
    return xtrId;
  });
  let sent = { agents: 0, octets: 0 };
  let draft: PolicyDraft | undefined;
  const distribution = new PolicyDistribution({
    records,
    prepared: () => draft?.take(),
    send: (_, policy) => {
      sent.agents++;
      for (const frame of encodePolicyFrames(policy)) sent.octets += frame.length;
    },
    event: () => undefined,
  });
  for (const xtrId of agents) distribution.opened(xtrId);
  const heap = used();
  let now = 10_000;
  let longest = 0;
  const go = (work: () => void): void => {
    longest = Math.max(longest, cpu(work));
  };
  const settle = (until: number): void => {
    for (;;) {
      go(() => distribution.settle(now));
      const next = distribution.pollTimeout();
      if (next === undefined || next > until) break;
      now = Math.max(now, next);
    }
    now = until;
  };
  const told = (what: string, work: () => void): void => {
    sent = { agents: 0, octets: 0 };
    longest = 0;
    const all = cpu(work);
    const megabytes = (sent.octets / 1e6).toFixed(1);
    console.log(`  ${what}: ${all} ms, longest go ${longest} ms, ${sent.agents} agents, ${megabytes} MB`);
  };
  console.log(`${AGENTS} agents in ${groups} groups, addresses ${layout}`);
  const text = policy(groups);
  const grants = (): Iterable<readonly IpPrefix[]> => agents.map((xtrId) => records.agent(xtrId)?.eids ?? []);
  const overlay = { instance: records.instance, prefixes: [parseIpPrefix('10.0.0.0/8')] };
  told('check', () => {
    const preparing = new PolicyDraft(text, { overlay, records, grants });
    while (!preparing.isPrepared) go(() => preparing.advance(200));
    go(() => preparing.check());
    draft = preparing;
  });
  const record = { kind: 'policy', version: 1, text, appliedAt: 0, previous: null } as const;
  told('new policy', () => {
    go(() => distribution.follow(undefined, record));
    settle(now + 60_000);
  });
  records.selection = distribution.inForce?.selection;
  console.log(`  heap: ${Math.round((used() - heap) / 1e6)} MB`);
  told('a member goes', () => {
    go(() => records.release(addressOf(0)));
    settle(now + 60_000);
  });
  told('100 members go within a second', () => {
    for (let i = 1; i <= 100; i++) {
      go(() => records.release(addressOf(i * spread)));
      settle(now + 10);
    }
    settle(now + 60_000);
  });
}

function policy(groups: number): string {
  const rules = Array.from({ length: groups }, (_, i) => [
    `allow from @g${i} to @g${i}`,
    `allow from @g${i} to @g${(i + 1) % groups} tcp 5432`,
  ]);
  const names = Array.from({ length: groups }, (_, i) => `group g${i}`);
  return ['default deny', ...names, ...rules.flat()].join('\n');
}

function addressOf(i: number): string {
  return `10.${77 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
}

function cpu(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return Math.round((user + system) / 1000);
}

function used(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}
