/**
 * Where a metadata service may be: at a link-local address, at one that a cloud has set aside for it (which no overlay
 * includes), or at a router on a link of this machine; and never through a tunnel.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { type IpAddress, type IpPrefix, parseIpAddress, prefixContains } from '../../proto/address.ts';
import { PLATFORM_SERVICES } from '../../proto/overlay.ts';
import { PlatformError } from './platform.ts';
import { deviceTowards, isTunnel, routersOnLink } from './routers.ts';

export interface ServiceHost {
  /** A literal address, with the interface behind `%` where it has a meaning only there. */
  readonly host: string;
  readonly port: number;
}

/**
 * All ways to the service at `address`: one, but one for each interface if that has a meaning only on an interface.
 * @throws PlatformError for an address that is none of a metadata service, or is routed into a tunnel
 */
export function serviceHosts(root: string, address: string, port: number): readonly ServiceHost[] {
  const host = metadataAddress(address, routersOnLink(root));
  if (LINK_LOCAL_6.some((prefix) => prefixContains(prefix, host))) {
    return underlayInterfaces(root).map((name) => ({ host: `${host}%${name}`, port }));
  }
  const device = deviceTowards(root, host);
  if (device !== undefined && isTunnel(root, device)) {
    throw new PlatformError('refused', `${host} is routed into the tunnel ${device}: a metadata service is outside`);
  }
  return [{ host, port }];
}

/** @throws PlatformError for an address that no metadata service has; `onLink`: routers of this machine. */
export function metadataAddress(text: string, onLink: readonly string[] = []): IpAddress {
  const address = parseIpAddress(text);
  const known = [...LINK_LOCAL, ...PLATFORM_SERVICES.map(([prefix]) => prefix)];
  if (known.some((prefix) => prefixContains(prefix, address)) || onLink.includes(address)) return address;
  throw new PlatformError('refused', `${address} is not on this link: a metadata service is`);
}

/**
 * The first that takes a connection; the next one is tried beside it when it has not for a while (RFC 8305). One alone
 * is not tried. @throws PlatformError
 */
export async function firstReachable(
  hosts: readonly ServiceHost[],
  patienceMs: number,
  givenUp: AbortSignal,
): Promise<ServiceHost> {
  const [only] = hosts;
  if (only !== undefined && hosts.length === 1) return only;
  const sockets: Socket[] = [];
  const timers: NodeJS.Timeout[] = [];
  try {
    return await new Promise((resolve, reject) => {
      let left = hosts.length;
      const fail = (why: string): void => reject(new PlatformError('unreachable', why));
      if (left === 0) fail('this machine has no interface to ask through');
      const begin = (at: number): void => {
        const target = hosts[at];
        if (target === undefined || sockets[at] !== undefined) return;
        const socket = createConnection({ host: target.host, port: target.port });
        sockets[at] = socket;
        socket.on('connect', () => resolve(target));
        socket.on('error', (error) => {
          left -= 1;
          if (left === 0) fail(error.message);
          else begin(at + 1);
        });
        timers.push(setTimeout(() => begin(at + 1), STAGGER_MS));
      };
      timers.push(setTimeout(() => fail(`no connection within ${Math.round(patienceMs)} ms`), patienceMs));
      givenUp.addEventListener('abort', () => fail('given up'), { once: true });
      begin(0);
    });
  } finally {
    for (const timer of timers) clearTimeout(timer);
    for (const socket of sockets) socket?.destroy();
  }
}

/** Up, with an address on the link, and no tunnel. */
function underlayInterfaces(root: string): readonly string[] {
  const folder = join(root, 'sys/class/net');
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  return names
    .filter((name) => name !== 'lo' && /^[\w.-]{1,15}$/.test(name) && !isTunnel(root, name))
    .filter((name) => existsSync(join(folder, name, 'operstate')) && stateOf(join(folder, name)) !== 'down')
    .slice(0, MAX_INTERFACES);
}

function stateOf(folder: string): string {
  try {
    return readFileSync(join(folder, 'operstate'), 'utf8').trim();
  } catch {
    return 'down';
  }
}

const LINK_LOCAL_6 = ['fe80::/10'] as IpPrefix[];
const LINK_LOCAL = ['169.254.0.0/16', ...LINK_LOCAL_6] as IpPrefix[];
const STAGGER_MS = 250;
const MAX_INTERFACES = 8;
