/** Files with secrets: their owner's alone unless said otherwise, whole or not there. */
import { closeSync, fchmodSync, fchownSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { StayputError } from '../proto/errors.ts';

/** Who may read a file, other than who writes it. */
export interface Access {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

/** Replaces what is at `path`, also a link; durable when it returns. `access` takes root. @throws StayputError when it cannot be written */
export function writePrivateFile(path: string, content: Uint8Array, access?: Access): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    rmSync(temporary, { force: true });
    const file = openSync(temporary, 'wx', 0o600);
    try {
      writeFileSync(file, content);
      if (access !== undefined) {
        fchownSync(file, access.uid, access.gid);
        fchmodSync(file, access.mode);
      }
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new StayputError('STAYPUT_FILE', `${path}: cannot be written (${(cause as Error).message})`, { cause });
  }
}
