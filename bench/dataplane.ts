/**
 * `stayput bench dataplane`: systems that carry packets between two hosts, one after the other, in several rounds.
 *
 * The model: every measurement is a fresh pair of hosts, so that nothing of one system is left when the next one is
 * measured, and only one system's processes run at a time. The order turns by one place each round, so that what
 * changes slowly on the machine does not meet the same system each time. A system that fails once is left out of the
 * later rounds and says so in its row; without the cable itself or Stayput there is nothing to compare.
 */
import { UsageError } from '../proto/errors.ts';
import { Lab } from '../test/lab/lab.ts';
import { medians, type Round, type Row } from './figures.ts';
import { mayUseCongestion } from './iperf.ts';
import { availableCongestion, defaultCongestion, describeMachine, type Machine } from './machine.ts';
import { type Conditions, measure } from './measurement.ts';
import { type Profile, profile } from './profile.ts';
import type { System } from './systems/system.ts';
import { formatFigure } from './table.ts';

export interface BenchOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly blaster: string;
  /** undefined: cubic where it is allowed. */
  readonly congestion: string | undefined;
  readonly profile: boolean;
}

export interface Report {
  readonly machine: Machine;
  readonly rows: readonly Row[];
  readonly profile?: Profile;
}

/** From here on what else runs on the machine is likely to be seen in the figures. */
export const DISTURBED_CORES = 0.2;

const PREFERRED_CONGESTION = 'cubic';

export async function benchDataplane(
  systems: readonly System[],
  options: BenchOptions,
  say: (line: string) => void,
): Promise<Report> {
  const congestion = await chooseCongestion(options.congestion, say);
  const machine = describeMachine(systems, { congestion, rounds: options.rounds, seconds: options.seconds });
  const conditions: Conditions = { seconds: options.seconds, congestion, blaster: options.blaster };
  const results = new Map<System, Result>(systems.map((system) => [system, { rounds: [], mtu: Number.NaN }]));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const system of turned(systems, round - 1)) {
      const result = results.get(system);
      if (result === undefined || result.error !== undefined) continue;
      const where = `round ${round} of ${options.rounds}: ${system.name}`;
      try {
        const measured = await measure(system, round, conditions);
        result.mtu = measured.mtu;
        result.rounds.push(measured.round);
        say(`${where}  ${inShort(measured.round)}`);
      } catch (error) {
        if (system.name === 'stayput' || system.name === 'raw') throw error;
        result.error = error instanceof Error ? error.message : String(error);
        say(`${where} failed: ${result.error}`);
      }
    }
  }
  const rows = [...results].map(([system, result]) => rowOf(system, result));
  const stayput = systems.find(({ name }) => name === 'stayput');
  if (!options.profile || stayput === undefined) return { machine, rows };
  say('one more run of stayput under perf');
  return { machine, rows, profile: await profile(stayput, conditions) };
}

interface Result {
  readonly rounds: Round[];
  mtu: number;
  error?: string;
}

function rowOf(system: System, { rounds, mtu, error }: Result): Row {
  return {
    system: system.name,
    version: system.version,
    encrypted: system.encrypted,
    mtu,
    ...medians(rounds),
    rounds,
    ...(error === undefined ? {} : { error }),
  };
}

/** The same order, beginning with another one. */
export function turned<T>(items: readonly T[], by: number): readonly T[] {
  const at = items.length === 0 ? 0 : by % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}

function inShort(round: Round): string {
  const speeds = (['tcp1Gbps', 'tcp4Gbps', 'tcpReverseGbps'] as const).map((name) => formatFigure(name, round[name]));
  const cpu = round.cpuSecondsPerGB === null ? '' : `, ${formatFigure('cpuSecondsPerGB', round.cpuSecondsPerGB)} s/GB`;
  const busy =
    round.busyCoresBefore < DISTURBED_CORES ? '' : ` (others kept ${round.busyCoresBefore.toFixed(1)} cores busy)`;
  const ping = `${formatFigure('pingUsMedian', round.pingUsMedian)} µs`;
  return `${speeds.join(' / ')} Gbit/s, ${formatFigure('udp64Kpps', round.udp64Kpps)} kpps, ping ${ping}${cpu}${busy}`;
}

/** undefined: whatever is the default, since no other may be chosen. */
async function chooseCongestion(wish: string | undefined, say: (line: string) => void): Promise<string | undefined> {
  const name = wish ?? PREFERRED_CONGESTION;
  if (availableCongestion().includes(name)) {
    const lab = await Lab.create({ name: 'bench' });
    try {
      if (await mayUseCongestion(await lab.host('a'), name)) return name;
    } finally {
      await lab.close();
    }
  }
  if (wish !== undefined) throw new UsageError(`--congestion ${name}: this machine does not allow it`);
  say(`${name} is not allowed here: TCP congestion control stays ${defaultCongestion()}`);
  return undefined;
}
