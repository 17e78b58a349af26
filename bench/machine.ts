/** Under what conditions the figures were measured. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { INNER_MTU, LINK_MTU } from './link.ts';
import type { System } from './systems/system.ts';

export interface Hardware {
  readonly date: string;
  readonly kernel: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGB: number;
  /** Of the last minute, before anything was started. More than a little of it spoils the figures. */
  readonly load: number;
  readonly defaultCongestionControl: string;
  /** Of the checkout; `-dirty` with changes that are not committed. */
  readonly commit: string | null;
}

export interface Machine extends Hardware {
  readonly congestionControl: string;
  readonly linkMtu: number;
  readonly innerMtu: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly versions: Readonly<Record<string, string>>;
}

export function describeMachine(
  systems: readonly System[],
  run: { readonly congestion: string | undefined; readonly rounds: number; readonly seconds: number },
): Machine {
  const hardware = describeHardware();
  return {
    ...hardware,
    congestionControl: run.congestion ?? hardware.defaultCongestionControl,
    linkMtu: LINK_MTU,
    innerMtu: INNER_MTU,
    rounds: run.rounds,
    seconds: run.seconds,
    versions: {
      ...Object.fromEntries(systems.map(({ name, version }) => [name, version])),
      iperf3:
        /iperf (\S+)/.exec(spawnSync('iperf3', ['--version'], { encoding: 'utf8' }).stdout ?? '')?.[1] ?? 'unknown',
      node: process.versions.node,
    },
  };
}

export function describeHardware(): Hardware {
  return {
    date: new Date().toISOString(),
    kernel: release(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGB: Math.round(totalmem() / 1e9),
    load: loadavg()[0] ?? 0,
    defaultCongestionControl: defaultCongestion(),
    commit: commit(),
  };
}

export function defaultCongestion(): string {
  return readSetting('tcp_congestion_control');
}

export function availableCongestion(): readonly string[] {
  return readSetting('tcp_available_congestion_control').split(' ');
}

/** How many cores are kept busy by others, watched for half a second while nothing of the bench runs. */
export async function busyCores(): Promise<number> {
  const before = parseBusyTicks(readFileSync('/proc/stat', 'utf8'));
  await pause(500);
  const after = parseBusyTicks(readFileSync('/proc/stat', 'utf8'));
  const total = after.total - before.total;
  return total <= 0 ? 0 : ((after.busy - before.busy) / total) * availableParallelism();
}

/** Waiting for a disk is idle time, and guests are part of the user time already. */
export function parseBusyTicks(stat: string): { readonly busy: number; readonly total: number } {
  const fields = (stat.split('\n', 1)[0] ?? '').split(/\s+/).slice(1, 9).map(Number);
  const total = fields.reduce((sum, ticks) => sum + ticks, 0);
  return { busy: total - (fields[3] ?? 0) - (fields[4] ?? 0), total };
}

/** Several lines for people. */
export function machineLines(machine: Machine): string[] {
  const { commit: hash, load } = machine;
  const versions = Object.entries(machine.versions).filter(([, version]) => !['veth', 'kernel'].includes(version));
  const other =
    machine.defaultCongestionControl === machine.congestionControl
      ? ''
      : ` (the machine’s default is ${machine.defaultCongestionControl})`;
  return [
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGB} GB, kernel ${machine.kernel}, load ${load.toFixed(2)} before the start`,
    `TCP congestion control ${machine.congestionControl}${other}; MTU ${machine.linkMtu} of the cable, ${machine.innerMtu} inside`,
    `${machine.rounds} ${machine.rounds === 1 ? 'round' : 'rounds'}, ${machine.seconds} s for each figure; ${machine.date}${hash === null ? '' : `, commit ${hash}`}`,
    versions.map(([name, version]) => `${name} ${version}`).join(', '),
  ];
}

function commit(): string | null {
  const git = (...args: readonly string[]) => spawnSync('git', ['-C', PROJECT_ROOT, ...args], { encoding: 'utf8' });
  const head = git('rev-parse', '--short=10', 'HEAD');
  if (head.status !== 0) return null;
  const dirty = git('status', '--porcelain', '--', 'dataplane', 'agent', 'mapserver', 'runtime', 'proto');
  return `${head.stdout.trim()}${dirty.stdout.trim() === '' ? '' : '-dirty'}`;
}

function readSetting(name: string): string {
  return readFileSync(`/proc/sys/net/ipv4/${name}`, 'utf8').trim();
}
