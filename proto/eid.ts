/**
 * Endpoint identifiers: what is registered, resolved and moved.
 *
 * An EID is an IP prefix or a distinguished name (RFC 9735) inside an instance (RFC 9300 section 8).
 */
import { type IpPrefix, isIpAddress, parseIpPrefix } from './address.ts';
import { DecodeError } from './errors.ts';

/** Instance ID (IID), 0 to 2^24-1. */
export type InstanceId = number & { readonly __brand: 'InstanceId' };

export interface PrefixEid {
  readonly kind: 'prefix';
  readonly iid: InstanceId;
  readonly prefix: IpPrefix;
}

/** A name relative to the overlay's zone, lower case, without a final dot, e.g. `db` or `db.blue`; APEX: the zone. */
export interface NameEid {
  readonly kind: 'name';
  readonly iid: InstanceId;
  readonly name: string;
}

export type Eid = PrefixEid | NameEid;

/** Canonical text of an EID, unique over kinds and instances: `[7]10.0.0.0/8`, `[0]name:db`. A Map key. */
export type EidKey = string & { readonly __brand: 'EidKey' };

export const DEFAULT_INSTANCE = 0 as InstanceId;

/** @throws DecodeError outside 0 to 2^24-1 */
export function instanceId(value: number): InstanceId {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffff) {
    throw new DecodeError('instance ID', 0, `${value} is not a whole number from 0 to 16777215`);
  }
  return value as InstanceId;
}

export function prefixEid(iid: InstanceId, prefix: IpPrefix): PrefixEid {
  return { kind: 'prefix', iid, prefix };
}

/** @throws DecodeError when a label is empty, too long or not of letters, digits, `-` and `_`, or the last is a number */
export function nameEid(iid: InstanceId, text: string): NameEid {
  const labels = text.split('.');
  if (text.length > 253 || !labels.every((label) => LABEL.test(label))) {
    throw new DecodeError(
      'name',
      0,
      `"${text.slice(0, 80)}" is not a host name (labels of 1 to 63 letters, digits, "-" or "_")`,
    );
  }
  // `10.0.0.300` is a mistyped address, and resolvers would take `10.1` for one (RFC 1123 section 2.1).
  if (/^\d+$/.test(labels.at(-1) ?? '')) {
    throw new DecodeError('name', 0, `"${text}" ends in a number, so it is neither a host name nor an IP address`);
  }
  const name = text.toLowerCase();
  return { kind: 'name', iid, name };
}

/** A name of the zone, or the zone itself, which nobody registers. @throws DecodeError */
export function zoneNameEid(iid: InstanceId, text: string): NameEid {
  return text === APEX ? { kind: 'name', iid, name: APEX } : nameEid(iid, text);
}

export function eidKey(eid: Eid): EidKey {
  return `[${eid.iid}]${eid.kind === 'prefix' ? eid.prefix : `name:${eid.name}`}` as EidKey;
}

/** Inverse of `eidKey`. @throws DecodeError */
export function parseEidKey(key: string): Eid {
  const match = /^\[(\d{1,8})\](name:)?(.+)$/.exec(key);
  if (match === null) throw new DecodeError('EID', 0, `"${key.slice(0, 80)}" is not of the form [IID]prefix`);
  const iid = instanceId(Number(match[1]));
  const rest = match[3] ?? '';
  return match[2] === undefined ? prefixEid(iid, parseIpPrefix(rest)) : zoneNameEid(iid, rest);
}

/** What people type: `10.0.0.5`, `10.0.0.0/24`, `db`. @throws DecodeError */
export function parseEid(text: string, iid: InstanceId = DEFAULT_INSTANCE): Eid {
  const address = text.split('/', 1)[0] ?? '';
  return isIpAddress(address) || text.includes('/') || text.includes(':')
    ? prefixEid(iid, parseIpPrefix(text))
    : nameEid(iid, text);
}

/** As in a zone file: what is at the zone's own name. */
export const APEX = '@';
const LABEL = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;
