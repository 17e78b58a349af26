/**
 * Tells of changes in folders that come and go. A folder that is removed and made again is another one, of which the
 * watch of the first says nothing; and while there is none, it is the folder above that tells when it comes.
 */
import { type FSWatcher, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';

/** `name`: of the file in it, where that is known. */
export type FolderChange = (folder: string, name: string | null) => void;

export class FolderWatch {
  readonly #noticed: FolderChange;
  #watched = new Map<string, Watched>();

  constructor(noticed: FolderChange) {
    this.#noticed = noticed;
  }

  /** These from now on. To be called again after each change, and now and then for file systems that tell nothing. */
  follow(folders: Iterable<string>): void {
    const before = this.#watched;
    this.#watched = new Map();
    for (const folder of new Set(folders)) {
      const { existing, next, identity } = nearest(folder);
      const same = before.get(folder);
      if (same?.identity === identity) {
        before.delete(folder);
        this.#watched.set(folder, same);
        continue;
      }
      const watcher = begin(existing, (name) => {
        if (next === undefined) this.#noticed(folder, name);
        else if (name === null || name === next) this.#noticed(folder, null);
      });
      if (watcher !== undefined) this.#watched.set(folder, { watcher, identity });
    }
    for (const { watcher } of before.values()) watcher.close();
  }

  close(): void {
    this.follow([]);
  }
}

interface Watched {
  readonly watcher: FSWatcher;
  readonly identity: string;
}

/** The folder, or the one above that is there and what is missing in it. */
function nearest(folder: string): { existing: string; next: string | undefined; identity: string } {
  for (let existing = folder, next: string | undefined; ; next = basename(existing), existing = dirname(existing)) {
    try {
      // The number alone may be that of the one that was removed.
      const { dev, ino, birthtimeMs } = statSync(existing);
      return { existing, next, identity: `${existing} ${dev} ${ino} ${birthtimeMs}` };
    } catch {
      if (existing === dirname(existing)) return { existing, next, identity: '' };
    }
  }
}

/** Undefined where it cannot be watched. */
function begin(folder: string, noticed: (name: string | null) => void): FSWatcher | undefined {
  try {
    const watcher = watch(folder, { persistent: false }, (_, name) => noticed(name));
    watcher.on('error', () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}
