/**
 * A run of tests ends with whoever asked for it. A signal to it ends everything it has started; and so does the end of
 * the npm that started it, since npm that is killed tells nobody: its shell and what that runs would go on.
 */
import { sweepLeftovers } from '../test/lab/lab.ts';
import { descendants, endProcesses, entryOf, lives, type ProcessEntry } from './process-tree.ts';

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

/** Test files close their laboratories when they are told to end; what is left of anything after that is killed. */
async function endEverything(graceMs: number): Promise<void> {
  await endProcesses(descendants(), graceMs, descendants);
  sweepLeftovers();
}

/** The npm that runs this as one of its scripts, itself or through a shell. */
function npmAbove(): ProcessEntry | undefined {
  let above = process.env.npm_execpath === undefined ? undefined : entryOf(process.ppid);
  while (above !== undefined && !above.name.startsWith('npm')) above = entryOf(above.parent);
  return above;
}

/** The closing of a laboratory with all of its programs takes a few seconds. */
export const GRACE_MS = 15_000;
const LOOK_MS = 500;
