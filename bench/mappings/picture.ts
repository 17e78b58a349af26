/** Two curves over the number of mappings: datagrams per second, and CPU time for each at both ends. */
import type { MappingsReport, MappingsRound, MappingsRow } from '../mappings.ts';
import { range } from '../statistics.ts';
import { px, textAt } from '../svg.ts';
import { conditions } from './table.ts';

const WIDTH = 900;
const PANEL = { width: 370, height: 220, top: 110 };
const LEFT = [60, 500] as const;
const HEIGHT = 430;

export function drawMappings(report: MappingsReport): string {
  const { rows } = report;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" ` +
    `font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" fill="${INK}">\n` +
    `<title>${HEADING}</title>\n<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>\n` +
    textAt(LEFT[0], 36, HEADING, 'font-size="19" font-weight="bold"') +
    textAt(LEFT[0], 58, 'Points: medians; lines: smallest to largest round.', `fill="${FAINT}"`) +
    panel(LEFT[0], '64-byte UDP delivered, 1000/s', rows, [['deliveredKpps', 'both', '#d9581c']]) +
    panel(LEFT[1], 'CPU time of the data plane, ns a datagram', rows, [
      ['senderNs', 'sender', '#d9581c'],
      ['receiverNs', 'receiver', '#5b7fa6'],
    ]) +
    conditions(report.machine)
      .map((line, i) => textAt(LEFT[0], HEIGHT - 34 + i * 17, line, `font-size="11" fill="${FAINT}"`))
      .join('') +
    '</svg>\n'
  );
}

type Figure = keyof MappingsRound & keyof MappingsRow;

function panel(
  left: number,
  title: string,
  rows: readonly MappingsRow[],
  curves: readonly (readonly [name: Figure, label: string, colour: string])[],
): string {
  const largest = Math.max(1, ...rows.flatMap(({ rounds }) => rounds.flatMap((r) => curves.map(([name]) => r[name]))));
  const bottom = PANEL.top + PANEL.height;
  const x = (i: number): number => px(left + ((i + 0.5) * PANEL.width) / Math.max(1, rows.length));
  const y = (value: number): number => px(bottom - (value / (largest * 1.1)) * PANEL.height);
  const labels = rows.map((row, i) =>
    textAt(x(i), bottom + 18, row.mappings.toLocaleString('en'), 'text-anchor="middle"'),
  );
  const drawn = curves.map(([name, label, colour], curve) => {
    const points = rows.map((row, i) => `${x(i)},${y(row[name])}`).join(' ');
    const marks = rows.map((row, i) => {
      const { min, max } = range(row.rounds.map((round) => round[name]));
      return (
        `<path d="M${x(i)} ${y(min)}V${y(max)}" stroke="${colour}" stroke-opacity="0.5"/>\n` +
        `<circle cx="${x(i)}" cy="${y(row[name])}" r="3.5" fill="${colour}"/>\n` +
        textAt(x(i), y(max) - 7, row[name].toFixed(0), `text-anchor="middle" fill="${colour}"`)
      );
    });
    const key = curves.length === 1 ? '' : textAt(left + 70 * curve, PANEL.top - 8, label, `fill="${colour}"`);
    return `${key}<polyline points="${points}" fill="none" stroke="${colour}" stroke-width="2"/>\n${marks.join('')}`;
  });
  return (
    textAt(left, PANEL.top - 26, title, 'font-size="13" font-weight="bold"') +
    `<path d="M${left} ${PANEL.top}V${bottom}H${left + PANEL.width}" stroke="${RULE}" fill="none"/>\n` +
    labels.join('') +
    textAt(left + PANEL.width / 2, bottom + 36, 'mappings', `text-anchor="middle" fill="${FAINT}"`) +
    drawn.join('')
  );
}

const HEADING = 'What a packet costs with more mappings in the table';
const INK = '#1d2733';
const FAINT = '#5d6875';
const RULE = '#d5dbe1';
