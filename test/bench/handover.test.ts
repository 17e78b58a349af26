/** What is made of recorded sendings and arrivals: gaps, losses, rows and the table. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { analyse, type Outcome, type Watch } from '../../bench/handover/analysis.ts';
import { type Repetition, rowsOf } from '../../bench/handover/rows.ts';
import {
  type Item,
  millisecondsSince,
  type ProbeName,
  parseItems,
  type Samples,
} from '../../bench/handover/samples.ts';
import { formatTable } from '../../bench/handover/table.ts';
import { groupsOf } from '../../bench/handover.ts';

const ONE_WAY_MS = 5;
/** One a millisecond from -100 on; the event begins at 1000, its gap counts from 1020; watched until 2000. */
const WATCH: Watch = { fromMs: 0, begunMs: 1000, countedMs: 1020, carriedMs: 1022, endMs: 2000, interrupted: true };

test('without an event the gap is the pace of the probe, and nothing is lost', () => {
  const quiet = { ...WATCH, countedMs: 1000, interrupted: false };
  const outcome = analyse(traffic(), quiet);
  assert.deepEqual(pick(outcome), { gapMs: 1, outageMs: 1, cutOff: false, lost: 0, duplicated: 0 });
  assert.equal(outcome.sent, 2000);
});

test('after a roam the gap counts from the moment the address is usable, the outage from the last arrival before', () => {
  // The last one sent before the cable was pulled is on its way; those sent until 1030 are lost.
  const outcome = analyse(traffic({ lose: ({ atMs }) => atMs >= 1000 && atMs < 1030 }), WATCH);
  assert.deepEqual(pick(outcome), { gapMs: 15, outageMs: 31, cutOff: false, lost: 30, duplicated: 0 });
  assert.deepEqual(outcome.outage, [1004, 1035]);
});

test('what was on its way when the cable was pulled does not make the gap shorter', () => {
  // With 50 ms one way the last old packets arrive 29 ms after the new address is usable, the first new ones at 1080.
  const outcome = analyse(traffic({ delayMs: 50, lose: ({ atMs }) => atMs >= 1000 && atMs < 1030 }), WATCH);
  assert.equal(outcome.gapMs, 60);
  assert.equal(outcome.outageMs, 31);
});

test('what is sent again late counts as delivered, once, and its silence as the gap', () => {
  const held = traffic({ arrives: ({ atMs }) => (atMs >= 1000 && atMs < 1030 ? 1040 : atMs + ONE_WAY_MS) });
  const outcome = analyse(held, WATCH);
  assert.deepEqual(pick(outcome), { gapMs: 15, outageMs: 31, cutOff: false, lost: 0, duplicated: 0 });
});

test('duplicates are counted, what was sent before the count began is not', () => {
  const samples = traffic();
  const [early, counted] = [samples.received.find(({ number }) => number === 10), at(samples.received, 500)];
  const doubled = { ...samples, received: [...samples.received, ...(early ? [early] : []), counted, counted] };
  assert.equal(analyse(doubled, WATCH).duplicated, 2);
});

test('a probe that never comes back is cut off at the end of the watch', () => {
  const outcome = analyse(traffic({ lose: ({ atMs }) => atMs >= 1000 }), WATCH);
  assert.equal(outcome.cutOff, true);
  assert.equal(outcome.gapMs, 2000 - 1020);
  assert.equal(outcome.outageMs, 2000 - 1004);
  assert.equal(outcome.lost, 1000);
});

test('a probe that never brought anything is cut off, too', () => {
  const outcome = analyse({ ...traffic(), received: [] }, WATCH);
  assert.equal(outcome.cutOff, true);
  assert.equal(outcome.gapMs, 980);
});

test('what the mover sent while its own cable was away is lost, and said to be', () => {
  const lose = ({ atMs }: Item): boolean => atMs >= 1000 && atMs < 1025;
  const outcome = analyse(traffic({ probe: 'udp-out', lose }), WATCH);
  assert.deepEqual([outcome.lost, outcome.lostWhileAway], [25, 22]);
  assert.equal(analyse(traffic({ probe: 'udp-in', lose }), WATCH).lostWhileAway, 0);
});

test('of a stream of octets only the silence counts, and its hash', () => {
  const samples = traffic({ probe: 'tcp-bulk', lose: ({ atMs }) => atMs >= 1000 && atMs < 1030 });
  const outcome = analyse({ ...samples, sha256Match: false }, WATCH);
  assert.deepEqual([outcome.gapMs, outcome.lost, outcome.sha256Match], [15, 0, false]);
});

test('records are read whole, and their times are exact after months of uptime', () => {
  const origin = 200n * 86_400n * 1_000_000_000n;
  const bytes = Buffer.alloc(40);
  bytes.writeBigUInt64LE(7n, 0);
  bytes.writeBigUInt64LE(origin + 1_234_567n, 8);
  bytes.writeBigUInt64LE(8n, 16);
  bytes.writeBigUInt64LE(origin - 1_000_000n, 24);
  assert.deepEqual(parseItems(bytes, origin), [
    { number: 7, atMs: 1.234 },
    { number: 8, atMs: -1 },
  ]);
  assert.equal(millisecondsSince(origin, origin + 30_000_000_000n), 30_000);
});

test('the probe to a silent mover runs by itself, and each one if that is asked for', () => {
  assert.deepEqual(groupsOf({ probes: ['udp-echo', 'udp-in', 'tcp-echo'], apart: false }), [
    ['udp-echo', 'tcp-echo'],
    ['udp-in'],
  ]);
  assert.deepEqual(groupsOf({ probes: ['udp-in'], apart: false }), [['udp-in']]);
  assert.deepEqual(groupsOf({ probes: ['udp-echo', 'tcp-echo'], apart: true }), [['udp-echo'], ['tcp-echo']]);
});

test('a row has the quantiles of the gaps and the sums of the rest', () => {
  const repetitions = [12, 30, 11, 13].map((gapMs) => repetition({ gapMs, lost: 1, resets: 0 }));
  const [row] = rowsOf('stayput', 'roam', ['tcp-echo'], repetitions);
  assert.deepEqual(
    [row?.n, row?.gapMsP50, row?.gapMsP99, row?.gapMsMax, row?.lost, row?.stallMs, row?.awayMsP50],
    [4, 12, 30, 30, 4, 40, 20],
  );
});

test('the table says what was cut off, leaves out what was not measured, and says why', () => {
  const rows = [
    ...rowsOf('stayput', 'roam', ['tcp-echo'], [repetition({ gapMs: 12 })]),
    ...rowsOf('other', 'roam', ['tcp-echo'], [repetition({ gapMs: 30_000, cutOff: true })]),
    ...rowsOf('other', 'move', ['tcp-echo', 'tcp-bulk'], [], 'it cannot'),
  ];
  const lines = formatTable(rows).trimEnd().split('\n');
  assert.match(lines[1] ?? '', /^stayput +roam +tcp-echo +1 +12\.0 ms +12\.0 ms/);
  assert.match(lines[2] ?? '', /^other +roam +tcp-echo +1 +>= 30000 ms +>= 30000 ms/);
  assert.deepEqual(lines.slice(3), ['', 'other, move: it cannot']);
});

interface Traffic {
  readonly probe?: ProbeName;
  readonly delayMs?: number;
  readonly lose?: (item: Item) => boolean;
  readonly arrives?: (item: Item) => number;
}

function traffic(how: Traffic = {}): Samples {
  const { probe = 'udp-in', delayMs = ONE_WAY_MS, lose = () => false } = how;
  const { arrives = ({ atMs }: Item) => atMs + delayMs } = how;
  const sent = Array.from({ length: 2100 }, (_, number) => ({ number, atMs: number - 100 }));
  const received = sent
    .filter((item) => !lose(item))
    .map((item) => ({ number: item.number, atMs: arrives(item) }))
    .sort((x, y) => x.atMs - y.atMs);
  return { probe, sent, received, resets: 0, sha256Match: null };
}

function pick({ gapMs, outageMs, cutOff, lost, duplicated }: Outcome): Partial<Outcome> {
  return { gapMs, outageMs, cutOff, lost, duplicated };
}

function at(items: readonly Item[], index: number): Item {
  const item = items[index];
  assert.ok(item);
  return item;
}

function repetition(figures: Partial<Outcome>): Repetition {
  const outcome: Outcome = {
    ...{ gapMs: 10, outageMs: 40, outage: [0, 40], cutOff: false },
    ...{ sent: 100, lost: 0, lostWhileAway: 0, duplicated: 0, resets: 0, sha256Match: null },
    ...figures,
  };
  return { awayMs: 20, outcomes: { 'tcp-echo': outcome } };
}
