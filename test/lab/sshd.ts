/** An sshd of its own in a namespace, with keys made for it, and a client that may log in. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DisposableRoot } from './disposable-root.ts';
import type { Host } from './lab.ts';
import { waitFor } from './wait.ts';

/**
 * Starts sshd on `address`, port 22, where given in a root of its own. Returns the command line that logs in from
 * `client`, to be followed by a command.
 */
export async function startSshd(
  host: Host,
  address: string,
  client: Host,
  root?: DisposableRoot,
): Promise<readonly string[]> {
  const hostKey = join(host.dir, 'ssh-host-key');
  const userKey = join(client.dir, USER_KEY);
  for (const file of [hostKey, userKey]) {
    if (!existsSync(file)) await host.exec(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', file]);
  }
  const authorized = join(host.dir, 'ssh-authorized-keys');
  writeFileSync(authorized, readFileSync(`${userKey}.pub`), { mode: 0o600 });
  const config = join(host.dir, 'sshd-config');
  writeFileSync(
    config,
    [
      `ListenAddress ${address}`,
      `HostKey ${hostKey}`,
      `AuthorizedKeysFile ${authorized}`,
      'PermitRootLogin prohibit-password',
      'StrictModes no',
      'UsePAM no',
      'PidFile none',
      'Subsystem sftp internal-sftp',
    ].join('\n'),
  );
  // sshd wants its privilege separation folder, which a root of its own has; otherwise this /run is only its own.
  const folder = root === undefined ? 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && ' : '';
  const start = ['sh', '-c', `${folder}exec "$(command -v sshd)" -D -e -f "$1"`, 'sh', config];
  const sshd = (root ?? host).spawn('sshd', start);
  await sshd.waitUntil('listening', () => sshd.output().includes('Server listening'));
  const login = [...sshLogin(client), `root@${address}`];
  await waitFor('login by ssh', async () => (await client.exec([...login, 'true'])).code === 0);
  return login;
}

/** How `client` calls ssh, without whom. */
export function sshLogin(client: Host): readonly string[] {
  return [
    ...['ssh', '-i', join(client.dir, USER_KEY), '-o', 'IdentitiesOnly=yes', '-o', 'StrictHostKeyChecking=no'],
    ...['-o', `UserKnownHostsFile=${join(client.dir, 'ssh-known-hosts')}`, '-o', 'BatchMode=yes'],
    ...['-o', 'ConnectTimeout=10', '-o', 'ServerAliveInterval=1', '-o', 'ServerAliveCountMax=10', '-F', 'none'],
  ];
}

const USER_KEY = 'ssh-user-key';
