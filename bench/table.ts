/** The rows as text: medians, below them the smallest and largest round, and Stayput's median divided by this one. */
import { FIGURE_NAMES, FIGURE_TEXTS, type FigureName, type Row, valuesOf } from './figures.ts';
import { range } from './statistics.ts';

export function formatTable(rows: readonly Row[]): string {
  const reference = rows.find(({ system }) => system === 'stayput');
  const lines = [
    ['', ...FIGURE_NAMES.map((name) => FIGURE_TEXTS[name].heading)],
    ['', ...FIGURE_NAMES.map((name) => FIGURE_TEXTS[name].unit)],
    ...rows.flatMap((row) => [
      [row.system, ...FIGURE_NAMES.map((name) => formatFigure(name, row[name]))],
      ['  min–max', ...FIGURE_NAMES.map((name) => formatRange(row, name))],
      ...(reference === undefined || row === reference
        ? []
        : [['  Stayput is', ...FIGURE_NAMES.map((name) => formatRatio(reference[name], row[name]))]]),
    ]),
  ];
  const widths = FIGURE_NAMES.map((_, i) => Math.max(...lines.map((line) => line[i + 1]?.length ?? 0)));
  const first = Math.max(...lines.map((line) => line[0]?.length ?? 0));
  return lines
    .map(([name = '', ...cells]) => [name.padEnd(first), ...cells.map((cell, i) => cell.padStart(widths[i] ?? 0))])
    .map((cells) => `${cells.join('  ').trimEnd()}\n`)
    .join('');
}

export function formatFigure(name: FigureName, value: number | null): string {
  return value === null ? '-' : value.toFixed(FIGURE_TEXTS[name].digits);
}

function formatRange(row: Row, name: FigureName): string {
  const values = valuesOf(row.rounds, name);
  if (values.length === 0) return '-';
  const { min, max } = range(values);
  return `${formatFigure(name, min)}–${formatFigure(name, max)}`;
}

function formatRatio(stayput: number | null, other: number | null): string {
  return stayput === null || other === null || other === 0 ? '-' : `${(stayput / other).toFixed(2)}x`;
}
