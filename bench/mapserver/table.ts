/** The rows as text. */
import type { MapServerReport, MapServerRow } from '../mapserver.ts';
import type { Pace } from './load-client.ts';

export function formatMapServer({ machine, rows }: MapServerReport): string {
  const lines = [
    ['', ...rows.map(({ transport }) => (transport === 'udp' ? 'LISP over UDP' : "Stayput's own"))],
    ...(['register', 'refresh', 'request'] as const).map((kind) => [
      TITLES[kind],
      ...rows.map((row) => text(row[kind])),
    ]),
    ['octets a registration', ...rows.map(({ octetsPerRegistration }) => String(octetsPerRegistration))],
  ];
  const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0))) ?? [];
  const table = lines.map(
    (line) =>
      `${line
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
  );
  const { cpu, cores, kernel, load, prefixes, seconds, date, commit, node } = machine;
  const conditions = [
    `${prefixes} EIDs, one in a message; ${seconds} s for refreshes and for requests; the map server on one core`,
    `${cpu}, ${cores} cores, kernel ${kernel}, load ${load.toFixed(2)} before the start, node ${node}`,
    `${date}${commit === null ? '' : `, commit ${commit}`}`,
  ];
  return `${table.join('')}\n${conditions.join('\n')}\n`;
}

function text({ perSecond, cpuUs }: Pace): string {
  return `${perSecond.toFixed(0)}/s, ${cpuUs.toFixed(0)} µs of CPU each`;
}

const TITLES: Readonly<Record<keyof Pick<MapServerRow, 'register' | 'refresh' | 'request'>, string>> = {
  register: 'first registrations',
  refresh: 'refreshes',
  request: 'requests',
};
