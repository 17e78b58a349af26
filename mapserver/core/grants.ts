/**
 * Site policy: what may be granted in this overlay, and what a grant covers.
 *
 * Nothing is accepted that is not granted. A grant names EID prefixes inside the overlay, and names or patterns:
 * `*.web` covers every name that ends in `.web`, `*` covers all. A grant may be wider than what can be an EID: addresses
 * at which platforms have services of their own are covered by none. The agent address needs no grant, the key is one.
 */
import { hostPrefix, type IpAddress, type IpPrefix, prefixContains } from '../../proto/address.ts';
import { APEX, type Eid, type InstanceId, nameEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import { keptOutIn } from '../../proto/overlay.ts';
import type { Registrable } from './records.ts';

export interface Overlay {
  readonly instance: InstanceId;
  readonly prefixes: readonly IpPrefix[];
}

export function covers(grant: Registrable, overlay: Overlay, eid: Eid): boolean {
  if (eid.iid !== overlay.instance) return false;
  if (eid.kind === 'name') return coversName(grant, eid.name);
  return canBeEid(overlay, eid.prefix) && grant.eids.some((granted) => prefixContains(granted, eid.prefix));
}

/** The zone's own name is nobody's. */
export function coversName(grant: Registrable, name: string): boolean {
  return name !== APEX && grant.names.some((granted) => nameMatches(granted, name));
}

/** Not so what platforms have for themselves inside the overlay, or what holds some of it. */
export function canBeEid(overlay: Overlay, inner: IpPrefix | IpAddress): boolean {
  const prefix = inner.includes('/') ? (inner as IpPrefix) : hostPrefix(inner as IpAddress);
  return inOverlay(overlay, prefix) && keptOutIn(prefix) === undefined;
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

/** A group's name, lower case. @throws DecodeError */
export function parseGroupName(text: string): string {
  const name = text.toLowerCase();
  if (GROUP_NAME.test(name)) return name;
  throw new DecodeError('group', 0, `"${text.slice(0, 80)}" is not 1 to 63 letters, digits, "-" or "_"`);
}

const GROUP_NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/;
