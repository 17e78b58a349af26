/**
 * A board as a picture, without Grafana: its figures in Grafana's grid, drawn from recorded data. SVG without scripts,
 * fonts or links, so that it shows the same anywhere.
 */
import { px, textAt } from '../../bench/svg.ts';
import type { SeriesData } from '../../test/lab/prometheus.ts';
import { type Board, COLUMNS, type Figure, layout, type Unit } from './board.ts';
import type { FigureData, Span } from './recording.ts';

interface Line extends SeriesData {
  readonly name: string;
  readonly colour: string;
}

export function drawBoard(board: Board, data: readonly FigureData[], span: Span): string {
  const { titles, figures, height } = layout(board);
  const [width, total] = [COLUMNS * COLUMN + 2 * MARGIN, height * ROW + HEAD + MARGIN];
  const byFigure = new Map(data.map((each) => [each.figure, each]));
  const body = [
    ...titles.map(({ title, y }) => textAt(MARGIN, HEAD + y * ROW + 21, title, 'font-size="15" font-weight="bold"')),
    ...figures.map(({ figure, x, y, height: rows }) => {
      const box = { width: figure.width * COLUMN - GAP, height: rows * ROW - GAP };
      const drawn = draw(byFigure.get(figure) ?? { figure, queries: [] }, box, span);
      return `<g transform="translate(${MARGIN + x * COLUMN} ${HEAD + y * ROW})">\n${frame(figure, box)}${drawn}</g>\n`;
    }),
  ];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" viewBox="0 0 ${width} ${total}" ` +
    `font-family="DejaVu Sans, Verdana, sans-serif" font-size="11" fill="${INK}">\n<title>${board.title}</title>\n` +
    `<rect width="${width}" height="${total}" fill="#f4f5f7"/>\n` +
    textAt(MARGIN, 30, board.title, 'font-size="19" font-weight="bold"') +
    textAt(
      width - MARGIN,
      30,
      `${Math.round(span.to - span.from)} s of a laboratory`,
      `text-anchor="end" fill="${FAINT}"`,
    ) +
    `${body.join('')}</svg>\n`
  );
}

interface Box {
  readonly width: number;
  readonly height: number;
}

function frame({ title }: Figure, { width, height }: Box): string {
  const box = `<rect width="${width}" height="${height}" rx="3" fill="#ffffff" stroke="${RULE}"/>\n`;
  return box + textAt(10, 17, title, 'font-size="12" font-weight="bold"');
}

function draw({ figure, queries }: FigureData, box: Box, span: Span): string {
  const lines = queries.flatMap((series, i) =>
    series.map((each) => ({ ...each, name: nameOf(figure.queries[i]?.legend ?? '', each.labels), colour: '' })),
  );
  const coloured = lines.map((line, i) => ({ ...line, colour: PALETTE[i % PALETTE.length] ?? INK }));
  if (coloured.length === 0) {
    const attributes = `text-anchor="middle" fill="${FAINT}"`;
    return textAt(box.width / 2, box.height / 2 + 8, figure.nothing ?? 'no data', attributes);
  }
  switch (figure.kind) {
    case 'number':
      return drawNumber(figure, coloured, box);
    case 'table':
      return drawTable(figure, coloured, box);
    case 'lines':
      return drawLines(figure, coloured, box, span);
    default:
      return figure.kind satisfies never;
  }
}

function drawNumber({ unit, limits = {} }: Figure, lines: readonly Line[], { width, height }: Box): string {
  const value = last(lines[0]);
  const { warning = Number.POSITIVE_INFINITY, critical = Number.POSITIVE_INFINITY } = limits;
  const colour = value >= critical ? BAD : value >= warning ? POOR : GOOD;
  const attributes = `font-size="26" font-weight="bold" text-anchor="middle" fill="${colour}"`;
  return textAt(width / 2, height / 2 + 20, formatted(value, unit), attributes);
}

function drawTable({ unit }: Figure, lines: readonly Line[], { width, height }: Box): string {
  const room = Math.floor((height - 40) / LINE);
  return lines
    .slice(0, room)
    .map((line, i) => {
      const y = 42 + i * LINE;
      const text = Object.entries(line.labels)
        .filter(([name, value]) => name !== '__name__' && value !== '')
        .map(([name, value]) => `${name} ${value}`)
        .join(', ');
      const value = textAt(width - 14, y, formatted(last(line), unit), 'text-anchor="end" font-weight="bold"');
      return textAt(14, y, text, '') + value;
    })
    .join('');
}

function drawLines({ unit, limits }: Figure, lines: readonly Line[], { width, height }: Box, span: Span): string {
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const low = Math.min(0, ...values);
  const top = niceTop(Math.max(...values));
  const plot = { left: 74, right: width - 14, top: 30, bottom: height - 44 };
  const x = (at: number): number => plot.left + ((at - span.from) / (span.to - span.from)) * (plot.right - plot.left);
  const y = (value: number): number => plot.bottom - ((value - low) / (top - low)) * (plot.bottom - plot.top);
  const grid = [0, 0.5, 1].map((part) => {
    const value = low + part * (top - low);
    const rule = `<path d="M${plot.left} ${px(y(value))}H${plot.right}" stroke="${RULE}"/>\n`;
    return rule + textAt(plot.left - 6, px(y(value) + 4), formatted(value, unit), `text-anchor="end" fill="${FAINT}"`);
  });
  const times = [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const at = span.from + part * (span.to - span.from);
    const anchor = part === 0 ? 'start' : part === 1 ? 'end' : 'middle';
    const attributes = `text-anchor="${anchor}" fill="${FAINT}"`;
    return textAt(px(x(at)), plot.bottom + 13, `${Math.round(at - span.from)} s`, attributes);
  });
  const limit = limits?.warning ?? limits?.critical;
  const mark =
    limit === undefined || limit > top
      ? ''
      : `<path d="M${plot.left} ${px(y(limit))}H${plot.right}" stroke="${POOR}" stroke-dasharray="4 3"/>\n`;
  const curves = lines.map(({ points, colour }) => {
    let before = Number.NEGATIVE_INFINITY;
    const path = points.map(([at, value]) => {
      const command = at - before > LONGEST_GAP ? 'M' : 'L';
      before = at;
      return `${command}${px(x(at))} ${px(y(value))}`;
    });
    return `<path d="${path.join('')}" stroke="${colour}" stroke-width="1.4" fill="none"/>\n`;
  });
  return grid.join('') + times.join('') + mark + curves.join('') + legend(lines, width, height);
}

/** One line; what has no room is counted. */
function legend(lines: readonly Line[], width: number, height: number): string {
  let x = 12;
  let drawn = '';
  for (const [i, { name, colour }] of lines.entries()) {
    const needed = 22 + name.length * CHARACTER;
    if (x + needed > width - 60)
      return drawn + textAt(x, height - 10, `and ${lines.length - i} more`, `fill="${FAINT}"`);
    drawn += `<rect x="${px(x)}" y="${height - 16}" width="10" height="3" fill="${colour}"/>\n`;
    drawn += textAt(px(x + 14), height - 10, name, '');
    x += needed;
  }
  return drawn;
}

function nameOf(legendFormat: string, labels: Readonly<Record<string, string>>): string {
  const name = legendFormat.replaceAll(/\{\{(\w+)\}\}/g, (_, label: string) => labels[label] ?? '').trim();
  return name === '' ? 'all' : name;
}

function last(line: SeriesData | undefined): number {
  return line?.points.at(-1)?.[1] ?? 0;
}

function niceTop(value: number): number {
  if (value <= 0) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((each) => each * magnitude >= value) ?? 10;
  return step * magnitude;
}

/** As Grafana writes it, near enough. */
export function formatted(value: number, unit: Unit): string {
  switch (unit) {
    case 's':
      if (value === 0) return '0 s';
      if (Math.abs(value) < 1e-3) return `${short(value * 1e6)} µs`;
      return Math.abs(value) < 1 ? `${short(value * 1e3)} ms` : `${short(value)} s`;
    case 'dtdurations':
      return `${short(value / 86_400)} days`;
    case 'percentunit':
      return `${short(value * 100)} %`;
    case 'bytes':
      return `${scaled(value, 1024, ['', 'Ki', 'Mi', 'Gi'])}B`;
    case 'bps':
      return `${scaled(value, 1000, ['', 'k', 'M', 'G'])}bit/s`;
    case 'pps':
      return `${scaled(value, 1000, ['', 'k', 'M', 'G'])}p/s`;
    case 'ops':
      return `${short(value)}/s`;
    case 'short':
      return scaled(value, 1000, ['', 'k', 'M', 'G']).trim();
    default:
      return unit satisfies never;
  }
}

function scaled(value: number, base: number, prefixes: readonly string[]): string {
  let power = 0;
  let rest = value;
  while (Math.abs(rest) >= base && power < prefixes.length - 1) {
    rest /= base;
    power++;
  }
  return `${short(rest)} ${prefixes[power]}`;
}

function short(value: number): string {
  if (Math.abs(value) >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}

const COLUMN = 50;
const ROW = 30;
const GAP = 8;
const MARGIN = 16;
const HEAD = 44;
const LINE = 18;
/** Of an average character of a legend. */
const CHARACTER = 6.6;
/** Seconds without a point after which a line is interrupted. */
const LONGEST_GAP = 5;
const INK = '#1d2733';
const FAINT = '#5d6875';
const RULE = '#dfe4e9';
const GOOD = '#2e8540';
const POOR = '#d9581c';
const BAD = '#b3261e';
const PALETTE = ['#3b6fb5', '#d9581c', '#2e8540', '#8e44ad', '#c0a000', '#16808d', '#b3261e', '#6b7683', '#7a5230'];
