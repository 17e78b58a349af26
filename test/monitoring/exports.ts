/** What the daemons export, with every metric that they have: for comparisons with rules, dashboards and pages. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DnsMetrics } from '../../agent/shell/dns-metrics.ts';
import { AgentMetrics } from '../../agent/shell/metrics.ts';
import type { MapServer } from '../../mapserver/core/map-server.ts';
import { MapServerMetrics } from '../../mapserver/shell/metrics.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { NO_GAUGES } from '../agent/gauges.ts';

/** Prometheus text of an agent whose data plane has counted once each of what it counts. */
export async function agentExport(): Promise<string> {
  const source = readFileSync(join(PROJECT_ROOT, 'dataplane/src/stats.rs'), 'utf8');
  const names = [...source.matchAll(/^ {4}\w+ => "([\w.]+)",$/gm)].map((match) => match[1] ?? '');
  const counters = Object.fromEntries(names.map((name) => [name, 1]));
  const gauges = Object.fromEntries(DATAPLANE_GAUGES.map((name) => [name, 1]));
  const metrics = new AgentMetrics(
    () => NO_GAUGES,
    () => Promise.resolve({ counters, gauges }),
  );
  new DnsMetrics(metrics.registry, {
    cacheEntries: () => 0,
    upstreams: () => [{ upstream: { host: '192.0.2.53', port: 53 }, roundTrip: 1, failures: 0 }],
  });
  return metrics.registry.metrics();
}

export async function mapServerExport(): Promise<string> {
  const metrics = new MapServerMetrics();
  const statistics = {
    ...{ sessions: 0, agents: 0, tokens: 0, mappings: 0, names: 0, subscriptions: 0, pending: 0, policyVersion: 0 },
  };
  metrics.observe({ state: { statistics: () => statistics } } as unknown as MapServer);
  metrics.observeConnections(() => ({ sessions: 0, waiting: 0 }));
  metrics.observeTrust({ ends: () => ({ authority: 0, server: 0 }) });
  metrics.observeZone(() => [{ zone: 'stayput.internal', serial: 1, records: 1 }]);
  return metrics.registry.metrics();
}

/** Names of all series of an export, histograms with their parts. */
export function seriesNames(text: string): ReadonlySet<string> {
  const names = new Set<string>();
  for (const [, name = '', type] of text.matchAll(/^# TYPE (\S+) (\w+)$/gm)) {
    if (type === 'histogram') for (const part of ['_bucket', '_sum', '_count']) names.add(name + part);
    else names.add(name);
  }
  return names;
}

const DATAPLANE_GAUGES = [
  ...['peers', 'sessions', 'mappings', 'local_eids', 'held_packets', 'held_bytes', 'policy_version', 'policy_rules'],
  'rss_bytes',
];
