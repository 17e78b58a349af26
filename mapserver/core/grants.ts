/**
 * Site policy: what may be granted in this overlay, and what a grant covers.
 *
 * Nothing is accepted that is not granted. A grant names EID prefixes inside the overlay, and names or patterns:
 * `*.web` covers every name that ends in `.web`, `*` covers all. The agent address needs no grant, the key is one.
 */
import { type IpAddress, type IpPrefix, prefixContains } from '../../proto/address.ts';
import { type Eid, type InstanceId, nameEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import { AGENT_PREFIX } from '../../proto/identity.ts';
import type { Grant } from './records.ts';

export interface Overlay {
  readonly instance: InstanceId;
  readonly prefixes: readonly IpPrefix[];
}

export function covers(grant: Grant, overlay: Overlay, eid: Eid): boolean {
  if (eid.iid !== overlay.instance) return false;
  if (eid.kind === 'name') return coversName(grant, eid.name);
  return inOverlay(overlay, eid.prefix) && grant.eids.some((granted) => prefixContains(granted, eid.prefix));
}

export function coversName(grant: Grant, name: string): boolean {
  return grant.names.some((granted) => nameMatches(granted, name));
}

export function inOverlay(overlay: Overlay, inner: IpPrefix | IpAddress): boolean {
  return overlay.prefixes.some((prefix) => prefixContains(prefix, inner));
}

/** True when every name that `inner` (a name or pattern) matches is matched by `outer`. */
export function nameMatches(outer: string, inner: string): boolean {
  if (outer === '*' || outer === inner) return true;
  return outer.startsWith('*.') && inner.endsWith(outer.slice(1)) && inner.length > outer.length - 1;
}

/** A lower-case name or pattern. @throws DecodeError */
export function parseNamePattern(text: string): string {
  const pattern = text.toLowerCase();
  if (pattern === '*') return pattern;
  const fixed = pattern.startsWith('*.') ? pattern.slice(2) : pattern;
  if (fixed.includes('*'))
    throw new DecodeError('name', 0, `"${text}": "*" may only stand for whole first labels, as in "*.web"`);
  nameEid(0 as InstanceId, fixed);
  return pattern;
}

/** Why `prefix` cannot be (part of) an overlay; undefined when it can. */
export function overlayProblem(prefix: IpPrefix): string | undefined {
  if (prefix.endsWith('/0')) return 'the default route cannot be an overlay';
  const reserved = RESERVED.find(([other]) => prefixContains(other, prefix) || prefixContains(prefix, other));
  return reserved === undefined ? undefined : `it overlaps ${reserved[0]} (${reserved[1]})`;
}

const RESERVED: readonly (readonly [IpPrefix, string])[] = [
  ['0.0.0.0/8' as IpPrefix, '"this network"'],
  ['127.0.0.0/8' as IpPrefix, 'loopback'],
  ['169.254.0.0/16' as IpPrefix, 'link-local'],
  ['224.0.0.0/4' as IpPrefix, 'multicast'],
  ['240.0.0.0/4' as IpPrefix, 'reserved'],
  ['::/8' as IpPrefix, 'loopback, unspecified and IPv4-mapped'],
  ['fe80::/10' as IpPrefix, 'link-local'],
  ['ff00::/8' as IpPrefix, 'multicast'],
  [AGENT_PREFIX, 'the addresses of the agents themselves'],
];
