/**
 * A container in the sense of the kernel: a process tree with namespaces for processes and network, behind an interface
 * of a host, that CRIU can take away and bring back elsewhere. It serves TCP echo on port 7.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inNetworkOf } from './hooks.ts';
import type { Host, Lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { LabProcess } from './lab-process.ts';
import { CRIU } from './migration-tools.ts';
import { waitFor } from './wait.ts';

export interface ContainerOptions {
  readonly address: string;
  /** The host's end of its cable. */
  readonly port: string;
  readonly actionScript: string;
}

export class Container {
  private readonly options: ContainerOptions;
  private readonly images: string;
  private readonly pidFile: string;
  private readonly first: LabProcess;
  private restoredPid: number | undefined;

  private constructor(images: string, options: ContainerOptions, first: LabProcess) {
    this.images = images;
    this.pidFile = join(images, 'pid');
    this.options = options;
    this.first = first;
  }

  static async start(lab: Lab, on: Host, options: ContainerOptions): Promise<Container> {
    const network = await lab.host('container');
    await lab.cable(network, 'eth0', on, options.port);
    await network.ip([
      `addr add ${options.address}/32 dev eth0`,
      'route add 169.254.1.1 dev eth0 scope link',
      'route add default via 169.254.1.1 dev eth0 onlink',
    ]);
    const images = join(lab.dir, 'images');
    mkdirSync(images);
    const echo = ['busybox', 'nc', '-ll', '-p', '7', '-e', '/bin/cat'];
    const first = on.spawn('container', [
      ...[...inNetworkOf(network), 'unshare', '--pid', '--fork', 'setsid', ...echo],
    ]);
    const listens = async (): Promise<boolean> =>
      (await network.exec(['ss', '-Hltn', 'sport = 7'])).stdout.trim() !== '';
    await waitFor('the container listens', listens);
    return new Container(images, options, first);
  }

  /** Freezes it with its open connections, saves it and ends it. */
  async dump(from: Host, env: Readonly<Record<string, string>>): Promise<void> {
    const root = readFileSync(`/proc/${this.first.pid}/task/${this.first.pid}/children`, 'utf8').trim();
    await this.criu(from, ['dump', '--tree', root, '--network-lock', 'nftables'], env);
    await this.first.exited;
  }

  async restore(on: Host, env: Readonly<Record<string, string>>): Promise<void> {
    await this.criu(on, ['restore', '--restore-detached', '--pidfile', this.pidFile], env);
    this.restoredPid = Number(readFileSync(this.pidFile, 'utf8'));
  }

  /** A restored one is nobody's child. */
  end(): void {
    if (this.restoredPid !== undefined) process.kill(this.restoredPid, 'SIGKILL');
  }

  private async criu(host: Host, args: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
    const log = join(this.images, `${args[0]}.log`);
    const result = await host.exec(
      [
        ...[...inNetworkOf(host), ...CRIU, ...args],
        ...['--images-dir', this.images, '--log-file', log, '-v2', '--tcp-established'],
        ...['--external', `veth[eth0]:${this.options.port}`, '--action-script', this.options.actionScript],
      ],
      { env, anyExit: true },
    );
    if (result.code !== 0)
      throw new LabError(`criu ${args[0]}: ${result.stderr}\n${readFileSync(log, 'utf8').slice(-2000)}`);
  }
}
