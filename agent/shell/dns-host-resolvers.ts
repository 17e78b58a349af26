/** The resolvers of the place where the host is, from resolv.conf on, as they change. */
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { type PlaceReader, placeOf } from '../core/dns-place.ts';
import { FolderWatch } from './folder-watch.ts';

export interface ResolvConfWatch {
  close(): void;
}

/** Calls `changed` now and whenever the list is another one. An unreadable or empty file changes nothing. */
export function watchResolvConf(path: string, changed: (hosts: readonly string[]) => void): ResolvConfWatch {
  let known = '';
  let soon: NodeJS.Timeout | undefined;
  const read = (): void => {
    soon = undefined;
    const { resolvers, paths } = placeOf(path, FILES);
    folders.follow(paths.flatMap(foldersOf));
    // A file that is being rewritten is empty for a moment.
    if (resolvers.length === 0 || resolvers.join() === known) return;
    known = resolvers.join();
    changed(resolvers);
  };
  const folders = new FolderWatch(() => {
    soon ??= setTimeout(read, COALESCE);
  });
  read();
  // For file systems that tell nothing.
  const poll = setInterval(read, POLL).unref();
  return {
    close: () => {
      clearInterval(poll);
      clearTimeout(soon);
      folders.close();
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

/** resolv.conf is replaced by renaming, and often a link: its folder and that of its target are watched. */
function foldersOf(path: string): string[] {
  try {
    return [dirname(path), dirname(realpathSync(path))];
  } catch {
    return [dirname(path)];
  }
}

/** Milliseconds. */
const COALESCE = 20;
const POLL = 5000;
