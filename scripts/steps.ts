/** What the scripts share: missing tools and failed steps end in plain lines and exit code 1. */
import { spawnSync } from 'node:child_process';
import { isAbsolute } from 'node:path';
import { StayputError } from '../proto/errors.ts';
import { findProgram } from '../runtime/programs.ts';

export class StepFailed extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_STEP', message, options);
  }
}

export async function runScript(run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    console.error(error instanceof StayputError ? error.message : error);
    process.exitCode = 1;
  }
}

/** @throws StepFailed with all of the lines */
export function demand(missing: readonly string[]): void {
  if (missing.length > 0) throw new StepFailed(missing.join('\n'));
}

/** What a program printed, found by its name if that is no path. @throws StepFailed when it is not there or fails */
export function run(program: string, args: readonly string[], options: { readonly cwd?: string } = {}): string {
  const path = isAbsolute(program) ? program : findProgram(program);
  if (path === undefined) throw new StepFailed(`${program} not found`);
  const { status, stdout, stderr } = spawnSync(path, args, { ...options, encoding: 'utf8', maxBuffer: MAX_OUTPUT });
  if (status !== 0) throw new StepFailed(`${program} ${args.join(' ')} failed:\n${stderr}`);
  return stdout;
}

const MAX_OUTPUT = 64 * 1024 * 1024;
