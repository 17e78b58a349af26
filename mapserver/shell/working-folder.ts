/** Folders in the data folder that a command works in for a moment, and what is left of them when it was killed. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Makes one, and removes those of commands that have ended. The caller removes it. */
export function makeWorkingFolder(dataDir: string, purpose: 'backup' | 'restore'): string {
  for (const name of readdirSync(dataDir)) {
    const pid = LEFT.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) rmSync(join(dataDir, name), { recursive: true, force: true });
  }
  return mkdtempSync(join(dataDir, `.${purpose}-${process.pid}-`));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

const LEFT = /^\.(?:backup|restore)-(\d+)-\w+$/;
