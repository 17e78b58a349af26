/** What a guest boots from: Debian's small kernel, with an initial ramdisk of busybox and whatever the guest is for. */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { findProgram } from '../../runtime/programs.ts';
import type { Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import { GUEST_MODULES } from './migration-tools.ts';

/** A kernel that finds its timer late, as it may be on a busy machine under emulation, gives up unless told not to look. */
export const QUIET_BOOT = 'console=ttyS0 quiet no_timer_check panic=-1 rdinit=/init';

interface Ramdisk {
  /** Files, in the order in which the kernel takes them. */
  readonly modules: readonly string[];
  /** Have the same path in the guest. */
  readonly files?: readonly string[];
  /** Done when the modules are loaded. */
  readonly commands: readonly string[];
}

/** Of a guest with an address, TCP echo on port 7 and HTTP on port 80. It writes READY on its console. */
export function networkedRamdisk(host: Host, address: string): string {
  return initialRamdisk(host, {
    modules: [...VIRTIO_PCI, 'failover', 'net_failover', 'virtio_net'].map((name) => join(GUEST_MODULES, `${name}.ko`)),
    commands: [
      '/bin/busybox ip link set lo up',
      `/bin/busybox ip addr add ${address}/32 dev eth0`,
      '/bin/busybox ip link set eth0 up',
      '/bin/busybox ip route add 169.254.1.1 dev eth0',
      '/bin/busybox ip route add default via 169.254.1.1 dev eth0',
      '/bin/busybox httpd -p 80 -h /www',
      '/bin/busybox nc -ll -p 7 -e /bin/busybox cat &',
      'echo READY',
    ],
  });
}

/** The path of the file. */
export function initialRamdisk(host: Host, { modules, files = [], commands }: Ramdisk): string {
  const root = join(host.dir, 'guest');
  for (const folder of ['bin', 'dev', 'proc', 'run', 'sys', 'www']) mkdirSync(join(root, folder), { recursive: true });
  const busybox = findProgram('busybox');
  if (busybox === undefined) throw new LabError('busybox not found');
  copyFileSync(busybox, join(root, 'bin', 'busybox'));
  for (const module of modules) copyFileSync(module, join(root, basename(module)));
  for (const file of files) {
    mkdirSync(join(root, dirname(file)), { recursive: true });
    copyFileSync(file, join(root, file));
  }
  const init = [
    '#!/bin/busybox sh',
    '/bin/busybox mount -t proc proc /proc',
    '/bin/busybox mount -t sysfs sysfs /sys',
    '/bin/busybox mount -t devtmpfs devtmpfs /dev',
    ...modules.map((module) => `/bin/busybox insmod /${basename(module)}`),
    ...commands,
    'while :; do /bin/busybox sleep 3600; done',
    '',
  ];
  writeFileSync(join(root, 'init'), init.join('\n'));
  chmodSync(join(root, 'init'), 0o755);
  const file = join(host.dir, 'guest.cpio.gz');
  execFileSync('sh', ['-c', 'cd "$1" && find . | cpio --quiet -o -H newc | gzip -1 > "$2"', 'sh', root, file]);
  return file;
}

const VIRTIO_PCI = ['virtio_ring', 'virtio', 'virtio_pci_legacy_dev', 'virtio_pci_modern_dev', 'virtio_pci'];
