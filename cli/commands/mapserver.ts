import { type Command, Option } from 'commander';
import { type IpPrefix, parseIpPrefix } from '../../proto/address.ts';
import { instanceId } from '../../proto/eid.ts';
import { DecodeError, UsageError } from '../../proto/errors.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import { admin, DATA_DIR_ENV, dataDirOption, type ListOptions } from '../map-server-client.ts';
import { formatDuration, printJson, printTable } from '../output.ts';
import { registerAuditCommand } from './audit.ts';
import { type AuthorityFileOptions, readAuthorityFiles, registerAuthorityCommands } from './ca.ts';

export function registerMapserverCommands(program: Command): void {
  const mapserver = program.command('mapserver').description('Run and look at a map server');
  registerInit(mapserver);
  registerRun(mapserver);
  registerListings(mapserver);
  registerOrders(mapserver);
  registerAuthorityCommands(mapserver);
  registerAuditCommand(mapserver);
  registerTokens(program);
  registerAgents(program);
}

function registerInit(mapserver: Command): void {
  mapserver
    .command('init')
    .description('Make the data folder of a map server: its overlay, certificate authority and keys')
    .addOption(dataDirOption())
    .requiredOption(
      '--host <name-or-address...>',
      'names and addresses under which agents reach it; the first is told to them',
    )
    .requiredOption('--overlay <prefix...>', 'prefixes that the EIDs are from, e.g. 10.77.0.0/16')
    .option('--zone <name>', 'DNS zone of the overlay', 'stayput.internal')
    .option('--instance <iid>', 'instance ID', '0')
    .option('--port <port>', 'port that agents are told', '4342')
    .option(
      '--ca-cert <file>',
      'certificate of an operator’s (intermediate) authority, PEM; the issuers of it may follow',
    )
    .option('--ca-key <file>', 'its private key, PEM; without both, an authority is made')
    .option('--json', 'print one JSON object')
    .action(async (options: InitOptions) => {
      const { adoptAuthority } = await import('../../mapserver/shell/certificate-authority.ts');
      const authority = readAuthorityFiles(options);
      const { initOverlay, authorityFingerprint, overlayUrl } = await import('../../mapserver/shell/overlay-files.ts');
      const { created, files } = initOverlay(
        options.dataDir,
        {
          instance: typed('--instance', () => instanceId(Number(options.instance))),
          zone: options.zone.toLowerCase(),
          prefixes: prefixes('--overlay', options.overlay),
          hosts: options.host,
          port: wholeNumber('--port', options.port, 1, 65_535),
        },
        Date.now(),
        authority === undefined ? undefined : adoptAuthority(authority.certificate, authority.key, Date.now()),
      );
      const result = {
        created,
        dataDir: options.dataDir,
        url: overlayUrl(files),
        fingerprint: authorityFingerprint(files),
        overlay: files.prefixes,
        zone: files.zone,
        instance: files.instance,
      };
      if (options.json) return printJson(result);
      return print(
        created ? `Initialised ${options.dataDir}` : `${options.dataDir} is initialised already; nothing was changed`,
        `  url          ${result.url}`,
        `  overlay      ${result.overlay.join(', ')}`,
        `  zone         ${result.zone}`,
        `  fingerprint  ${result.fingerprint}`,
        `Next: stayput mapserver run --data-dir ${options.dataDir}`,
      );
    });
}

interface InitOptions extends AuthorityFileOptions {
  readonly dataDir: string;
  readonly host: string[];
  readonly overlay: string[];
  readonly zone: string;
  readonly instance: string;
  readonly port: string;
  readonly json?: boolean;
}

function registerRun(mapserver: Command): void {
  mapserver
    .command('run')
    .description('Run the map server in the foreground')
    .option('--config <file>', 'configuration file (default: /etc/stayput/mapserver.json, if it is there)')
    .addOption(new Option('--data-dir <folder>', 'made by "stayput mapserver init"').env(DATA_DIR_ENV))
    .option('--listen <host:port...>', 'for agents and enrolment')
    .option('--metrics-listen <host:port>', 'for Prometheus; "" for none')
    .addOption(
      new Option('--log-level <level>').choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    )
    .action(async (options: RunOptions) => {
      const { CONFIG, CONFIG_PATH } = await import('../../mapserver/config.ts');
      const { loadConfig } = await import('../../runtime/config-file.ts');
      const { startMapServer } = await import('../../mapserver/main.ts');
      const settings = loadConfig(CONFIG, options.config ?? CONFIG_PATH, {
        required: options.config !== undefined,
        overrides: {
          dataDir: options.dataDir,
          listen: options.listen,
          metricsListen: options.metricsListen,
          logLevel: options.logLevel,
        },
      });
      const server = await startMapServer(settings);
      await server.untilSignal();
    });
}

interface RunOptions {
  readonly config?: string;
  readonly dataDir?: string;
  readonly listen?: string[];
  readonly metricsListen?: string;
  readonly logLevel?: string;
}

function registerListings(mapserver: Command): void {
  listing(mapserver, 'status', 'What the running map server is and holds').action(async (options: ListOptions) => {
    const status = (await admin(options, 'GET', '/v1/status')) as Status;
    if (options.json) return printJson(status);
    return print(
      `url            ${status.url}`,
      `listen         ${status.listen.join(', ')}`,
      `overlay        ${status.overlay.join(', ')} (instance ${status.instance}, zone ${status.zone})`,
      `up             ${formatDuration(status.uptimeMs)}`,
      `agents         ${status.agents} enrolled, ${status.sessions} connected`,
      `mappings       ${status.mappings} EIDs, ${status.names} names`,
      `subscriptions  ${status.subscriptions}`,
      `tokens         ${status.tokens}`,
      ...(status.auditLinesLost > 0 ? [`audit log      CANNOT BE WRITTEN, ${status.auditLinesLost} lines lost`] : []),
      `memory         ${Math.round(status.rssBytes / 1_048_576)} MB`,
    );
  });
  listing(mapserver, 'eids', 'EIDs, their owners and generations').action(async (options: ListOptions) => {
    const { eids } = (await admin(options, 'GET', '/v1/eids')) as { eids: EidView[] };
    if (options.json) return printJson(eids);
    return printTable(
      [
        ['eid', 'EID'],
        ['state', 'STATE'],
        ['generation', 'GENERATION'],
        ['owner', 'OWNER'],
        ['locators', 'LOCATORS'],
        ['names', 'NAMES'],
      ],
      eids.map((view) => ({
        ...view,
        owner: view.owner.slice(0, SHORT_ID),
        locators: (view.locators ?? []).map(({ address, port }) => formatHostPort(address, port)).join(', ') || null,
        names: view.names?.join(', ') || null,
      })),
    );
  });
  listing(mapserver, 'names', 'Names and the addresses behind them').action(async (options: ListOptions) => {
    const { names } = (await admin(options, 'GET', '/v1/names')) as { names: EidView[] };
    if (options.json) return printJson(names);
    return printTable(
      [
        ['eid', 'NAME'],
        ['state', 'STATE'],
        ['generation', 'GENERATION'],
        ['owner', 'OWNER'],
        ['targets', 'ADDRESSES'],
      ],
      names.map((view) => ({
        eid: view.eid,
        state: view.state,
        generation: view.generation,
        owner: view.owner.slice(0, SHORT_ID),
        targets: view.targets?.join(', ') || null,
      })),
    );
  });
}

/** The map server has the agent do it, and waits until it is done. */
function registerOrders(mapserver: Command): void {
  listing(mapserver, 'attach <eid>', 'Have an agent take an EID to its host')
    .requiredOption('--to <agent>', 'xTR-ID of the agent, or as much of its start as fits one only')
    .option('--interface <if>', 'the workload is behind this interface there')
    .option('--timeout <duration>', 'how long to wait until it is live', '10s')
    .action(async (text: string, options: OrderOptions) => {
      await orderAttach('/v1/eids', text, options);
    });
  listing(mapserver, 'detach <eid>', 'Have the agent that owns an EID give it up')
    .option('--timeout <duration>', 'how long to wait until it is done', '10s')
    .action(async (text: string, options: OrderOptions) => {
      const [eid] = prefixes('EID', [text]);
      const timeout = duration('--timeout', options.timeout);
      const view = await admin(
        options,
        'DELETE',
        `/v1/eids/${encodeURIComponent(eid ?? '')}?timeoutMs=${timeout}`,
        undefined,
        timeout + LATER,
      );
      return options.json ? printJson(view) : print(`${text} is not attached to any agent`);
    });
}

/** `path`: whether another agent must have it. */
export async function orderAttach(path: '/v1/eids' | '/v1/moves', text: string, options: OrderOptions): Promise<void> {
  const [eid] = prefixes('EID', [text]);
  const timeoutMs = duration('--timeout', options.timeout);
  const body = {
    eid,
    agent: options.to,
    timeoutMs,
    ...(options.interface === undefined ? {} : { interface: options.interface }),
  };
  const view = (await admin(options, 'POST', path, body, timeoutMs + LATER)) as EidView & {
    readonly already: boolean;
    readonly tookMs: number;
  };
  if (options.json) return printJson(view);
  const when = view.already ? 'already' : `after ${view.tookMs} ms`;
  return print(`${text} is live on ${view.owner.slice(0, SHORT_ID)} at generation ${view.generation} (${when})`);
}

export interface OrderOptions extends ListOptions {
  readonly to: string;
  readonly interface?: string;
  readonly timeout: string;
}

function registerTokens(program: Command): void {
  const token = program.command('token').description('Join tokens: what an agent may register, and the right to join');
  listing(token, 'create', 'Make a join token; it alone goes to stdout')
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
      return print(made.token);
    });
  listing(token, 'list', 'Tokens that were made').action(async (options: ListOptions) => {
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
  listing(token, 'revoke <id>', 'Make a token useless').action(async (id: string, options: ListOptions) => {
    const view = await admin(options, 'DELETE', `/v1/tokens/${encodeURIComponent(id)}`);
    return options.json ? printJson(view) : print(`Token ${id} is revoked; agents that joined with it stay`);
  });
}

function registerAgents(program: Command): void {
  const agents = program.command('agents').description('Agents that have joined the overlay');
  listing(agents, 'list', 'Agents, their grants and whether they are connected').action(
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
  listing(agents, 'show <agent>', 'One agent: its key, grants, certificate and what it owns').action(
    async (agent: string, options: ListOptions) => {
      const view = (await admin(options, 'GET', `/v1/agents/${encodeURIComponent(agent)}`)) as AgentDetails;
      if (options.json) return printJson(view);
      const date = (at: number | undefined): string => (at === undefined ? 'not known' : new Date(at).toISOString());
      return print(
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
  listing(agents, 'revoke <agent>', 'Cut an agent off at once and for good; its EIDs can be taken over')
    .option('--with-token', 'also revoke the token that it joined with')
    .addHelpText('after', '\nAGENT is the xTR-ID, or as much of its start as fits one agent only.')
    .action(async (agent: string, options: ListOptions & { readonly withToken?: boolean }) => {
      const asked = { withToken: options.withToken === true };
      const view = (await admin(options, 'DELETE', `/v1/agents/${encodeURIComponent(agent)}`, asked)) as RevokedView;
      return options.json ? printJson(view) : print(`Agent ${view.xtrId} is revoked`, ...tokenLeft(view.token));
    });
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

/** `10.77.0.5/32, db, @web` */
function tokenText({ pools, ...grant }: GrantView & Pick<TokenView, 'pools'>): string {
  const rest = grantText(grant);
  return [...pools.map((pool) => `one of ${pool}`), ...(rest === '' ? [] : [rest])].join(', ');
}

function grantText({ eids, names, groups }: GrantView): string {
  return [...eids, ...names, ...groups.map((group) => `@${group}`)].join(', ');
}

function registerGrantChanges(agents: Command): void {
  const change = (name: string, method: 'POST' | 'DELETE', description: string, said: string): void => {
    listing(agents, `${name} <agent>`, description)
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
        return options.json ? printJson(view) : print(`Agent ${view.xtrId} ${said}: ${grantText(view) || 'nothing'}`);
      });
  };
  change('grant', 'POST', 'Let an agent register more, or put its EIDs into a group', 'is granted now');
  change('ungrant', 'DELETE', 'Take grants away; EIDs that are not covered any more are released', 'is left with');
}

interface GrantOptions extends ListOptions {
  readonly eid?: string[];
  readonly name?: string[];
  readonly group?: string[];
}

interface GrantView {
  readonly eids: readonly string[];
  readonly names: readonly string[];
  readonly groups: readonly string[];
}

interface TokenOptions extends ListOptions {
  readonly pool?: string[];
  readonly eid?: string[];
  readonly name?: string[];
  readonly group?: string[];
  readonly uses: string;
  readonly expires: string;
}

interface Status {
  readonly url: string;
  readonly listen: readonly string[];
  readonly overlay: readonly string[];
  readonly zone: string;
  readonly instance: number;
  readonly uptimeMs: number;
  readonly rssBytes: number;
  readonly agents: number;
  readonly sessions: number;
  readonly mappings: number;
  readonly names: number;
  readonly subscriptions: number;
  readonly tokens: number;
  readonly auditLinesLost: number;
}

interface TokenView extends GrantView {
  readonly pools: readonly string[];
  readonly id: string;
  readonly state: string;
  readonly eids: readonly IpPrefix[];
  readonly uses: number;
  readonly used: number;
  readonly expiresAt: number;
}

interface NewToken extends TokenView {
  readonly token: string;
  readonly url: string;
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

interface EidView {
  readonly eid: string;
  readonly state: string;
  readonly generation: number;
  readonly owner: string;
  readonly locators?: readonly { readonly address: string; readonly port: number }[];
  readonly names?: readonly string[];
  readonly targets?: readonly string[];
}

function listing(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description).addOption(dataDirOption()).option('--json', 'print JSON');
}

function prefixes(flag: string, texts: readonly string[]): IpPrefix[] {
  return texts.map((text) => typed(flag, () => parseIpPrefix(text)));
}

function host(prefix: IpPrefix): string {
  return prefix.replace(/\/(32|128)$/, '');
}

function typed<T>(flag: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (!(cause instanceof DecodeError)) throw cause;
    throw new UsageError(`${flag}: ${cause.message.replace(/^.* at offset \d+: /, '')}`, { cause });
  }
}

function wholeNumber(flag: string, text: string, from: number, to: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < from || value > to) {
    throw new UsageError(`${flag}: "${text}" is not a whole number from ${from} to ${to}`);
  }
  return value;
}

function duration(flag: string, text: string): number {
  const match = /^(\d{1,6})(s|m|h|d)$/.exec(text);
  const unit = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match?.[2] ?? ''];
  const value = Number(match?.[1]) * (unit ?? Number.NaN);
  if (!(value >= 1_000 && value <= 3650 * 86_400_000)) {
    throw new UsageError(`${flag}: "${text}" is not a duration such as 30m, 24h or 7d`);
  }
  return value;
}

function print(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

const SHORT_ID = 12;
/** The map server's own word that the time is over should arrive. */
const LATER = 5_000;
