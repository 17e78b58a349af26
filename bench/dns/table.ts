/** The rows as text: medians, and what Stayput's are beside dnsmasq's and unbound's. */
import { DNS_FIGURES, type DnsFigure, type DnsReport } from '../dns.ts';
import { range } from '../statistics.ts';

export const DNS_TEXTS: Readonly<
  Record<DnsFigure, { readonly title: string; readonly unit: string; readonly better: 'higher' | 'lower' }>
> = {
  overlayQps: { title: 'Own name', unit: 'answers/s', better: 'higher' },
  cachedQps: { title: 'Cached names', unit: 'answers/s', better: 'higher' },
  p50Us: { title: '50 % at 10,000/s', unit: 'µs', better: 'lower' },
  p99Us: { title: '99 % at 10,000/s', unit: 'µs', better: 'lower' },
  lostAt20k: { title: 'Lost at 20,000/s', unit: 'answers', better: 'lower' },
  memoryMB: { title: 'Memory of the names', unit: 'MB', better: 'lower' },
  changeMs: { title: 'New resolvers', unit: 'ms', better: 'lower' },
  failedAfterKill: { title: 'Failed after kill', unit: 'of all', better: 'lower' },
};

export function formatDns({ machine, rows }: DnsReport): string {
  const reference = rows.find(({ system }) => system === 'stayput');
  const lines = DNS_FIGURES.map((name) => [
    `${DNS_TEXTS[name].title}, ${DNS_TEXTS[name].unit}`,
    ...rows.flatMap((row) => {
      const values = row.rounds.map((round) => round[name]).filter((value) => value !== null);
      const { min, max } = range(values);
      const spread = values.length < 2 ? '' : ` (${formatDnsFigure(min)}–${formatDnsFigure(max)})`;
      const own = reference?.[name] ?? null;
      const comparable = row !== reference && own !== null && row[name] !== null && row[name] !== 0;
      const ratio = comparable ? ` ${(own / (row[name] ?? 1)).toFixed(2)}x` : '';
      return [`${row[name] === null ? '-' : formatDnsFigure(row[name])}${spread}${ratio}`];
    }),
  ]);
  const table = [['', ...rows.map(({ system, version }) => `${system} ${version}`)], ...lines];
  const widths = (table[0] ?? []).map((_, i) => Math.max(...table.map((line) => line[i]?.length ?? 0)));
  const text = table.map((line) => {
    const [first = '', ...cells] = line;
    return `${[first.padEnd(widths[0] ?? 0), ...cells.map((cell, i) => cell.padStart(widths[i + 1] ?? 0))].join('  ').trimEnd()}\n`;
  });
  return `${text.join('')}\n${dnsConditions(machine).join('\n')}\n`;
}

export function formatDnsFigure(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : String(value);
}

export function dnsConditions(machine: DnsReport['machine']): readonly string[] {
  const { cpu, cores, kernel, load, seconds, names, date, commit } = machine;
  return [
    `${cpu}, ${cores} cores, kernel ${kernel}, load ${load.toFixed(2)} before the start`,
    `each server on one core, with ${names.toLocaleString('en')} names; ${seconds} s for each rate; ${date}${commit === null ? '' : `, commit ${commit}`}`,
  ];
}
