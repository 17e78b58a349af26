/**
 * Mappings as EID-records and back (docs/control-protocol.md, "Mapping records").
 *
 * RLOC-records, in this order: locators (LCAF 11 with the owner's tunnel key around LCAF 7 with address and port),
 * names, targets of a name, what the zone has at a name (`zone-data.ts`), and ownership in a vendor LCAF:
 *
 * ```
 * OUI 02-53-50 | subtype = 1 (8) | version = 1 (8) | generation (64) | owner xTR-ID (128), 0 = none |
 *              | tunnel key length (8), 0 or 32 | tunnel key | later additions, ignored
 * ```
 *
 * A record of another LISP implementation has none of this: its plain locators get the LISP data port, what we cannot
 * send to is left out, and without ownership its generation is 0.
 */
import { type IpAddress, ipFamily, ipPrefix, prefixAddress, prefixLength } from '../address.ts';
import { EncodeError, Reader, Writer } from '../bytes.ts';
import { NO_RECORDS, type ZoneData } from '../dns/record-sets.ts';
import { DEFAULT_INSTANCE, type Eid, instanceId, nameEid, prefixEid, zoneNameEid } from '../eid.ts';
import { DecodeError } from '../errors.ts';
import { tunnelKeyFromBytes, tunnelKeyToBytes, xtrIdFromBytes, xtrIdToBytes } from '../identity.ts';
import {
  type Generation,
  type Locator,
  type MapAction,
  type Mapping,
  NEVER_USE,
  type TunnelKey,
  type XtrId,
} from '../mapping.ts';
import { type Millis, minutes } from '../time.ts';
import { ipLispAddress, type LispAddress, NO_ADDRESS } from './afi.ts';
import { LISP_DATA_PORT } from './data-header.ts';
import { type EidRecord, type RlocRecord, TTL_RECEIVER_DECIDES } from './eid-record.ts';
import type { SecurityKeyAddress, VendorAddress } from './lcaf.ts';
import { decodeZoneRecords, encodeZoneRecords, type ZoneRecords } from './zone-data.ts';

/** What a record of another implementation leaves open. */
export interface RecordFallback {
  /** Of locators without a port. */
  readonly port?: number;
  /** For "receiver decides". */
  readonly ttl?: Millis;
}

/** @throws EncodeError when the mapping has targets without a name as EID */
export function mappingToRecord(mapping: Mapping): EidRecord {
  if (mapping.eid.kind === 'prefix' && mapping.targets.length > 0) {
    throw new EncodeError('targets', 'only a name EID has targets');
  }
  const { eid, maskLength } = eidToRecordKey(mapping.eid);
  return {
    eid,
    maskLength,
    ttl: ttlToMinutes(mapping.ttl),
    action: MAP_ACTIONS.indexOf(mapping.action),
    authoritative: false,
    mapVersion: 0,
    locators: [
      ...mapping.locators.map((locator) => locatorToRloc(locator, mapping.tunnelKey)),
      ...mapping.names.map((name) => rloc(NEVER_USE, { kind: 'name', name })),
      ...mapping.targets.map((target, i) => rloc(1, ipLispAddress(target), mapping.zone?.weights[i])),
      ...zoneToRlocs(mapping),
      ...ownershipToRlocs(mapping),
    ],
  };
}

/** @throws DecodeError when the EID is neither a prefix nor a name, or the record contradicts itself */
export function recordToMapping(record: EidRecord, fallback: RecordFallback = {}): Mapping {
  const eid = recordKeyToEid(record.eid, record.maskLength);
  const parts: RecordParts = {
    locators: [],
    names: [],
    targets: [],
    weights: [],
    zone: undefined,
    tunnelKeys: new Set(),
    ownership: undefined,
  };
  for (const rlocRecord of record.locators) readRloc(rlocRecord, eid, fallback.port ?? LISP_DATA_PORT, parts);
  const { locators, names, targets, weights, zone, tunnelKeys, ownership } = parts;
  if (tunnelKeys.size > 1) throw new DecodeError('tunnel key', 0, 'the record has more than one');
  const [tunnelKey] = tunnelKeys;
  const reaches = locators.length > 0 || targets.length > 0;
  return {
    eid,
    ttl: record.ttl === TTL_RECEIVER_DECIDES ? (fallback.ttl ?? DEFAULT_TTL) : minutes(record.ttl),
    action: reaches ? 'no-action' : (MAP_ACTIONS[record.action] ?? 'drop'),
    generation: ownership?.generation ?? (0 as Generation),
    ...(ownership?.owner === undefined ? {} : { owner: ownership.owner }),
    ...(tunnelKey === undefined ? {} : { tunnelKey }),
    locators: asLongAsItIs(locators),
    names: asLongAsItIs(names),
    targets: asLongAsItIs(targets),
    ...(zone === undefined ? {} : { zone: zoneDataOf(zone, weights) }),
  };
}

/** EID and mask-len as in records and Map-Requests. */
export function eidToRecordKey(eid: Eid): { eid: LispAddress; maskLength: number } {
  const inner: LispAddress =
    eid.kind === 'prefix' ? ipLispAddress(prefixAddress(eid.prefix)) : { kind: 'name', name: eid.name };
  return {
    eid: eid.iid === 0 ? inner : { kind: 'instance-id', iid: eid.iid, iidMaskLength: 0, address: inner },
    maskLength: eid.kind === 'prefix' ? prefixLength(eid.prefix) : 0,
  };
}

/** Inverse of `eidToRecordKey`; bits behind the mask are dropped. @throws DecodeError */
export function recordKeyToEid(address: LispAddress, maskLength: number): Eid {
  const scoped = address.kind === 'instance-id';
  const iid = scoped ? instanceId(address.iid) : DEFAULT_INSTANCE;
  const inner = scoped ? address.address : address;
  switch (inner.kind) {
    case 'ip':
      if (maskLength > (ipFamily(inner.address) === 4 ? 32 : 128)) {
        throw new DecodeError('EID mask-len', 0, `${maskLength} is longer than the address`);
      }
      return prefixEid(iid, ipPrefix(inner.address, maskLength));
    case 'name':
      return zoneNameEid(iid, inner.name);
    default:
      throw new DecodeError('EID', 0, `an address of kind "${inner.kind}" is not an EID here`);
  }
}

/** The same list for long: an array has room for 17 after its first `push`, and an empty one need not be there twice. */
function asLongAsItIs<T>(list: readonly T[]): readonly T[] {
  return list.length === 0 ? NOTHING : list.slice();
}

function ttlToMinutes(ttl: Millis): number {
  return Math.min(Math.ceil(ttl / minutes(1)), TTL_RECEIVER_DECIDES - 1);
}

function rloc(priority: number, locator: LispAddress, weight = 0): RlocRecord {
  return {
    priority,
    weight,
    multicastPriority: NEVER_USE,
    multicastWeight: 0,
    local: true,
    probed: false,
    reachable: true,
    locator,
  };
}

function locatorToRloc(locator: Locator, tunnelKey: TunnelKey | undefined): RlocRecord {
  const nat: LispAddress = {
    kind: 'nat',
    msPort: 0,
    etrPort: locator.port,
    globalEtr: ipLispAddress(locator.address),
    ms: NO_ADDRESS,
    privateEtr: NO_ADDRESS,
    rtrs: [],
  };
  return rloc(locator.priority, tunnelKey === undefined ? nat : withTunnelKey(tunnelKey, nat), locator.weight);
}

function withTunnelKey(tunnelKey: TunnelKey, address: LispAddress): SecurityKeyAddress {
  const keys = [tunnelKeyToBytes(tunnelKey)];
  return { kind: 'security-key', algorithm: STAYPUT_X25519, revoked: false, keys, address };
}

function zoneToRlocs({ zone }: Mapping): RlocRecord[] {
  if (zone === undefined) return [];
  const data = encodeZoneRecords({ ...zone.records, cut: zone.cut });
  return [rloc(NEVER_USE, { kind: 'vendor', oui: STAYPUT_OUI, data })];
}

function zoneDataOf({ cut, ...records }: ZoneRecords, weights: readonly number[]): ZoneData {
  return { weights, records: { ...NO_RECORDS, ...records }, cut };
}

function ownershipToRlocs({ generation, owner, tunnelKey }: Mapping): RlocRecord[] {
  if (generation === 0 && owner === undefined && tunnelKey === undefined) return [];
  const key = tunnelKey === undefined ? new Uint8Array(0) : tunnelKeyToBytes(tunnelKey);
  const data = new Writer()
    .u8(OWNERSHIP, 'subtype')
    .u8(1, 'version')
    .u64(BigInt(generation), 'generation')
    .bytes(owner === undefined ? new Uint8Array(16) : xtrIdToBytes(owner))
    .u8(key.length, 'tunnel key length')
    .bytes(key)
    .finish();
  return [rloc(NEVER_USE, { kind: 'vendor', oui: STAYPUT_OUI, data })];
}

interface Ownership {
  readonly generation: Generation;
  readonly owner: XtrId | undefined;
}

interface RecordParts {
  readonly locators: Locator[];
  readonly names: string[];
  readonly targets: IpAddress[];
  /** Of the targets. */
  readonly weights: number[];
  zone: ZoneRecords | undefined;
  readonly tunnelKeys: Set<TunnelKey>;
  ownership: Ownership | undefined;
}

function readRloc(record: RlocRecord, eid: Eid, defaultPort: number, parts: RecordParts): void {
  const { locator } = record;
  switch (locator.kind) {
    case 'vendor':
      if (locator.oui !== STAYPUT_OUI) return;
      if (eid.kind === 'name') parts.zone = decodeZoneRecords(locator.data) ?? parts.zone;
      readOwnership(locator, parts);
      return;
    case 'name':
      if (isHostName(locator.name)) parts.names.push(locator.name.toLowerCase());
      return;
    case 'ip':
      if (eid.kind === 'name') {
        parts.targets.push(locator.address);
        parts.weights.push(record.weight);
        return;
      }
      break;
    case 'security-key':
      readTunnelKey(locator, parts);
      break;
    default:
  }
  const reached = reachedThrough(locator, defaultPort);
  // R = 0 forbids to encapsulate to a locator, which is what priority 255 says.
  const priority = record.reachable ? record.priority : NEVER_USE;
  if (reached === undefined) return;
  const { address, port } = reached;
  // Each by its name: with more behind `...reached`, V8 gives every object a hidden class of its own (240 octets).
  parts.locators.push({ address, port, priority, weight: record.weight });
}

function readTunnelKey(locator: SecurityKeyAddress, parts: RecordParts): void {
  const [key] = locator.keys;
  if (locator.algorithm !== STAYPUT_X25519 || locator.revoked || key === undefined) return;
  parts.tunnelKeys.add(tunnelKeyFromBytes(key));
}

/** Address and port, also from inside of LCAFs; undefined for what is not an underlay address. */
function reachedThrough(locator: LispAddress, defaultPort: number): { address: IpAddress; port: number } | undefined {
  switch (locator.kind) {
    case 'ip':
      return { address: locator.address, port: defaultPort };
    case 'nat':
      return reachedThrough(locator.globalEtr, locator.etrPort === 0 ? defaultPort : locator.etrPort);
    case 'security-key':
    case 'instance-id':
      return reachedThrough(locator.address, defaultPort);
    case 'afi-list':
      for (const address of locator.addresses) {
        const reached = reachedThrough(address, defaultPort);
        if (reached !== undefined) return reached;
      }
      return undefined;
    default:
      return undefined;
  }
}

function readOwnership(locator: VendorAddress, parts: RecordParts): void {
  const reader = new Reader(locator.data);
  if (reader.u8('subtype') !== OWNERSHIP) return;
  if (parts.ownership !== undefined) throw new DecodeError('ownership', 0, 'is there twice');
  reader.skip(1, 'version');
  const generation = reader.u64('generation');
  if (generation > BigInt(Number.MAX_SAFE_INTEGER)) throw reader.fail('generation', `${generation} is too large`);
  const owner = xtrIdFromBytes(reader.bytes(16, 'owner'));
  const keyLength = reader.u8('tunnel key length');
  if (keyLength !== 0) parts.tunnelKeys.add(tunnelKeyFromBytes(reader.bytes(keyLength, 'tunnel key')));
  parts.ownership = { generation: Number(generation) as Generation, owner: /^0+$/.test(owner) ? undefined : owner };
}

function isHostName(text: string): boolean {
  try {
    nameEid(DEFAULT_INSTANCE, text);
    return true;
  } catch {
    return false;
  }
}

/** By their ACT codes. Codes behind the last one are read as drop. */
export const MAP_ACTIONS: readonly MapAction[] = [
  'no-action',
  'natively-forward',
  'send-map-request',
  'drop',
  'policy-denied',
  'auth-failure',
];

/** Locally administered. */
export const STAYPUT_OUI = 0x025350;
const OWNERSHIP = 1;
/** Key algorithm in LCAF 11; the RFC 8061 suites have small numbers. */
const STAYPUT_X25519 = 0x53;
const DEFAULT_TTL = minutes(24 * 60);
const NOTHING: readonly never[] = [];
