/**
 * The medians as a picture: a panel for every figure, a bar for every system, a thin line from the smallest to the
 * largest round. SVG without scripts, fonts or links, so that it shows the same anywhere.
 */
import type { Report } from './dataplane.ts';
import { FIGURE_NAMES, FIGURE_TEXTS, type FigureName, type Row, valuesOf } from './figures.ts';
import { machineLines } from './machine.ts';
import { range } from './statistics.ts';
import { px, textAt } from './svg.ts';
import { formatFigure } from './table.ts';

const COLUMNS = 2;
const PANEL_WIDTH = 560;
const GAP = 36;
const HEADING = 'Stayput’s data plane beside others';
const MARGIN = 28;
const LABEL_WIDTH = 128;
/** For the value beside the longest bar. */
const VALUE_WIDTH = 64;
const BAR = 18;
const STEP = 26;
const PANEL_HEAD = 46;
const TITLE_HEIGHT = 84;
const LINE_HEIGHT = 17;

export function drawSvg({ machine, rows }: Pick<Report, 'machine' | 'rows'>): string {
  const panelHeight = PANEL_HEAD + rows.length * STEP;
  const panelRows = Math.ceil(FIGURE_NAMES.length / COLUMNS);
  const footer = machineLines(machine).flatMap((line) => wrap(line, FOOTER_CHARACTERS));
  const width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP;
  const footerTop = TITLE_HEIGHT + panelRows * (panelHeight + GAP);
  const height = footerTop + footer.length * LINE_HEIGHT + MARGIN;
  const panels = FIGURE_NAMES.map((name, i) => {
    const x = MARGIN + (i % COLUMNS) * (PANEL_WIDTH + GAP);
    const y = TITLE_HEIGHT + Math.floor(i / COLUMNS) * (panelHeight + GAP);
    return `<g transform="translate(${x} ${y})">\n${panel(name, rows)}</g>\n`;
  });
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
    `font-family="DejaVu Sans, Verdana, sans-serif" font-size="13" fill="${INK}">\n` +
    `<title>${HEADING}</title>\n` +
    `<rect width="${width}" height="${height}" fill="#ffffff"/>\n` +
    textAt(MARGIN, 38, HEADING, 'font-size="21" font-weight="bold"') +
    textAt(
      MARGIN,
      61,
      'Two hosts on one machine. Bars: medians; lines: smallest to largest round. Light bars do not encrypt.',
      `fill="${FAINT}"`,
    ) +
    panels.join('') +
    footer
      .map((line, i) => textAt(MARGIN, footerTop + (i + 1) * LINE_HEIGHT, line, `font-size="12" fill="${FAINT}"`))
      .join('') +
    '</svg>\n'
  );
}

function panel(name: FigureName, rows: readonly Row[]): string {
  const { title, unit, better } = FIGURE_TEXTS[name];
  const longest = Math.max(...rows.flatMap((row) => [row[name] ?? 0, ...valuesOf(row.rounds, name)]), Number.MIN_VALUE);
  const scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest;
  return (
    textAt(0, 16, title, 'font-size="15" font-weight="bold"') +
    textAt(PANEL_WIDTH, 16, `${unit}, ${better} is better`, `text-anchor="end" fill="${FAINT}"`) +
    `<line x1="0" y1="26" x2="${PANEL_WIDTH}" y2="26" stroke="${RULE}"/>\n` +
    rows.map((row, i) => bar(name, row, PANEL_HEAD - 10 + i * STEP, scale)).join('')
  );
}

function bar(name: FigureName, row: Row, y: number, scale: number): string {
  const value = row[name];
  const bold = row.system === 'stayput' ? ' font-weight="bold"' : '';
  const middle = y + BAR / 2;
  const label = textAt(LABEL_WIDTH - 10, middle + 4.5, row.system, `text-anchor="end"${bold}`);
  if (value === null) return label + textAt(LABEL_WIDTH, middle + 4.5, '–', `fill="${FAINT}"`);
  const length = Math.max(1, value * scale);
  const { min, max } = range(valuesOf(row.rounds, name));
  const [from, to] = [LABEL_WIDTH + min * scale, LABEL_WIDTH + max * scale];
  const end = Math.max(LABEL_WIDTH + length, to);
  return (
    label +
    `<rect x="${LABEL_WIDTH}" y="${y}" width="${px(length)}" height="${BAR}" rx="2" fill="${colourOf(row)}"/>\n` +
    `<path d="M${px(from)} ${middle}H${px(to)}M${px(from)} ${middle - 4}v8M${px(to)} ${middle - 4}v8" ` +
    `stroke="${INK}" stroke-opacity="0.7" fill="none"/>\n` +
    textAt(px(end + 7), middle + 4.5, formatFigure(name, value), bold.trim())
  );
}

function colourOf(row: Row): string {
  if (row.system === 'stayput') return '#d9581c';
  return row.encrypted ? '#5b7fa6' : '#cbd3dc';
}

/** Breaks at spaces. */
function wrap(line: string, characters: number): string[] {
  const lines: string[] = [''];
  for (const word of line.split(' ')) {
    const current = lines.at(-1) ?? '';
    if (current !== '' && current.length + word.length >= characters) lines.push(word);
    else lines[lines.length - 1] = current === '' ? word : `${current} ${word}`;
  }
  return lines;
}

const FOOTER_CHARACTERS = 165;
const INK = '#1d2733';
const FAINT = '#5d6875';
const RULE = '#d5dbe1';
