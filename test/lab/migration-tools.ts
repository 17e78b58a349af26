/** QEMU's and libvirt's guests and CRIU need more than the other tests: `scripts/install-migration-tools.sh` brings it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findProgram } from '../../runtime/programs.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';

const FOLDER = join(PROJECT_ROOT, '.ci', 'migration-tools');

export const GUEST_KERNEL = join(FOLDER, 'guest', 'vmlinuz');
export const GUEST_MODULES = join(FOLDER, 'guest', 'modules');

/** A kernel that knows vmgenid, and its module for TUN devices. */
export const SNAPSHOT_KERNEL = join(FOLDER, 'snapshot-guest', 'vmlinuz');
export const SNAPSHOT_TUN = join(FOLDER, 'snapshot-guest', 'tun.ko');

const CRIU_ROOT = join(FOLDER, 'criu', 'usr');

/** CRIU with the libraries it came with, not the system's. */
export const CRIU = [
  join(CRIU_ROOT, 'lib64', 'ld-linux-x86-64.so.2'),
  '--library-path',
  join(CRIU_ROOT, 'lib', 'x86_64-linux-gnu'),
  join(CRIU_ROOT, 'sbin', 'criu'),
] as const;

/** Why the tests cannot run here; undefined if they can. */
export function missingMigrationTools(): string | undefined {
  const needed = ['qemu-system-x86_64', 'libvirtd', 'virsh', 'busybox', 'cpio', 'podman', 'crun'];
  const programs = needed.filter((name) => findProgram(name) === undefined);
  const files = [GUEST_KERNEL, GUEST_MODULES, CRIU[0], CRIU[3]].filter((path) => !existsSync(path));
  if (programs.length + files.length === 0) return undefined;
  return `${[...programs, ...files].join(', ')} not found: sudo scripts/install-migration-tools.sh`;
}

/** The same for tests of snapshots. */
export function missingSnapshotTools(): string | undefined {
  const programs = ['qemu-system-x86_64', 'busybox', 'cpio'].filter((name) => findProgram(name) === undefined);
  const files = [SNAPSHOT_KERNEL, SNAPSHOT_TUN].filter((path) => !existsSync(path));
  if (programs.length + files.length === 0) return undefined;
  return `${[...programs, ...files].join(', ')} not found: sudo scripts/install-migration-tools.sh`;
}
