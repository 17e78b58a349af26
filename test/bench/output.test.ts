/** The table and the picture. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { turned } from '../../bench/dataplane.ts';
import { FIGURE_NAMES, FIGURE_TEXTS } from '../../bench/figures.ts';
import { machineLines } from '../../bench/machine.ts';
import { drawSvg } from '../../bench/picture.ts';
import { formatTable } from '../../bench/table.ts';
import { report, round, row } from './samples.ts';
import { assertWellFormed } from './well-formed.ts';

const RAW = row('raw', [round({ tcp1Gbps: 20, cpuSecondsPerGB: null })], { encrypted: false });
const STAYPUT = row('stayput', [round({ tcp1Gbps: 7 }), round({ tcp1Gbps: 8 }), round({ tcp1Gbps: 9 })]);
const PEER = row('wireguard-go', [round({ tcp1Gbps: 2 }), round({ tcp1Gbps: 2.5 }), round({ tcp1Gbps: 1.5 })]);
const FAILED = row('tinc', [], { error: 'it ended (exit code 1)' });

test('the table has medians, ranges, and how many times the figure Stayput has', () => {
  const lines = formatTable([RAW, STAYPUT, PEER]).split('\n');
  const cells = (start: string, from = 0): string[] =>
    (lines.slice(from).find((line) => line.startsWith(start)) ?? '').split(/ {2,}/);
  assert.equal(cells('stayput')[1], '8.00');
  const peer = lines.findIndex((line) => line.startsWith('wireguard-go'));
  assert.equal(cells('wireguard-go')[1], '2.00');
  assert.deepEqual(cells('  min–max', peer).slice(1, 3), ['min–max', '1.50–2.50']);
  assert.deepEqual(cells('  Stayput is', peer).slice(1, 3), ['Stayput is', '4.00x']);
});

test('Stayput is not compared with itself, and nothing is compared with a figure that is not there', () => {
  const lines = formatTable([RAW, STAYPUT, FAILED]).trimEnd().split('\n');
  assert.equal(lines.filter((line) => line.startsWith('  Stayput is')).length, 2);
  assert.match(lines.find((line) => line.startsWith('raw')) ?? '', / -$/);
  assert.doesNotMatch(lines.at(-1) ?? '', /NaN|Infinity|\d/);
});

test('all columns line up', () => {
  const lines = formatTable([RAW, STAYPUT, PEER, FAILED]).trimEnd().split('\n');
  assert.equal(new Set(lines.map((line) => line.length)).size, 1);
});

test('the picture has a panel for every figure and names every system in each', () => {
  const svg = drawSvg(report([RAW, STAYPUT, PEER, FAILED]));
  for (const name of FIGURE_NAMES) assert.ok(svg.includes(`>${FIGURE_TEXTS[name].title}<`), name);
  for (const { system } of [RAW, STAYPUT, PEER, FAILED]) {
    assert.equal(svg.split(`>${system}<`).length - 1, FIGURE_NAMES.length, system);
  }
  assert.doesNotMatch(svg, /NaN|Infinity|undefined|null/);
});

test('the picture is well-formed whatever the CPU is called', () => {
  const svg = drawSvg(report([STAYPUT]));
  assert.ok(svg.includes('A &#60;fast&#62; &#38; &#34;quoted&#34; CPU'));
  assertWellFormed(svg);
});

test('no bar is longer than its panel', () => {
  const svg = drawSvg(report([RAW, STAYPUT, PEER]));
  for (const [, width] of svg.matchAll(/<rect x="128" y="[\d.]+" width="([\d.]+)"/g)) assert.ok(Number(width) <= 432);
});

test('rows without any rounds still make a table and a picture', () => {
  const rows = [row('raw', []), row('stayput', [])];
  assert.doesNotMatch(formatTable(rows) + drawSvg(report(rows)), /NaN|Infinity/);
});

test('the conditions are stated: kernel, CPU, cores, congestion control, MTUs, versions', () => {
  const lines = machineLines(report([]).machine).join('\n');
  for (const part of ['6.18.0', '2 cores', 'cubic', 'bbr', '1500', '1420', 'iperf3 3.12', '0123456789']) {
    assert.ok(lines.includes(part), part);
  }
});

test('each round begins with another system and leaves none out', () => {
  assert.deepEqual(turned([1, 2, 3], 0), [1, 2, 3]);
  assert.deepEqual(turned([1, 2, 3], 1), [2, 3, 1]);
  assert.deepEqual(turned([1, 2, 3], 5), [3, 1, 2]);
  assert.deepEqual(turned([], 2), []);
});
