/**
 * A host of its own for what changes /etc and /run: a network and a mount namespace in which both are private, with a
 * DNS service of an agent and two places with a resolver each (dns-host-agent.ts). Its files are seen from outside
 * below /proc, and everything ends with this process.
 */
import { execFile } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { LabProcess } from '../lab/lab-process.ts';

export const PLACE_1 = '192.0.2.1';
export const PLACE_2 = '192.0.2.2';
/** What `scripts/install-dns-tools.sh` brings. */
const TOOLS = join(PROJECT_ROOT, '.ci', 'dns-tools');
const STAYPUT = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
const AGENT = fileURLToPath(new URL('./dns-host-agent.js', import.meta.url));
export const SOCKET = '/run/stayput/agent.sock';

export class Sandbox {
  private readonly dir = mkdtempSync(join(tmpdir(), 'stayput-dns-host-'));
  private readonly holder: LabProcess;
  private readonly processes: LabProcess[] = [];

  private constructor(tools: string | undefined) {
    const installed = [
      'mount -t overlay overlay -o lowerdir="$1/usr:/usr" /usr',
      '[ ! -d "$1/etc" ] || cp -a "$1/etc/." /etc/',
    ];
    const setUp = [
      'ip link set lo up',
      `ip address add ${PLACE_1}/32 dev lo && ip address add ${PLACE_2}/32 dev lo`,
      'ip link add stayput0 type veth peer name other && ip link set stayput0 up && ip link set other up',
      'ip address add 10.77.0.5/32 dev stayput0',
      'mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work',
      'mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc',
      'mount -t tmpfs tmpfs /run && mkdir /run/stayput /run/place',
      ...(tools === undefined ? [] : installed),
      'echo ready && exec sleep infinity',
    ];
    this.holder = this.begin('holder', [
      'unshare',
      '--mount',
      '--net',
      'sh',
      '-ec',
      setUp.join('\n'),
      'sh',
      tools ?? '',
    ]);
  }

  /** With a program that decides about names installed, for this host only. */
  static async create(program?: (typeof PROGRAMS)[number]): Promise<Sandbox> {
    const sandbox = new Sandbox(program === undefined ? undefined : join(TOOLS, program));
    await sandbox.until(sandbox.holder, 'ready');
    sandbox.write('/etc/nsswitch.conf', 'hosts: files dns\n');
    sandbox.write('/etc/resolv.conf', resolvConf(PLACE_1));
    return sandbox;
  }

  /** Where a file of the sandbox is seen from outside. */
  path(inside: string): string {
    return join(`/proc/${this.holder.pid}/root`, inside);
  }

  read(inside: string): string {
    return readFileSync(this.path(inside), 'utf8');
  }

  exists(inside: string): boolean {
    try {
      lstatSync(this.path(inside));
      return true;
    } catch {
      return false;
    }
  }

  /** As most programs do it: a new file takes the place of the old one. */
  write(inside: string, text: string): void {
    writeFileSync(`${this.path(inside)}.new`, text);
    renameSync(`${this.path(inside)}.new`, this.path(inside));
  }

  start(name: string, argv: readonly string[]): LabProcess {
    return this.begin(name, this.inside(argv));
  }

  /** Until it has written this. */
  async until(process: LabProcess, words: string): Promise<void> {
    await process.waitUntil(words, () => process.output().includes(words));
  }

  /** What it prints, whatever its exit code. */
  run(...argv: readonly string[]): Promise<string> {
    const [program = '', ...args] = this.inside(argv);
    return new Promise((resolve) => {
      execFile(program, args, { timeout: 20_000 }, (_, stdout, stderr) => resolve(stdout + stderr));
    });
  }

  stayput(...args: readonly string[]): Promise<string> {
    return this.run(process.execPath, STAYPUT, ...args);
  }

  /** The agent's DNS service; ready when this resolves. */
  async agent(...listen: readonly string[]): Promise<LabProcess> {
    const where = listen.length === 0 ? ['127.0.0.1:53'] : listen;
    const agent = this.start('agent', [process.execPath, AGENT, SOCKET, ...where]);
    await this.until(agent, 'ready');
    return agent;
  }

  /** `stayput dns host`, with the rights that its unit has: root's name, and no capability. */
  host(mode: string): LabProcess {
    mkdirSync(this.path('/etc/stayput'), { recursive: true });
    writeFileSync(this.path('/etc/stayput/agent.json'), JSON.stringify({ dns: { host: mode } }));
    const unprivileged = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];
    return this.start('host', [...unprivileged, process.execPath, STAYPUT, 'dns', 'host', '--socket', SOCKET]);
  }

  /** What a program of the host finds, by the libc. */
  async getent(name: string): Promise<string> {
    const found = await this.run('getent', 'ahostsv4', name);
    return found.split(/\s/, 1)[0] ?? '';
  }

  async close(): Promise<void> {
    for (const process of this.processes.reverse()) if (process.running) await process.kill9();
    rmSync(this.dir, { recursive: true });
  }

  private begin(name: string, argv: readonly string[]): LabProcess {
    const log = join(this.dir, `${name}.${this.processes.length}.log`);
    const started = new LabProcess(name, ['setpriv', '--pdeathsig', 'KILL', ...argv], log, process.env);
    this.processes.push(started);
    return started;
  }

  private inside(argv: readonly string[]): string[] {
    return ['nsenter', '--target', String(this.holder.pid), '--mount', '--net', '--', ...argv];
  }
}

/** Why these programs cannot be tried here; undefined if they can. */
export function missingDnsTools(): string | undefined {
  const missing = PROGRAMS.filter((name) => !existsSync(join(TOOLS, name)));
  return missing.length === 0 ? undefined : `${missing.join(', ')} not found: sudo scripts/install-dns-tools.sh`;
}

/** Those that decide about names. */
const PROGRAMS = ['resolved', 'networkmanager', 'resolvconf', 'openresolv'] as const;

export function resolvConf(...hosts: readonly string[]): string {
  return hosts.map((host) => `nameserver ${host}\n`).join('');
}
