/** The dashboards that are shipped are those of their source, and Prometheus understands each expression in them. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { COLUMNS, type Figure, layout } from '../../scripts/dashboards/board.ts';
import { BOARDS } from '../../scripts/dashboards/boards.ts';
import { grafanaDashboard } from '../../scripts/dashboards/grafana.ts';
import { drawBoard, formatted } from '../../scripts/dashboards/picture.ts';
import { substituted } from '../../scripts/dashboards/recording.ts';
import { agentExport, mapServerExport, seriesNames } from './exports.ts';
import { PROMTOOL_MISSING, promtool } from './promtool.ts';

const FOLDER = join(PROJECT_ROOT, 'deploy/grafana/dashboards');

test('the files are those of the source: npm run dashboards', () => {
  assert.deepEqual(readdirSync(FOLDER).sort(), BOARDS.map(({ uid }) => `${uid}.json`).sort());
  for (const board of BOARDS) {
    const text = readFileSync(join(FOLDER, `${board.uid}.json`), 'utf8');
    assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(grafanaDashboard(board))), board.uid);
  }
});

test('links to dashboards hold for ever', () => {
  assert.deepEqual(
    BOARDS.map(({ uid }) => uid),
    ['stayput-fleet', 'stayput-moves', 'stayput-dataplane', 'stayput-dns'],
  );
});

test('panels have numbers of their own, lie in the grid and do not cover each other', () => {
  for (const board of BOARDS) {
    const { panels } = grafanaDashboard(board);
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    const covered = new Set<string>();
    for (const { gridPos } of panels) {
      assert.ok(gridPos.x + gridPos.w <= COLUMNS);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.ok(!covered.has(`${x} ${y}`), `${board.uid}: two panels at ${x} ${y}`);
          covered.add(`${x} ${y}`);
        }
      }
    }
  }
});

test('every figure says what it means, and each of its lines has a name', () => {
  for (const { title, about, kind, queries, width } of figures()) {
    assert.ok(about.length > 12, title);
    assert.ok(queries.length > 0 && width > 0, title);
    if (kind === 'lines') for (const { legend } of queries) assert.notEqual(legend, '', title);
  }
});

test('promtool parses every expression', { skip: PROMTOOL_MISSING }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-dashboards-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const span = { from: 0, to: 60 };
  const rules = expressions().map((expr, i) => ({ record: `expression:${i}`, expr: substituted(expr, span) }));
  const file = join(folder, 'expressions.json');
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboards', rules }] }));
  assert.equal(promtool(['check', 'rules', file]), '');
});

test('expressions read only what the daemons export, or rules record', async () => {
  const rules = readFileSync(join(PROJECT_ROOT, 'deploy/prometheus/stayput-recording.rules.yml'), 'utf8');
  const recorded = [...rules.matchAll(/- record: (\S+)$/gm)].map((match) => match[1] ?? '');
  const known = new Set([...seriesNames(await agentExport()), ...seriesNames(await mapServerExport()), ...recorded]);
  const read = new Set(expressions().flatMap((expr) => expr.match(/\b(?:stayput|process|nodejs)[\w:]+/g) ?? []));
  // Names of jobs have a hyphen behind them.
  const names = [...read].filter((name) => name !== 'stayput');
  assert.ok(names.length > 50, `${names.length}`);
  assert.deepEqual(names.filter((name) => !known.has(name)).sort(), []);
});

test('figures without data are drawn as well, and values in their units', () => {
  for (const board of BOARDS) {
    const picture = drawBoard(board, [], { from: 0, to: 60 });
    assert.equal(picture.match(/<g /g)?.length, layout(board).figures.length);
    assert.match(picture, /no data/);
  }
  assert.deepEqual(
    [
      formatted(0.0021, 's'),
      formatted(12, 's'),
      formatted(0.00002, 's'),
      formatted(52_300_000, 'bps'),
      formatted(95 * 1024 * 1024, 'bytes'),
      formatted(0.25, 'percentunit'),
      formatted(86_400 * 30, 'dtdurations'),
    ],
    ['2.10 ms', '12 s', '20 µs', '52.3 Mbit/s', '95 MiB', '25 %', '30 days'],
  );
});

function figures(): readonly Figure[] {
  return BOARDS.flatMap(({ sections }) => sections.flatMap((section) => section.figures));
}

function expressions(): readonly string[] {
  return figures().flatMap(({ queries }) => queries.map(({ expr }) => expr));
}
