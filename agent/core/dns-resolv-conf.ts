/** `nameserver` lines of resolv.conf(5). Everything else in it is for the libc of the clients. */
import { isIpAddress } from '../../proto/address.ts';

/** Literal addresses, IPv6 perhaps with a zone; what cannot be read is skipped, as the libc does. */
export function parseNameservers(text: string): string[] {
  const hosts = text
    .slice(0, MAX_SIZE)
    .split('\n')
    .map((line) => /^\s*nameserver\s+([0-9a-fA-F:.]+(?:%[\w.-]{1,15})?)\s*(?:[#;].*)?$/.exec(line)?.[1])
    .filter((host) => host !== undefined)
    .filter((host) => isIpAddress(host.split('%', 1)[0] ?? ''));
  return [...new Set(hosts)].slice(0, MAX_NAMESERVERS);
}

const MAX_SIZE = 65_536;
const MAX_NAMESERVERS = 8;
