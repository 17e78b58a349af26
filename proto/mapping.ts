/**
 * A mapping: what the mapping system knows of one EID (RFC 9301 EID-record with its RLOC-records).
 *
 * `generation` fences ownership: the map server's store hands out a larger one at every change of owner, and
 * everybody ignores an older one. Names are mappings too: their `targets` are the address EIDs behind them.
 */
import type { IpAddress } from './address.ts';
import type { ZoneData } from './dns/record-sets.ts';
import type { Eid } from './eid.ts';
import type { Millis } from './time.ts';

/** 128 bits as 32 lower-case hex digits, derived from the tunnel public key (`xtrIdOf`). */
export type XtrId = string & { readonly __brand: 'XtrId' };
/** X25519 public key, 32 octets as base64 with padding. */
export type TunnelKey = string & { readonly __brand: 'TunnelKey' };
/** Counts the changes of an EID's owner; 1 for the first. 0 in a registration means "I take it over". */
export type Generation = number & { readonly __brand: 'Generation' };

/** An underlay address and UDP port that reaches the owner. */
export interface Locator {
  readonly address: IpAddress;
  readonly port: number;
  /** Lower is preferred; 255 = never use (RFC 9301 section 5.4). */
  readonly priority: number;
  /** Share among equal priorities, 0 to 100. */
  readonly weight: number;
}

/** What to do with packets for an EID that has no locators (RFC 9301 section 5.4, ACT). */
export type MapAction =
  | 'no-action'
  | 'natively-forward'
  | 'send-map-request'
  | 'drop'
  | 'policy-denied'
  | 'auth-failure';

export interface Mapping {
  readonly eid: Eid;
  /** Life of a cached copy; 0 withdraws. Whole minutes on the wire. */
  readonly ttl: Millis;
  readonly action: MapAction;
  readonly generation: Generation;
  /** Absent in negative mappings. */
  readonly owner?: XtrId;
  /** The owner's tunnel key, carried as LCAF 11 around its locators. */
  readonly tunnelKey?: TunnelKey;
  readonly locators: readonly Locator[];
  /** Names that the owner gave to this address EID (for PTR). */
  readonly names: readonly string[];
  /** Address EIDs behind a name EID. */
  readonly targets: readonly IpAddress[];
  /** What else the zone has at a name EID. Missing: nothing. */
  readonly zone?: ZoneData;
}

/** True when `candidate` may replace `current`: the same EID at the same or a newer generation. */
export function supersedes(candidate: Mapping, current: Mapping | undefined): boolean {
  return current === undefined || candidate.generation >= current.generation;
}

/**
 * What a target of a move registers: locators that must not be used (yet). It carries TARGET_GENERATION, which no EID
 * has, so a map server that knows no targets refuses it as stale and does not take it for a claim.
 */
export function asTarget(mapping: Mapping): Mapping {
  const locators = mapping.locators.map((locator) => ({ ...locator, priority: NEVER_USE }));
  return { ...mapping, generation: TARGET_GENERATION, locators, names: [] };
}

/** True for what `asTarget` made, also as the map server tells it on: with the generation of the EID. */
export function isTarget({ eid, ttl, owner, generation, locators }: Mapping): boolean {
  if (eid.kind === 'name' || owner === undefined) return false;
  if (ttl === 0) return generation === TARGET_GENERATION;
  return locators.length > 0 && locators.every(({ priority }) => priority === NEVER_USE);
}

export function isWithdrawal(mapping: Mapping): boolean {
  return mapping.ttl === 0;
}

/**
 * True for what the map server says of an agent that it revoked: its agent address, withdrawn with `auth-failure`.
 * Nobody may talk to that tunnel key any more.
 */
export function isRevocation(mapping: Mapping): mapping is Mapping & Required<Pick<Mapping, 'owner' | 'tunnelKey'>> {
  const { action, owner, tunnelKey } = mapping;
  return isWithdrawal(mapping) && action === 'auth-failure' && owner !== undefined && tunnelKey !== undefined;
}

/** RFC 9301 section 5.4: a locator that must not be used. */
export const NEVER_USE = 255;
export const TARGET_GENERATION = Number.MAX_SAFE_INTEGER as Generation;
