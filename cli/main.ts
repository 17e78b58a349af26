#!/usr/bin/env node
/**
 * `stayput`: one program, a file of `commands/` for each group.
 *
 * Exit codes: 0 done; 1 it was tried and failed; 2 what was typed or configured is wrong.
 */
import { CommanderError } from 'commander';
import { StayputError, UsageError } from '../proto/errors.ts';
import { buildProgram } from './program.ts';

async function main(): Promise<void> {
  process.stdout.on('error', ignoreBrokenPipe);
  process.stderr.on('error', ignoreBrokenPipe);
  try {
    await buildProgram().parseAsync();
  } catch (error) {
    process.exitCode = report(error);
  }
}

/** Nobody reads any further (`stayput eid list | head`). What was begun is ended as usual: it may have to clean up. */
function ignoreBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof UsageError) {
    process.stderr.write(`stayput: ${error.message}\n`);
    return 2;
  }
  if (error instanceof StayputError) {
    process.stderr.write(`stayput: ${error.message}\n`);
    return 1;
  }
  process.stderr.write(`stayput: unexpected error, please report it\n${(error as Error)?.stack ?? String(error)}\n`);
  return 1;
}

await main();
