import { type Command, Option } from 'commander';
import { instanceId } from '../../proto/eid.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import { printFindings } from '../findings.ts';
import {
  admin,
  DATA_DIR_ENV,
  dataDirOf,
  dataDirOption,
  type EidView,
  type ListOptions,
  MAP_SERVER_CONFIG,
  mapServerCommand,
  SHORT_ID,
} from '../map-server-client.ts';
import { duration, prefixes, typed, wholeNumber } from '../option-values.ts';
import { formatDuration, printJson, printLines, printTable } from '../output.ts';
import { registerAuditCommand } from './audit.ts';
import { registerBackupCommands } from './backup.ts';
import { type AuthorityFileOptions, readAuthorityFiles, registerAuthorityCommands } from './ca.ts';
import { registerDaemonSettings } from './daemon-settings.ts';

export function registerMapserverCommands(program: Command): void {
  const mapserver = program.command('mapserver').description('Run and look at a map server');
  registerInit(mapserver);
  registerRun(mapserver);
  registerListings(mapserver);
  registerOrders(mapserver);
  registerAuthorityCommands(mapserver);
  registerAuditCommand(mapserver);
  registerBackupCommands(mapserver);
  registerDoctor(mapserver);
  registerDaemonSettings<ListOptions>(mapserver, {
    command: (name, description) => mapServerCommand(mapserver, name, description),
    call: admin,
    schema: async () => (await import('../../mapserver/config.ts')).CONFIG,
    configPath: MAP_SERVER_CONFIG,
  });
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
      const dataDir = dataDirOf(options);
      const authority = readAuthorityFiles(options);
      const { initOverlay, authorityFingerprint, overlayUrl } = await import('../../mapserver/shell/overlay-files.ts');
      const { created, files } = initOverlay(
        dataDir,
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
        dataDir,
        url: overlayUrl(files),
        fingerprint: authorityFingerprint(files),
        overlay: files.prefixes,
        zone: files.zone,
        instance: files.instance,
      };
      if (options.json) return printJson(result);
      return printLines(
        created ? `Initialised ${dataDir}` : `${dataDir} is initialised already; nothing was changed`,
        `  url          ${result.url}`,
        `  overlay      ${result.overlay.join(', ')}`,
        `  zone         ${result.zone}`,
        `  fingerprint  ${result.fingerprint}`,
        `Next: stayput mapserver run --data-dir ${dataDir}`,
      );
    });
}

interface InitOptions extends AuthorityFileOptions {
  readonly dataDir?: string;
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
      for (const text of [...(options.listen ?? []), options.metricsListen]) if (text) parseHostPort(text);
      const { CONFIG, CONFIG_PATH } = await import('../../mapserver/config.ts');
      const { loadConfig } = await import('../../runtime/config-file.ts');
      const { startMapServer } = await import('../../mapserver/main.ts');
      const read = () =>
        loadConfig(CONFIG, options.config ?? CONFIG_PATH, {
          required: options.config !== undefined,
          overrides: {
            dataDir: options.dataDir,
            listen: options.listen,
            metricsListen: options.metricsListen,
            logLevel: options.logLevel,
          },
        });
      const server = await startMapServer(read(), read);
      await server.untilSignal();
    });
}

function registerDoctor(mapserver: Command): void {
  mapserver
    .command('doctor')
    .description('Look for what is wrong with a map server, and say what to do; also while it is down')
    .addOption(dataDirOption())
    .option('--config <file>', 'configuration file (default: /etc/stayput/mapserver.json, if it is there)')
    .option('--json', 'print JSON')
    .action(async (options: ListOptions & { readonly config?: string }) => {
      const { CONFIG, CONFIG_PATH } = await import('../../mapserver/config.ts');
      const { loadConfig } = await import('../../runtime/config-file.ts');
      const { examineMapServer } = await import('../../mapserver/shell/doctor.ts');
      const settings = loadConfig(CONFIG, options.config ?? CONFIG_PATH, {
        required: options.config !== undefined,
        overrides: { dataDir: options.dataDir },
      });
      printFindings(await examineMapServer(settings), 'findings', options.json === true);
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
  mapServerCommand(mapserver, 'status', 'What the running map server is and holds').action(
    async (options: ListOptions) => {
      const status = (await admin(options, 'GET', '/v1/status')) as Status;
      if (options.json) return printJson(status);
      return printLines(
        `url            ${status.url}`,
        `listen         ${status.listen.join(', ')}`,
        `overlay        ${status.overlay.join(', ')} (instance ${status.instance}, zone ${status.zone})`,
        `up             ${formatDuration(status.uptimeMs)}`,
        `agents         ${status.agents} enrolled, ${status.sessions} connected`,
        `mappings       ${status.mappings} EIDs, ${status.names} names`,
        `subscriptions  ${status.subscriptions}`,
        `tokens         ${status.tokens}`,
        ...(status.auditLinesLost > 0 ? [`audit log      CANNOT BE WRITTEN, ${status.auditLinesLost} lines lost`] : []),
        ...(status.restored === null
          ? []
          : [`restored       ${status.restored.at}, from a backup of ${status.restored.backedUpAt}`]),
        `memory         ${Math.round(status.rssBytes / 1_048_576)} MB`,
      );
    },
  );
  mapServerCommand(mapserver, 'eids', 'EIDs, their owners and generations').action(async (options: ListOptions) => {
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
        owner: view.site === undefined ? view.owner.slice(0, SHORT_ID) : `site ${view.site}`,
        locators: (view.locators ?? []).map(({ address, port }) => formatHostPort(address, port)).join(', ') || null,
        names: view.names?.join(', ') || null,
      })),
    );
  });
  mapServerCommand(mapserver, 'names', 'Names and the addresses behind them').action(async (options: ListOptions) => {
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
  mapServerCommand(mapserver, 'attach <eid>', 'Have an agent take an EID to its host')
    .requiredOption('--to <agent>', 'xTR-ID of the agent, or as much of its start as fits one only')
    .option('--interface <if>', 'the workload is behind this interface there')
    .option('--timeout <duration>', 'how long to wait until it is live', '10s')
    .action(async (text: string, options: OrderOptions) => {
      await orderAttach('/v1/eids', text, options);
    });
  mapServerCommand(mapserver, 'detach <eid>', 'Have the agent that owns an EID give it up')
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
      return options.json ? printJson(view) : printLines(`${text} is not attached to any agent`);
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
  return printLines(`${text} is live on ${view.owner.slice(0, SHORT_ID)} at generation ${view.generation} (${when})`);
}

export interface OrderOptions extends ListOptions {
  readonly to: string;
  readonly interface?: string;
  readonly timeout: string;
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
  readonly restored: { readonly at: string; readonly backedUpAt: string } | null;
}

/** The map server's own word that the time is over should arrive. */
const LATER = 5_000;
