/**
 * The real processes of an overlay in a lab: one map server, and an agent with its data plane on each host that
 * joins. They are set up by the commands that people type, and can be killed and started again one by one.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Attachment } from './internet.ts';
import type { ExecOptions, ExecResult, Host } from './lab.ts';
import { type LabProcess, tail } from './lab-process.ts';
import { waitFor } from './wait.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
const CONTROL_PORT = 4342;

export interface OverlayOptions {
  readonly prefixes?: readonly string[];
  readonly zone?: string;
  readonly dataplane: string;
  /** More keys for the map server's configuration file. */
  readonly mapServerConfig?: Readonly<Record<string, unknown>>;
}

export interface JoinOptions {
  readonly eids: readonly string[];
  readonly names?: readonly string[];
  /** What else the agent may register later. */
  readonly mayAlso?: { readonly eids?: readonly string[]; readonly names?: readonly string[] };
  /** Answer DNS on 127.0.0.1 of the host, and use it there. */
  readonly dns?: boolean;
  /** More keys for the agent's configuration file. */
  readonly config?: Readonly<Record<string, unknown>>;
}

export class Overlay {
  readonly mapServer: MapServer;
  readonly agents = new Map<string, Agent>();
  readonly zone: string;
  private readonly options: OverlayOptions;

  private constructor(mapServer: MapServer, zone: string, options: OverlayOptions) {
    this.mapServer = mapServer;
    this.zone = zone;
    this.options = options;
  }

  /** Initialises a map server on `at` and waits until it serves. */
  static async start(at: Attachment, options: OverlayOptions): Promise<Overlay> {
    const zone = options.zone ?? 'stayput.internal';
    const prefixes = options.prefixes ?? ['10.77.0.0/16', 'fd77::/48'];
    const mapServer = await MapServer.start(at, prefixes, zone, options.mapServerConfig ?? {});
    return new Overlay(mapServer, zone, options);
  }

  /** Lets a host join and starts its data plane and its agent; ready when everything it has is registered. */
  async join(at: Attachment, options: JoinOptions): Promise<Agent> {
    const agent = new Agent(at, this.options.dataplane, options);
    const token = await this.mapServer.createToken(
      [...options.eids, ...(options.mayAlso?.eids ?? [])],
      [...(options.names ?? []), ...(options.mayAlso?.names ?? [])],
    );
    await agent.join(this.mapServer.url, token);
    agent.startDataplane();
    agent.start();
    await agent.ready();
    if (options.dns === true) at.host.nameservers(['127.0.0.1']);
    this.agents.set(at.host.name, agent);
    return agent;
  }
}

/** A program that is meant to run for ever, and what the stories do to it. */
export class Daemon {
  readonly host: Host;
  private readonly name: string;
  private argv: readonly string[];
  private current: LabProcess | undefined;

  constructor(host: Host, name: string, argv: readonly string[]) {
    this.host = host;
    this.name = name;
    this.argv = argv;
  }

  get process(): LabProcess {
    if (this.current === undefined) throw new Error(`${this.name} has not been started`);
    return this.current;
  }

  start(): void {
    this.current = this.host.spawn(this.name, this.argv);
  }

  /** Another program from the next start on. */
  install(argv: readonly string[]): void {
    this.argv = argv;
  }

  async kill9(): Promise<void> {
    await this.process.kill9();
  }

  async stop(): Promise<void> {
    await this.process.stop();
  }

  rssMb(): number {
    return this.process.rssMb();
  }
}

export class MapServer {
  readonly host: Host;
  readonly daemon: Daemon;
  readonly url: string;
  private readonly dataDir: string;

  private constructor(host: Host, url: string, dataDir: string, daemon: Daemon) {
    this.host = host;
    this.url = url;
    this.dataDir = dataDir;
    this.daemon = daemon;
  }

  static async start(
    at: Attachment,
    prefixes: readonly string[],
    zone: string,
    config: Readonly<Record<string, unknown>>,
  ): Promise<MapServer> {
    const dataDir = join(at.host.dir, 'mapserver');
    const configFile = join(at.host.dir, 'mapserver.json');
    writeFileSync(
      configFile,
      JSON.stringify({ dataDir, listen: [`0.0.0.0:${CONTROL_PORT}`, `[::]:${CONTROL_PORT}`], ...config }),
    );
    const hosts = [at.address4, at.address6].flatMap((address) => (address === '' ? [] : ['--host', address]));
    const overlay = prefixes.flatMap((prefix) => ['--overlay', prefix]);
    await at.host.exec(stayput('mapserver', 'init', '--data-dir', dataDir, ...hosts, ...overlay, '--zone', zone));
    const daemon = new Daemon(at.host, 'mapserver', stayput('mapserver', 'run', '--config', configFile));
    const address = at.address4 === '' ? `[${at.address6}]` : at.address4;
    const server = new MapServer(at.host, `https://${address}:${CONTROL_PORT}`, dataDir, daemon);
    daemon.start();
    await server.ready();
    return server;
  }

  ready(): Promise<unknown> {
    return this.daemon.process.waitUntil(
      'answering on its metrics port',
      async () => (await metricsOf(this.host, 9342)).size > 0,
    );
  }

  /** Runs a `stayput` command against this map server. */
  stayput(args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return this.host.exec(stayput(...args), {
      ...options,
      env: { STAYPUT_MAPSERVER_DATA: this.dataDir, ...options.env },
    });
  }

  async createToken(eids: readonly string[], names: readonly string[]): Promise<string> {
    const grant = [...eids.flatMap((eid) => ['--eid', eid]), ...names.flatMap((name) => ['--name', name])];
    return (await this.stayput(['token', 'create', ...grant])).stdout.trim();
  }

  metrics(): Promise<Metrics> {
    return metricsOf(this.host, 9342);
  }
}

export class Agent {
  readonly at: Attachment;
  readonly host: Host;
  readonly daemon: Daemon;
  readonly dataplane: Daemon;
  readonly eids: readonly string[];
  readonly socket: string;
  readonly dataplaneSocket: string;
  readonly stateDir: string;
  private readonly configFile: string;
  private readonly names: readonly string[];

  constructor(at: Attachment, dataplane: string, options: JoinOptions) {
    this.at = at;
    this.host = at.host;
    this.eids = options.eids;
    this.names = options.names ?? [];
    const dir = at.host.dir;
    this.socket = join(dir, 'agent.sock');
    this.dataplaneSocket = join(dir, 'dataplane.sock');
    this.stateDir = join(dir, 'agent');
    this.configFile = join(dir, 'agent.json');
    mkdirSync(this.stateDir, { recursive: true, mode: 0o700 });
    // No resolver of the machine that runs the lab can be reached from here.
    const resolvConf = join(dir, 'upstream-resolv.conf');
    writeFileSync(resolvConf, '');
    const dns = options.dns === true ? { listen: ['127.0.0.1:53'], resolvConf } : { enabled: false };
    writeFileSync(
      this.configFile,
      JSON.stringify({
        stateDir: this.stateDir,
        socket: this.socket,
        dataplaneSocket: this.dataplaneSocket,
        dns,
        ...options.config,
      }),
    );
    this.daemon = new Daemon(at.host, 'agent', stayput('agent', 'run', '--config', this.configFile));
    this.dataplane = new Daemon(at.host, 'dataplane', [dataplane, '--socket', this.dataplaneSocket]);
  }

  /** More keys in the configuration file, which the agent that runs does not know of. */
  configure(more: Readonly<Record<string, unknown>>): void {
    const present = JSON.parse(readFileSync(this.configFile, 'utf8')) as object;
    writeFileSync(this.configFile, JSON.stringify({ ...present, ...more }));
  }

  async join(url: string, token: string): Promise<void> {
    const wishes = [...this.eids.flatMap((eid) => ['--eid', eid]), ...this.names.flatMap((name) => ['--name', name])];
    await this.host.exec(stayput('agent', 'join', url, '--token', token, ...wishes, '--config', this.configFile));
  }

  /** Another version from the next start on; `main` is its cli/main.js. */
  install(main: string): void {
    this.daemon.install([process.execPath, main, 'agent', 'run', '--config', this.configFile]);
  }

  /** Says that this host, and not a copy of it, keeps the identity. */
  async keepIdentity(): Promise<void> {
    await this.host.exec(stayput('agent', 'reset-identity', '--keep', '--config', this.configFile));
  }

  startDataplane(): void {
    this.dataplane.start();
  }

  start(): void {
    this.daemon.start();
  }

  /** Connected to data plane and map server, and everything it joined with is live. */
  async ready(): Promise<void> {
    await this.daemon.process.waitUntil('connected to data plane and map server, EIDs live', async () => {
      const metrics = await this.metrics();
      return (
        metrics.get('stayput_agent_map_server_connected') === 1 &&
        metrics.get('stayput_agent_dataplane_connected') === 1 &&
        (metrics.get('stayput_agent_eids{state="live"}') ?? 0) >= this.eids.length + this.names.length
      );
    });
  }

  /** Runs a `stayput` command that talks to this agent. */
  stayput(args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return this.host.exec(stayput(...args), { ...options, env: { STAYPUT_SOCKET: this.socket, ...options.env } });
  }

  /** Attaches an EID and waits until it has got into `state`. */
  async attach(
    eid: string,
    state: string,
    options: { readonly interface?: string; readonly name?: string } = {},
  ): Promise<void> {
    await this.stayput([
      ...['eid', 'attach', eid],
      ...(options.name === undefined ? [] : ['--name', options.name]),
      ...(options.interface === undefined ? [] : ['--interface', options.interface]),
    ]);
    await waitFor(`${eid} ${state} on ${this.host.name}`, async () => (await this.eidState(eid)) === state);
  }

  async eidState(eid: string): Promise<string | undefined> {
    const { stdout } = await this.stayput(['eid', 'list', '--json']);
    return (JSON.parse(stdout) as { eid: string; state: string }[]).find((own) => own.eid === eid)?.state;
  }

  metrics(): Promise<Metrics> {
    return metricsOf(this.host, 9341);
  }

  /** For a failed test: its EIDs, its links, and the ends of the logs. */
  async account(): Promise<string> {
    const { stdout: eids } = await this.stayput(['eid', 'list']);
    const { stdout: links } = await this.host.exec(['ip', '-br', 'link']);
    const logs = [this.daemon, this.dataplane].map(({ process }) => tail(process.logFile, 3000));
    return [`-- ${this.host.name}`, eids, links, ...logs].join('\n');
  }
}

/** Values by name and labels as in the exposition, for example `drops_total{reason="auth"}`. */
export type Metrics = ReadonlyMap<string, number>;

/** The difference of all series whose name and labels match `series`. */
export function increase(before: Metrics, after: Metrics, series: RegExp): number {
  let sum = 0;
  for (const [name, value] of after) if (series.test(name)) sum += value - (before.get(name) ?? 0);
  return sum;
}

/** Waits until the series that match have grown by `least`. */
export function waitForIncrease(
  what: string,
  read: () => Promise<Metrics>,
  before: Metrics,
  series: RegExp,
  least = 1,
): Promise<number> {
  return waitFor(what, async () => {
    const grown = increase(before, await read(), series);
    return grown >= least ? grown : undefined;
  });
}

async function metricsOf(host: Host, port: number): Promise<Metrics> {
  const { stdout } = await host.exec(['curl', '-sf', '--max-time', '30', `http://127.0.0.1:${port}/metrics`]);
  const values = new Map<string, number>();
  for (const line of stdout.split('\n')) {
    const match = /^([^#\s][^\s]*(?:\{.*\})?)\s+(\S+)$/.exec(line);
    if (match?.[1] !== undefined) values.set(match[1], Number(match[2]));
  }
  return values;
}

function stayput(...args: readonly string[]): string[] {
  return [process.execPath, MAIN, ...args];
}
