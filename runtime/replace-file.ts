/** Puts a file in the place of another: whole, by rename after fsync, so that a crash leaves the old or the new one. */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Replaces what is at `path`, also a link; durable when it returns.
 *
 * @param owner whose it is, which takes root; `folder`: if root writes, whose the folder is, whose daemon is to read it.
 * Otherwise it belongs to who writes.
 * @throws an error of the system; then the old file is there or the new one, and nothing else
 */
export function replaceFile(path: string, content: string | Uint8Array, mode: number, owner?: Owner | 'folder'): void {
  const parent = dirname(path);
  const folder = openSync(parent, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const { uid, gid } = fstatSync(folder);
    const isOfAnother = uid !== 0 && process.geteuid?.() === 0;
    // A name on the way may be that user's, who could make it lead elsewhere now: root stays in the folder it opened.
    const within = isOfAnother ? `/proc/self/fd/${folder}` : parent;
    const ofFolder = isOfAnother ? { uid, gid } : undefined;
    replace(join(within, basename(path)), content, mode, owner === 'folder' ? ofFolder : owner);
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function replace(path: string, content: string | Uint8Array, mode: number, owner: Owner | undefined): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    // A leftover of a crash may have another mode: it is not written into but replaced.
    rmSync(temporary, { force: true });
    const file = openSync(temporary, 'wx', 0o600);
    try {
      writeFileSync(file, content);
      // By the descriptor: by then the name may be a link.
      if (owner !== undefined) fchownSync(file, owner.uid, owner.gid);
      fchmodSync(file, mode);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
