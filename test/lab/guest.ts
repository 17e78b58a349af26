/**
 * A virtual machine of QEMU (by emulation) in a lab's host: Linux with busybox, one virtio interface on a tap device,
 * TCP echo on port 7 and HTTP on port 80. It knows nothing of Stayput. Can be migrated live to another host.
 */
import { networkedRamdisk } from './guest-image.ts';
import type { Host } from './lab.ts';
import { Qemu } from './qemu.ts';

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
  private readonly qemu: Qemu;

  private constructor(host: Host, options: GuestOptions, more: readonly string[]) {
    const { address, tap, mac, script, downscript, env } = options;
    const network = [
      ...['-netdev', `tap,id=n,ifname=${tap},script=${script},downscript=${downscript}`],
      ...['-device', `virtio-net-pci,netdev=n,romfile=,mac=${mac}`],
    ];
    this.qemu = new Qemu(host, tap, networkedRamdisk(host, address), [...network, ...more], { env });
  }

  static async boot(host: Host, options: GuestOptions): Promise<Guest> {
    const guest = new Guest(host, options, []);
    await guest.qemu.says('READY');
    return guest;
  }

  /** One that waits for another one to migrate to `url`. */
  static async incoming(host: Host, options: GuestOptions, url: string): Promise<Guest> {
    const guest = new Guest(host, options, ['-incoming', url]);
    await guest.qemu.process.waitUntil('waiting for the migration', async () => {
      const status = (await guest.qemu.command('query-status').catch(() => undefined)) as
        | { status: string }
        | undefined;
      return status?.status === 'inmigrate';
    });
    return guest;
  }

  /** Resolves when the guest runs at the other end. */
  async migrate(url: string): Promise<void> {
    await this.qemu.migrate(url);
  }

  /** For a failed test: what QEMU and the guest say of their state. */
  async account(): Promise<string> {
    const told: string[] = [];
    for (const [command, parameters] of [
      ...['query-status', 'query-migrate', 'query-rx-filter'].map((name) => [name, {}] as const),
      ['human-monitor-command', { 'command-line': 'info registers' }] as const,
    ]) {
      // One at a time: the monitor has no more callers.
      told.push(await this.qemu.command(command, parameters).then(JSON.stringify, String));
    }
    return ['-- the guest', ...told, this.qemu.console().slice(-2000)].join('\n');
  }

  /** Ends QEMU as its operator would. */
  async quit(): Promise<void> {
    await this.qemu.quit();
  }
}
