/** How the scripts of deploy/hooks find the program and the agent of the host they run on. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import type { Host } from './lab.ts';
import type { Agent } from './overlay.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

export function hookScript(...path: readonly string[]): string {
  return join(PROJECT_ROOT, 'deploy', 'hooks', ...path);
}

/** The environment in which `stayput` is a program and talks to this agent. */
export function hookEnvironment(agent: Agent, more: Readonly<Record<string, string>>): Record<string, string> {
  const bin = join(agent.host.dir, 'bin');
  mkdirSync(bin, { recursive: true });
  const program = join(bin, 'stayput');
  writeFileSync(program, `#!/bin/sh\nexec ${process.execPath} ${MAIN} "$@"\n`);
  chmodSync(program, 0o755);
  const path = `${bin}:${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`;
  return { PATH: path, STAYPUT_SOCKET: agent.socket, ...more };
}

/**
 * To run a program in a host's network but in the mount namespace of the test: `ip netns exec` gives each program one of
 * its own, which CRIU would save as well, and which has no cgroups.
 */
export function inNetworkOf(host: Host): readonly string[] {
  return ['nsenter', `--mount=/proc/${process.pid}/ns/mnt`, `--net=/run/netns/${host.namespace}`, '--'];
}
