import { readFileSync } from 'node:fs';
import { text as readAll } from 'node:stream/consumers';
import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { printLines } from '../agent-client.ts';
import { printJson } from '../output.ts';
import { registerEidCommands } from './eid.ts';
import { registerPeersCommand } from './peers.ts';
import { registerPingCommand } from './ping.ts';
import { registerResolveCommand } from './resolve.ts';
import { registerStatusCommand } from './status.ts';

interface ConfigOptions {
  readonly config?: string;
  readonly stateDir?: string;
}

interface JoinOptions extends ConfigOptions {
  readonly token?: string;
  readonly tokenFile?: string;
  readonly eid: readonly string[];
  readonly name: readonly string[];
  readonly force?: boolean;
  readonly json?: boolean;
}

export function registerAgentCommands(program: Command): void {
  const agent = program.command('agent').description('Join this host to an overlay, and run its agent');
  agent
    .command('join')
    .description('Enrol this host at a map server with a join token')
    .argument('<url>', 'of the map server, e.g. https://mapserver.example:4342')
    .option('--token <token>', 'join token ("-": from standard input)')
    .option('--token-file <file>', 'file with the join token ("-": standard input)')
    .option('--eid <prefix>', 'address of this host in the overlay; may be given several times', collect, [])
    .option(
      '--name <name>',
      'name for the EIDs, or NAME=ADDRESS for one of them; may be given several times',
      collect,
      [],
    )
    .option('--config <file>', 'configuration file')
    .option('--state-dir <dir>', 'state folder')
    .option('--force', 'give up another identity that this host has')
    .option('--json', 'print JSON')
    .action(joinOverlay);
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
      await runAgent(loadAgentConfig(config, overrides));
    });
  registerStatusCommand(program);
  registerEidCommands(program);
  registerPeersCommand(program);
  registerResolveCommand(program);
  registerPingCommand(program);
}

async function joinOverlay(url: string, options: JoinOptions): Promise<void> {
  const [{ loadAgentConfig }, { join }, { StateFolder }] = await Promise.all([
    import('../../agent/config.ts'),
    import('../../agent/shell/enrolment.ts'),
    import('../../agent/shell/identity.ts'),
  ]);
  const { stateDir } = loadAgentConfig(options.config, { stateDir: options.stateDir });
  const result = await join(new StateFolder(stateDir), {
    url,
    token: await readToken(options),
    eids: options.eid,
    names: options.name,
    force: options.force === true,
    software: `stayput ${VERSION}`,
  });
  const { mapServer, xtrId, overlay, zone } = result.identity;
  const already = result.kind === 'already';
  if (options.json === true) {
    printJson({ joined: true, already, xtrId, mapServer, overlay, zone, stateDir });
    return;
  }
  const at = `${mapServer.host}:${mapServer.port}`;
  if (already) {
    printLines([`Already joined to ${at} as ${xtrId}; nothing was changed. Use "stayput eid attach" for more EIDs.`]);
    return;
  }
  printLines([`Joined ${at} as ${xtrId}; the overlay is ${overlay.join(', ')}. Start the agent: stayput agent run`]);
}

async function readToken(options: JoinOptions): Promise<string> {
  const { token, tokenFile } = options;
  if (token !== undefined && tokenFile !== undefined) throw new UsageError('give either --token or --token-file');
  if (token === '-' || tokenFile === '-' || (token === undefined && tokenFile === undefined)) {
    if (process.stdin.isTTY)
      throw new UsageError('a join token is needed: --token TOKEN, --token-file FILE, or - and standard input');
    return (await readAll(process.stdin)).trim();
  }
  if (token !== undefined) return token.trim();
  try {
    return readFileSync(tokenFile ?? '', 'utf8').trim();
  } catch (cause) {
    throw new UsageError(`${tokenFile}: the join token cannot be read (${(cause as Error).message})`, { cause });
  }
}

function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value];
}
