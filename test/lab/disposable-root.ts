/**
 * A host of the lab with a root file system of its own: this machine's below, and in memory whatever is changed. So
 * packages can be installed and files of /etc written as on a VM, and nothing is left. No systemd runs in it; a
 * stand-in of systemctl starts what the units say.
 */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import type { ExecOptions, ExecResult, Host } from './lab.ts';
import type { LabProcess } from './lab-process.ts';
import type { MapServer } from './overlay.ts';
import { smallPackage } from './small-package.ts';
import { waitFor } from './wait.ts';

export class DisposableRoot {
  readonly host: Host;
  private readonly holder: LabProcess;

  private constructor(host: Host, holder: LabProcess) {
    this.host = host;
    this.holder = holder;
  }

  static async mount(host: Host): Promise<DisposableRoot> {
    const dir = join(host.dir, 'root');
    mkdirSync(dir);
    const holder = host.spawn('root', ['sh', '-ec', MOUNTS, 'sh', dir, PROJECT_ROOT, join(host.dir, '..')]);
    await holder.waitUntil('mounted', () => holder.output().includes('MOUNTED'));
    const root = new DisposableRoot(host, holder);
    copyFileSync(join(PROJECT_ROOT, 'test/lab/systemctl.sh'), root.path('/usr/bin/systemctl'));
    return root;
  }

  /** Where this machine sees a file of it. */
  path(inside: string): string {
    return `/proc/${this.holder.pid}/root${inside}`;
  }

  read(inside: string): string {
    return readFileSync(this.path(inside), 'utf8');
  }

  write(inside: string, content: string | Uint8Array, mode = 0o644): void {
    writeFileSync(this.path(inside), content, { mode });
    chmodSync(this.path(inside), mode);
  }

  exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return this.host.exec([...this.enter(), ...argv], options);
  }

  spawn(name: string, argv: readonly string[]): LabProcess {
    return this.host.spawn(name, [...this.enter(), ...argv]);
  }

  /** Installs Stayput: a package that runs this build. Nothing is started. */
  async installBuild(dataplane: string): Promise<void> {
    await this.exec(['dpkg', '-i', smallPackage(this.host.dir, dataplane)]);
  }

  /** A `stayput` command on this host. */
  stayput(args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return this.exec(['stayput', ...args], options);
  }

  /** A disk with this label, as udev escapes it, that holds what is in the file. */
  async disk(label: string, file: string): Promise<void> {
    await this.exec(['mkdir', '-p', '/dev/disk/by-label']);
    await this.exec(['ln', '-s', file, `/dev/disk/by-label/${label}`]);
  }

  /** Until the map server has this EID of an agent that is connected. */
  async registered(mapServer: Pick<MapServer, 'stayput'>, eid: string): Promise<void> {
    const json = async <T>(command: readonly string[]): Promise<T> =>
      JSON.parse((await mapServer.stayput([...command, '--json'])).stdout) as T;
    await waitFor(`${eid} is registered`, async () => {
      const agents = await json<{ xtrId: string }[]>(['agents', 'list']);
      for (const { xtrId } of agents) {
        const { state, owns } = await json<AgentDetails>(['agents', 'show', xtrId]);
        if (state === 'connected' && owns.some((own) => own.eid.includes(eid) && own.state === 'live')) return true;
      }
      throw new Error(await this.journal());
    });
  }

  /** The last lines of what units and cloud-init wrote. */
  async journal(): Promise<string> {
    const last = 'tail -n 12 /var/log/stayput-*.log /var/log/cloud-init-output.log 2>/dev/null || true';
    return (await this.exec(['sh', '-c', last])).stdout;
  }

  private enter(): string[] {
    return ['nsenter', `--target=${this.holder.pid}`, '--mount', '--root', '--wd'];
  }
}

interface AgentDetails {
  readonly state: string;
  readonly owns: readonly { readonly eid: string; readonly state: string }[];
}

/** A checkout and a lab that are on other file systems than the root are shown at their places. */
const MOUNTS = `
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=0755 tmpfs dev
mkdir dev/net dev/pts dev/shm
for device in null zero full random urandom tty; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mknod -m 0666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
for shown in "$2" "$3"; do
  mkdir -p ".$shown"
  mount --bind "$shown" ".$shown"
  mount -o remount,bind,ro ".$shown"
done
mkdir -p run/systemd/system run/sshd
rm -rf var/lib/stayput etc/stayput
echo MOUNTED
exec chroot . sleep infinity
`;
