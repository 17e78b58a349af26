/** What is read of dnsperf, and how the rows of the DNS bench are shown. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDnsperf, parseLatencies } from '../../bench/dns/dnsperf.ts';
import { drawDns } from '../../bench/dns/picture.ts';
import { formatDns } from '../../bench/dns/table.ts';
import type { DnsReport, DnsRow } from '../../bench/dns.ts';
import { describeHardware } from '../../bench/machine.ts';
import { assertWellFormed } from './well-formed.ts';

const OUTPUT = `DNS Performance Testing Tool
Version 2.10.0

> NOERROR a.bench.example A 0.000215
> NOERROR b.bench.example A 0.001163
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         105339
  Queries completed:    105300 (99.96%)
  Queries lost:         39 (0.04%)

  Response codes:       NOERROR 105000 (99.72%), SERVFAIL 300 (0.28%)
  Average packet size:  request 30, response 46
  Run time (s):         2.000923
  Queries per second:   52645.204238
`;

test('the figures of dnsperf are read, and anything else is an error', () => {
  const { sent, completed, lost, perSecond, rcodes } = parseDnsperf(OUTPUT);
  assert.deepEqual([sent, completed, lost, Math.round(perSecond)], [105339, 105300, 39, 52645]);
  assert.deepEqual(rcodes, { NOERROR: 105000, SERVFAIL: 300 });
  assert.deepEqual(parseLatencies(OUTPUT).map(Math.round), [215, 1163]);
  assert.throws(() => parseDnsperf('dnsperf: command not found'), /says nothing of/);
});

test('the table says how many times the figure of the others Stayput has, and of null nothing', () => {
  const text = formatDns(report());
  assert.match(text, /Own name, answers\/s\s+20,000\s+40,000 0\.50x/);
  assert.match(text, /New resolvers, ms\s+12\s+-\n/);
  assert.doesNotMatch(text, /NaN|Infinity|undefined|null/);
});

test('the picture is well-formed and names every server in each panel', () => {
  const svg = drawDns(report());
  assertWellFormed(svg);
  assert.equal(svg.split('>unbound<').length - 1, 8);
  assert.doesNotMatch(svg, /NaN|Infinity|undefined|null/);
});

function report(): DnsReport {
  return {
    machine: { ...describeHardware(), seconds: 1, names: 1000 },
    rows: [row('stayput', 20_000, 12), row('unbound', 40_000, null)],
  };
}

function row(system: string, overlayQps: number, changeMs: number | null): DnsRow {
  const figures = { cachedQps: 9000, p50Us: 90, p99Us: 900, lostAt20k: 0, memoryMB: 80.5, failedAfterKill: 0 };
  return { system, version: '1', overlayQps, changeMs, ...figures, rounds: [] };
}
