/**
 * Each alert of deploy/prometheus fires when it should and is silent when it should be: played by promtool with made-up
 * series of an hour. What the rules read exists, and what the alerts point to is written.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { agentExport, mapServerExport, seriesNames } from './exports.ts';
import { PROMTOOL_MISSING, promtool } from './promtool.ts';

/** Values by series, in promtool's notation: `0+2x60` is 0, 2, 4, … each minute. */
type Series = Readonly<Record<string, string>>;

interface Story {
  readonly fires: Series;
  readonly silent: Series;
}

/** It counts all agents there are. */
const OF_THE_FLEET = 'StayputMapServerAwayForMany';
const ONE = '1x60';
const ZERO = '0x60';
/** A counter that grows by ten a minute. */
const GROWS = '0+10x60';
const STANDS = '5x60';
const agent = 'instance="vm",job="stayput-agent"';
const server = 'instance="map",job="stayput-mapserver"';

function counted(series: string, fires = GROWS, silent = STANDS): Story {
  return { fires: { [series]: fires }, silent: { [series]: silent } };
}

const STORIES: Readonly<Record<string, Story>> = {
  StayputAgentDown: counted(`up{${agent}}`, ZERO, ONE),
  StayputDataplaneAway: counted(`stayput_agent_dataplane_connected{${agent}}`, ZERO, ONE),
  StayputMapServerAway: {
    fires: { [`stayput_agent_map_server_connected{${agent}}`]: ZERO, [`stayput_agent_fenced{${agent}}`]: ZERO },
    silent: { [`stayput_agent_map_server_connected{${agent}}`]: ZERO, [`stayput_agent_fenced{${agent}}`]: ONE },
  },
  StayputMapServerAwayForMany: {
    fires: {
      'stayput_agent_map_server_connected{instance="a"}': ZERO,
      'stayput_agent_map_server_connected{instance="b"}': ONE,
      'stayput_agent_map_server_connected{instance="c"}': ONE,
    },
    silent: {
      'stayput_agent_map_server_connected{instance="a"}': ZERO,
      ...Object.fromEntries(
        ['b', 'c', 'd', 'e', 'f'].map((each) => [`stayput_agent_map_server_connected{instance="${each}"}`, ONE]),
      ),
    },
  },
  StayputFenced: counted(`stayput_agent_fenced{${agent}}`, ONE, ZERO),
  StayputCertificateEnds: {
    fires: {
      [`stayput_agent_certificate_not_after_seconds{${agent}}`]: '200000x60',
      [`stayput_agent_fenced{${agent}}`]: ZERO,
    },
    silent: {
      [`stayput_agent_certificate_not_after_seconds{${agent}}`]: '900000x60',
      [`stayput_agent_fenced{${agent}}`]: ZERO,
    },
  },
  StayputEidWaits: {
    fires: {
      [`stayput_agent_eids{${agent},state="base"}`]: ONE,
      [`stayput_agent_map_server_connected{${agent}}`]: ONE,
    },
    // Without a map server another alert says so.
    silent: {
      [`stayput_agent_eids{${agent},state="base"}`]: ONE,
      [`stayput_agent_map_server_connected{${agent}}`]: ZERO,
    },
  },
  StayputEidLost: counted(`stayput_agent_eids_taken_over{${agent}}`, ONE, ZERO),
  StayputRegistrationDenied: counted(`stayput_agent_registrations_total{${agent},result="denied"}`),
  StayputMoveDenied: counted(`stayput_agent_moves_total{${agent},role="new-owner",result="denied"}`),
  StayputSlowHandover: {
    fires: {
      'stayput_agent_handover_seconds_bucket{instance="vm",le="0.2"}': GROWS,
      'stayput_agent_handover_seconds_bucket{instance="vm",le="0.5"}': '0+11x60',
      'stayput_agent_handover_seconds_bucket{instance="vm",le="+Inf"}': '0+11x60',
    },
    silent: {
      'stayput_agent_handover_seconds_bucket{instance="vm",le="0.05"}': GROWS,
      'stayput_agent_handover_seconds_bucket{instance="vm",le="+Inf"}': GROWS,
    },
  },
  StayputPolicyBehind: {
    fires: {
      [`stayput_agent_policy_version{${agent}}`]: '7000003x60',
      [`stayput_agent_map_server_connected{${agent}}`]: ONE,
      [`stayput_mapserver_policy_version{${server}}`]: '8x60',
    },
    silent: {
      [`stayput_agent_policy_version{${agent}}`]: '8000001x60',
      [`stayput_agent_map_server_connected{${agent}}`]: ONE,
      [`stayput_mapserver_policy_version{${server}}`]: '8x60',
    },
  },
  StayputAgentFaults: counted(`stayput_agent_faults_total{${agent}}`),
  StayputRestarts: counted(`process_start_time_seconds{${agent}}`, '0+60x60', '0x10 60x50'),
  StayputMaintenance: counted(`stayput_agent_platform_maintenance_total{${agent}}`),
  StayputPlatformUnreadable: {
    fires: {
      [`stayput_agent_platform_readings_total{${agent},result="failed"}`]: '0+1x60',
      [`stayput_agent_platform_readings_total{${agent},result="read"}`]: STANDS,
    },
    silent: {
      [`stayput_agent_platform_readings_total{${agent},result="failed"}`]: '0+1x60',
      [`stayput_agent_platform_readings_total{${agent},result="read"}`]: '0+1x60',
    },
  },
  StayputAgentMemory: {
    fires: { [`stayput_dataplane_rss_bytes{${agent}}`]: '450000000x60' },
    silent: {
      [`process_resident_memory_bytes{${agent}}`]: '250000000x60',
      [`stayput_dataplane_rss_bytes{${agent}}`]: '350000000x60',
    },
  },
  StayputUnauthenticPackets: counted(`stayput_dataplane_drops_total{${agent},reason="auth"}`, '0+900x60', '0+60x60'),
  StayputPacketsDropped: {
    // None of them is much by itself.
    fires: {
      [`stayput_dataplane_drops_total{${agent},reason="no_session"}`]: '0+400x60',
      [`stayput_dataplane_drops_total{${agent},reason="expired"}`]: '0+400x60',
    },
    // What nobody has, and what may not pass, is dropped as it should be.
    silent: {
      [`stayput_dataplane_drops_total{${agent},reason="no_mapping"}`]: '0+9000x60',
      [`stayput_dataplane_drops_total{${agent},reason="policy"}`]: '0+9000x60',
    },
  },
  StayputPolicyDrops: counted(`stayput_dataplane_drops_total{${agent},reason="policy_in"}`, '0+9000x60', '0+60x60'),
  StayputUplinkDead: counted(`stayput_dataplane_uplink_failures_total{${agent}}`),
  StayputPathsUnstable: counted(`stayput_dataplane_path_failovers_total{${agent}}`, '0+1x60', '0x50 1x10'),
  StayputMtuBlackHoles: counted(`stayput_dataplane_path_mtu_black_holes_total{${agent}}`, '0+1x60', '0x30 1x30'),
  StayputDataplaneFallback: counted(`stayput_dataplane_fallbacks_total{${agent},reason="udp_gso"}`, ONE, ZERO),
  StayputSystemCallRefused: counted(`stayput_dataplane_refused_system_calls_total{${agent}}`),
  StayputDataplaneRestarts: counted(
    `stayput_dataplane_tun_rx_packets_total{${agent}}`,
    '9 1 9 1 9 1x10 9 1 9 1 9 1 9 1 9 1 9 1 9 1 9 1 9 1 9 1 9 1x60',
    GROWS,
  ),
  StayputEventsLost: counted(`stayput_dataplane_events_dropped_total{${agent}}`),
  StayputDnsSlow: {
    fires: {
      [`stayput_agent_dns_query_seconds_bucket{${agent},zone="overlay",le="0.05"}`]: GROWS,
      [`stayput_agent_dns_query_seconds_bucket{${agent},zone="overlay",le="0.5"}`]: '0+20x60',
      [`stayput_agent_dns_query_seconds_bucket{${agent},zone="overlay",le="+Inf"}`]: '0+20x60',
    },
    // Resolvers elsewhere are as slow as they are.
    silent: {
      [`stayput_agent_dns_query_seconds_bucket{${agent},zone="forward",le="0.05"}`]: GROWS,
      [`stayput_agent_dns_query_seconds_bucket{${agent},zone="forward",le="0.5"}`]: '0+20x60',
      [`stayput_agent_dns_query_seconds_bucket{${agent},zone="forward",le="+Inf"}`]: '0+20x60',
    },
  },
  StayputDnsFailing: {
    fires: {
      [`stayput_agent_dns_queries_total{${agent},zone="forward",type="A",rcode="SERVFAIL"}`]: GROWS,
      [`stayput_agent_dns_queries_total{${agent},zone="forward",type="A",rcode="NOERROR"}`]: GROWS,
    },
    silent: {
      [`stayput_agent_dns_queries_total{${agent},zone="forward",type="A",rcode="SERVFAIL"}`]: '0+1x60',
      [`stayput_agent_dns_queries_total{${agent},zone="forward",type="A",rcode="NOERROR"}`]: GROWS,
    },
  },
  StayputDnsUpstreamsDead: {
    fires: {
      [`stayput_agent_dns_upstream_failures{${agent},upstream="192.0.2.1:53"}`]: STANDS,
      [`stayput_agent_dns_upstream_failures{${agent},upstream="192.0.2.2:53"}`]: STANDS,
    },
    silent: {
      [`stayput_agent_dns_upstream_failures{${agent},upstream="192.0.2.1:53"}`]: STANDS,
      [`stayput_agent_dns_upstream_failures{${agent},upstream="192.0.2.2:53"}`]: ZERO,
    },
  },
  StayputMapServerDown: counted(`up{${server}}`, ZERO, ONE),
  StayputSlowStore: {
    fires: {
      [`stayput_mapserver_store_commit_seconds_bucket{${server},le="0.1"}`]: GROWS,
      [`stayput_mapserver_store_commit_seconds_bucket{${server},le="0.5"}`]: '0+11x60',
      [`stayput_mapserver_store_commit_seconds_bucket{${server},le="+Inf"}`]: '0+11x60',
    },
    silent: {
      [`stayput_mapserver_store_commit_seconds_bucket{${server},le="0.05"}`]: GROWS,
      [`stayput_mapserver_store_commit_seconds_bucket{${server},le="+Inf"}`]: GROWS,
    },
  },
  StayputMapServerBehind: counted(`stayput_mapserver_pending{${server}}`, '2000x60', '10x60'),
  StayputLimitReached: counted(`stayput_mapserver_limit_hits_total{${server},limit="connections"}`),
  StayputEventLoopSlow: counted(`nodejs_eventloop_lag_p99_seconds{${server}}`, ONE, '0.02x60'),
  StayputMapServerMemory: counted(`process_resident_memory_bytes{${server}}`, '1100000000x60', '900000000x60'),
  StayputAuthorityEnds: counted(
    `stayput_mapserver_certificate_not_after_seconds{${server},certificate="authority"}`,
    '1000000x60',
    '9000000x60',
  ),
  StayputServerCertificateEnds: counted(
    `stayput_mapserver_certificate_not_after_seconds{${server},certificate="server"}`,
    '100000x60',
    '1000000x60',
  ),
  StayputAuditLost: counted(`stayput_mapserver_audit_lines_total{${server},result="lost"}`),
  StayputEnrolmentsRefused: {
    fires: { [`stayput_mapserver_enrolments_total{${server},result="token_unknown"}`]: GROWS },
    silent: {
      [`stayput_mapserver_enrolments_total{${server},result="ok"}`]: GROWS,
      [`stayput_mapserver_enrolments_total{${server},result="token_unknown"}`]: '0+1x60',
    },
  },
  StayputAgentsRefused: {
    fires: { [`stayput_mapserver_rejected_total{${server},reason="revoked"}`]: GROWS },
    silent: { [`stayput_mapserver_rejected_total{${server},reason="tls"}`]: GROWS },
  },
  StayputPolicyTooLarge: counted(`stayput_mapserver_policy_updates_total{${server},result="too_large"}`),
  StayputSecondariesSilent: counted(`stayput_mapserver_zone_notifies_total{${server},result="unanswered"}`),
  StayputLispNotifiesUnacknowledged: counted(
    `stayput_mapserver_lisp_notifies_total{${server},result="unacknowledged"}`,
  ),
};

test('promtool is content with rules and alerts', { skip: PROMTOOL_MISSING }, () => {
  assert.equal(promtool(['check', 'rules', ...RULES]), '');
});

test('there is a story for each alert, and none for what is no alert', () => {
  assert.deepEqual(
    Object.keys(STORIES).sort(),
    alerts()
      .map(({ name }) => name)
      .sort(),
  );
});

test('each alert fires in its story, and is silent in the other', { skip: PROMTOOL_MISSING }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-alerts-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'stories.json');
  const together = Object.keys(STORIES).filter((name) => name !== OF_THE_FLEET);
  const tests = [[OF_THE_FLEET], together].flatMap((names) => [played(names, 'fires'), played(names, 'silent')]);
  writeFileSync(file, JSON.stringify({ rule_files: RULES, evaluation_interval: '1m', tests }));
  assert.equal(promtool(['test', 'rules', file]), '');
});

test('the rules read only what the daemons export, or rules record', async () => {
  const exported = new Set([...seriesNames(await agentExport()), ...seriesNames(await mapServerExport()), 'up']);
  const recorded = [...text().matchAll(/^ *- record: (\S+)$/gm)].map((match) => match[1] ?? '');
  assert.ok(recorded.length > 3);
  const read = new Set(text().match(/\b(?:stayput|process|nodejs)_\w+\b(?=[{\s)[])|\bup\b(?={)/g) ?? []);
  assert.ok(read.size > 30);
  assert.deepEqual([...read].filter((name) => !exported.has(name)).sort(), []);
  const used = new Set(text().match(/\b(?:stayput|instance\w*):\w+:\w+/g) ?? []);
  assert.deepEqual([...used].sort(), recorded.sort());
});

test('memory is told of before a daemon ends for want of it', () => {
  for (const [daemon, series, share] of [
    // Node gives the heap half of what the unit allows, and ends when that is full: with some more outside of it.
    ['agent', 'process_resident_memory_bytes{job="stayput-agent"}', 0.6],
    ['mapserver', 'process_resident_memory_bytes{job="stayput-mapserver"}', 0.6],
    ['dataplane', 'stayput_dataplane_rss_bytes', 0.8],
  ] as const) {
    const unit = readFileSync(join(PROJECT_ROOT, `deploy/systemd/stayput-${daemon}.service`), 'utf8');
    const [, most = '', factor = ''] = /^MemoryMax=(\d+)([MG])$/m.exec(unit) ?? [];
    const allowed = Number(most) * (factor === 'G' ? 2 ** 30 : 2 ** 20);
    const [, told] = text().split(`${series} > `);
    const alarm = Number.parseFloat(told ?? '');
    assert.ok(alarm < share * allowed, `${daemon}: alarm at ${alarm} of ${allowed}`);
  }
});

test('each alert says what it is, what to do, and where more is written', () => {
  const page = readFileSync(join(PROJECT_ROOT, 'docs/troubleshooting.md'), 'utf8');
  for (const { name, lines } of alerts()) {
    assert.match(lines, /\n +severity: (critical|warning|info)\n/, name);
    assert.match(lines, /\n +summary: ".{20,}"\n/, name);
    assert.match(lines, /\n +description: ".{40,}"\n/, name);
    assert.ok(lines.includes(`runbook: docs/troubleshooting.md#${name.toLowerCase()}\n`), name);
    const [, section = ''] = page.split(new RegExp(`^### ${name}$`, 'm'));
    assert.ok((section.split(/^#/m)[0] ?? '').trim().length > 60, `docs/troubleshooting.md has nothing on ${name}`);
  }
  const sections = [...page.matchAll(/^### (Stayput\w+)$/gm)].map((match) => match[1] ?? '');
  assert.deepEqual(
    sections.sort(),
    alerts()
      .map(({ name }) => name)
      .sort(),
  );
});

/** Stories are told at once, each of an instance of its own, since promtool needs seconds for each beginning. */
function played(names: readonly string[], part: keyof Story) {
  return {
    interval: '1m',
    input_series: names.flatMap((name) =>
      Object.entries(STORIES[name]?.[part] ?? {}).map(([series, values]) => ({
        series: series.replace(/instance="(?:vm|map)"/, `instance="${name}"`),
        values,
      })),
    ),
    promql_expr_test: names.map((name) => ({
      expr: `count(ALERTS{alertname="${name}",alertstate="firing",instance=~"${name}|"})`,
      eval_time: '50m',
      exp_samples: part === 'fires' ? [{ labels: '{}', value: 1 }] : [],
    })),
  };
}

function text(): string {
  return RULES.map((path) => readFileSync(path, 'utf8')).join('\n');
}

function alerts(): { readonly name: string; readonly lines: string }[] {
  return text()
    .split(/^ {6}- (?:alert|record): /m)
    .slice(1)
    .filter((lines) => lines.includes('annotations:'))
    .map((lines) => ({ name: lines.slice(0, lines.indexOf('\n')), lines }));
}

const RULES = ['stayput-alerts', 'stayput-recording'].map((name) =>
  join(PROJECT_ROOT, 'deploy/prometheus', `${name}.rules.yml`),
);
