/**
 * podman and podman-compose on the hosts of a lab, with storage of their own that all hosts share, so that an image is
 * built once. `--network host` is the network of the host of the lab.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { BASE_IMAGE, COMPOSE } from './container-tools.ts';
import type { ExecOptions, ExecResult, Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import { waitFor } from './wait.ts';

export type ImageName = 'mapserver' | 'agent' | 'dataplane';

/** The build contexts that deploy/container/Containerfile takes: folders as in a package. */
export interface ImageContent {
  /** lib/stayput */
  readonly program: string;
  /** bin */
  readonly dataplane: string;
}

export interface ComposeProject {
  readonly name: string;
  readonly file: string;
  /** Of its images. */
  readonly tag: string;
}

export class ContainerEngine {
  private readonly dir: string;
  /** Keeps open the mount namespace in which the containers' roots are mounted. */
  private readonly mounts: ChildProcess;
  private readonly env: Readonly<Record<string, string>>;

  private constructor(dir: string, mounts: ChildProcess) {
    this.dir = dir;
    this.mounts = mounts;
    this.env = { CONTAINERS_CONF: join(dir, 'containers.conf'), CONTAINERS_STORAGE_CONF: join(dir, 'storage.conf') };
  }

  /** With a base for images, `localhost/base`. */
  static async start(builder: Host): Promise<ContainerEngine> {
    forgetStorage();
    const dir = mkdtempSync(join(tmpdir(), `${STORAGE}-${process.pid}-`));
    writeFileSync(join(dir, 'containers.conf'), CONTAINERS_CONF.replaceAll('DIR', dir));
    writeFileSync(join(dir, 'storage.conf'), STORAGE_CONF.replaceAll('DIR', dir));
    // crun does not start where both generations of cgroups are mounted.
    const script = 'umount /sys/fs/cgroup/unified 2>/dev/null; echo; exec sleep infinity';
    const mounts = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', '--mount', 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await new Promise((resolve, reject) => {
      mounts.stdout.once('data', resolve);
      mounts.once('exit', () => reject(new LabError('no mount namespace for containers')));
    });
    const engine = new ContainerEngine(dir, mounts);
    try {
      await engine.podman(builder, ['import', BASE_IMAGE, 'localhost/base']);
      return engine;
    } catch (error) {
      await engine.close(builder);
      throw error;
    }
  }

  /** Builds an image of deploy/container of what is compiled already. */
  async build(builder: Host, name: ImageName, tag: string, { program, dataplane }: ImageContent): Promise<void> {
    await this.podman(
      builder,
      [
        ...['build', '--quiet', '--format', 'docker', '--layers', '--target', name, '--build-arg', `VERSION=${tag}`],
        ...['--build-arg', 'BASE_IMAGE=localhost/base', '--build-context', `program-files=${program}`],
        ...['--build-context', `dataplane-files=${dataplane}`, '--tag', `localhost/stayput-${name}:${tag}`],
        ...['--file', join(PROJECT_ROOT, 'deploy/container/Containerfile'), PROJECT_ROOT],
      ],
      { timeoutMs: 120_000 },
    );
  }

  podman(host: Host, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return this.run(host, ['podman', ...args], options);
  }

  /** What a compose file describes, as `project`. `tag` is of its images. */
  compose(
    host: Host,
    project: ComposeProject,
    args: readonly string[],
    options: ExecOptions = {},
  ): Promise<ExecResult> {
    const env = { STAYPUT_VERSION: project.tag, PYTHONPATH: dirname(COMPOSE), ...options.env };
    const command = ['python3', COMPOSE, '--project-name', project.name, '--file', project.file, ...args];
    return this.run(host, command, { ...options, env });
  }

  /** Ends all containers and removes everything. */
  async close(host: Host): Promise<void> {
    await this.podman(host, ['rm', '--all', '--force', '--time', '0'], { anyExit: true });
    this.mounts.kill('SIGKILL');
    await waitFor('the mounts of containers are gone', () => this.mounts.exitCode !== null || this.mounts.signalCode);
    rmSync(this.dir, { recursive: true, force: true });
  }

  private run(host: Host, command: readonly string[], options: ExecOptions): Promise<ExecResult> {
    const enter = ['nsenter', `--mount=/proc/${this.mounts.pid}/ns/mnt`, `--net=/run/netns/${host.namespace}`, '--'];
    return host.exec([...enter, ...command], { ...options, env: { ...this.env, ...options.env } });
  }
}

/** Storage of tests that were killed. Their containers ended with the namespaces of their lab. */
function forgetStorage(): void {
  for (const name of readdirSync(tmpdir())) {
    const [prefix, owner, random] = name.split('-');
    if (prefix !== STORAGE || owner === undefined || random === undefined || existsSync(`/proc/${owner}`)) continue;
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/** Short, as podman refuses long paths. */
const STORAGE = 'spimg';

/** Limits are lower than the engine's own, which some machines do not allow. */
const CONTAINERS_CONF = `
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "crun"
events_logger = "none"
lock_type = "file"
tmp_dir = "DIR/tmp"
volume_path = "DIR/volumes"
`;

const STORAGE_CONF = `
[storage]
driver = "overlay"
graphroot = "DIR/storage"
runroot = "DIR/run"
`;
