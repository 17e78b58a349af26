/** Routers and DHCP servers on the links of this machine, which some platforms answer from. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type IpAddress,
  type IpPrefix,
  ipFromBytes,
  ipPrefix,
  isIpAddress,
  parseIpAddress,
  prefixContains,
} from '../../proto/address.ts';

/** DHCP servers before gateways; only what is on a link of this machine, and never through a tunnel. */
export function routersOnLink(root: string): readonly IpAddress[] {
  const routes = readRoutes(root).filter(({ device }) => !existsSync(join(root, 'sys/class/net', device, 'tun_flags')));
  const links = routes.filter(({ gateway }) => gateway === UNSPECIFIED).map(({ destination }) => destination);
  const gateways = routes.filter(({ destination }) => destination === DEFAULT).map(({ gateway }) => gateway);
  const candidates = [...leaseServers(root), ...gateways];
  return [...new Set(candidates)]
    .filter((address) => links.some((link) => prefixContains(link, address)))
    .slice(0, MAX);
}

interface Route {
  readonly device: string;
  readonly destination: IpPrefix;
  readonly gateway: IpAddress;
}

/** Lines of /proc/net/route: device, destination, gateway, flags, three more, mask; addresses as little-endian hex. */
function readRoutes(root: string): Route[] {
  return textOf(join(root, 'proc/net/route'))
    .split('\n')
    .slice(1, MAX_ROUTES)
    .flatMap((line) => {
      const [device, destination, gateway, flags, , , , mask] = line.trim().split(/\s+/);
      if (device === undefined || mask === undefined || (Number.parseInt(flags ?? '', 16) & UP) === 0) return [];
      const [from, via, bits] = [destination, gateway, mask].map((text) => octets(text ?? ''));
      if (from === undefined || via === undefined || bits === undefined) return [];
      const length = [...bits].map((octet) => octet.toString(2).replaceAll('0', '').length).reduce((a, b) => a + b, 0);
      return [{ device, destination: ipPrefix(ipFromBytes(from), length), gateway: ipFromBytes(via) }];
    });
}

function leaseServers(root: string): IpAddress[] {
  const folder = join(root, 'run/systemd/netif/leases');
  let names: string[];
  try {
    names = readdirSync(folder).slice(0, MAX);
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    const [, server] = /^SERVER_ADDRESS=(\S{1,45})$/m.exec(textOf(join(folder, name))) ?? [];
    return server !== undefined && isIpAddress(server) ? [parseIpAddress(server)] : [];
  });
}

function octets(hex: string): Uint8Array | undefined {
  return /^[0-9A-F]{8}$/i.test(hex) ? Uint8Array.from(Buffer.from(hex, 'hex').reverse()) : undefined;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').slice(0, MAX_TEXT);
  } catch {
    return '';
  }
}

const UNSPECIFIED = '0.0.0.0' as IpAddress;
const DEFAULT = '0.0.0.0/0' as IpPrefix;
const UP = 1;
const MAX = 4;
const MAX_ROUTES = 1024;
const MAX_TEXT = 256 * 1024;
