/** `stayput bench mappings`: what a packet costs with few and with many mappings and peers. */
import { type Command, Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { missingForDemo } from '../../runtime/preflight.ts';
import { wholeNumber } from '../option-values.ts';
import { demandRoot, say, writePicture } from './bench-options.ts';

interface BenchMappingsOptions {
  readonly json?: true;
  readonly mappings: string;
  readonly peers: string;
  readonly rounds: string;
  readonly seconds: string;
  readonly svg?: string;
}

const MOST_MAPPINGS = 1_000_000;
const MOST_PEERS = 9_999;

export function registerBenchMappings(bench: Command): void {
  bench
    .command('mappings')
    .description('Measure what a small packet costs with few and with many mappings and peers in the tables.')
    .option('--json', 'print exactly one JSON object on stdout')
    .addOption(new Option('--mappings <list>', 'how many, one row for each').default('10,100,1000,10000,100000'))
    .addOption(new Option('--peers <n>', 'other peers that are known, 0 to 9999').default('1000'))
    .addOption(new Option('--rounds <n>', 'how often every row is measured, 1 to 50').default('3'))
    .addOption(new Option('--seconds <n>', 'for each figure, 1 to 60').default('3'))
    .option('--svg <file>', 'draw the curves')
    .action(async (options: BenchMappingsOptions) => benchmark(options));
}

async function benchmark(options: BenchMappingsOptions): Promise<void> {
  const { benchMappings } = await import('../../bench/mappings.ts');
  const { formatMappings } = await import('../../bench/mappings/table.ts');
  const { drawMappings } = await import('../../bench/mappings/picture.ts');
  const { ensureBlasterBuilt } = await import('../../bench/blaster.ts');

  const mappings = options.mappings.split(',').map(mappingCount);
  const peers = wholeNumber('--peers', options.peers, 0, MOST_PEERS);
  const rounds = wholeNumber('--rounds', options.rounds, 1, 50);
  const seconds = wholeNumber('--seconds', options.seconds, 1, 60);
  if (options.svg !== undefined) writePicture(options.svg, '');
  demandRoot();
  const missing = missingForDemo();
  if (missing.length > 0) throw new UsageError(missing.join('\nstayput: '));
  const dataplane = await ensureDataplaneBuilt(say);
  const blaster = await ensureBlasterBuilt(say);
  const report = await benchMappings({ mappings, peers, rounds, seconds, dataplane, blaster }, say);
  if (options.svg !== undefined) writePicture(options.svg, drawMappings(report));
  process.stdout.write(options.json === true ? `${JSON.stringify(report)}\n` : formatMappings(report));
}

function mappingCount(text: string): number {
  const count = /^\d{1,7}$/.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= MOST_MAPPINGS) return count;
  throw new UsageError(`--mappings ${text}: must be whole numbers from 1 to ${MOST_MAPPINGS}, with commas between`);
}
