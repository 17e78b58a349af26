/** Under what conditions the handovers were measured. */
import { describeHardware, type Hardware } from '../machine.ts';
import type { ProbeName } from './samples.ts';
import type { HandoverSystem } from './systems/system.ts';
import { INNER_MTU } from './underlay.ts';

export interface Circumstances extends Hardware {
  readonly rttMs: number;
  /** Per cent of the packets on the way from one cloud to another. */
  readonly lossPct: number;
  /** How delay and loss come about. */
  readonly delayAndLossBy: 'user space';
  readonly innerMtu: number;
  readonly repetitions: number;
  readonly peerRepetitions: number;
  /** The probes that ran at the same time; each list had repetitions of its own. */
  readonly probesTogether: readonly (readonly ProbeName[])[];
  readonly versions: Readonly<Record<string, string>>;
}

export function describeCircumstances(
  systems: readonly HandoverSystem[],
  run: Pick<Circumstances, 'rttMs' | 'lossPct' | 'repetitions' | 'peerRepetitions' | 'probesTogether'>,
): Circumstances {
  return {
    ...describeHardware(),
    ...run,
    delayAndLossBy: 'user space',
    innerMtu: INNER_MTU,
    versions: Object.fromEntries(systems.map(({ name, version }) => [name, version])),
  };
}

/** Several lines for people. */
export function circumstanceLines(run: Circumstances): string[] {
  const loss = run.lossPct === 0 ? 'no loss' : `${run.lossPct} % of the packets lost each way`;
  const { commit } = run;
  return [
    `Underlay RTT ${run.rttMs} ms between any two clouds, ${loss}: both made in user space by the lab's cables. MTU ${run.innerMtu} inside.`,
    `Probes that ran at the same time: ${run.probesTogether.map((group) => group.join(' + ')).join('; ')}.`,
    `${run.repetitions} repetitions of Stayput, ${run.peerRepetitions} of others; P99 of fewer than 100 is the largest.`,
    `${run.cpu}, ${run.cores} cores, ${run.memoryGB} GB, kernel ${run.kernel}, TCP congestion control ${run.defaultCongestionControl}, load ${run.load.toFixed(2)} before the start`,
    `${run.date}${commit === null ? '' : `, commit ${commit}`}; ${Object.entries(run.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`,
  ];
}
