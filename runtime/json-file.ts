/** Small state files: written whole, by rename after fsync, so that a crash leaves the old or the new one. */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { z } from 'zod';
import { StayputError } from '../proto/errors.ts';

export class StateFileError extends StayputError {
  constructor(path: string, problem: string, options?: ErrorOptions) {
    super('STAYPUT_STATE_FILE', `${path}: ${problem}`, options);
  }
}

/** Returns undefined when there is no such file. @throws StateFileError when it cannot be read or has another form */
export function readJsonFile<T extends z.ZodType>(path: string, schema: T): z.output<T> | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new StateFileError(path, `cannot be read (${(cause as Error).message})`, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new StateFileError(path, `is not JSON (${(cause as Error).message})`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new StateFileError(path, firstIssue(parsed.error), { cause: parsed.error });
  return parsed.data;
}

/**
 * Durable when it returns. Makes missing folders (0700). What root writes into the folder of another user, whose daemon
 * is to read it, belongs to that user. @throws StateFileError
 */
export function writeJsonFile(path: string, value: unknown, mode = 0o600): void {
  const parent = dirname(path);
  try {
    mkdirSync(parent, { recursive: true, mode: 0o700 });
    const folder = openSync(parent, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      const owner = process.geteuid?.() === 0 ? ownerBesidesRoot(folder) : undefined;
      // A name on the way may be that user's, who could make it lead elsewhere now: root stays in the folder it opened.
      const within = owner === undefined ? parent : `/proc/self/fd/${folder}`;
      replaceFile(join(within, basename(path)), `${JSON.stringify(value, null, 2)}\n`, mode, owner);
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  } catch (cause) {
    throw new StateFileError(path, `cannot be written (${(cause as Error).message})`, { cause });
  }
}

function ownerBesidesRoot(folder: number): Stats | undefined {
  const stats = fstatSync(folder);
  return stats.uid === 0 ? undefined : stats;
}

function replaceFile(path: string, text: string, mode: number, owner: Stats | undefined): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    // A leftover of a crash may have another mode: it is not written into but replaced.
    rmSync(temporary, { force: true });
    const file = openSync(temporary, 'wx', mode);
    try {
      fchmodSync(file, mode);
      // By the descriptor: by then the name may be a link.
      if (owner !== undefined) fchownSync(file, owner.uid, owner.gid);
      writeFileSync(file, text);
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

/** The first problem of a zod error as `path: message`. */
export function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  if (issue === undefined) return 'is not valid';
  const at = issue.path.length > 0 ? `${issue.path.join('.')}: ` : '';
  return `${at}${issue.message}`;
}
