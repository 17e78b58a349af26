/**
 * resolv.conf(5): what is read from it, and the one that is written in its place while the host asks the agent. Ours
 * is known by its first line, and the file that was there lies beside it under another name, so that everything that
 * is needed to put it back is in the folder itself.
 */
import { isIpAddress } from '../../proto/address.ts';

/** Literal addresses, IPv6 perhaps with a zone; what cannot be read is skipped, as the libc does. */
export function parseNameservers(text: string): string[] {
  const hosts = lines(text)
    .map((line) => /^\s*nameserver\s+([0-9a-fA-F:.]+(?:%[\w.-]{1,15})?)\s*(?:[#;].*)?$/.exec(line)?.[1])
    .filter((host) => host !== undefined)
    .filter((host) => isIpAddress(host.split('%', 1)[0] ?? ''));
  return [...new Set(hosts)].slice(0, MAX_NAMESERVERS);
}

/** The domains that short names are completed with: the last `search` or `domain` line, as the libc does. */
export function parseSearch(text: string): string[] {
  const last = lines(text)
    .map((line) => /^(?:search|domain)\s+(.*)$/.exec(line)?.[1])
    .findLast((domains) => domains !== undefined);
  return (last ?? '').split(/\s+/).filter((domain) => /^[\w.-]{1,253}$/.test(domain));
}

/** Where the file is that ours replaced. */
export function formerPath(path: string): string {
  return `${path}.before-stayput`;
}

export function isOwnResolvConf(text: string): boolean {
  return text.startsWith(MARK);
}

/**
 * The file that makes a host ask `nameservers` (at most three count). Short names are looked for in the overlay's zone
 * first, then where the former file says; its options stay.
 */
export function ownResolvConf(path: string, nameservers: readonly string[], zone: string, former: string): string {
  const search = [...new Set([zone, ...parseSearch(former)])].slice(0, MAX_SEARCH);
  const options = lines(former).filter((line) => /^(options|sortlist)\s[ -~]*$/.test(line));
  return [
    `${MARK} (stayput-dns-host.service), and put back when that stops.`,
    `# The file that was here is ${formerPath(path)}. By hand: stayput dns restore`,
    ...nameservers.slice(0, MAX_USED).map((host) => `nameserver ${host}`),
    `search ${search.join(' ')}`,
    ...options,
    '',
  ].join('\n');
}

function lines(text: string): string[] {
  return text.slice(0, MAX_SIZE).split('\n');
}

const MARK = '# Written by stayput';
const MAX_SIZE = 65_536;
const MAX_NAMESERVERS = 8;
/** Of the libc: MAXNS, and MAXDNSRCH of those before glibc 2.26. */
const MAX_USED = 3;
const MAX_SEARCH = 6;
