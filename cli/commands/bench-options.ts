/** What the benches have in common on the command line. */
import { writeFileSync } from 'node:fs';
import { Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';

export function peerOption(): Option {
  return new Option('--peer <name=path>', 'where the program of a peer is; may be given several times')
    .argParser((value: string, before: readonly string[]) => [...before, value])
    .default([], 'the PATH');
}

export function demandRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new UsageError('the bench makes network namespaces and enlarges socket buffers: run it as root');
}

/** Tried before the long run as well, so that its result is not lost. */
export function writePicture(file: string, svg: string): void {
  try {
    writeFileSync(file, svg);
  } catch (cause) {
    throw new UsageError(`--svg ${file}: ${(cause as Error).message}`, { cause });
  }
}

export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
