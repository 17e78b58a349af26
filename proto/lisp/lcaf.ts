/**
 * LISP Canonical Address Format (RFC 8060; type 255: RFC 9306).
 *
 * ```
 * | AFI = 16387 (16) | Rsvd1 (8) | Flags (8) |
 * | Type (8) | Rsvd2 (8) | Length (16) |   Length = octets that follow it
 *
 *   1   AFI list       address, address, ...
 *   2   instance ID    Rsvd2 = IID mask-len; | IID (32) | address
 *   7   NAT traversal  | MS port (16) | ETR port (16) | global ETR, MS, private ETR, RTR ... addresses
 *   11  security key   | key count (8) | Rsvd3 (8) | algorithm (8) | Rsvd4 (7) R | { length (16) | key } | address
 *   255 vendor         | Rsvd3 (8) | OUI (24) | data
 * ```
 *
 * Other types keep their body as it came. Octets behind the last field of a known type are ignored. LCAFs nest, to a
 * depth of MAX_DEPTH.
 */
import { EncodeError, type Reader, type Writer } from '../bytes.ts';
import { decodeAddress, encodeAddress, type LispAddress } from './afi.ts';

export type Lcaf = AfiList | InstanceIdAddress | NatAddress | SecurityKeyAddress | VendorAddress | UnknownLcaf;

export interface AfiList {
  readonly kind: 'afi-list';
  readonly addresses: readonly LispAddress[];
}

export interface InstanceIdAddress {
  readonly kind: 'instance-id';
  /** 32 bits on the wire, of which the data plane can carry the low 24. */
  readonly iid: number;
  /** 0 or 32 in practice; only ranges of instances give it a meaning. */
  readonly iidMaskLength: number;
  readonly address: LispAddress;
}

export interface NatAddress {
  readonly kind: 'nat';
  readonly msPort: number;
  readonly etrPort: number;
  readonly globalEtr: LispAddress;
  readonly ms: LispAddress;
  readonly privateEtr: LispAddress;
  readonly rtrs: readonly LispAddress[];
}

export interface SecurityKeyAddress {
  readonly kind: 'security-key';
  readonly algorithm: number;
  /** R: the key is no longer to be used. */
  readonly revoked: boolean;
  readonly keys: readonly Uint8Array[];
  readonly address: LispAddress;
}

export interface VendorAddress {
  readonly kind: 'vendor';
  /** Organizationally unique identifier, 24 bits. */
  readonly oui: number;
  readonly data: Uint8Array;
}

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
  return LCAF_KINDS.has(address.kind);
}

/** Reads what follows the AFI. */
export function decodeLcaf(reader: Reader, field: string, depth: number): Lcaf {
  if (depth >= MAX_DEPTH) throw reader.fail(field, `more than ${MAX_DEPTH} nested LCAFs`);
  reader.skip(1, 'LCAF Rsvd1');
  const flags = reader.u8('LCAF flags');
  const type = reader.u8('LCAF type');
  const rsvd2 = reader.u8('LCAF Rsvd2');
  const body = reader.part(reader.u16('LCAF length'), 'LCAF body');
  const address = (): LispAddress => decodeAddress(body, field, depth + 1);
  switch (type) {
    case LCAF_TYPE.afiList:
      return { kind: 'afi-list', addresses: untilEnd(body, address) };
    case LCAF_TYPE.instanceId:
      return { kind: 'instance-id', iid: body.u32('instance ID'), iidMaskLength: rsvd2, address: address() };
    case LCAF_TYPE.nat:
      return {
        kind: 'nat',
        msPort: body.u16('MS port'),
        etrPort: body.u16('ETR port'),
        globalEtr: address(),
        ms: address(),
        privateEtr: address(),
        rtrs: untilEnd(body, address),
      };
    case LCAF_TYPE.securityKey: {
      const count = body.u8('key count');
      body.skip(1, 'LCAF Rsvd3');
      const algorithm = body.u8('key algorithm');
      const revoked = (body.u8('LCAF Rsvd4') & 1) === 1;
      body.expect(2 * count, 'keys');
      const keys = Array.from({ length: count }, () => body.bytes(body.u16('key length'), 'key'));
      return { kind: 'security-key', algorithm, revoked, keys, address: address() };
    }
    case LCAF_TYPE.vendor:
      body.skip(1, 'LCAF Rsvd3');
      return { kind: 'vendor', oui: body.u24('OUI'), data: body.rest() };
    default:
      return { kind: 'lcaf', type, flags, rsvd2, body: body.rest() };
  }
}

/** Writes what follows the AFI. */
export function encodeLcaf(lcaf: Lcaf, writer: Writer, depth: number): void {
  if (depth >= MAX_DEPTH) throw new EncodeError('LCAF', `more than ${MAX_DEPTH} nested`);
  const address = (inner: LispAddress): void => encodeAddress(inner, writer, depth + 1);
  switch (lcaf.kind) {
    case 'afi-list':
      encodeFrame(LCAF_TYPE.afiList, 0, 0, writer, () => lcaf.addresses.forEach(address));
      return;
    case 'instance-id':
      encodeFrame(LCAF_TYPE.instanceId, 0, lcaf.iidMaskLength, writer, () => {
        writer.u32(lcaf.iid, 'instance ID');
        address(lcaf.address);
      });
      return;
    case 'nat':
      encodeFrame(LCAF_TYPE.nat, 0, 0, writer, () => {
        writer.u16(lcaf.msPort, 'MS port').u16(lcaf.etrPort, 'ETR port');
        [lcaf.globalEtr, lcaf.ms, lcaf.privateEtr, ...lcaf.rtrs].forEach(address);
      });
      return;
    case 'security-key':
      encodeFrame(LCAF_TYPE.securityKey, 0, 0, writer, () => {
        writer.u8(lcaf.keys.length, 'key count').u8(0, 'LCAF Rsvd3').u8(lcaf.algorithm, 'key algorithm');
        writer.u8(lcaf.revoked ? 1 : 0, 'LCAF Rsvd4');
        for (const key of lcaf.keys) writer.u16(key.length, 'key length').bytes(key);
        address(lcaf.address);
      });
      return;
    case 'vendor':
      encodeFrame(LCAF_TYPE.vendor, 0, 0, writer, () => {
        writer.u8(0, 'LCAF Rsvd3').u24(lcaf.oui, 'OUI').bytes(lcaf.data);
      });
      return;
    case 'lcaf':
      encodeFrame(lcaf.type, lcaf.flags, lcaf.rsvd2, writer, () => {
        writer.bytes(lcaf.body);
      });
      return;
    default:
      throw unknownKind(lcaf);
  }
}

function encodeFrame(type: number, flags: number, rsvd2: number, writer: Writer, body: () => void): void {
  writer.u8(0, 'LCAF Rsvd1').u8(flags, 'LCAF flags').u8(type, 'LCAF type').u8(rsvd2, 'LCAF Rsvd2');
  writer.lengthPrefixed('LCAF length', body);
}

function untilEnd(body: Reader, address: () => LispAddress): LispAddress[] {
  const addresses: LispAddress[] = [];
  while (body.remaining > 0) addresses.push(address());
  return addresses;
}

function unknownKind(lcaf: never): EncodeError {
  return new EncodeError('LCAF', `unknown kind ${JSON.stringify(lcaf)}`);
}

export const LCAF_TYPE = { afiList: 1, instanceId: 2, nat: 7, securityKey: 11, vendor: 255 } as const;

const LCAF_KINDS: ReadonlySet<LispAddress['kind']> = new Set<Lcaf['kind']>([
  'afi-list',
  'instance-id',
  'nat',
  'security-key',
  'vendor',
  'lcaf',
]);
