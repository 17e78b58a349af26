/**
 * systemd-resolved is told by its resolvectl that the overlay's zones are asked of the agent, as settings of the
 * tunnel's interface: nobody else's settings are touched, and they go with the interface. It forgets them with the
 * interface and perhaps when it is started anew, so they are compared now and then and whenever its folder in /run
 * changes, which it does at each start. A watch of its D-Bus name would tell no more and would need a D-Bus client.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { StayputError } from '../../proto/errors.ts';
import { INTERFACE_NAME } from '../../proto/lisp/order.ts';
import { run } from './dns-host-program.ts';
import { type DnsStatus, serversOf, serverText, tunnelInterface } from './dns-host-target.ts';

/** Which interface has our settings: they outlive this process. */
const LINK_FILE = '/run/stayput-dns/link';

/** True when something had to be set. @throws StayputError */
export async function configureLink(status: DnsStatus, linkFile = LINK_FILE): Promise<boolean> {
  const link = tunnelInterface(status);
  if (link === undefined) throw new StayputError('STAYPUT_NO_TUNNEL', 'no interface has an address of the overlay yet');
  const servers = serversOf(status).map(serverText);
  const domains = [status.zone, ...status.reverseZones.map((zone) => `~${zone}`)];
  await rememberLink(link, linkFile);
  if (sameWords(await setting('dns', link), servers) && sameWords(await setting('domain', link), domains)) return false;
  await run('resolvectl', ['dns', link, ...servers]);
  await run('resolvectl', ['domain', link, ...domains]);
  // Only what belongs to the overlay; and the tunnel is no place to ask for names by multicast.
  await run('resolvectl', ['default-route', link, 'no']);
  for (const protocol of ['llmnr', 'mdns', 'dnssec', 'dnsovertls']) await run('resolvectl', [protocol, link, 'no']);
  await run('resolvectl', ['flush-caches']);
  return true;
}

/** Also when an interface that has the settings gets another name; one that is left behind loses them. */
async function rememberLink(link: string, linkFile: string): Promise<void> {
  const before = configuredLink(linkFile);
  if (before === link) return;
  if (before !== undefined) await revertLink(linkFile);
  mkdirSync(dirname(linkFile), { recursive: true });
  writeFileSync(linkFile, `${link}\n`);
}

/** Also of a process before this one. True when there was something to revert. */
export async function revertLink(linkFile = LINK_FILE): Promise<boolean> {
  const link = configuredLink(linkFile);
  rmSync(linkFile, { force: true });
  if (link === undefined) return false;
  try {
    await run('resolvectl', ['revert', link]);
    return true;
  } catch {
    // The interface or systemd-resolved is gone, and the settings with it.
    return false;
  }
}

function configuredLink(linkFile = LINK_FILE): string | undefined {
  try {
    const link = readFileSync(linkFile, 'utf8').trim();
    return INTERFACE_NAME.test(link) ? link : undefined;
  } catch {
    return undefined;
  }
}

/** `Link 3 (stayput0): 127.0.0.1` */
async function setting(kind: 'dns' | 'domain', link: string): Promise<string[]> {
  const line = await run('resolvectl', [kind, link]);
  return line
    .slice(line.indexOf('):') + 2)
    .split(/\s+/)
    .filter((word) => word !== '');
}

function sameWords(a: readonly string[], b: readonly string[]): boolean {
  return [...a].sort().join(' ') === [...b].sort().join(' ');
}
