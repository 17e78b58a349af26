/** The processes below this one, and how they are ended. */
import { readdirSync, readFileSync } from 'node:fs';
import { waitFor } from '../test/lab/wait.ts';

export interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  /** In clock ticks since boot: tells a process from a later one with the same id. */
  readonly startTime: string;
}

export function descendants(of = process.pid): ProcessEntry[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => entryOf(Number(name)) ?? []);
  const below = (pid: number): ProcessEntry[] =>
    all.filter(({ parent }) => parent === pid).flatMap((child) => [child, ...below(child.pid)]);
  return below(of);
}

/** Undefined without such a process, or when it has ended and only waits to be asked how. */
export function entryOf(pid: number): ProcessEntry | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [open, close] = [stat.indexOf('('), stat.lastIndexOf(')')];
    const fields = stat.slice(close + 2).split(' ');
    if (fields[0] === 'Z') return undefined;
    return { pid, parent: Number(fields[1]), name: stat.slice(open + 1, close), startTime: fields[19] ?? '' };
  } catch {
    return undefined;
  }
}

export function lives({ pid, startTime }: ProcessEntry): boolean {
  return entryOf(pid)?.startTime === startTime;
}

/** The arguments of a process; none when it has ended. */
export function argumentsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/** Tells them to end, and kills what has not after `graceMs`, with whatever `all` gives by then. */
export async function endProcesses(
  started: readonly ProcessEntry[],
  graceMs: number,
  all: () => readonly ProcessEntry[] = () => [],
): Promise<void> {
  for (const each of started) signal(each, 'SIGTERM');
  try {
    await waitFor('the processes to end', () => !started.some(lives), { timeoutMs: graceMs, intervalMs: 50 });
  } catch {
    for (const each of [...started, ...all()]) signal(each, 'SIGKILL');
    await waitFor('the killed to be gone', () => !started.some(lives), { intervalMs: 50 }).catch(() => undefined);
  }
}

function signal(entry: ProcessEntry, name: NodeJS.Signals): void {
  if (!lives(entry)) return;
  try {
    process.kill(entry.pid, name);
  } catch {
    // Ended at this moment.
  }
}
