/** `stayput bench dataplane`: what the data plane does on this machine, beside other systems. */
import { type Command, Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { ensureDataplaneBuilt, ensurePlaintextDataplaneBuilt } from '../../runtime/crate-build.ts';
import { missingForDemo } from '../../runtime/preflight.ts';
import { findProgram } from '../../runtime/programs.ts';
import { wholeNumber } from '../option-values.ts';
import { demandRoot, peerOption, say, writePicture } from './bench-options.ts';

interface BenchDataplaneOptions {
  readonly json?: true;
  readonly peers?: string;
  readonly peer: readonly string[];
  readonly rounds: string;
  readonly seconds: string;
  readonly svg?: string;
  readonly congestion?: string;
  readonly profile?: true;
  readonly plaintext?: true;
}

export function registerBenchDataplane(bench: Command): void {
  bench
    .command('dataplane')
    .description('Measure the data plane beside other tunnels, between two hosts made of network namespaces.')
    .option('--json', 'print exactly one JSON object on stdout')
    .option(
      '--peers <list>',
      'of vxlan, wireguard-go, nebula, openvpn and tinc, those to measure; default: all that are found',
    )
    .addOption(peerOption())
    .addOption(new Option('--rounds <n>', 'how often every system is measured, 1 to 50').default('3'))
    .addOption(new Option('--seconds <n>', 'for each throughput, 1 to 60').default('5'))
    .option('--plaintext', 'measure also Stayput built without encryption, which exists for this measurement only')
    .option('--svg <file>', 'draw the medians')
    .option('--congestion <name>', 'TCP congestion control; default: cubic where it is allowed')
    .option('--profile', 'show where the time of the data plane goes, by perf')
    .action(async (options: BenchDataplaneOptions) => {
      process.exitCode = await benchmark(options);
    });
}

async function benchmark(options: BenchDataplaneOptions): Promise<number> {
  const { choosePeers } = await import('../../bench/peers.ts');
  const { benchDataplane } = await import('../../bench/dataplane.ts');
  const { ensureBlasterBuilt } = await import('../../bench/blaster.ts');
  const { RAW } = await import('../../bench/systems/kernel.ts');
  const { stayput, stayputPlaintext } = await import('../../bench/systems/stayput.ts');
  const { machineLines } = await import('../../bench/machine.ts');
  const { formatTable } = await import('../../bench/table.ts');
  const { formatProfile } = await import('../../bench/profile.ts');
  const { drawSvg } = await import('../../bench/picture.ts');

  const rounds = wholeNumber('--rounds', options.rounds, 1, 50);
  const seconds = wholeNumber('--seconds', options.seconds, 1, 60);
  const peers = choosePeers({ peers: options.peers, peer: options.peer }, say);
  if (options.svg !== undefined) writePicture(options.svg, '');
  demandPrograms(options.profile === true);
  const dataplane = await ensureDataplaneBuilt(say);
  const blaster = await ensureBlasterBuilt(say);
  const kernel = peers.filter(({ encrypted }) => !encrypted);
  const plaintext = options.plaintext === true ? [stayputPlaintext(await ensurePlaintextDataplaneBuilt(say))] : [];
  const systems = [RAW, ...kernel, ...plaintext, stayput(dataplane), ...peers.filter(({ encrypted }) => encrypted)];
  say(`measuring ${systems.map(({ name }) => name).join(', ')}`);
  const report = await benchDataplane(
    systems,
    { rounds, seconds, blaster, congestion: options.congestion, profile: options.profile === true },
    say,
  );

  if (options.svg !== undefined) writePicture(options.svg, drawSvg(report));
  if (options.json === true) process.stdout.write(`${JSON.stringify(report)}\n`);
  else {
    process.stdout.write(`${formatTable(report.rows)}\n${machineLines(report.machine).join('\n')}\n`);
    if (report.profile !== undefined) process.stdout.write(`\n${formatProfile(report.profile)}`);
  }
  return report.rows.every(({ error }) => error === undefined) ? 0 : 1;
}

function demandPrograms(perf: boolean): void {
  demandRoot();
  const missing = missingForDemo();
  if (findProgram('iperf3') === undefined) missing.push('iperf3 not found: apt-get install -y iperf3');
  if (perf && findProgram('perf') === undefined) {
    missing.push('--profile needs perf: apt-get install -y linux-perf (Debian) or linux-tools-generic (Ubuntu)');
  }
  if (missing.length > 0) throw new UsageError(missing.join('\nstayput: '));
}
