/** The rows as text: one line for each system, event and probe. */
import type { Row } from './rows.ts';

const HEADINGS = [
  'SYSTEM',
  'EVENT',
  'PROBE',
  'N',
  'GAP P50',
  'P99',
  'MAX',
  'LOST',
  'OF THEM AWAY',
  'TWICE',
  'RESETS',
  'STALL',
  'SHA-256',
] as const;
/** Text to the left, figures to the right. */
const TEXTS = 3;

/** With headings, and below it the notes that the rows have. Rows without a measured repetition are left out. */
export function formatTable(rows: readonly Row[]): string {
  const lines = [HEADINGS as readonly string[], ...rows.filter(({ n }) => n > 0).map(cells)];
  const widths = HEADINGS.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  const text = lines.map((line) =>
    line
      .map((cell, i) => (i < TEXTS ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  const notes = new Set(
    rows.filter(({ note }) => note !== undefined).map(({ system, event, note }) => `${system}, ${event}: ${note}`),
  );
  return `${[...text, ...(notes.size === 0 ? [] : ['', ...notes])].join('\n')}\n`;
}

function cells(row: Row): string[] {
  return [
    row.system,
    row.event,
    row.probe,
    String(row.n),
    // More than half of the repetitions were cut off: so is their median.
    milliseconds(row.gapMsP50, row.cutOff * 2 > row.n),
    milliseconds(row.gapMsP99, row.cutOff > 0),
    milliseconds(row.gapMsMax, row.cutOff > 0),
    row.probe === 'tcp-bulk' ? '-' : String(row.lost),
    row.lostWhileAway === 0 ? '-' : String(row.lostWhileAway),
    row.probe === 'tcp-bulk' ? '-' : String(row.duplicated),
    row.probe.startsWith('tcp-') ? String(row.reset) : '-',
    row.stallMs === null ? '-' : milliseconds(row.stallMs, row.cutOff > 0),
    row.sha256Match === null ? '-' : row.sha256Match === row.n ? 'right' : `${row.sha256Match} of ${row.n}`,
  ];
}

export function milliseconds(value: number | null, atLeast = false): string {
  return value === null ? '-' : `${atLeast ? '>= ' : ''}${value.toFixed(value < 1000 ? 1 : 0)} ms`;
}
