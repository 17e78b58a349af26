/** Programs of the system that are told about names: resolvectl, resolvconf, getent. */
import { execFile } from 'node:child_process';
import { StayputError } from '../../proto/errors.ts';
import { findProgram } from '../../runtime/programs.ts';

/** What it prints. @throws StayputError with what it complained of */
export function run(program: string, args: readonly string[], input?: string): Promise<string> {
  const path = findProgram(program);
  if (path === undefined) return Promise.reject(new StayputError('STAYPUT_NO_PROGRAM', `${program} is not installed`));
  return new Promise((resolve, reject) => {
    const child = execFile(path, args, { timeout: TIMEOUT, maxBuffer: MAX_OUTPUT }, (cause, stdout, stderr) => {
      if (cause === null) return resolve(stdout);
      const complaint = stderr.trim().split('\n', 1)[0] || cause.message.split('\n', 1)[0];
      reject(new StayputError('STAYPUT_PROGRAM', `${program} ${args.join(' ')}: ${complaint}`, { cause }));
    });
    // One that ends without reading is judged by its exit code.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input ?? '');
  });
}

/** Milliseconds. */
const TIMEOUT = 10_000;
const MAX_OUTPUT = 1 << 20;
