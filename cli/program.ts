/** All commands of `stayput`. */
import { Command } from 'commander';
import { VERSION } from '../runtime/project-root.ts';
import { registerAgentCommands } from './commands/agent.ts';
import { registerAgentsCommands } from './commands/agents.ts';
import { registerBenchCommand } from './commands/bench.ts';
import { registerBugreportCommand } from './commands/bugreport.ts';
import { registerCompletionCommands } from './commands/completion.ts';
import { registerConformCommands } from './commands/conform.ts';
import { registerDataplaneCommands } from './commands/dataplane.ts';
import { registerDemoCommand } from './commands/demo.ts';
import { registerDnsCommands } from './commands/dns.ts';
import { registerDoctorCommands } from './commands/doctor.ts';
import { registerHookCommands } from './commands/hook.ts';
import { registerLispCommands } from './commands/lisp.ts';
import { registerMapserverCommands } from './commands/mapserver.ts';
import { registerNameCommands } from './commands/name.ts';
import { registerOvfCommands } from './commands/ovf.ts';
import { registerPolicyCommands } from './commands/policy.ts';
import { registerSiteCommands } from './commands/site.ts';
import { registerTokenCommands } from './commands/token.ts';

export function buildProgram(): Command {
  const program = new Command('stayput')
    .description(
      'Keeps a workload’s address, name and open connections while it moves between clouds, hosts and subnets.',
    )
    .version(VERSION)
    // Commands with options of their own have subcommands with options of the same names.
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .showHelpAfterError('(try --help)')
    .exitOverride();
  registerMapserverCommands(program);
  registerTokenCommands(program);
  registerAgentsCommands(program);
  registerNameCommands(program);
  registerPolicyCommands(program);
  registerSiteCommands(program);
  registerAgentCommands(program);
  registerDnsCommands(program);
  registerDoctorCommands(program);
  registerBugreportCommand(program);
  registerDataplaneCommands(program);
  registerDemoCommand(program);
  registerBenchCommand(program);
  registerConformCommands(program);
  registerHookCommands(program);
  registerLispCommands(program);
  registerOvfCommands(program);
  registerCompletionCommands(program);
  return program;
}
