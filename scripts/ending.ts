/**
 * A run of tests ends with whoever asked for it. A signal to it ends everything it has started; and so does the end of
 * the npm that started it, since npm that is killed tells nobody: its shell and what that runs would go on.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { sweepLeftovers } from '../test/lab/lab.ts';
import { waitFor } from '../test/lab/wait.ts';

/**
 * To be called once, before anything is started. What does not end when it is told to is killed after `graceMs`. Once the
 * signal that is returned is aborted, nothing more is to be started, and this process exits by itself.
 */
export function endWithCaller(graceMs = GRACE_MS): AbortSignal {
  const ending = new AbortController();
  const end = (code: number): void => {
    if (ending.signal.aborted) return;
    void endEverything(graceMs).finally(() => process.exit(code));
    ending.abort();
  };
  process.on('SIGINT', () => end(130));
  process.on('SIGTERM', () => end(143));
  process.on('SIGHUP', () => end(129));
  const npm = npmAbove();
  if (npm !== undefined) {
    setInterval(() => {
      if (!lives(npm)) end(129);
    }, LOOK_MS).unref();
  }
  return ending.signal;
}

interface Entry {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  /** In clock ticks since boot: tells a process from a later one with the same id. */
  readonly startTime: string;
}

/** Test files close their laboratories when they are told to end; what is left of anything after that is killed. */
async function endEverything(graceMs: number): Promise<void> {
  const started = descendants();
  for (const each of started) signal(each, 'SIGTERM');
  try {
    await waitFor('the tests to end', () => !started.some(lives), { timeoutMs: graceMs, intervalMs: 50 });
  } catch {
    for (const each of [...started, ...descendants()]) signal(each, 'SIGKILL');
    await waitFor('the killed to be gone', () => !started.some(lives), { intervalMs: 50 }).catch(() => undefined);
  }
  sweepLeftovers();
}

/** The npm that runs this as one of its scripts, itself or through a shell. */
function npmAbove(): Entry | undefined {
  let above = process.env.npm_execpath === undefined ? undefined : entryOf(process.ppid);
  while (above !== undefined && !above.name.startsWith('npm')) above = entryOf(above.parent);
  return above;
}

function descendants(): Entry[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => entryOf(Number(name)) ?? []);
  const below = (pid: number): Entry[] =>
    all.filter(({ parent }) => parent === pid).flatMap((child) => [child, ...below(child.pid)]);
  return below(process.pid);
}

function lives({ pid, startTime }: Entry): boolean {
  return entryOf(pid)?.startTime === startTime;
}

function signal(entry: Entry, name: NodeJS.Signals): void {
  if (!lives(entry)) return;
  try {
    process.kill(entry.pid, name);
  } catch {
    // Ended at this moment.
  }
}

/** Undefined without such a process, or when it has ended and only waits to be asked how. */
function entryOf(pid: number): Entry | undefined {
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

/** The closing of a laboratory with all of its programs takes a few seconds. */
const GRACE_MS = 15_000;
const LOOK_MS = 500;
