/** `stayput bench mapserver`: registrations and requests per second, over UDP and over the map server's own transport. */
import type { Command } from 'commander';
import { wholeNumber } from '../option-values.ts';
import { say } from './bench-options.ts';

interface BenchMapServerOptions {
  readonly json?: true;
  readonly prefixes: string;
  readonly seconds: string;
}

export function registerBenchMapServer(bench: Command): void {
  bench
    .command('mapserver')
    .description(
      'Measure registrations and requests per second of a map server on one core, over UDP and its own transport.',
    )
    .option('--json', 'print exactly one JSON object on stdout')
    .option('--prefixes <n>', 'how many EIDs are registered, 1 to 1000000', '100000')
    .option('--seconds <n>', 'for refreshes and for requests, 1 to 60', '5')
    .action(async (options: BenchMapServerOptions) => {
      const { benchMapServer } = await import('../../bench/mapserver.ts');
      const { formatMapServer } = await import('../../bench/mapserver/table.ts');
      const prefixes = wholeNumber('--prefixes', options.prefixes, 1, 1_000_000);
      const seconds = wholeNumber('--seconds', options.seconds, 1, 60);
      const report = await benchMapServer({ prefixes, seconds }, say);
      process.stdout.write(options.json === true ? `${JSON.stringify(report)}\n` : formatMapServer(report));
    });
}
