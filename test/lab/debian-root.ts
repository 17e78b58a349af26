/**
 * A Debian that has booted: systemd and its units in a container, in the network namespace of a host of the lab, so that
 * the host's cables are its interfaces. Its files are a layer above the one root that `scripts/install-debian-root.sh`
 * brings; they stay over a reboot and are gone with the lab.
 *
 * systemd sees cgroup v2 also where the machine below has version 1, as the units' device rules work in that only.
 * Everything is mounted in a mount namespace of the container's own, and ends with the lab's process.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findProgram } from '../../runtime/programs.ts';
import type { ExecOptions, ExecResult, Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { LabProcess } from './lab-process.ts';
import { waitFor } from './wait.ts';

/** What all roots are when they boot for the first time. */
export const FRESH_ROOT = '/var/cache/stayput-tests/debian-root';
const BOOT_TIMEOUT_MS = 120_000;

/** Why there can be no such root here; undefined if there can. */
export function missingDebianRoot(): string | undefined {
  if (findProgram('systemd-nspawn') !== undefined && existsSync(FRESH_ROOT)) return undefined;
  return 'systemd-nspawn or the root that it boots not found: sudo scripts/install-debian-root.sh';
}

export class DebianRoot {
  readonly host: Host;
  /** Where its own layer is: what differs from the fresh root. */
  readonly layer: string;
  private readonly folder: string;
  private container: LabProcess | undefined;
  private leader = 0;

  private constructor(host: Host) {
    this.host = host;
    this.folder = join(host.dir, 'debian');
    this.layer = join(this.folder, 'layer');
    for (const name of ['layer', 'work', 'root']) mkdirSync(join(this.folder, name), { recursive: true });
  }

  static async boot(host: Host): Promise<DebianRoot> {
    const root = new DebianRoot(host);
    await root.start();
    return root;
  }

  async start(): Promise<void> {
    forgetControlGroups();
    const container = this.host.spawn('debian', ['unshare', '--mount', 'sh', '-ec', BOOT, 'sh'], {
      BASE: FRESH_ROOT,
      FOLDER: this.folder,
      HOST: this.host.name,
      NETWORK: join('/run/netns', this.host.namespace),
      GROUP: `${CONTROL_GROUP}${process.pid}-${this.host.namespace}`,
    });
    this.container = container;
    this.leader = await container.waitUntil('systemd', () => firstInside(container.pid), BOOT_TIMEOUT_MS);
    await container.waitUntil(
      'everything started',
      async () => {
        const { stdout } = await this.exec(['systemctl', 'is-system-running'], { anyExit: true });
        return /running|degraded/.test(stdout);
      },
      BOOT_TIMEOUT_MS,
    );
  }

  /** An orderly shutdown. */
  async stop(): Promise<void> {
    await this.exec(['systemctl', 'poweroff'], { anyExit: true });
    await this.container?.exited;
  }

  /** As root, with the environment of a login; a command line for `sh`, or a program with its arguments. */
  exec(command: string | readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const words = typeof command === 'string' ? ['sh', '-ec', command] : command;
    return this.host.exec(
      ['nsenter', '--target', String(this.leader), '--all', 'env', '-i', ...ENV, ...words],
      options,
    );
  }

  /** Where a file of it is seen from outside. */
  path(inside: string): string {
    if (this.container?.running !== true) throw new LabError(`${this.host.name} is not up`);
    return join(`/proc/${this.leader}/root`, inside);
  }

  async isActive(unit: string): Promise<boolean> {
    const { stdout } = await this.exec(['systemctl', 'is-active', unit], { anyExit: true });
    return stdout.trim() === 'active';
  }

  /** Waits until a unit is active; the end of its journal says why it is not. */
  async active(unit: string): Promise<void> {
    try {
      await waitFor(`${unit} active`, () => this.isActive(unit));
    } catch (cause) {
      throw new LabError(`${this.host.name}: ${unit} is not active\n${await this.journal(unit)}`, { cause });
    }
  }

  async journal(unit: string): Promise<string> {
    return (await this.exec(['journalctl', '--no-pager', '--output=cat', '--lines=30', `--unit=${unit}`])).stdout;
  }

  /** What systemd knows of a unit, such as `MainPID`. */
  async property(unit: string, name: string): Promise<string> {
    return (await this.exec(['systemctl', 'show', `--property=${name}`, '--value', unit])).stdout.trim();
  }
}

/** The process id, as seen from here, of the process that is number 1 in a container started by `supervisor`. */
function firstInside(supervisor: number): number | undefined {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      const parent = /^PPid:\t(\d+)$/m.exec(status)?.[1];
      const isFirst = /^NSpid:\t.*\t1$/m.test(status);
      if (parent === String(supervisor) && isFirst && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'systemd\n') {
        return Number(pid);
      }
    } catch {
      // It has ended meanwhile.
    }
  }
  return undefined;
}

/** Empty groups of tests that are over; a group that is in use cannot be removed. */
function forgetControlGroups(): void {
  for (const tree of CONTROL_GROUP_TREES.filter((path) => existsSync(path))) {
    for (const name of readdirSync(tree).filter((each) => each.startsWith(CONTROL_GROUP))) {
      const owner = Number(name.slice(CONTROL_GROUP.length).split('-', 1)[0]);
      if (existsSync(`/proc/${owner}`)) continue;
      spawnSync('find', [join(tree, name), '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
    }
  }
}

const CONTROL_GROUP = 'stayput-debian-';
const CONTROL_GROUP_TREES = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'];

/** The data plane confines itself, and the units have device rules: system calls that a container need not have. */
const BOOT = `
mount --make-rprivate /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$GROUP"
echo $$ > "/sys/fs/cgroup/$GROUP/cgroup.procs"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$FOLDER/layer,workdir=$FOLDER/work" "$FOLDER/root"
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec systemd-nspawn --quiet --boot --directory="$FOLDER/root" --hostname="$HOST" --register=no --keep-unit \\
  --network-namespace-path="$NETWORK" --console=pipe --resolv-conf=off --timezone=off --link-journal=no \\
  --capability=CAP_NET_ADMIN,CAP_BPF \\
  --system-call-filter="bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self"
`;

const ENV = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/root', 'LANG=C.UTF-8'];
