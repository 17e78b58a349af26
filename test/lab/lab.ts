/**
 * A laboratory of network namespaces, one per run.
 *
 * Every host, router and cloud is a namespace named `sp<owner>-<run>-<name>`, so that two labs never meet and a
 * later run can tell whose they are. Cables are veth pairs; switches are bridges in one namespace of their own
 * (`wires`), so that pulling a plug and putting it into another cloud is a matter of a bridge port, as it is
 * with a real cable. Nothing is created in the namespace of the caller, and /etc is not touched.
 *
 * Programs run by `setpriv --pdeathsig KILL ip netns exec …`: they end with the lab's process however that ends.
 * Namespaces and files are removed by `close()`, which also runs on SIGINT, SIGTERM and an uncaught error;
 * what a run killed with SIGKILL leaves behind is removed by the next one, since its owner no longer lives.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LabError } from './lab-error.ts';
import { LabProcess } from './lab-process.ts';
import { waitFor } from './wait.ts';

const NETNS_DIR = '/run/netns';
const DIR_PREFIX = 'stayput-lab-';
/** BR_STATE_FORWARDING */
const FORWARDING = '3';
const EXEC_TIMEOUT_MS = 60_000;
const EXEC_OUTPUT_LIMIT = 32 * 1024 * 1024;

export interface ExecOptions {
  readonly timeoutMs?: number;
  readonly input?: string | Buffer;
  /** Give back the result whatever the exit code; otherwise a code other than 0 is a LabError. */
  readonly anyExit?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

export interface ExecResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Lab {
  /** Unique in this machine; part of every namespace's name. */
  readonly id: string;
  /** Private to this run; removed at the end. */
  readonly dir: string;
  private readonly hosts = new Map<string, Host>();
  private readonly processes = new Set<LabProcess>();
  private readonly logFiles: string[] = [];
  private readonly consoles = new Set<ChildProcess>();
  private wiresHost: Host | undefined;
  private closing: Promise<void> | undefined;
  private portCount = 0;

  private constructor(id: string, dir: string) {
    this.id = id;
    this.dir = dir;
  }

  /** @throws LabError without the right to make namespaces */
  static async create(options: { readonly name: string }): Promise<Lab> {
    mkdirSync(NETNS_DIR, { recursive: true });
    sweepLeftovers();
    const run = randomBytes(3).toString('hex');
    const dir = mkdtempSync(join(tmpdir(), `${DIR_PREFIX}${options.name}-${run}-`));
    const owner: Owner = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' };
    writeFileSync(join(dir, 'owner.json'), JSON.stringify({ ...owner, id: `sp${process.pid}-${run}` }));
    const lab = new Lab(`sp${process.pid}-${run}`, dir);
    endWithProcess(lab);
    return lab;
  }

  /** A new namespace with its loopback up. */
  async host(name: string, options: { readonly ipv6?: boolean; readonly router?: boolean } = {}): Promise<Host> {
    if (this.hosts.has(name)) throw new LabError(`there is a host ${name} already`);
    const host = new Host(this, name, `${this.id}-${name}`);
    this.hosts.set(name, host);
    mkdirSync(host.dir, { recursive: true });
    await run(['ip', 'netns', 'add', host.namespace]);
    const settings = [
      ['net/ipv6/conf/all/accept_dad', '0'],
      ['net/ipv6/conf/default/accept_dad', '0'],
      ['net/ipv6/conf/default/router_solicitations', '0'],
    ];
    if (options.ipv6 === false) settings.push(['net/ipv6/conf/default/disable_ipv6', '1']);
    if (options.router === true) settings.push(['net/ipv4/ip_forward', '1'], ['net/ipv6/conf/all/forwarding', '1']);
    await host.sysctl(settings);
    await host.ip(['link set lo up']);
    return host;
  }

  /** A switch: a bridge without addresses. */
  async switch(name: string): Promise<Switch> {
    this.wiresHost ??= await this.host('wires', { ipv6: false });
    await this.wiresHost.ip([`link add ${name} type bridge forward_delay 0 mcast_snooping 0`, `link set ${name} up`]);
    return { name };
  }

  get wires(): Host {
    if (this.wiresHost === undefined) throw new LabError('there is no switch yet');
    return this.wiresHost;
  }

  /** A cable from a new interface of `host` to a switch. Both ends are up. */
  async plug(
    host: Host,
    networkInterface: string,
    into: Switch,
    options: { readonly mtu?: number } = {},
  ): Promise<Plug> {
    this.portCount += 1;
    const plug: Plug = {
      host,
      interface: networkInterface,
      port: `p${this.portCount}-${networkInterface}`.slice(0, 15),
    };
    const mtu = options.mtu === undefined ? '' : ` mtu ${options.mtu}`;
    await run([
      ...['ip', 'link', 'add', networkInterface, 'netns', host.namespace, 'type', 'veth'],
      ...['peer', 'name', plug.port, 'netns', this.wires.namespace],
    ]);
    await this.wires.ip([`link set ${plug.port} master ${into.name}`, `link set ${plug.port} up`]);
    await host.ip([`link set ${networkInterface}${mtu} up`]);
    return plug;
  }

  /** A cable between two hosts. Both ends are up. */
  async cable(a: Host, interfaceA: string, b: Host, interfaceB: string): Promise<void> {
    await run([
      ...['ip', 'link', 'add', interfaceA, 'netns', a.namespace, 'type', 'veth'],
      ...['peer', 'name', interfaceB, 'netns', b.namespace],
    ]);
    await a.ip([`link set ${interfaceA} up`]);
    await b.ip([`link set ${interfaceB} up`]);
  }

  /**
   * Waits until a plug carries frames. After a replug that is when the kernel's link watch has seen the carrier at both
   * ends, which takes its time on a busy machine; what is sent before, such as the first ARP request, is lost.
   */
  async carries(plug: Plug): Promise<void> {
    const ready = (): boolean =>
      this.wires.device(plug.port, 'brport/state') === FORWARDING &&
      plug.host.device(plug.interface, 'operstate') === 'up';
    await waitFor(`port ${plug.port} forwarding`, ready, { intervalMs: 1 });
  }

  /** What to do to pull `plug` out of its switch and put it into another one. Run it on `wires`. */
  static replug(plug: Plug, into: Switch): readonly string[] {
    return [
      `link set ${plug.port} down`,
      `link set ${plug.port} nomaster`,
      `link set ${plug.port} master ${into.name}`,
      `link set ${plug.port} up`,
    ];
  }

  /** @internal */
  adopt(process: LabProcess): LabProcess {
    this.processes.add(process);
    this.logFiles.push(process.logFile);
    void process.exited.then(() => this.processes.delete(process));
    return process;
  }

  /** @internal */
  adoptConsole(console: ChildProcess): void {
    this.consoles.add(console);
    console.once('exit', () => this.consoles.delete(console));
  }

  /** Ends all programs, removes all namespaces and files. */
  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    openLabs.delete(this);
    for (const console of this.consoles) console.kill('SIGKILL');
    await Promise.all([...this.processes].map((process) => process.stop()));
    const refusals = this.refusals();
    this.closeNow();
    if (refusals.length > 0) throw new LabError(`a data plane is confined too closely:\n${refusals.join('\n')}`);
  }

  /** What data planes did that their sandbox does not let them do. */
  private refusals(): string[] {
    const lines = this.logFiles.flatMap((file) => readFileSync(file, 'utf8').split('\n'));
    return lines.filter((line) => line.includes('the sandbox refused a system call'));
  }

  /** The same without waiting for anybody: the last resort when the process is about to end. */
  closeNow(): void {
    openLabs.delete(this);
    removeNamespaces(this.id);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export interface Switch {
  readonly name: string;
}

export interface Plug {
  readonly host: Host;
  readonly interface: string;
  /** Its name on the side of the switch. */
  readonly port: string;
}

/** One namespace, and what can be done in it. */
export class Host {
  readonly name: string;
  readonly namespace: string;
  /** For the files of this host. */
  readonly dir: string;
  /** Seen as /etc/resolv.conf by the programs of this host from now on. */
  resolvConf: string | undefined;
  /** A folder in which programs of this host, started later, see the firmware's tables as `sys/class/dmi/id`. */
  machine: string | undefined;
  private readonly lab: Lab;
  private logs = 0;
  /** A program that sees /sys with the interfaces of this host. */
  private window: LabProcess | undefined;

  constructor(lab: Lab, name: string, namespace: string) {
    this.lab = lab;
    this.name = name;
    this.namespace = namespace;
    this.dir = join(lab.dir, name);
  }

  /** Runs `ip` commands, all in one process. */
  async ip(commands: readonly string[]): Promise<void> {
    await run(['ip', '-n', this.namespace, '-batch', '-'], { input: `${commands.join('\n')}\n` });
  }

  /** An `ip -batch` that is running already and waits for its commands: what it does later costs no start-up. */
  ipConsole(): IpConsole {
    const child = spawn('ip', ['-n', this.namespace, '-batch', '-'], {
      stdio: ['pipe', 'ignore', 'pipe'],
      env: environment(),
    });
    this.lab.adoptConsole(child);
    return new IpConsole(this.namespace, child);
  }

  async sysctl(settings: readonly (readonly string[])[]): Promise<void> {
    const lines = settings.map(([path, value]) => `echo ${value} > /proc/sys/${path}`);
    await run(['ip', 'netns', 'exec', this.namespace, 'sh', '-ec', lines.join('\n')]);
  }

  /** @throws LabError on an exit code other than 0, unless `anyExit` */
  exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return run(this.inside(argv), options);
  }

  /** Starts a program in the background, its output in a file. */
  spawn(name: string, argv: readonly string[], env: Readonly<Record<string, string>> = {}): LabProcess {
    this.logs += 1;
    const logFile = join(this.dir, `${name}.${this.logs}.log`);
    const started = new LabProcess(`${this.name}/${name}`, this.inside(argv), logFile, environment(env));
    return this.lab.adopt(started);
  }

  /** What /sys says of a network interface. Costs no process, besides one that keeps the view open. */
  device(networkInterface: string, attribute: string): string {
    this.window ??= this.spawn('window', ['sleep', 'infinity']);
    return readFileSync(`/proc/${this.window.pid}/root/sys/class/net/${networkInterface}/${attribute}`, 'utf8').trim();
  }

  /** From now on `nameserver`s as given, for programs of this host started later. */
  nameservers(addresses: readonly string[]): void {
    this.resolvConf ??= join(this.dir, 'resolv.conf');
    writeFileSync(this.resolvConf, addresses.map((address) => `nameserver ${address}\n`).join(''));
  }

  private inside(argv: readonly string[]): string[] {
    const enter = ['setpriv', '--pdeathsig', 'KILL', 'ip', 'netns', 'exec', this.namespace];
    const [mounts, folders]: [string[], string[]] = [[], []];
    if (this.resolvConf !== undefined) {
      mounts.push('mount --bind "$1" /etc/resolv.conf', 'shift');
      folders.push(this.resolvConf);
    }
    if (this.machine !== undefined) {
      // Nothing can be made in /sys itself, and not every machine has such tables.
      mounts.push('mkdir -p "$1/net"', 'mount --bind /sys/class/net "$1/net"', 'mount -t tmpfs tmpfs /sys/class');
      mounts.push('mkdir -p /sys/class/net /sys/class/dmi/id', 'mount --bind "$1/net" /sys/class/net');
      mounts.push('mount --bind "$1/sys/class/dmi/id" /sys/class/dmi/id', 'shift');
      folders.push(this.machine);
    }
    if (mounts.length === 0) return [...enter, ...argv];
    // `ip netns exec` has given the program a mount namespace of its own.
    return [...enter, 'sh', '-c', [...mounts, 'exec "$@"'].join(' && '), 'sh', ...folders, ...argv];
  }
}

export class IpConsole {
  private readonly namespace: string;
  private readonly child: ChildProcess;
  private readonly done: Promise<void>;

  constructor(namespace: string, child: ChildProcess) {
    this.namespace = namespace;
    this.child = child;
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk.toString('utf8')).slice(-2000);
    });
    this.done = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) =>
        code === 0
          ? resolve()
          : reject(new LabError(`ip in ${this.namespace}: ${stderr.trim() || `exit code ${code}`}`)),
      );
    });
    this.done.catch(() => {});
  }

  /** Does the commands at once and ends. */
  run(commands: readonly string[]): Promise<void> {
    this.child.stdin?.end(`${commands.join('\n')}\n`);
    return this.done;
  }
}

function run(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const [program = '', ...args] = argv;
  const timeout = options.timeoutMs ?? EXEC_TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      args,
      {
        timeout,
        killSignal: 'SIGKILL',
        maxBuffer: EXEC_OUTPUT_LIMIT,
        env: environment(options.env),
      },
      (error, stdout, stderr) => {
        const result = {
          code: typeof error?.code === 'number' ? error.code : error === null ? 0 : 255,
          stdout,
          stderr,
        };
        if (error === null || (options.anyExit === true && typeof error.code === 'number')) return resolve(result);
        const why = error.killed === true ? `not done after ${timeout} ms` : `exit code ${error.code ?? error.signal}`;
        reject(
          new LabError(`${argv.join(' ')}: ${why}${`\n${stdout.slice(-1000)}${stderr.slice(-2000)}`.trimEnd()}`, {
            cause: error,
          }),
        );
      },
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
  });
}

/** A plain user's PATH leaves out the folders where `ip` is. */
function environment(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  return { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`, ...more };
}

interface Owner {
  readonly pid: number;
  /** In clock ticks since boot: tells a process from a later one with the same id. */
  readonly startTime: string;
}

/** Removes what runs left behind whose process is gone. */
export function sweepLeftovers(): void {
  for (const entry of readdirSync(tmpdir())) {
    if (!entry.startsWith(DIR_PREFIX)) continue;
    const dir = join(tmpdir(), entry);
    try {
      const owner = JSON.parse(readFileSync(join(dir, 'owner.json'), 'utf8')) as Owner & { readonly id: string };
      if (startTimeOf(owner.pid) === owner.startTime || !/^sp\d+-[0-9a-f]{6}$/.test(owner.id)) continue;
      removeNamespaces(owner.id);
      rmSync(dir, { recursive: true, force: true });
    } catch {
      // Being made or removed by its owner at this moment.
    }
  }
}

function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Ends every process inside the namespaces of one run, then removes the namespaces. */
function removeNamespaces(id: string): void {
  if (!existsSync(NETNS_DIR)) return;
  const names = readdirSync(NETNS_DIR).filter((name) => name.startsWith(`${id}-`));
  if (names.length === 0) return;
  for (const name of names) {
    const pids = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8', env: environment() }).stdout ?? '';
    for (const pid of pids.split('\n').filter((line) => /^\d+$/.test(line))) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // Ended by itself.
      }
    }
  }
  spawnSync('ip', ['-force', '-batch', '-'], {
    input: names.map((name) => `netns del ${name}\n`).join(''),
    env: environment(),
  });
}

const openLabs = new Set<Lab>();
let watching = false;

function endWithProcess(lab: Lab): void {
  openLabs.add(lab);
  if (watching) return;
  watching = true;
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.once(signal, () => {
      void Promise.all([...openLabs].map((open) => open.close())).finally(() => process.exit(code));
    });
  }
  process.once('exit', () => {
    for (const open of [...openLabs]) open.closeNow();
  });
}
