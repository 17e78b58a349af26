/** `stayput bench flood`: what a flood of initiations costs established sessions. */
import { type Command, Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { missingForDemo } from '../../runtime/preflight.ts';
import { findProgram } from '../../runtime/programs.ts';
import { wholeNumber } from '../option-values.ts';
import { demandRoot, say } from './bench-options.ts';

interface BenchFloodOptions {
  readonly json?: true;
  readonly rounds: string;
  readonly seconds: string;
  readonly rate: string;
}

export function registerBenchFlood(bench: Command): void {
  bench
    .command('flood')
    .description('Measure what a flood of initiations from made-up addresses leaves of the throughput.')
    .option('--json', 'print exactly one JSON object on stdout')
    .addOption(new Option('--rounds <n>', 'how often it is measured, 1 to 50').default('3'))
    .addOption(new Option('--seconds <n>', 'for each throughput, 1 to 60').default('5'))
    .addOption(new Option('--rate <n>', 'thousands of initiations per second, 1 to 1000').default('50'))
    .action(async (options: BenchFloodOptions) => {
      await benchmark(options);
    });
}

async function benchmark(options: BenchFloodOptions): Promise<void> {
  const { benchFlood, floodLines } = await import('../../bench/flood.ts');
  const { machineLines } = await import('../../bench/machine.ts');
  const rounds = wholeNumber('--rounds', options.rounds, 1, 50);
  const seconds = wholeNumber('--seconds', options.seconds, 1, 60);
  const rate = wholeNumber('--rate', options.rate, 1, 1000) * 1000;
  demandRoot();
  const missing = missingForDemo();
  if (findProgram('iperf3') === undefined) missing.push('iperf3 not found: apt-get install -y iperf3');
  if (missing.length > 0) throw new UsageError(missing.join('\nstayput: '));
  const report = await benchFlood({ rounds, seconds, rate, dataplane: await ensureDataplaneBuilt(say) }, say);
  if (options.json === true) process.stdout.write(`${JSON.stringify(report)}\n`);
  else process.stdout.write(`${[...floodLines(report), ...machineLines(report.machine)].join('\n')}\n`);
}
