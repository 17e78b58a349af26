/**
 * A guest with a data plane inside and no agent. It can be saved and goes on from what was saved, sleep, and have its
 * clock put ahead.
 */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { CAPABILITY } from '../../proto/capability.ts';
import { initialRamdisk } from './guest-image.ts';
import type { Host } from './lab.ts';
import { SNAPSHOT_KERNEL, SNAPSHOT_TUN } from './migration-tools.ts';
import { Qemu } from './qemu.ts';
import { pause, waitFor } from './wait.ts';

export class DataplaneGuest {
  private readonly host: Host;
  private readonly ramdisk: string;
  private readonly generation = randomUUID();
  private qemu: Qemu;
  private starts = 1;

  private constructor(host: Host, dataplane: string, later: readonly string[]) {
    this.host = host;
    this.ramdisk = initialRamdisk(host, {
      modules: [SNAPSHOT_TUN],
      files: [...new Set([dataplane, PERL, ...librariesOf(dataplane), ...librariesOf(PERL)])],
      commands: [
        `${dataplane} --socket /run/dataplane.sock &`,
        `while :; do echo ${HEARTBEAT}; /bin/busybox sleep 1; done &`,
        'while [ ! -e /run/dataplane.sock ]; do /bin/busybox sleep 1; done',
        ...later,
      ],
    });
    this.qemu = this.begin(this.generation, []);
  }

  /** Resolves when the data plane is up. `later`: what the guest does then. */
  static async boot(host: Host, dataplane: string, later: readonly string[] = []): Promise<DataplaneGuest> {
    const guest = new DataplaneGuest(host, dataplane, later);
    await guest.qemu.says(DATAPLANE);
    return guest;
  }

  says(words: string): Promise<void> {
    return this.qemu.says(words);
  }

  /** What it has written on its console. */
  console(): string {
    return this.qemu.console();
  }

  /** After it has gone to sleep by itself. */
  async wakes(afterMs: number): Promise<void> {
    const asleep = async (): Promise<boolean> => {
      const { status } = (await this.qemu.command('query-status')) as { status: string };
      return status === 'suspended';
    };
    await waitFor('the guest is asleep', asleep);
    await pause(afterMs);
    await this.qemu.command('system_wakeup');
  }

  /** Ends it. What it was stands in the file returned. */
  async save(): Promise<string> {
    const snapshot = join(this.host.dir, 'snapshot');
    await this.qemu.migrate(`exec:cat > ${snapshot}`);
    await this.qemu.quit();
    return snapshot;
  }

  /**
   * Goes on from a snapshot, as the machine that was saved or as a copy of it, for some seconds of its own time.
   * What it writes on its console meanwhile.
   */
  async runsOn(snapshot: string, as: 'itself' | 'copy'): Promise<string> {
    this.qemu = this.begin(as === 'itself' ? this.generation : randomUUID(), ['-incoming', `exec:cat ${snapshot}`]);
    await this.qemu.says(HEARTBEAT, SECONDS);
    await this.qemu.quit();
    return this.qemu.console();
  }

  private begin(generation: string, more: readonly string[]): Qemu {
    const name = `snapshot-guest-${this.starts++}`;
    const devices = ['-device', `vmgenid,guid=${generation}`, '-nic', 'none'];
    return new Qemu(this.host, name, this.ramdisk, [...devices, ...more], {
      kernel: SNAPSHOT_KERNEL,
      cpu: CPU,
      megabytes: 256,
    });
  }
}

/** For the guest: tells the data plane something, as an agent, and writes the answer on the console. */
export function telling(command: 'sleep' | 'wake'): string {
  const messages = [
    { id: 1, type: 'hello', capability: CAPABILITY, software: 'test' },
    { id: 2, type: command },
  ];
  const texts = messages.map((message) => `q(${JSON.stringify(message)})`);
  return `${PERL} -e '
    socket(S, 1, 1, 0); connect(S, pack("S a108", 1, "/run/dataplane.sock")) or die;
    for (${texts.join(', ')}) { syswrite(S, pack("N", length).$_); }
    while (sysread(S, $said, 9999)) { print "$said\n"; last if $said =~ /"id":2/; }'`;
}

function librariesOf(program: string): string[] {
  const text = execFileSync('ldd', [program], { encoding: 'utf8' });
  return [...text.matchAll(/(?:^|\s)(\/\S+)/g)].map(([, path = '']) => path);
}

const PERL = '/usr/bin/perl';
/** Linux 6.12 falls over QEMU 7.2's emulation of CMPXCHG16B now and then. */
const CPU = 'max,-cx16';
const DATAPLANE = '"name":"stayput-dataplane"';
const HEARTBEAT = 'a second has passed';
const SECONDS = 5;
