/**
 * What an operator sets at a name of the overlay's zone, besides the EIDs that agents register under it.
 *
 * A target (of CNAME, SRV, NS) is text as in a zone file: relative to the zone, or with a final dot absolute. A target
 * inside the zone is kept relative, so it stays right when the zone gets another name.
 */
import type { IpAddress } from '../address.ts';
import { DecodeError } from '../errors.ts';

/** RFC 2782. */
export interface ServiceTarget {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly target: string;
}

/** A name server of a delegated sub-zone. */
export interface NameServer {
  readonly host: string;
  /** Where it is, which agents have to know; for others it is glue. */
  readonly addresses: readonly IpAddress[];
}

export interface RecordSets {
  /** Seconds. Null: the zone's. */
  readonly ttl: number | null;
  readonly cname: string | null;
  readonly srv: readonly ServiceTarget[];
  /** ASCII; longer ones than 255 octets are several strings of one record. */
  readonly txt: readonly string[];
  /** The name and all below it is answered by these. */
  readonly ns: readonly NameServer[];
  /** EIDs, or addresses of elsewhere, that are behind the name whoever registers it. */
  readonly addresses: readonly IpAddress[];
  /** Of addresses behind the name, 0 to MAX_WEIGHT; the others have DEFAULT_WEIGHT. 0: never while there is another. */
  readonly weights: readonly { readonly address: IpAddress; readonly weight: number }[];
}

/** What an agent is told of one name, besides the EIDs behind it. */
export interface ZoneData {
  /** Of each target of the mapping, in their order; 0: not well, or only to be used when no other is. */
  readonly weights: readonly number[];
  /** Without `addresses` and `weights`, which the targets have. */
  readonly records: RecordSets;
  /** The delegated name at or above, whose servers are `records.ns`; null: the zone answers itself. */
  readonly cut: string | null;
}

export function hasRecords({ cname, srv, txt, ns, addresses }: RecordSets): boolean {
  return cname !== null || srv.length + txt.length + ns.length + addresses.length > 0;
}

/** Nothing at all is said. */
export function isBare(records: RecordSets): boolean {
  return !hasRecords(records) && records.weights.length === 0;
}

/** What is wrong with it for `name`, of which nothing else is known; null: nothing. */
export function problemOf(name: string, records: RecordSets): string | null {
  const { ttl, cname, srv, txt, ns, addresses, weights } = records;
  const kinds = [cname === null ? 0 : 1, srv.length, txt.length, ns.length, addresses.length].filter((n) => n > 0);
  if (cname !== null && (kinds.length > 1 || weights.length > 0)) return 'a CNAME must be alone at its name';
  if (cname === name) return 'a CNAME must not point to itself';
  if (ns.length > 0 && (kinds.length > 1 || weights.length > 0)) return 'a delegated name has nothing but NS records';
  if (ns.length > 0 && name.startsWith('*')) return 'a wildcard cannot be delegated';
  if (ttl !== null && !isWhole(ttl, 0, MAX_TTL)) return `the TTL is not 0 to ${MAX_TTL} seconds`;
  if (srv.length > MAX_RECORDS || txt.length > MAX_RECORDS || addresses.length > MAX_RECORDS)
    return `at most ${MAX_RECORDS} records of one type`;
  if (weights.length > MAX_WEIGHTS) return `at most ${MAX_WEIGHTS} weights`;
  if (ns.length > MAX_SERVERS || ns.some((server) => server.addresses.length > MAX_SERVERS))
    return `at most ${MAX_SERVERS} name servers with ${MAX_SERVERS} addresses each`;
  for (const { priority, weight, port } of srv) {
    if (![priority, weight, port].every((value) => isWhole(value, 0, 65_535)))
      return 'priority, weight and port of SRV are 0 to 65535';
  }
  if (weights.some(({ weight }) => !isWhole(weight, 0, MAX_WEIGHT))) return `a weight is 0 to ${MAX_WEIGHT}`;
  if (txt.some((text) => text.length > MAX_TEXT || !ASCII.test(text)))
    return `a text is at most ${MAX_TEXT} ASCII characters`;
  if (encodedSize(records) > MAX_SIZE) return `all records of a name together have at most ${MAX_SIZE} octets`;
  return null;
}

/** Of a target as people write it, the form that is kept. @throws DecodeError */
export function parseTarget(text: string, zone: string): string {
  const lower = text.toLowerCase();
  const absolute = lower.endsWith('.');
  const plain = absolute ? lower.slice(0, -1) : lower;
  const labels = plain.split('.');
  if (plain.length > MAX_NAME || !labels.every((label) => LABEL.test(label)))
    throw new DecodeError('target', 0, `"${text.slice(0, 80)}" is not a domain name`);
  if (!absolute && plain.length + 1 + zone.length > MAX_NAME)
    throw new DecodeError('target', 0, `"${text.slice(0, 80)}" is too long for a name of the zone`);
  if (!absolute) return plain;
  return plain.endsWith(`.${zone}`) ? plain.slice(0, -zone.length - 1) : `${plain}.`;
}

/** The name relative to the zone; null when it is not inside. */
export function insideZone(target: string): string | null {
  return target.endsWith('.') ? null : target;
}

/** Names of the zone that SRV and NS lead to. */
export function serviceTargets({ srv, ns }: RecordSets): string[] {
  const targets = [...srv.map(({ target }) => target), ...ns.map(({ host }) => host)];
  return targets.map(insideZone).filter((target) => target !== null);
}

/** The whole domain name, without a final dot. */
export function absoluteTarget(target: string, zone: string): string {
  return target.endsWith('.') ? target.slice(0, -1) : `${target}.${zone}`;
}

/** Octets on the wire, at most. */
export function encodedSize({ cname, srv, txt, ns, addresses, weights }: RecordSets): number {
  let size = 16 + (cname?.length ?? 0) + addresses.length * 20;
  for (const { target } of srv) size += 16 + target.length;
  for (const text of txt) size += 8 + text.length;
  for (const server of ns) size += 8 + server.host.length + server.addresses.length * 20;
  return size + weights.length * 20;
}

function isWhole(value: number, low: number, high: number): boolean {
  return Number.isInteger(value) && value >= low && value <= high;
}

export const NO_RECORDS: RecordSets = {
  ttl: null,
  cname: null,
  srv: [],
  txt: [],
  ns: [],
  addresses: [],
  weights: [],
};
export const DEFAULT_WEIGHT = 1;
export const MAX_WEIGHT = 255;
export const MAX_RECORDS = 32;
export const MAX_SERVERS = 8;
export const MAX_WEIGHTS = 128;
/** A day. */
export const MAX_TTL = 86_400;
export const MAX_TEXT = 2048;
export const MAX_NAME = 253;
const MAX_SIZE = 8192;
const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/;
const ASCII = /^[\x20-\x7e]*$/;
