/** Files with secrets: their owner's alone, whole or not there. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { StayputError } from '../proto/errors.ts';

/** Replaces what is at `path`; durable when it returns. @throws StayputError when it cannot be written */
export function writePrivateFile(path: string, content: Uint8Array): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    rmSync(temporary, { force: true });
    const file = openSync(temporary, 'wx', 0o600);
    try {
      writeFileSync(file, content);
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
