/**
 * LISP Canonical Address Format (RFC 8060; type 255: RFC 9306).
 *
 * ```
 * | AFI = 16387 (16) | Rsvd1 (8) | Flags (8) |
 * | Type (8) | Rsvd2 (8) | Length (16) |   Length = octets that follow it
 * ```
 *
 * The bodies are in `lcaf/`. Other types keep theirs as it came. Reserved bits and octets behind the last field of a
 * known type say nothing to us, but may to those who are given the address on: it is encoded as it came, except for the
 * types that agents use among themselves. LCAFs nest, to a depth of MAX_DEPTH.
 */
import { EncodeError, type Reader, Writer } from '../bytes.ts';
import { decodeAddress, encodeAddress, type LispAddress } from './afi.ts';
import {
  AFI_LIST,
  type AfiList,
  KEY_VALUE,
  type KeyValue,
  MULTICAST,
  type MulticastInfo,
  SOURCE_DESTINATION,
  type SourceDestination,
} from './lcaf/address-tuples.ts';
import type { LcafCodec } from './lcaf/codec.ts';
import { GEO, type GeoCoordinates } from './lcaf/geo-coordinates.ts';
import {
  EXPLICIT_PATH,
  type ExplicitLocatorPath,
  REPLICATION_LIST,
  type ReplicationList,
} from './lcaf/locator-paths.ts';
import { NAT, type NatAddress } from './lcaf/nat.ts';
import {
  APPLICATION,
  type ApplicationAddress,
  AS_NUMBER,
  type AsNumberAddress,
  ENCAPSULATION,
  type EncapsulationAddress,
  INSTANCE_ID,
  type InstanceIdAddress,
  JSON_DATA,
  type JsonAddress,
  NONCE_LOCATOR,
  type NonceAddress,
} from './lcaf/qualified-address.ts';
import { SECURITY_KEY, type SecurityKeyAddress } from './lcaf/security-key.ts';
import { NULL_BODY, type NullBody, VENDOR, type VendorAddress } from './lcaf/vendor.ts';

export type { NatAddress, SecurityKeyAddress, VendorAddress };

export type Lcaf = (KnownLcaf & AsReceived) | UnknownLcaf;

export interface AsReceived {
  /** What follows the AFI, where there is more in it than the fields say. Encoding gives this back. */
  readonly asReceived?: Uint8Array;
}

type KnownLcaf =
  | NullBody
  | AfiList
  | InstanceIdAddress
  | AsNumberAddress
  | ApplicationAddress
  | GeoCoordinates
  | NatAddress
  | NonceAddress
  | MulticastInfo
  | ExplicitLocatorPath
  | SecurityKeyAddress
  | SourceDestination
  | ReplicationList
  | JsonAddress
  | KeyValue
  | EncapsulationAddress
  | VendorAddress;

export interface UnknownLcaf {
  readonly kind: 'lcaf';
  readonly type: number;
  readonly flags: number;
  readonly rsvd2: number;
  readonly body: Uint8Array;
}

export const AFI_LCAF = 16387;
export const MAX_DEPTH = 8;

export function isLcaf(address: LispAddress): address is Lcaf {
  return address.kind === 'lcaf' || BY_KIND.has(address.kind);
}

/** The type's number. */
export function lcafType(lcaf: Lcaf): number {
  return lcaf.kind === 'lcaf' ? lcaf.type : codecOf(lcaf).type;
}

/** Reads what follows the AFI. */
export function decodeLcaf(reader: Reader, field: string, depth: number): Lcaf {
  if (depth >= MAX_DEPTH) throw reader.fail(field, `more than ${MAX_DEPTH} nested LCAFs`);
  const start = reader.offset;
  reader.skip(1, 'LCAF Rsvd1');
  const flags = reader.u8('LCAF flags');
  const type = reader.u8('LCAF type');
  const rsvd2 = reader.u8('LCAF Rsvd2');
  const body = reader.part(reader.u16('LCAF length'), 'LCAF body');
  const codec = BY_TYPE.get(type);
  if (codec === undefined) return { kind: 'lcaf', type, flags, rsvd2, body: body.rest() };
  const lcaf = codec.decode({ reader: body, rsvd2, address: () => decodeAddress(body, field, depth + 1) });
  if (USED_BY_AGENTS.has(type)) return lcaf;
  const asReceived = reader.since(start);
  const writer = new Writer();
  encodeLcaf(lcaf, writer, depth);
  return sameOctets(writer.finish(), asReceived) ? lcaf : { ...lcaf, asReceived };
}

/** Writes what follows the AFI. */
export function encodeLcaf(lcaf: Lcaf, writer: Writer, depth: number): void {
  if (depth >= MAX_DEPTH) throw new EncodeError('LCAF', `more than ${MAX_DEPTH} nested`);
  if (lcaf.kind === 'lcaf') {
    encodeFrame(lcaf.type, lcaf.flags, lcaf.rsvd2, writer, () => writer.bytes(lcaf.body));
    return;
  }
  if (lcaf.asReceived !== undefined) {
    writer.bytes(lcaf.asReceived);
    return;
  }
  const codec = codecOf(lcaf);
  const address = (inner: LispAddress): void => encodeAddress(inner, writer, depth + 1);
  encodeFrame(codec.type, 0, codec.rsvd2?.(lcaf) ?? 0, writer, () => codec.encode(lcaf, { writer, address }));
}

function encodeFrame(type: number, flags: number, rsvd2: number, writer: Writer, body: () => void): void {
  writer.u8(0, 'LCAF Rsvd1').u8(flags, 'LCAF flags').u8(type, 'LCAF type').u8(rsvd2, 'LCAF Rsvd2');
  writer.lengthPrefixed('LCAF length', body);
}

function codecOf(lcaf: KnownLcaf): LcafCodec<KnownLcaf> {
  const codec = BY_KIND.get(lcaf.kind);
  if (codec === undefined) throw new EncodeError('LCAF', `unknown kind ${JSON.stringify(lcaf)}`);
  return codec;
}

function sameOctets(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((octet, i) => octet === other[i]);
}

/** One for each kind, which the type demands. */
const CODECS: { readonly [K in KnownLcaf['kind']]: LcafCodec<Extract<KnownLcaf, { kind: K }>> } = {
  'null-body': NULL_BODY,
  'afi-list': AFI_LIST,
  'instance-id': INSTANCE_ID,
  'as-number': AS_NUMBER,
  application: APPLICATION,
  geo: GEO,
  nat: NAT,
  'nonce-locator': NONCE_LOCATOR,
  multicast: MULTICAST,
  'explicit-path': EXPLICIT_PATH,
  'security-key': SECURITY_KEY,
  'source-destination': SOURCE_DESTINATION,
  'replication-list': REPLICATION_LIST,
  json: JSON_DATA,
  'key-value': KEY_VALUE,
  encapsulation: ENCAPSULATION,
  vendor: VENDOR,
};

const BY_TYPE = new Map<number, LcafCodec<KnownLcaf>>(Object.values(CODECS).map((codec) => [codec.type, codec]));
const BY_KIND = new Map<string, LcafCodec<KnownLcaf>>(Object.values(CODECS).map((codec) => [codec.kind, codec]));

/** Instance ID, NAT traversal, security key, vendor: read thousands of times in a second, and exactly as we write them. */
const USED_BY_AGENTS: ReadonlySet<number> = new Set([INSTANCE_ID, NAT, SECURITY_KEY, VENDOR].map(({ type }) => type));
