/** Checks of this machine: what its kernel can, what the daemons need of it, and where their state is. */
import { existsSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { networkInterfaces, release } from 'node:os';
import { join } from 'node:path';
import { fail, type Outcome, ok, skipped, warn } from '../../runtime/finding.ts';
import type { Subject } from './subject.ts';

/** `root`: of the file system that is looked at. */
export function checkKernel(root = '/', version = release()): readonly Outcome[] {
  const outcomes: Outcome[] = [];
  if (!existsSync(join(root, 'dev/net/tun'))) {
    outcomes.push(
      fail('there is no /dev/net/tun', 'sudo modprobe tun; in a container give it the device /dev/net/tun'),
    );
  }
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 5) outcomes.push(fail(`Linux ${version} is too old`, 'use Linux 5.4 or newer (Debian 11, Ubuntu 20.04)'));
  const missing = [
    ...(major < 6 || (major === 6 && minor < 2) ? ['UDP segmentation in the TUN (USO, Linux 6.2)'] : []),
    ...(read(root, 'sys/kernel/security/lsm')?.includes('landlock') === false ? ['Landlock'] : []),
    ...(existsSync(join(root, 'proc/net/packet'))
      ? []
      : ['AF_PACKET (workloads behind interfaces are not seen arriving)']),
    ...(existsSync(join(root, 'proc/net/if_inet6')) ? [] : ['IPv6 (agent addresses are IPv6)']),
  ];
  if (missing.some((each) => each.startsWith('IPv6'))) {
    outcomes.push(
      fail('IPv6 is switched off', 'boot without ipv6.disable=1; no IPv6 address of the underlay is needed'),
    );
  } else if (missing.length > 0) {
    outcomes.push(
      warn(`Linux ${version} without ${missing.join(', ')}`, 'it works without; a newer kernel is faster or safer'),
    );
  }
  return outcomes.length > 0 ? outcomes : [ok(`Linux ${version} has all that is used`)];
}

export function checkOffloads({ status }: Subject): readonly Outcome[] {
  if (status?.dataplane.connected !== true) return [skipped('the data plane is not attached')];
  const { offloads } = status.dataplane;
  const missing = OFFLOADS.filter((name) => !offloads.includes(name));
  if (missing.length === 0) return [ok(offloads.join(', '))];
  const found = `${offloads.join(', ') || 'none'}; without ${missing.join(', ')}`;
  return [
    warn(found, 'slower: see --offload in /etc/stayput/dataplane.env, and the kernel’s age (stayput doctor kernel)'),
  ];
}

export function checkTunnel({ status }: Subject): readonly Outcome[] {
  const addresses = networkInterfaces()[TUNNEL]?.map(({ address }) => address);
  if (addresses === undefined) {
    return status === null
      ? [skipped(`there is no ${TUNNEL}: the data plane has not been started here`)]
      : [
          fail(
            `there is no interface ${TUNNEL}`,
            'sudo systemctl restart stayput-dataplane; journalctl -u stayput-dataplane -n 20',
          ),
        ];
  }
  if (status !== null && !addresses.includes(status.agentAddress)) {
    return [
      fail(`${TUNNEL} does not have the agent's address`, 'who changed it? sudo systemctl restart stayput-dataplane'),
    ];
  }
  return [ok(`${TUNNEL} has ${addresses.join(', ')}`)];
}

export function checkState({ config: { stateDir } }: Subject): readonly Outcome[] {
  let mode: number;
  try {
    ({ mode } = statSync(stateDir));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return [
      code === 'ENOENT'
        ? skipped(`${stateDir} is made when this host joins`)
        : skipped(`${stateDir} cannot be seen (${code})`),
    ];
  }
  const outcomes: Outcome[] = [];
  if ((mode & 0o077) !== 0)
    outcomes.push(fail(`${stateDir} holds keys and is open to others`, `sudo chmod 700 ${stateDir}`));
  const { bavail, bsize, files, ffree } = statfsSync(stateDir);
  const free = Math.floor((bavail * bsize) / 1_048_576);
  if (free < LEAST_MB)
    outcomes.push(
      fail(`${free} MB are free for ${stateDir}`, 'make room: what is not written is forgotten with a restart'),
    );
  else if (free < FEW_MB) outcomes.push(warn(`${free} MB are free for ${stateDir}`, 'make room'));
  if (files > 0 && ffree < LEAST_FILES) outcomes.push(fail(`${ffree} inodes are free for ${stateDir}`, 'remove files'));
  return outcomes.length > 0 ? outcomes : [ok(`${stateDir}, ${free} MB free`)];
}

function read(root: string, path: string): string | null {
  try {
    return readFileSync(join(root, path), 'utf8');
  } catch {
    return null;
  }
}

export const TUNNEL = 'stayput0';
const OFFLOADS = ['vnet-hdr', 'tso', 'udp-gso', 'udp-gro'];
const LEAST_MB = 8;
const FEW_MB = 64;
const LEAST_FILES = 64;
