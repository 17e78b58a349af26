/** `stayput bench handover`: what traffic notices of roams, moves, restarts and silent paths. */
import { type Command, Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { missingForDemo } from '../../runtime/preflight.ts';
import { findProgram } from '../../runtime/programs.ts';
import { wholeNumber } from '../option-values.ts';
import { demandRoot, peerOption, say, writePicture } from './bench-options.ts';

interface BenchHandoverOptions {
  readonly json?: true;
  readonly events?: string;
  readonly probes?: string;
  readonly apart?: true;
  readonly repetitions: string;
  readonly peerRepetitions: string;
  readonly rtt: string;
  readonly loss: string;
  readonly peers?: string;
  readonly peer: readonly string[];
  readonly svg?: string;
}

export function registerBenchHandover(bench: Command): void {
  bench
    .command('handover')
    .description('Measure what traffic notices of roams, moves, restarts and silent paths, beside other tunnels.')
    .option('--json', 'print exactly one JSON object on stdout')
    .option('--events <list>', 'those to measure; default: all')
    .option('--probes <list>', 'those to run; default: all')
    .option('--apart', 'run each probe in repetitions of its own')
    .addOption(new Option('--repetitions <n>', 'of each event of Stayput, 1 to 1000').default('20'))
    .addOption(new Option('--peer-repetitions <n>', 'of each event of the other systems, 1 to 1000').default('5'))
    .addOption(
      new Option('--rtt <ms>', 'round trip between two clouds, 0 (as fast as the machine) to 1000').default('10'),
    )
    .addOption(new Option('--loss <pct>', 'per cent of the packets lost on each way, 0 to 50').default('0'))
    .option('--peers <list>', 'of wireguard-go and nebula, those to measure; default: all that are found')
    .addOption(peerOption())
    .option('--svg <file>', 'draw the first of the events, from one more repetition of Stayput')
    .action(async (options: BenchHandoverOptions) => {
      process.exitCode = await benchmark(options);
    });
}

async function benchmark(options: BenchHandoverOptions): Promise<number> {
  const { benchHandover, groupsOf } = await import('../../bench/handover.ts');
  const { circumstanceLines, describeCircumstances } = await import('../../bench/handover/circumstances.ts');
  const { ensureCorrespondentsBuilt } = await import('../../bench/handover/correspondents.ts');
  const { concernsMany, EVENT_NAMES } = await import('../../bench/handover/events.ts');
  const { chooseHandoverPeers } = await import('../../bench/handover/peers.ts');
  const { ensureProbeBuilt } = await import('../../bench/handover/probing.ts');
  const { PROBE_NAMES } = await import('../../bench/handover/samples.ts');
  const { stayput } = await import('../../bench/handover/systems/stayput.ts');
  const { recordTimeline } = await import('../../bench/handover/timeline.ts');
  const { drawTimeline } = await import('../../bench/handover/timeline-picture.ts');
  const { formatTable } = await import('../../bench/handover/table.ts');

  const events = chosen('--events', options.events, EVENT_NAMES);
  const probes = chosen('--probes', options.probes, PROBE_NAMES);
  const repetitions = wholeNumber('--repetitions', options.repetitions, 1, 1000);
  const peerRepetitions = wholeNumber('--peer-repetitions', options.peerRepetitions, 1, 1000);
  const rttMs = decimal('--rtt', options.rtt, 1000);
  const lossPct = decimal('--loss', options.loss, 50);
  const peers = chooseHandoverPeers({ peers: options.peers, peer: options.peer }, say);
  const [first] = events;
  if (options.svg !== undefined && first !== undefined && concernsMany(first)) {
    throw new UsageError(`--svg: there is no picture of ${first}; name another event first in --events`);
  }
  if (options.svg !== undefined) writePicture(options.svg, '');
  demandRoot();
  const missing = missingForDemo();
  if (options.svg !== undefined && findProgram('tcpdump') === undefined) {
    missing.push('--svg needs tcpdump: apt-get install -y tcpdump');
  }
  if (events.some(concernsMany) && findProgram('openssl') === undefined) {
    missing.push('1,000 correspondents need openssl for their certificates: apt-get install -y openssl');
  }
  if (missing.length > 0) throw new UsageError(missing.join('\nstayput: '));
  const dataplane = await ensureDataplaneBuilt(say);
  const own = stayput({ dataplane, correspondents: await ensureCorrespondentsBuilt(say) });
  const probe = await ensureProbeBuilt(say);

  const systems = [own, ...peers];
  const apart = options.apart === true;
  const machine = describeCircumstances(systems, {
    ...{ rttMs, lossPct, repetitions, peerRepetitions },
    probesTogether: groupsOf({ probes, apart }),
  });
  say(`measuring ${systems.map(({ name }) => name).join(', ')}`);
  const repetitionsOf = (system: { readonly name: string }): number =>
    system.name === own.name ? repetitions : peerRepetitions;
  const run = { rttMs, loss: lossPct / 100, events, probes, apart, repetitionsOf, probe };
  const rows = await benchHandover(systems, run, say);
  if (options.svg !== undefined && first !== undefined) {
    say(`one more ${first} of ${own.name}, for the picture`);
    writePicture(options.svg, drawTimeline(await recordTimeline(own, first, probes, run)));
  }
  if (options.json === true) process.stdout.write(`${JSON.stringify({ machine, rows })}\n`);
  else process.stdout.write(`${formatTable(rows)}\n${circumstanceLines(machine).join('\n')}\n`);
  return rows.every(({ system, n }) => system !== own.name || n === repetitions) ? 0 : 1;
}

function chosen<T extends string>(option: string, text: string | undefined, all: readonly T[]): readonly T[] {
  if (text === undefined) return all;
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !all.some((each) => each === name));
  if (unknown !== undefined)
    throw new UsageError(`${option}: there is no ${unknown || 'empty name'}; try ${all.join(', ')}`);
  return all.filter((name) => names.includes(name));
}

function decimal(option: string, text: string, most: number): number {
  if (/^\d{1,4}(\.\d{1,3})?$/.test(text) && Number(text) <= most) return Number(text);
  throw new UsageError(`${option} ${text}: must be a number from 0 to ${most}`);
}
