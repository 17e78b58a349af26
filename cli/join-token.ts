/** Where a join token comes from: an option, a file, standard input, or the person at the terminal. */
import { readFileSync } from 'node:fs';
import { text as readAll } from 'node:stream/consumers';
import { UsageError } from '../proto/errors.ts';
import { askSecret } from './secret-prompt.ts';

export interface TokenOptions {
  readonly token?: string;
  readonly tokenFile?: string;
}

/** @throws UsageError when there is none */
export async function readToken({ token, tokenFile }: TokenOptions): Promise<string> {
  if (token !== undefined && tokenFile !== undefined) throw new UsageError('give either --token or --token-file');
  const [given, missing] = await readFrom(token, tokenFile);
  const text = given.trim();
  if (text === '') throw new UsageError(`a join token is needed, and ${missing}`);
  return text;
}

async function readFrom(
  token: string | undefined,
  file: string | undefined,
): Promise<readonly [text: string, missing: string]> {
  if (token !== undefined && token !== '-') return [token, '--token is empty'];
  if (file !== undefined && file !== '-') return [readTokenFile(file), `${file} is empty`];
  if (process.stdin.isTTY) return [await askSecret('Join token (is not shown): '), 'none was typed'];
  return [await readAll(process.stdin), 'standard input is empty'];
}

function readTokenFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new UsageError(`${path}: the join token cannot be read (${(cause as Error).message})`, { cause });
  }
}
