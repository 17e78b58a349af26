/** Containers of podman and crun on a host of a lab, with storage of their own and no network but what hooks give them. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram } from '../../runtime/programs.ts';
import { hookEnvironment, hookScript, inNetworkOf } from './hooks.ts';
import type { ExecResult } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { Agent } from './overlay.ts';

export class Podman {
  private readonly agent: Agent;
  private readonly dir: string;

  private constructor(agent: Agent) {
    this.agent = agent;
    // Podman refuses long paths.
    this.dir = mkdtempSync(join(tmpdir(), 'sp-pod-'));
  }

  /** With one image, `box`, that holds busybox, and the hook of deploy/hooks for this host's agent. */
  static async prepare(agent: Agent): Promise<Podman> {
    const podman = new Podman(agent);
    const root = join(podman.dir, 'box', 'bin');
    mkdirSync(root, { recursive: true });
    const busybox = findProgram('busybox');
    if (busybox === undefined) throw new LabError('busybox not found');
    copyFileSync(busybox, join(root, 'busybox'));
    const hooks = join(podman.dir, 'hooks');
    mkdirSync(hooks);
    const env = Object.entries(hookEnvironment(agent, {})).map(([name, value]) => `${name}=${value}`);
    const hook = { version: '1.0.0', hook: { path: hookScript('oci', 'stayput-oci-hook'), env }, ...WHEN };
    writeFileSync(join(hooks, 'stayput.json'), JSON.stringify(hook));
    await agent.host.exec(['tar', '-C', join(podman.dir, 'box'), '-cf', join(podman.dir, 'box.tar'), '.']);
    await podman.run('import', join(podman.dir, 'box.tar'), 'box');
    return podman;
  }

  /** Runs `command` in a container that has the EID. */
  start(name: string, eid: string, command: readonly string[]): Promise<ExecResult> {
    return this.run(
      ...['run', '--detach', '--name', name, '--network', 'none', '--cgroups', 'disabled', ...LIMITS],
      ...['--annotation', `stayput.eid=${eid}`, 'box', ...command],
    );
  }

  async remove(name: string): Promise<void> {
    await this.run('rm', '--force', '--time', '0', name);
  }

  /** Removes its files; there must be no container left. */
  close(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  private run(...args: readonly string[]): Promise<ExecResult> {
    const folder = (name: string): string => join(this.dir, name);
    return this.agent.host.exec([
      ...inNetworkOf(this.agent.host),
      // crun does not start where both generations of cgroups are mounted.
      ...['unshare', '--mount', 'sh', '-c', 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', 'sh', 'podman'],
      ...['--root', folder('storage'), '--runroot', folder('run'), '--tmpdir', folder('tmp')],
      ...['--storage-driver', 'vfs', '--cgroup-manager', 'cgroupfs', '--runtime', 'crun', '--events-backend', 'none'],
      ...['--hooks-dir', folder('hooks'), ...args],
    ]);
  }
}

/** What deploy/hooks/oci/stayput.json says. */
const WHEN = { when: { annotations: { '^stayput\\.eid$': '.' } }, stages: ['createRuntime', 'poststop'] };

/** The engine's own are higher than some machines allow. */
const LIMITS = ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024'];
