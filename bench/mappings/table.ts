/** The rows as text: medians with the smallest and the largest round, and how a row compares with the first. */
import type { MappingsReport, MappingsRound, MappingsRow } from '../mappings.ts';
import { range } from '../statistics.ts';

export function formatMappings({ machine, rows }: MappingsReport): string {
  const first = rows[0];
  const lines = [
    ['mappings', '64-byte UDP, 1000/s', 'beside first', 'sender, ns', 'receiver, ns', 'sender, MB'],
    ...rows.map((row) => [
      String(row.mappings),
      withRange(row, 'deliveredKpps'),
      first === undefined ? '-' : `${(row.deliveredKpps / first.deliveredKpps).toFixed(2)}x`,
      withRange(row, 'senderNs'),
      withRange(row, 'receiverNs'),
      row.senderMB.toFixed(0),
    ]),
  ];
  const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0))) ?? [];
  const table = lines.map((line) => `${line.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('  ')}\n`);
  return `${table.join('')}\n${conditions(machine).join('\n')}\n`;
}

export function conditions(machine: MappingsReport['machine']): readonly string[] {
  const { cpu, cores, kernel, load, peers, seconds, date, commit } = machine;
  return [
    `${cpu}, ${cores} cores, kernel ${kernel}, load ${load.toFixed(2)} before the start`,
    `${peers} other peers; ${seconds} s for each figure; ${date}${commit === null ? '' : `, commit ${commit}`}`,
  ];
}

function withRange(row: MappingsRow, name: keyof MappingsRound & keyof MappingsRow): string {
  const { min, max } = range(row.rounds.map((round) => round[name]));
  return `${row[name].toFixed(0)} (${min.toFixed(0)}–${max.toFixed(0)})`;
}
