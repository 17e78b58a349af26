import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { dataDirOf, dataDirOption, type ListOptions } from '../map-server-client.ts';
import { printJson, printTable } from '../output.ts';

interface AuditOptions extends ListOptions {
  readonly since?: string;
  readonly event?: readonly string[];
}

export function registerAuditCommand(mapserver: Command): void {
  mapserver
    .command('audit')
    .description(
      'What was done to the overlay, by whom, and what was tried in vain; from the files, also while it is down',
    )
    .option('--since <when>', 'a duration such as 30m, 24h or 7d, or a moment such as 2026-01-31T12:00:00Z')
    .option('--event <name...>', 'only these events')
    .addOption(dataDirOption())
    .option('--json', 'print JSON')
    .action(async (options: AuditOptions) => {
      const { AUDIT_EVENTS, readAuditLog } = await import('../../mapserver/shell/audit-log.ts');
      const from = options.since === undefined ? '' : momentOf(options.since, Date.now());
      const unknown = options.event?.find((each) => !AUDIT_EVENTS.some((known) => known === each));
      if (unknown !== undefined) {
        throw new UsageError(`--event: there is no event "${unknown}"; there are ${AUDIT_EVENTS.join(', ')}`);
      }
      const lines = [...readAuditLog(dataDirOf(options))].filter(
        ({ time, event }) => time >= from && (options.event === undefined || options.event.includes(event)),
      );
      if (options.json) return printJson(lines);
      return printTable(
        [
          ['time', 'TIME'],
          ['event', 'EVENT'],
          ['who', 'WHO'],
          ['from', 'FROM'],
          ['result', 'RESULT'],
          ['what', 'WHAT'],
        ],
        lines.map(({ time, event, who, from: address, what, result, suppressed }) => ({
          ...{ time, event, who, result },
          from: address ?? null,
          what: `${JSON.stringify(what)}${suppressed === undefined ? '' : ` and ${suppressed} more`}`,
        })),
      );
    });
}

/** As lines have it. @throws UsageError */
function momentOf(text: string, now: number): string {
  const match = /^(\d{1,6})(s|m|h|d)$/.exec(text);
  const unit = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match?.[2] ?? ''];
  const at = unit === undefined ? Date.parse(text) : now - Number(match?.[1]) * unit;
  if (!Number.isFinite(at)) {
    throw new UsageError(
      `--since: "${text}" is neither a duration such as 24h nor a moment such as 2026-01-31T12:00:00Z`,
    );
  }
  return new Date(at).toISOString();
}
