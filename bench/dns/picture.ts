/** A panel for every figure, a bar for every server. */
import { DNS_FIGURES, type DnsFigure, type DnsReport, type DnsRow } from '../dns.ts';
import { px, textAt } from '../svg.ts';
import { DNS_TEXTS, dnsConditions, formatDnsFigure } from './table.ts';

const WIDTH = 900;
const COLUMNS = 2;
const PANEL = { width: 400, label: 80, value: 80, head: 30, bar: 16, step: 22 };
const MARGIN = 30;
const TOP = 70;

export function drawDns(report: DnsReport): string {
  const { rows, machine } = report;
  const panelHeight = PANEL.head + rows.length * PANEL.step + 16;
  const bottom = TOP + Math.ceil(DNS_FIGURES.length / COLUMNS) * panelHeight;
  const height = bottom + 50;
  const panels = DNS_FIGURES.map((name, i) => {
    const x = MARGIN + (i % COLUMNS) * (PANEL.width + 2 * MARGIN);
    return `<g transform="translate(${x} ${TOP + Math.floor(i / COLUMNS) * panelHeight})">\n${panel(name, rows)}</g>\n`;
  });
  const conditions = dnsConditions(machine).map((line, i) =>
    textAt(MARGIN, bottom + 16 + i * 17, line, `font-size="11" fill="${FAINT}"`),
  );
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" fill="${INK}">\n` +
    `<title>${HEADING}</title>\n<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>\n` +
    textAt(MARGIN, 38, HEADING, 'font-size="19" font-weight="bold"') +
    panels.join('') +
    conditions.join('') +
    '</svg>\n'
  );
}

function panel(name: DnsFigure, rows: readonly DnsRow[]): string {
  const { title, unit, better } = DNS_TEXTS[name];
  const longest = Math.max(...rows.map((row) => row[name] ?? 0)) || 1;
  const scale = (PANEL.width - PANEL.label - PANEL.value) / longest;
  const bars = rows.map((row, i) => {
    const y = PANEL.head + i * PANEL.step;
    const value = row[name];
    const length = Math.max(1, (value ?? 0) * scale);
    const colour = row.system === 'stayput' ? '#d9581c' : '#5b7fa6';
    return (
      textAt(PANEL.label - 8, y + 12, row.system, 'text-anchor="end"') +
      (value === null
        ? ''
        : `<rect x="${PANEL.label}" y="${y}" width="${px(length)}" height="${PANEL.bar}" fill="${colour}"/>\n`) +
      textAt(
        px(PANEL.label + (value === null ? 0 : length) + 6),
        y + 12,
        value === null ? '–' : formatDnsFigure(value),
        '',
      )
    );
  });
  return (
    textAt(0, 14, title, 'font-size="13" font-weight="bold"') +
    textAt(PANEL.width, 14, `${unit}, ${better} is better`, `text-anchor="end" fill="${FAINT}"`) +
    bars.join('')
  );
}

const HEADING = 'Stayput’s DNS service beside dnsmasq and unbound';
const INK = '#1d2733';
const FAINT = '#5d6875';
