/** A virtual machine of QEMU, by emulation, that boots a kernel and a ramdisk, and what its operator tells QEMU. */
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { QUIET_BOOT } from './guest-image.ts';
import type { Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { LabProcess } from './lab-process.ts';
import { GUEST_KERNEL } from './migration-tools.ts';
import { waitFor } from './wait.ts';

interface QemuOptions {
  readonly kernel?: string;
  readonly cpu?: string;
  /** Of memory. */
  readonly megabytes?: number;
  readonly env?: Readonly<Record<string, string>>;
}

export class Qemu {
  readonly process: LabProcess;
  private readonly monitor: string;
  private readonly consoleFile: string;

  /** `name` is its own among those of the host. */
  constructor(
    host: Host,
    name: string,
    ramdisk: string,
    more: readonly string[],
    { kernel = GUEST_KERNEL, cpu = 'max', megabytes = 96, env = {} }: QemuOptions = {},
  ) {
    this.monitor = join(host.dir, `${name}.qmp`);
    this.consoleFile = join(host.dir, `${name}.console`);
    this.process = host.spawn(
      'qemu',
      [
        ...['qemu-system-x86_64', '-machine', 'pc,accel=tcg', '-cpu', cpu, '-m', String(megabytes), '-display', 'none'],
        ...['-no-reboot', '-kernel', kernel, '-initrd', ramdisk, '-append', QUIET_BOOT],
        ...['-serial', `file:${this.consoleFile}`, '-qmp', `unix:${this.monitor},server,nowait`, ...more],
      ],
      env,
    );
  }

  /** What the guest has written on its serial line. */
  console(): string {
    try {
      return readFileSync(this.consoleFile, 'utf8');
    } catch {
      return '';
    }
  }

  /** Until the guest has written this so many times. */
  async says(words: string, times = 1): Promise<void> {
    const said = (): boolean => this.console().split(words).length > times;
    try {
      await this.process.waitUntil(`the guest says ${words}`, said, 150_000);
    } catch (cause) {
      throw new LabError(`${(cause as Error).message}\n${this.console().slice(-2000)}`, { cause });
    }
  }

  /** Resolves when the guest's state is at `uri`, whole. */
  async migrate(uri: string): Promise<void> {
    await this.command('migrate-set-parameters', {
      'max-bandwidth': LITTLE_WHILE_RUNNING * 1024 ** 2,
      'downtime-limit': ALL_THE_REST_MS,
    });
    await this.command('migrate', { uri });
    await waitFor('the migration is complete', async () => {
      const { status } = (await this.command('query-migrate')) as { status: string };
      if (status === 'failed') throw new LabError('the migration failed');
      return status === 'completed';
    });
  }

  async quit(): Promise<void> {
    await this.command('quit').catch(() => {});
    await this.process.exited;
  }

  /** One command of QMP. @throws LabError with its answer, if that is an error */
  async command(name: string, parameters: object = {}): Promise<unknown> {
    const socket = await opened(this.monitor);
    try {
      const lines = createInterface(socket)[Symbol.asyncIterator]();
      for (const request of [{ execute: 'qmp_capabilities' }, { execute: name, arguments: parameters }]) {
        socket.write(`${JSON.stringify(request)}\n`);
        let answer: { return?: unknown; error?: unknown };
        do {
          const line = await lines.next();
          if (line.done === true) throw new LabError(`QEMU closed its monitor at ${name}`);
          answer = JSON.parse(line.value) as typeof answer;
        } while (answer.return === undefined && answer.error === undefined);
        if (answer.error !== undefined) throw new LabError(`${name}: ${JSON.stringify(answer.error)}`);
        if (request.execute === name) return answer.return;
      }
      return undefined;
    } finally {
      socket.destroy();
    }
  }
}

function opened(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket));
    socket.once('error', reject);
  });
}

/**
 * QEMU's emulation loses writes of a guest to memory that is copied at that moment: one of about 60 guests that are
 * migrated under traffic is broken then. So little is copied while it runs, in MiB a second, and the rest, which is 96 MiB at
 * most, in the switch-over.
 */
export const LITTLE_WHILE_RUNNING = 1;
/** The most that QEMU takes for the time in which the guest may stand still; it is far less. */
export const ALL_THE_REST_MS = 2_000_000;
