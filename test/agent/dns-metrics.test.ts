/** What a scrape shows of the DNS service. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { DnsMetrics, type DnsReplyFacts } from '../../agent/shell/dns-metrics.ts';

const HIT: DnsReplyFacts = { zone: 'forward', type: 1, rcode: 0, cache: 'hit', elapsed: 0 };

test('Answers are counted under their labels, however often they are asked for', async () => {
  const { metrics, scrape } = observed();
  for (const facts of [HIT, HIT, { ...HIT, cache: 'miss' as const }, { ...HIT, zone: 'overlay' as const }]) {
    metrics.count(facts);
  }
  metrics.count({ zone: 'overlay', type: undefined, rcode: 1, cache: undefined, elapsed: 0 });
  await scrape();
  metrics.count(HIT);
  const lines = await scrape();
  assert.deepEqual(
    lines.filter((line) => /^stayput_agent_dns_(queries|cache)_total\{/.test(line)),
    [
      'stayput_agent_dns_queries_total{zone="forward",type="A",rcode="NOERROR"} 4',
      'stayput_agent_dns_queries_total{zone="overlay",type="A",rcode="NOERROR"} 1',
      'stayput_agent_dns_queries_total{zone="overlay",type="other",rcode="FORMERR"} 1',
      'stayput_agent_dns_cache_total{result="hit"} 4',
      'stayput_agent_dns_cache_total{result="miss"} 1',
      'stayput_agent_dns_cache_total{result="stale"} 0',
      'stayput_agent_dns_cache_total{result="failure"} 0',
    ],
  );
});

test('Types and response codes that are not known by name are one label, whatever clients ask for', async () => {
  const { metrics, scrape } = observed();
  for (let type = 1000; type < 3000; type++) metrics.count({ ...HIT, type, rcode: type % 4000 });
  assert.deepEqual(
    (await scrape()).filter((line) => line.startsWith('stayput_agent_dns_queries_total{')),
    ['stayput_agent_dns_queries_total{zone="forward",type="other",rcode="other"} 2000'],
  );
});

test('The time of an answer is counted in its bucket and all above, and in the sum', async () => {
  const { metrics, scrape } = observed();
  for (const elapsed of [0, 0.5, 3, 20_000]) metrics.count({ ...HIT, elapsed });
  const value = (label: string): string | undefined => {
    const start = `stayput_agent_dns_query_seconds${label} `;
    return lines.find((line) => line.startsWith(start))?.slice(start.length);
  };
  const lines = await scrape();
  const within = (le: string): string | undefined => value(`_bucket{le="${le}",zone="forward"}`);
  assert.deepEqual(['0.0005', '0.0025', '0.005', '10', '+Inf'].map(within), ['2', '2', '3', '3', '4']);
  assert.deepEqual([value('_count{zone="forward"}'), value('_sum{zone="forward"}')], ['4', '20.0035']);
  assert.ok(lines.includes('# TYPE stayput_agent_dns_query_seconds histogram'));
});

function observed(): { readonly metrics: DnsMetrics; readonly scrape: () => Promise<readonly string[]> } {
  const registry = new Registry();
  const metrics = new DnsMetrics(registry, { cacheEntries: () => 0, upstreams: () => [] });
  return { metrics, scrape: async () => (await registry.metrics()).split('\n') };
}
