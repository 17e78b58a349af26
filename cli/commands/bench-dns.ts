/** `stayput bench dns`: what the agent's DNS service does on this machine, beside dnsmasq and unbound. */
import { type Command, Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { missingForDemo } from '../../runtime/preflight.ts';
import { findProgram } from '../../runtime/programs.ts';
import { wholeNumber } from '../option-values.ts';
import { demandRoot, say, writePicture } from './bench-options.ts';

interface BenchDnsOptions {
  readonly json?: true;
  readonly rounds: string;
  readonly seconds: string;
  readonly names: string;
  readonly only?: true;
  readonly svg?: string;
}

export function registerBenchDns(bench: Command): void {
  bench
    .command('dns')
    .description('Measure the agent’s DNS service beside dnsmasq and unbound, each on one core.')
    .option('--json', 'print exactly one JSON object on stdout')
    .addOption(new Option('--rounds <n>', 'how often every server is measured, 1 to 50').default('1'))
    .addOption(new Option('--seconds <n>', 'for each rate, 1 to 60').default('5'))
    .addOption(new Option('--names <n>', 'how many are put into the cache, 1000 to 1000000').default('100000'))
    .option('--only', 'Stayput only')
    .option('--svg <file>', 'draw the medians')
    .action(async (options: BenchDnsOptions) => benchmark(options));
}

async function benchmark(options: BenchDnsOptions): Promise<void> {
  const { benchDns } = await import('../../bench/dns.ts');
  const { peerDnsSystems, stayputDns } = await import('../../bench/dns/servers.ts');
  const { formatDns } = await import('../../bench/dns/table.ts');
  const { drawDns } = await import('../../bench/dns/picture.ts');

  const rounds = wholeNumber('--rounds', options.rounds, 1, 50);
  const seconds = wholeNumber('--seconds', options.seconds, 1, 60);
  const names = wholeNumber('--names', options.names, 1000, 1_000_000);
  if (options.svg !== undefined) writePicture(options.svg, '');
  demandRoot();
  const missing = missingForDemo();
  for (const [program, debian] of Object.entries(PROGRAMS)) {
    if (findProgram(program) === undefined) missing.push(`${program} not found: apt-get install -y ${debian}`);
  }
  if (missing.length > 0) throw new UsageError(missing.join('\nstayput: '));
  const own = stayputDns(await ensureDataplaneBuilt(say));
  const systems = options.only === true ? [own] : [own, ...peerDnsSystems()];
  const report = await benchDns(systems, { rounds, seconds, names }, say);
  if (options.svg !== undefined) writePicture(options.svg, drawDns(report));
  process.stdout.write(options.json === true ? `${JSON.stringify(report)}\n` : formatDns(report));
}

/** dnsmasq is the upstream of them all, so it is needed in any case. */
const PROGRAMS: Readonly<Record<string, string>> = {
  dig: 'bind9-dnsutils',
  dnsperf: 'dnsperf',
  dnsmasq: 'dnsmasq-base',
  unbound: 'unbound',
  taskset: 'util-linux',
};
