import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { type GrantView, grantText, type TokenView } from '../grants.ts';
import { admin, type EidView, type ListOptions, mapServerCommand, SHORT_ID } from '../map-server-client.ts';
import { prefixes } from '../option-values.ts';
import { formatDuration, printJson, printLines, printTable } from '../output.ts';

export function registerAgentsCommands(program: Command): void {
  const agents = program.command('agents').description('Agents that have joined the overlay');
  mapServerCommand(agents, 'list', 'Agents, their grants and whether they are connected').action(
    async (options: ListOptions) => {
      const { agents: views } = (await admin(options, 'GET', '/v1/agents')) as { agents: AgentView[] };
      if (options.json) return printJson(views);
      return printTable(
        [
          ['agent', 'AGENT'],
          ['state', 'STATE'],
          ['since', 'SINCE'],
          ['mappings', 'MAPPINGS'],
          ['subscriptions', 'FOLLOWS'],
          ['software', 'SOFTWARE'],
          ['grants', 'GRANTS'],
        ],
        views.map(({ xtrId, state, connectedSince, mappings, subscriptions, software, ...grant }) => ({
          agent: xtrId.slice(0, SHORT_ID),
          state,
          since: connectedSince === undefined ? null : formatDuration(Date.now() - connectedSince),
          mappings,
          subscriptions,
          software,
          grants: grantText(grant),
        })),
      );
    },
  );
  registerGrantChanges(agents);
  mapServerCommand(agents, 'show <agent>', 'One agent: its key, grants, certificate and what it owns').action(
    async (agent: string, options: ListOptions) => {
      const view = (await admin(options, 'GET', `/v1/agents/${encodeURIComponent(agent)}`)) as AgentDetails;
      if (options.json) return printJson(view);
      const date = (at: number | undefined): string => (at === undefined ? 'not known' : new Date(at).toISOString());
      return printLines(
        `agent          ${view.xtrId}`,
        `tunnel key     ${view.tunnelKey}`,
        `state          ${view.state}${view.revokedAt === undefined ? '' : ` since ${date(view.revokedAt)}`}`,
        `enrolled       ${date(view.enrolledAt)} with token ${view.tokenId}`,
        `certificate    ends ${date(view.certificateNotAfter)}`,
        `software       ${view.software}`,
        `granted        ${grantText(view)}`,
        ...view.owns.map(({ eid, state, generation }) => `owns           ${eid} (${state}, generation ${generation})`),
      );
    },
  );
  mapServerCommand(agents, 'revoke <agent>', 'Cut an agent off at once and for good; its EIDs can be taken over')
    .option('--with-token', 'also revoke the token that it joined with')
    .addHelpText('after', '\nAGENT is the xTR-ID, or as much of its start as fits one agent only.')
    .action(async (agent: string, options: ListOptions & { readonly withToken?: boolean }) => {
      const asked = { withToken: options.withToken === true };
      const view = (await admin(options, 'DELETE', `/v1/agents/${encodeURIComponent(agent)}`, asked)) as RevokedView;
      return options.json ? printJson(view) : printLines(`Agent ${view.xtrId} is revoked`, ...tokenLeft(view.token));
    });
}

function registerGrantChanges(agents: Command): void {
  const change = (name: string, method: 'POST' | 'DELETE', description: string, said: string): void => {
    mapServerCommand(agents, `${name} <agent>`, description)
      .option('--eid <prefix...>', 'EID or prefix that it may register')
      .option('--name <name...>', 'name that it may register, or a pattern such as "*.web"')
      .option('--group <group...>', 'group of the policy to which its EIDs belong')
      .addHelpText('after', '\nAGENT is the xTR-ID, or as much of its start as fits one agent only.')
      .action(async (agent: string, options: GrantOptions) => {
        const grant = {
          eids: prefixes('--eid', options.eid ?? []),
          names: options.name ?? [],
          groups: options.group ?? [],
        };
        if (grant.eids.length + grant.names.length + grant.groups.length === 0) {
          throw new UsageError('give --eid, --name or --group');
        }
        const view = (await admin(options, method, '/v1/grants', { agent, ...grant })) as AgentView;
        return options.json
          ? printJson(view)
          : printLines(`Agent ${view.xtrId} ${said}: ${grantText(view) || 'nothing'}`);
      });
  };
  change('grant', 'POST', 'Let an agent register more, or put its EIDs into a group', 'is granted now');
  change('ungrant', 'DELETE', 'Take grants away; EIDs that are not covered any more are released', 'is left with');
}

function tokenLeft(token: RevokedView['token']): readonly string[] {
  if (token === null) return [];
  const { id, state, uses, used, expiresAt } = token;
  if (state !== 'valid') return [`Token ${id}, with which it joined, is of no use any more (${state})`];
  const left = `${uses - used} of ${uses} uses until ${new Date(expiresAt).toISOString()}`;
  return [
    `Token ${id}, with which it joined, still lets hosts join, this one as well (${left}): stayput token revoke ${id}`,
  ];
}

interface GrantOptions extends ListOptions {
  readonly eid?: string[];
  readonly name?: string[];
  readonly group?: string[];
}

interface AgentView extends GrantView {
  readonly xtrId: string;
  readonly state: string;
  readonly connectedSince?: number;
  readonly mappings: number;
  readonly subscriptions: number;
  readonly software: string;
}

interface RevokedView extends AgentView {
  /** That it joined with. */
  readonly token: TokenView | null;
}

interface AgentDetails extends AgentView {
  readonly tunnelKey: string;
  readonly enrolledAt: number;
  readonly revokedAt?: number;
  readonly tokenId: string;
  readonly certificateNotAfter?: number;
  readonly owns: readonly EidView[];
}
