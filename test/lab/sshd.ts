/** An sshd of its own in a namespace, with keys made for it, and a client that may log in. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './lab.ts';
import { waitFor } from './wait.ts';

/** Starts sshd on `address`, port 22. Returns the command line that logs in from `client`, to be followed by a command. */
export async function startSshd(host: Host, address: string, client: Host): Promise<readonly string[]> {
  const hostKey = join(host.dir, 'ssh-host-key');
  const userKey = join(client.dir, 'ssh-user-key');
  for (const file of [hostKey, userKey]) await host.exec(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', file]);
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
    ].join('\n'),
  );
  // sshd wants its privilege separation folder; this /run is only its own.
  const start = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$(command -v sshd)" -D -e -f "$1"';
  const sshd = host.spawn('sshd', ['sh', '-c', start, 'sh', config]);
  await sshd.waitUntil('listening', () => sshd.output().includes('Server listening'));
  const login = [
    ...['ssh', '-i', userKey, '-o', 'IdentitiesOnly=yes', '-o', 'StrictHostKeyChecking=no'],
    ...['-o', `UserKnownHostsFile=${join(client.dir, 'ssh-known-hosts')}`, '-o', 'BatchMode=yes'],
    ...['-o', 'ConnectTimeout=10', '-o', 'ServerAliveInterval=1', '-o', 'ServerAliveCountMax=10', '-F', 'none'],
    `root@${address}`,
  ];
  await waitFor('login by ssh', async () => (await client.exec([...login, 'true'])).code === 0);
  return login;
}
