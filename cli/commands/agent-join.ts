/** `stayput agent join`: with what was typed, or with what was left for this host. */
import type { Command } from 'commander';
import type { JoinResult } from '../../agent/shell/enrolment.ts';
import { UsageError } from '../../proto/errors.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { demandIdle } from '../agent-client.ts';
import { readToken, type TokenOptions } from '../join-token.ts';
import { duration } from '../option-values.ts';
import { printJson, printLines } from '../output.ts';

export interface ConfigOptions {
  readonly config?: string;
  readonly stateDir?: string;
}

interface JoinOptions extends ConfigOptions, TokenOptions {
  readonly eid: readonly string[];
  readonly name: readonly string[];
  readonly from?: string;
  readonly fromPlatform?: boolean;
  readonly wait?: string;
  readonly user?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function registerJoinCommand(agent: Command): void {
  agent
    .command('join')
    .description('Enrol this host at a map server with a join token')
    .argument('[url]', 'of the map server, e.g. https://mapserver.example:4342')
    .option(
      '--token <token>',
      'join token ("-": from standard input); as an argument others on this host can read it, rather use a file',
    )
    .option('--token-file <file>', 'file with the join token ("-": standard input; at a terminal it is asked for)')
    .option('--eid <prefix>', 'address of this host in the overlay; may be given several times', collect, [])
    .option(
      '--name <name>',
      'name for the EIDs, or NAME=ADDRESS for one of them; may be given several times',
      collect,
      [],
    )
    .option('--from <file>', 'instead of a URL: a file that says what to join, as JSON')
    .option('--from-platform', 'instead of a URL: what the cloud or hypervisor below says for Stayput')
    .option('--wait <duration>', 'with these: how long to go on trying while something is away, e.g. 10m')
    .option('--user <name>', 'with these, as root: become this user, whose state folder it is, when all is read')
    .option('--config <file>', 'configuration file')
    .option('--state-dir <dir>', 'state folder')
    .option('--force', 'give up another identity that this host has, while its agent is stopped')
    .option('--json', 'print JSON')
    .action(async (url: string | undefined, options: JoinOptions) => {
      const provisioned = options.from !== undefined || options.fromPlatform === true;
      if (provisioned) await joinAsProvisioned(url, options);
      else await joinAsTyped(url, options);
    });
}

async function joinAsTyped(url: string | undefined, options: JoinOptions): Promise<void> {
  if (url === undefined) throw new UsageError('give the URL of the map server, or --from FILE, or --from-platform');
  if (options.wait !== undefined || options.user !== undefined) {
    throw new UsageError('--wait and --user go with --from and --from-platform');
  }
  const [{ loadAgentConfig }, { join }, { StateFolder }] = await Promise.all([
    import('../../agent/config.ts'),
    import('../../agent/shell/enrolment.ts'),
    import('../../agent/shell/identity.ts'),
  ]);
  const { stateDir, socket } = loadAgentConfig(options.config, { stateDir: options.stateDir });
  const folder = new StateFolder(stateDir);
  const force = options.force === true;
  if (force) await demandIdle(socket, stateDir);
  // A host that has joined needs none any more, and its file may be gone.
  const token = folder.identity() === undefined || force ? await readToken(options) : '';
  const result = await join(folder, {
    url,
    token,
    eids: options.eid,
    names: options.name,
    force,
    software: SOFTWARE,
  });
  report(result, stateDir, options.json === true);
}

async function joinAsProvisioned(url: string | undefined, options: JoinOptions): Promise<void> {
  const { token, tokenFile, eid, name, force, from, user } = options;
  if ([url, token, tokenFile, force, ...eid, ...name].some((given) => given !== undefined)) {
    throw new UsageError('with --from or --from-platform, URL, token, EIDs and names come from there');
  }
  const [{ loadAgentConfig }, { joinProvisioned }, { StateFolder }, { becomeUser }] = await Promise.all([
    import('../../agent/config.ts'),
    import('../../agent/shell/provisioning.ts'),
    import('../../agent/shell/identity.ts'),
    import('../../runtime/become-user.ts'),
  ]);
  const { stateDir, platform } = loadAgentConfig(options.config, { stateDir: options.stateDir });
  // Who says `off` in the configuration means it.
  const asked = options.fromPlatform === true && platform !== 'off' ? platform : undefined;
  const result = await joinProvisioned(new StateFolder(stateDir), {
    sources: { file: from, platform: asked },
    patience: options.wait === undefined ? 0 : duration('--wait', options.wait),
    software: SOFTWARE,
    onRead: () => {
      if (user !== undefined) becomeUser(user);
    },
    say: (line) => process.stderr.write(`${line}\n`),
  });
  if (result.kind !== 'nothing') report(result, stateDir, options.json === true);
  else if (options.json === true) printJson({ joined: false, already: false, stateDir });
  else printLines('Nothing was left for this host to join with.');
}

function report(result: JoinResult, stateDir: string, json: boolean): void {
  const { mapServer, xtrId, overlay, zone } = result.identity;
  const already = result.kind === 'already';
  const at = formatHostPort(mapServer.host, mapServer.port);
  if (json) printJson({ joined: true, already, xtrId, mapServer, overlay, zone, stateDir });
  else if (already) {
    printLines(`Already joined to ${at} as ${xtrId}; nothing was changed.`);
    printLines('For more EIDs: stayput eid attach. For a new identity, after a revocation: --force.');
  } else {
    printLines(`Joined ${at} as ${xtrId}; the overlay is ${overlay.join(', ')}. Start the agent: stayput agent run`);
  }
}

export function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value];
}

const SOFTWARE = `stayput ${VERSION}`;
