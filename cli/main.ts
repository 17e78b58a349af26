#!/usr/bin/env node
/**
 * `stayput`: one program, a file of `commands/` for each group.
 *
 * Exit codes: 0 done; 1 it was tried and failed; 2 what was typed or configured is wrong.
 */
import { Command, CommanderError } from 'commander';
import { StayputError, UsageError } from '../proto/errors.ts';
import { VERSION } from '../runtime/project-root.ts';
import { registerAgentCommands } from './commands/agent.ts';
import { registerBenchCommand } from './commands/bench.ts';
import { registerDemoCommand } from './commands/demo.ts';
import { registerHookCommands } from './commands/hook.ts';
import { registerMapserverCommands } from './commands/mapserver.ts';
import { registerPolicyCommands } from './commands/policy.ts';

export function buildProgram(): Command {
  const program = new Command('stayput')
    .description(
      'Keeps a workload’s address, name and open connections while it moves between clouds, hosts and subnets.',
    )
    .version(VERSION)
    .showSuggestionAfterError()
    .showHelpAfterError('(try --help)')
    .exitOverride();
  registerMapserverCommands(program);
  registerPolicyCommands(program);
  registerAgentCommands(program);
  registerDemoCommand(program);
  registerBenchCommand(program);
  registerHookCommands(program);
  return program;
}

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
