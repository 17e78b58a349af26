import type { Command } from 'commander';
import type { IpPrefix } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { type TokenView, tokenText } from '../grants.ts';
import { admin, type ListOptions, mapServerCommand } from '../map-server-client.ts';
import { duration, prefixes, wholeNumber } from '../option-values.ts';
import { printJson, printLines, printTable } from '../output.ts';

export function registerTokenCommands(program: Command): void {
  const token = program.command('token').description('Join tokens: what an agent may register, and the right to join');
  mapServerCommand(token, 'create', 'Make a join token; it alone goes to stdout')
    .option('--eid <prefix...>', 'EID or prefix that the agent may register')
    .option('--pool <prefix...>', 'prefix from which an agent that asks for no EID is given the next free one')
    .option('--name <name...>', 'name that it may register, or a pattern such as "*.web"')
    .option('--group <group...>', 'group of the policy to which its EIDs belong')
    .option('--uses <n>', 'how many agents may join with it', '1')
    .option('--expires <duration>', 'how long it is valid, e.g. 30m, 24h, 7d', '24h')
    .action(async (options: TokenOptions) => {
      const eids = prefixes('--eid', options.eid ?? []);
      const pools = prefixes('--pool', options.pool ?? []);
      const names = options.name ?? [];
      if (eids.length === 0 && pools.length === 0 && names.length === 0) {
        throw new UsageError('a token that grants nothing is of no use; give --eid or --pool, and --name');
      }
      const made = (await admin(options, 'POST', '/v1/tokens', {
        eids,
        pools,
        names,
        groups: options.group ?? [],
        uses: wholeNumber('--uses', options.uses, 1, 100_000),
        expiresInMs: duration('--expires', options.expires),
      })) as NewToken;
      if (options.json) return printJson(made);
      process.stderr.write(
        `Token ${made.id}: ${tokenText(made)}; ` +
          `${made.uses === 1 ? 'one use' : `${made.uses} uses`}, expires ${new Date(made.expiresAt).toISOString()}\n` +
          `On the agent: stayput agent join ${made.url} --token-file FILE${made.eids.map((eid) => ` --eid ${host(eid)}`).join('')}` +
          `${made.names.map((name) => ` --name ${name}`).join('')}\n`,
      );
      return printLines(made.token);
    });
  mapServerCommand(token, 'list', 'Tokens that were made').action(async (options: ListOptions) => {
    const { tokens } = (await admin(options, 'GET', '/v1/tokens')) as { tokens: TokenView[] };
    if (options.json) return printJson(tokens);
    return printTable(
      [
        ['id', 'ID'],
        ['state', 'STATE'],
        ['used', 'USED'],
        ['expires', 'EXPIRES'],
        ['grants', 'GRANTS'],
      ],
      tokens.map(({ id, state, used, uses, expiresAt, ...grant }) => ({
        id,
        state,
        used: `${used}/${uses}`,
        expires: new Date(expiresAt).toISOString(),
        grants: tokenText(grant),
      })),
    );
  });
  mapServerCommand(token, 'revoke <id>', 'Make a token useless').action(async (id: string, options: ListOptions) => {
    const view = await admin(options, 'DELETE', `/v1/tokens/${encodeURIComponent(id)}`);
    return options.json ? printJson(view) : printLines(`Token ${id} is revoked; agents that joined with it stay`);
  });
}

function host(prefix: IpPrefix): string {
  return prefix.replace(/\/(32|128)$/, '');
}

interface TokenOptions extends ListOptions {
  readonly pool?: string[];
  readonly eid?: string[];
  readonly name?: string[];
  readonly group?: string[];
  readonly uses: string;
  readonly expires: string;
}

interface NewToken extends TokenView {
  readonly token: string;
  readonly url: string;
}
