/** What commands print: `--json` as one value, otherwise a table that lines up. */

export type Cell = string | number | boolean | null | undefined;

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function printLines(...lines: readonly string[]): void {
  for (const line of lines) process.stdout.write(`${line}\n`);
}

/** Columns by key and heading; cells that are null or undefined print as `-`. */
export function printTable<K extends string>(...table: Parameters<typeof tableLines<K>>): void {
  printLines(...tableLines(...table));
}

export function tableLines<K extends string>(
  columns: readonly (readonly [key: K, heading: string])[],
  rows: readonly Readonly<Partial<Record<K, Cell>>>[],
): string[] {
  const text = [
    columns.map(([, heading]) => heading),
    ...rows.map((row) => columns.map(([key]) => String(row[key] ?? '-'))),
  ];
  const widths = columns.map((_, i) => Math.max(...text.map((line) => line[i]?.length ?? 0)));
  return text.map((line) =>
    line
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

/** `1.2 s`, `350 ms`, `4 min`, `2 h`, `3 d`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 86_400_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}
