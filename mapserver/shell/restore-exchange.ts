/**
 * The exchange of a data folder's files at a restore: all of them or none, also when it is cut off.
 *
 * Before the first move a file in the data folder says where the new ones are, which are whole and checked, and where the
 * old ones go; it is removed after the last. Whoever finds it makes the moves that are left (`finishExchange`): which
 * these are is seen from what is still where it was. The new ones move when no old one is in their place any more, but
 * for `overlay.json`, which is replaced in one step: without it nobody starts the map server, who is to finish.
 */
import { existsSync, lchownSync, linkSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readJsonFile, StateFileError, writeJsonFile } from '../../runtime/json-file.ts';

export type Rename = (from: string, to: string) => void;

/** Folders and files by their names in the data folder. */
interface Exchange {
  /** Has the new ones. */
  readonly staging: string;
  /** For the old ones; null when there are none. */
  readonly replaced: string | null;
  /** Of the new ones. */
  readonly names: readonly string[];
}

/** Undone when a move fails. @throws what `rename` throws */
export function exchange(dataDir: string, what: Exchange, rename: Rename = renameSync): void {
  const { staging, replaced } = what;
  const moved: (readonly [from: string, to: string])[] = [];
  const marker = join(dataDir, staging, MARKER);
  writeJsonFile(marker, what);
  belongLike(dataDir, marker);
  belongLike(dataDir, join(dataDir, staging));
  try {
    // Before the marker: whoever finishes has the rights of the folder's owner only.
    if (replaced !== null) {
      mkdirSync(join(dataDir, replaced), { mode: 0o700 });
      belongLike(dataDir, join(dataDir, replaced));
    }
    rename(marker, join(dataDir, MARKER));
    move(dataDir, what, rename, moved);
  } catch (error) {
    for (const [from, to] of moved.reverse()) rename(to, from);
    if (replaced !== null) rmSync(join(dataDir, replaced), { recursive: true, force: true });
    rmSync(join(dataDir, MARKER), { force: true });
    throw error;
  }
  try {
    rmSync(join(dataDir, MARKER));
  } catch {
    // All is moved: the next to come finds nothing left to do, and removes it.
  }
}

/** Makes the moves that a restore which was cut off has left; false when there was none. @throws StateFileError */
export function finishExchange(dataDir: string): boolean {
  const what = readJsonFile(join(dataDir, MARKER), EXCHANGE);
  if (what === undefined) return false;
  try {
    asOwner(dataDir, () => {
      move(dataDir, what, renameSync, []);
      rmSync(join(dataDir, MARKER));
      rmSync(join(dataDir, what.staging), { recursive: true, force: true });
    });
  } catch (cause) {
    throw new StateFileError(dataDir, `a restore that was cut off cannot be finished (${(cause as Error).message})`, {
      cause,
    });
  }
  return true;
}

/** With the rights of the folder's owner, who can put links into it: root must not follow them. */
function asOwner(folder: string, act: () => void): void {
  const { uid, gid } = statSync(folder);
  if (process.geteuid?.() !== 0 || uid === 0) {
    act();
    return;
  }
  const own = process.getegid?.() ?? 0;
  process.setegid?.(gid);
  process.seteuid?.(uid);
  try {
    act();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(own);
  }
}

/** True from the first move to the last. */
export function isExchanging(dataDir: string): boolean {
  return existsSync(join(dataDir, MARKER));
}

/** The moves that are not made yet. */
function move(
  dataDir: string,
  { staging, replaced, names }: Exchange,
  rename: Rename,
  moved: (readonly [from: string, to: string])[],
): void {
  const left = names.filter((name) => existsSync(join(dataDir, staging, name)));
  if (replaced !== null && left.length === names.length) {
    // Not those of before: that the store was looked at has taken in the journal of one that was killed.
    for (const name of PRESENT.filter((each) => existsSync(join(dataDir, each)))) {
      const [from, to] = [join(dataDir, name), join(dataDir, replaced, name)];
      if (name !== LAST) rename(from, to);
      else if (!existsSync(to)) linkSync(from, to);
      moved.push([from, to]);
    }
  }
  for (const name of left) {
    const [from, to] = [join(dataDir, staging, name), join(dataDir, name)];
    rename(from, to);
    moved.push([from, to]);
  }
}

/** The map server is another user than who restores. */
export function belongLike(folder: string, path: string): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = statSync(folder);
  // Not what a link leads to: the folder is another user's, who could put one there.
  lchownSync(path, uid, gid);
}

const LAST = 'overlay.json';
/** In the order in which they are put back: `overlay.json` says that all is there. */
export const DATA_FILES = ['server-certificate.json', 'zone-serial.json', 'zone-signed.json', LAST] as const;
/** What a map server has in its data folder. */
export const PRESENT = ['store.db', 'store.db-wal', 'store.db-shm', ...DATA_FILES] as const;

const MARKER = 'restoring.json';
const EXCHANGE = z.object({
  staging: z.string().regex(/^\.restore-\d+-\w+$/),
  replaced: z
    .string()
    .regex(/^replaced-[\w.:-]+$/)
    .nullable(),
  names: z.array(z.enum(PRESENT)).max(PRESENT.length),
});
