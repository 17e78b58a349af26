/**
 * A virtual machine of QEMU (by emulation) in a lab's host: Linux with busybox, one virtio interface on a tap device,
 * TCP echo on port 7 and HTTP on port 80. It knows nothing of Stayput. Can be migrated live to another host.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { findProgram } from '../../runtime/programs.ts';
import type { Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { LabProcess } from './lab-process.ts';
import { GUEST_KERNEL, GUEST_MODULES } from './migration-tools.ts';
import { waitFor } from './wait.ts';

export interface GuestOptions {
  readonly address: string;
  readonly mac: string;
  readonly tap: string;
  /** What QEMU calls when the tap device is there, and before it goes. */
  readonly script: string;
  readonly downscript: string;
  readonly env: Readonly<Record<string, string>>;
}

export class Guest {
  readonly process: LabProcess;
  private readonly monitor: string;
  private readonly console: string;

  private constructor(host: Host, options: GuestOptions, more: readonly string[]) {
    this.monitor = join(host.dir, `${options.tap}.qmp`);
    this.console = join(host.dir, `${options.tap}.console`);
    const { tap, mac, script, downscript } = options;
    this.process = host.spawn(
      'qemu',
      [
        ...['qemu-system-x86_64', '-machine', 'pc,accel=tcg', '-cpu', 'max', '-m', '96', '-display', 'none'],
        ...['-no-reboot', '-kernel', GUEST_KERNEL, '-initrd', initialRamdisk(host, options.address)],
        ...['-append', 'console=ttyS0 quiet panic=-1 rdinit=/init', '-serial', `file:${this.console}`],
        ...['-netdev', `tap,id=n,ifname=${tap},script=${script},downscript=${downscript}`],
        ...['-device', `virtio-net-pci,netdev=n,romfile=,mac=${mac}`, '-qmp', `unix:${this.monitor},server,nowait`],
        ...more,
      ],
      options.env,
    );
  }

  static async boot(host: Host, options: GuestOptions): Promise<Guest> {
    const guest = new Guest(host, options, []);
    await guest.process.waitUntil('the guest is up', () => readable(guest.console).includes('READY'), 60_000);
    return guest;
  }

  /** One that waits for another one to migrate to `url`. */
  static async incoming(host: Host, options: GuestOptions, url: string): Promise<Guest> {
    const guest = new Guest(host, options, ['-incoming', url]);
    await guest.process.waitUntil('waiting for the migration', async () => {
      const status = (await guest.command('query-status').catch(() => undefined)) as { status: string } | undefined;
      return status?.status === 'inmigrate';
    });
    return guest;
  }

  /** Resolves when the guest runs at the other end. */
  async migrate(url: string): Promise<void> {
    await this.command('migrate-set-parameters', { 'max-bandwidth': 1024 ** 3, 'downtime-limit': 100 });
    await this.command('migrate', { uri: url });
    await waitFor(
      'the migration is complete',
      async () => {
        const { status } = (await this.command('query-migrate')) as { status: string };
        if (status === 'failed') throw new LabError('the migration failed');
        return status === 'completed';
      },
      { timeoutMs: 30_000 },
    );
  }

  /** Ends QEMU as its operator would. */
  async quit(): Promise<void> {
    await this.command('quit').catch(() => {});
    await this.process.exited;
  }

  /** One command of QMP. @throws LabError with its answer, if that is an error */
  private async command(name: string, parameters: object = {}): Promise<unknown> {
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

function readable(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function initialRamdisk(host: Host, address: string): string {
  const root = join(host.dir, 'guest');
  for (const folder of ['bin', 'dev', 'proc', 'sys', 'www']) mkdirSync(join(root, folder), { recursive: true });
  const busybox = findProgram('busybox');
  if (busybox === undefined) throw new LabError('busybox not found');
  copyFileSync(busybox, join(root, 'bin', 'busybox'));
  cpSync(GUEST_MODULES, join(root, 'modules'), { recursive: true });
  writeFileSync(join(root, 'init'), init(address));
  chmodSync(join(root, 'init'), 0o755);
  const file = join(host.dir, 'guest.cpio.gz');
  execFileSync('sh', ['-c', 'cd "$1" && find . | cpio --quiet -o -H newc | gzip -1 > "$2"', 'sh', root, file]);
  return file;
}

function init(address: string): string {
  const modules = ['virtio_ring', 'virtio', 'virtio_pci_legacy_dev', 'virtio_pci_modern_dev', 'virtio_pci'];
  const network = ['failover', 'net_failover', 'virtio_net'];
  return [
    '#!/bin/busybox sh',
    '/bin/busybox mount -t proc proc /proc',
    '/bin/busybox mount -t sysfs sysfs /sys',
    '/bin/busybox mount -t devtmpfs devtmpfs /dev',
    `for module in ${[...modules, ...network].join(' ')}; do /bin/busybox insmod /modules/$module.ko; done`,
    '/bin/busybox ip link set lo up',
    `/bin/busybox ip addr add ${address}/32 dev eth0`,
    '/bin/busybox ip link set eth0 up',
    '/bin/busybox ip route add 169.254.1.1 dev eth0',
    '/bin/busybox ip route add default via 169.254.1.1 dev eth0',
    '/bin/busybox httpd -p 80 -h /www',
    '/bin/busybox nc -ll -p 7 -e /bin/busybox cat &',
    'echo READY',
    'while :; do /bin/busybox sleep 3600; done',
    '',
  ].join('\n');
}
