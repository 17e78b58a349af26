/** The resolvers of the place where the host is, from resolv.conf on, as they change. */
import { type FSWatcher, readdirSync, readFileSync, realpathSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { type PlaceReader, placeOf } from '../core/dns-place.ts';

export interface ResolvConfWatch {
  close(): void;
}

/** Calls `changed` now and whenever the list is another one. An unreadable or empty file changes nothing. */
export function watchResolvConf(path: string, changed: (hosts: readonly string[]) => void): ResolvConfWatch {
  let watchers = new Map<string, FSWatcher>();
  let known = '';
  let soon: NodeJS.Timeout | undefined;
  const read = (): void => {
    soon = undefined;
    const { resolvers, paths } = placeOf(path, FILES);
    watchers = rewatch(watchers, new Set(paths.flatMap(directoriesOf)), noticed);
    // A file that is being rewritten is empty for a moment.
    if (resolvers.length === 0 || resolvers.join() === known) return;
    known = resolvers.join();
    changed(resolvers);
  };
  const noticed = (): void => {
    soon ??= setTimeout(read, COALESCE);
  };
  read();
  // For file systems that tell nothing, and directories that come later.
  const poll = setInterval(read, POLL).unref();
  return {
    close: () => {
      clearInterval(poll);
      clearTimeout(soon);
      for (const watcher of watchers.values()) watcher.close();
    },
  };
}

const FILES: PlaceReader = {
  text: (path) => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
  },
  names: (folder) => {
    try {
      return readdirSync(folder).sort();
    } catch {
      return [];
    }
  },
};

/** resolv.conf is replaced by renaming, and often a link: its directory and that of its target are watched. */
function directoriesOf(path: string): string[] {
  try {
    return [dirname(path), dirname(realpathSync(path))];
  } catch {
    return [dirname(path)];
  }
}

function rewatch(
  current: ReadonlyMap<string, FSWatcher>,
  wanted: ReadonlySet<string>,
  noticed: () => void,
): Map<string, FSWatcher> {
  const next = new Map<string, FSWatcher>();
  for (const [directory, watcher] of current) {
    if (wanted.has(directory)) next.set(directory, watcher);
    else watcher.close();
  }
  for (const directory of wanted) {
    if (next.has(directory)) continue;
    try {
      const watcher = watch(directory, { persistent: false }, noticed);
      watcher.on('error', () => watcher.close());
      next.set(directory, watcher);
    } catch {
      // No such directory yet; the poll looks again.
    }
  }
  return next;
}

/** Milliseconds. */
const COALESCE = 20;
const POLL = 5000;
