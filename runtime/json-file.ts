/** Small state files, written whole. */
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { z } from 'zod';
import { StayputError } from '../proto/errors.ts';
import { replaceFile } from './replace-file.ts';

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

/** As `replaceFile`, and what root writes belongs to whom the folder does. Makes missing folders (0700). @throws StateFileError */
export function writeJsonFile(path: string, value: unknown, mode = 0o600): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    replaceFile(path, `${JSON.stringify(value, null, 2)}\n`, mode, 'folder');
  } catch (cause) {
    throw new StateFileError(path, `cannot be written (${(cause as Error).message})`, { cause });
  }
}

/** The first problem of a zod error as `path: message`. */
export function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  if (issue === undefined) return 'is not valid';
  const at = issue.path.length > 0 ? `${issue.path.join('.')}: ` : '';
  return `${at}${issue.message}`;
}
