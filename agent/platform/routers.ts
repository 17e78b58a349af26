/** Routers and DHCP servers on the links of this machine, which some platforms answer from. */
import { closeSync, existsSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import {
  type IpAddress,
  type IpPrefix,
  ipFromBytes,
  ipPrefix,
  isIpAddress,
  parseIpAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';

/** DHCP servers before gateways; only what is on a link of this machine, and never through a tunnel. */
export function routersOnLink(root: string): readonly IpAddress[] {
  const routes = readRoutes(root).filter(({ device }) => !isTunnel(root, device));
  const links = routes.filter(({ gateway }) => gateway === UNSPECIFIED).map(({ destination }) => destination);
  const gateways = routes.filter(({ destination }) => destination === DEFAULT).map(({ gateway }) => gateway);
  const candidates = [...leaseServers(root), ...gateways];
  return [...new Set(candidates)]
    .filter((address) => links.some((link) => prefixContains(link, address)))
    .slice(0, MAX);
}

export function isTunnel(root: string, device: string): boolean {
  return existsSync(join(root, 'sys/class/net', device, 'tun_flags'));
}

/** By the longest prefix of the main table, whatever else rules may say; undefined: there is no route. */
export function deviceTowards(root: string, address: IpAddress): string | undefined {
  const routes = address.includes(':') ? readRoutes6(root) : readRoutes(root);
  const [best] = routes
    .filter(({ destination }) => prefixContains(destination, address))
    .sort((a, b) => prefixLength(b.destination) - prefixLength(a.destination));
  return best?.device;
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

/** Lines of /proc/net/ipv6_route: destination, its length, source, its length, gateway, four numbers, device. */
function readRoutes6(root: string): Route[] {
  return textOf(join(root, 'proc/net/ipv6_route'))
    .split('\n')
    .slice(0, MAX_ROUTES)
    .flatMap((line) => {
      const [to, length, , , via, , , , flags, device] = line.trim().split(/\s+/);
      const [destination, gateway] = [to, via].map(
        (hex) => /^[0-9a-f]{32}$/i.test(hex ?? '') && Buffer.from(hex ?? '', 'hex'),
      );
      const usable = (Number.parseInt(flags ?? '', 16) & (UP | REJECT)) === UP;
      if (!destination || !gateway || device === undefined || !usable) return [];
      const prefix = ipPrefix(ipFromBytes(destination), Number.parseInt(length ?? '', 16));
      return [{ device, destination: prefix, gateway: ipFromBytes(gateway) }];
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

/** The beginning alone: a router may have a million routes. */
function textOf(path: string): string {
  const buffer = Buffer.alloc(MAX_TEXT);
  let length = 0;
  try {
    const file = openSync(path, 'r');
    try {
      for (let read = 1; read > 0; length += read) read = readSync(file, buffer, length, MAX_TEXT - length, null);
    } finally {
      closeSync(file);
    }
  } catch {
    return '';
  }
  return buffer.toString('utf8', 0, length);
}

const UNSPECIFIED = '0.0.0.0' as IpAddress;
const DEFAULT = '0.0.0.0/0' as IpPrefix;
/** Of the flags of a route. */
const UP = 1;
const REJECT = 0x200;
const MAX = 4;
const MAX_ROUTES = 1024;
const MAX_TEXT = 256 * 1024;
