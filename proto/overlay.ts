/** Overlay and underlay: which prefixes EIDs can be from, and which addresses can be locators. */
import {
  type IpAddress,
  type IpPrefix,
  ipFamily,
  ipToBytes,
  isHostPrefix,
  prefixAddress,
  prefixContains,
  prefixLength,
} from './address.ts';
import { AGENT_PREFIX } from './identity.ts';
import { nodePrefix, prefixNode } from './prefix-node.ts';

/** Why `prefix` cannot be (part of) an overlay; undefined when it can. */
export function overlayProblem(prefix: IpPrefix): string | undefined {
  if (prefix.endsWith('/0')) return 'the default route cannot be an overlay';
  const reserved =
    RESERVED.find(([other]) => prefixContains(other, prefix) || prefixContains(prefix, other)) ??
    KEPT_OUT.find(([other]) => prefixContains(other, prefix));
  return reserved === undefined ? undefined : `it overlaps ${reserved[0]} (${reserved[1]})`;
}

/** Why `prefix` cannot be an EID of an agent or site, whatever the overlay is; undefined when it can. */
export function eidProblem(prefix: IpPrefix): string | undefined {
  const kept = keptOutIn(prefix);
  return kept === undefined ? overlayProblem(prefix) : `it overlaps ${kept[0]} (${kept[1]})`;
}

/** What of `prefix` no EID is ever from, and what it is; undefined when there is nothing. */
export function keptOutIn(prefix: IpPrefix): (typeof KEPT_OUT)[number] | undefined {
  if (!isHostPrefix(prefix))
    return KEPT_OUT.find(([other]) => prefixContains(other, prefix) || prefixContains(prefix, other));
  // At each registration.
  return KEPT_OUT_HOSTS.get(prefix) ?? (prefixContains(AGENT_PREFIX, prefix) ? AGENTS : undefined);
}

/**
 * The prefixes that cover just what can be an EID in `overlay`. Routes of the overlay are of these: what platforms have
 * inside of it stays reachable as if there were no overlay.
 */
export function eidSpace(overlay: readonly IpPrefix[]): readonly IpPrefix[] {
  return overlay.flatMap((prefix) =>
    KEPT_OUT.reduce<readonly IpPrefix[]>(
      (left, [kept]) => left.flatMap((each) => (prefixContains(each, kept) ? without(each, kept) : [each])),
      [prefix],
    ),
  );
}

/** `outer` but `inner`, which is in it: at each length the half that `inner` is not in. */
function without(outer: IpPrefix, inner: IpPrefix): readonly IpPrefix[] {
  const family = ipFamily(prefixAddress(outer));
  const depth = prefixLength(inner) - prefixLength(outer);
  const node = prefixNode(inner);
  return Array.from({ length: depth }, (_, up) => nodePrefix(family, (node >> BigInt(up)) ^ 1n));
}

/** Neither loopback, link-local, multicast nor unspecified, and not inside the overlay, where it would loop. */
export function isPlausibleLocator(address: IpAddress, overlay: readonly IpPrefix[]): boolean {
  if (prefixContains(AGENT_PREFIX, address)) return false;
  if (overlay.some((prefix) => prefixContains(prefix, address))) return false;
  const bytes = ipToBytes(address);
  const [first = 0, second = 0] = bytes;
  if (bytes.length === 4) return first !== 0 && first !== 127 && first < 224 && !(first === 169 && second === 254);
  const linkLocal = first === 0xfe && (second & 0xc0) === 0x80;
  const lowest = bytes.subarray(0, 8).every((octet) => octet === 0);
  return first !== 0xff && !linkLocal && !lowest;
}

/**
 * Where platforms have services of their own that are not link-local. They are for the host and outside the tunnel,
 * whatever platform it will be moved to, also where the overlay is around them.
 */
export const PLATFORM_SERVICES: readonly (readonly [IpPrefix, string])[] = [
  ['168.63.129.16/32' as IpPrefix, 'DHCP, DNS and health of Azure'],
  ['100.100.100.200/32' as IpPrefix, 'metadata of Alibaba Cloud'],
  ['100.100.2.136/32' as IpPrefix, 'DNS of Alibaba Cloud'],
  ['100.100.2.138/32' as IpPrefix, 'DNS of Alibaba Cloud'],
  ['fd00:ec2::254/128' as IpPrefix, 'metadata of EC2'],
  ['fd00:ec2::253/128' as IpPrefix, 'DNS of EC2'],
  ['fd00:ec2::123/128' as IpPrefix, 'NTP of EC2'],
  ['fd20:ce::254/128' as IpPrefix, 'metadata of Google'],
  ['fd00:c1::a9fe:a9fe/128' as IpPrefix, 'metadata of Oracle Cloud'],
  ['fd00:42::42/128' as IpPrefix, 'metadata of Scaleway'],
  ['fd00:a9fe:a9fe::1/128' as IpPrefix, 'metadata of Akamai'],
];

const RESERVED: readonly (readonly [IpPrefix, string])[] = [
  ['0.0.0.0/8' as IpPrefix, '"this network"'],
  ['127.0.0.0/8' as IpPrefix, 'loopback'],
  ['169.254.0.0/16' as IpPrefix, 'link-local'],
  ['224.0.0.0/4' as IpPrefix, 'multicast'],
  ['240.0.0.0/4' as IpPrefix, 'reserved'],
  ['::/8' as IpPrefix, 'loopback, unspecified and IPv4-mapped'],
  ['fe80::/10' as IpPrefix, 'link-local'],
  ['ff00::/8' as IpPrefix, 'multicast'],
];

const AGENTS = [AGENT_PREFIX, 'the addresses of the agents themselves'] as const;
/** An overlay may be around them. */
const KEPT_OUT: readonly (readonly [IpPrefix, string])[] = [AGENTS, ...PLATFORM_SERVICES];
const KEPT_OUT_HOSTS = new Map(PLATFORM_SERVICES.map((service) => [service[0], service] as const));
