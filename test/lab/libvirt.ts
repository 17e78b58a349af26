/**
 * The real libvirtd on an agent's host, with the hook of deploy/hooks where an operator puts it. It has a host name,
 * configuration, state and logs of its own, and sees nothing of a libvirt of this machine. Its guests run by emulation.
 */
import { randomUUID } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { findProgram } from '../../runtime/programs.ts';
import { networkedRamdisk, QUIET_BOOT } from './guest-image.ts';
import { hookEnvironment, hookScript } from './hooks.ts';
import type { LabProcess } from './lab-process.ts';
import { GUEST_KERNEL } from './migration-tools.ts';
import type { Agent } from './overlay.ts';
import { ALL_THE_REST_MS, LITTLE_WHILE_RUNNING } from './qemu.ts';
import { waitFor } from './wait.ts';

export interface Domain {
  readonly name: string;
  readonly eid: string;
  readonly mac: string;
  readonly tap: string;
}

export class Libvirt {
  private readonly agent: Agent;
  /** Stands for `/` where libvirt writes, and for what it reads below /etc. */
  private readonly root: string;
  private daemon: LabProcess;

  private constructor(agent: Agent) {
    this.agent = agent;
    this.root = join(agent.host.dir, 'libvirt');
    const etc = this.path('/etc/libvirt');
    for (const folder of [join(etc, 'hooks', 'qemu.d'), this.path('/run'), this.path('/var/log')]) {
      mkdirSync(folder, { recursive: true });
    }
    cpSync(hookScript('libvirt', 'stayput'), join(etc, 'hooks', 'qemu.d', 'stayput'));
    writeFileSync(join(etc, 'libvirtd.conf'), [`host_uuid = "${randomUUID()}"`, ...DAEMON_SETTINGS, ''].join('\n'));
    writeFileSync(join(etc, 'qemu.conf'), [...DRIVER_SETTINGS, ''].join('\n'));
    symlinkSync('/run', this.path('/var/run'));
    symlinkSync(dirname(agent.socket), this.path('/run/stayput'));
    // It asks for its own name again and again, during a migration too.
    writeFileSync(this.path('/etc/hosts'), `127.0.0.1 localhost\n127.0.1.1 ${agent.host.name}\n`);
    // Whom libvirtd looks for whatever its configuration says; libvirt-daemon-system, which would make them, is not needed.
    for (const [file, entry] of USERS) writeFileSync(this.path(file), `${readFileSync(file, 'utf8')}${entry}\n`);
    writeFileSync(this.path(HOOK_LOG), '');
    this.daemon = this.begin();
  }

  static async start(agent: Agent): Promise<Libvirt> {
    const libvirt = new Libvirt(agent);
    await libvirt.ready();
    return libvirt;
  }

  /** Defines a guest that has its EID in its metadata, starts it, and waits until it is up. */
  async boot(domain: Domain): Promise<void> {
    const file = join(this.root, `${domain.name}.xml`);
    writeFileSync(file, domainXml(domain, networkedRamdisk(this.agent.host, domain.eid)));
    await this.virsh('define', file);
    await this.virsh('start', domain.name);
    const isUp = (): boolean => readFileSync(this.path(CONSOLE), 'utf8').includes('READY');
    await waitFor(`${domain.name} is up`, isUp);
  }

  /** Returns when the guest runs at the other end. */
  async migrate(name: string, to: Libvirt): Promise<void> {
    const { address4 } = to.agent.at;
    const slowly = ['--bandwidth', String(LITTLE_WHILE_RUNNING)];
    const target = [`qemu+tcp://${address4}/system`, `tcp://${address4}`];
    let failure: unknown;
    const migrated = this.virsh('migrate', '--live', ...slowly, name, ...target).catch((error: unknown) => {
      failure = error;
    });
    const allowed = (): Promise<true> =>
      this.virsh('migrate-setmaxdowntime', name, String(ALL_THE_REST_MS)).then(() => true);
    await waitFor('the migration has begun', allowed, {
      unless: () => (failure === undefined ? undefined : String(failure)),
    });
    await migrated;
    if (failure !== undefined) throw failure;
  }

  /** Ends a guest as if its plug were pulled. */
  async destroy(name: string): Promise<void> {
    await this.virsh('destroy', name);
  }

  /** The daemon alone; guests go on. */
  async restart(): Promise<void> {
    await this.daemon.stop();
    this.daemon = this.begin();
    await this.ready();
  }

  /** What the hook has said, which is what went wrong. */
  complaints(): string {
    return readFileSync(this.path(HOOK_LOG), 'utf8');
  }

  private begin(): LabProcess {
    const { host } = this.agent;
    const env = hookEnvironment(this.agent, {});
    const logger = join(host.dir, 'bin', 'logger');
    writeFileSync(logger, `#!/bin/sh\nexec cat >> ${HOOK_LOG}\n`, { mode: 0o755 });
    const steps = [
      'hostname "$1"',
      'for each in /run /var /etc/libvirt /etc/hosts /etc/passwd /etc/group; do mount --bind "$2$each" "$each"; done',
      'exec libvirtd --listen',
    ];
    return host.spawn('libvirtd', ['unshare', '--uts', 'sh', '-ec', steps.join('\n'), 'sh', host.name, this.root], env);
  }

  /** The first time it asks QEMU what it can do. */
  private async ready(): Promise<void> {
    const answers = (): Promise<true> => this.virsh('version').then(() => true);
    await this.daemon.waitUntil('libvirtd answers', answers);
  }

  private async virsh(...args: readonly string[]): Promise<void> {
    const inside = ['nsenter', '--target', String(this.daemon.pid), '--mount', '--uts', '--'];
    await this.agent.host.exec([...inside, 'virsh', '--connect', 'qemu:///system', ...args]);
  }

  /** Where a file of libvirt is seen from outside. */
  private path(inside: string): string {
    return join(this.root, inside);
  }
}

const USERS: readonly (readonly [string, string])[] = [
  ['/etc/passwd', 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin'],
  ['/etc/group', 'libvirt-qemu:x:64055:'],
];
const CONSOLE = '/var/log/guest.console';
const HOOK_LOG = '/var/log/hook';

/** No TLS and no password between the hosts: this is not what is tested. */
const DAEMON_SETTINGS = ['auth_unix_rw = "none"', 'listen_tls = 0', 'listen_tcp = 1', 'auth_tcp = "none"'];

const DRIVER_SETTINGS = [
  ...['security_driver = "none"', 'user = "root"', 'group = "root"', 'dynamic_ownership = 0', 'remember_owner = 0'],
  ...['cgroup_controllers = []', 'namespaces = []', 'stdio_handler = "file"'],
];

function domainXml({ name, eid, mac, tap }: Domain, ramdisk: string): string {
  return `
<domain type="qemu">
  <name>${name}</name>
  <metadata>
    <stayput:workload xmlns:stayput="urn:stayput:workload:1">
      <stayput:eid address="${eid}" name="${name}" mac="${mac}"/>
    </stayput:workload>
  </metadata>
  <memory unit="MiB">96</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch="x86_64" machine="pc">hvm</type>
    <kernel>${GUEST_KERNEL}</kernel>
    <initrd>${ramdisk}</initrd>
    <cmdline>${QUIET_BOOT}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode="maximum"/>
  <devices>
    <emulator>${findProgram('qemu-system-x86_64')}</emulator>
    <controller type="usb" model="none"/>
    <interface type="ethernet">
      <mac address="${mac}"/>
      <target dev="${tap}"/>
      <model type="virtio"/>
      <rom enabled="no"/>
    </interface>
    <serial type="file"><source path="${CONSOLE}"/></serial>
    <memballoon model="none"/>
  </devices>
</domain>`;
}
