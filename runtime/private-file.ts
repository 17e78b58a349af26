/** Files with secrets: their owner's alone unless said otherwise, whole or not there. */
import { StayputError } from '../proto/errors.ts';
import { type Owner, replaceFile } from './replace-file.ts';

/** Who may read a file, other than who writes it. */
export interface Access extends Owner {
  readonly mode: number;
}

/** As `replaceFile`. `access` takes root. @throws StayputError when it cannot be written */
export function writePrivateFile(path: string, content: Uint8Array, access?: Access): void {
  try {
    replaceFile(path, content, access?.mode ?? 0o600, access);
  } catch (cause) {
    throw new StayputError('STAYPUT_FILE', `${path}: cannot be written (${(cause as Error).message})`, { cause });
  }
}
