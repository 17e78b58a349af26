import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { type ClientOptions, callAgent, demandIdle, withClientOptions } from '../agent-client.ts';
import { readToken, type TokenOptions } from '../join-token.ts';
import { printJson, printLines } from '../output.ts';
import { type ConfigOptions, collect, registerJoinCommand } from './agent-join.ts';
import { registerDaemonSettings } from './daemon-settings.ts';
import { registerEidCommands } from './eid.ts';
import { registerPeersCommand } from './peers.ts';
import { registerPingCommand } from './ping.ts';
import { registerResolveCommand } from './resolve.ts';
import { registerSleepCommands } from './sleep.ts';
import { registerStatusCommand } from './status.ts';

interface ResetOptions extends ConfigOptions, TokenOptions {
  readonly eid: readonly string[];
  readonly name: readonly string[];
  readonly keep?: boolean;
  readonly json?: boolean;
}

export function registerAgentCommands(program: Command): void {
  const agent = program.command('agent').description('Join this host to an overlay, and run its agent');
  registerJoinCommand(agent);
  agent
    .command('reset-identity')
    .description('Give a copied host an identity of its own, or say that this one keeps the identity')
    .option(
      '--token <token>',
      'join token for a new identity ("-": from standard input); others on this host can read arguments',
    )
    .option('--token-file <file>', 'file with the join token ("-": standard input; at a terminal it is asked for)')
    .option('--eid <prefix>', 'address of this host with its new identity; may be given several times', collect, [])
    .option(
      '--name <name>',
      'name for the EIDs, or NAME=ADDRESS for one of them; may be given several times',
      collect,
      [],
    )
    .option('--keep', 'this host keeps the identity; the other one with it is fenced')
    .option('--config <file>', 'configuration file')
    .option('--state-dir <dir>', 'state folder')
    .option('--json', 'print JSON')
    .action(resetIdentity);
  agent
    .command('run')
    .description('Run the agent in the foreground')
    .option('--config <file>', 'configuration file')
    .option('--state-dir <dir>', 'state folder')
    .option('--socket <path>', 'socket for the command line')
    .action(async (options: ConfigOptions & { readonly socket?: string }) => {
      const [{ loadAgentConfig }, { runAgent }] = await Promise.all([
        import('../../agent/config.ts'),
        import('../../agent/main.ts'),
      ]);
      const { config, ...overrides } = options;
      await runAgent(() => loadAgentConfig(config, overrides));
    });
  registerDaemonSettings<ClientOptions>(agent, {
    command: (name, description) => withClientOptions(agent.command(name).description(description)),
    call: callAgent,
    schema: async () => (await import('../../agent/config.ts')).AGENT_CONFIG,
    configPath: '/etc/stayput/agent.json',
  });
  registerSleepCommands(agent);
  registerStatusCommand(program);
  registerEidCommands(program);
  registerPeersCommand(program);
  registerResolveCommand(program);
  registerPingCommand(program);
}

async function resetIdentity(options: ResetOptions): Promise<void> {
  const [{ loadAgentConfig }, enrolment, { StateFolder }, { readMachine }] = await Promise.all([
    import('../../agent/config.ts'),
    import('../../agent/shell/enrolment.ts'),
    import('../../agent/shell/identity.ts'),
    import('../../agent/shell/machine.ts'),
  ]);
  const { stateDir, socket } = loadAgentConfig(options.config, { stateDir: options.stateDir });
  await demandIdle(socket, stateDir);
  const folder = new StateFolder(stateDir);
  const keeps = options.keep === true;
  if (keeps && (options.token !== undefined || options.tokenFile !== undefined)) {
    throw new UsageError('give either --keep or a token: a token makes a new identity');
  }
  const identity = keeps
    ? enrolment.keepIdentity(folder, readMachine())
    : (
        await enrolment.resetIdentity(folder, {
          token: await readToken(options),
          eids: options.eid,
          names: options.name,
          software: `stayput ${VERSION}`,
        })
      ).identity;
  const { mapServer, xtrId } = identity;
  if (options.json === true) {
    printJson({ kept: keeps, xtrId, mapServer, stateDir });
    return;
  }
  const what = keeps ? `This host keeps the identity ${xtrId}` : `This host has the new identity ${xtrId}`;
  printLines(`${what}. Restart the agent: systemctl restart stayput-agent, or stayput agent run`);
}
