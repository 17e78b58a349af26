/**
 * Addresses with their address family identifier, as EIDs and as locators.
 *
 * ```
 * | AFI (16) | address ...                                          |
 *   0        none, no octets
 *   1        IPv4, 4 octets
 *   2        IPv6, 16 octets
 *   6        48-bit MAC, 6 octets; 16389 is read as the same
 *   17       distinguished name, ASCII up to a zero octet (RFC 9735)
 *   16387    LCAF, see lcaf.ts
 * ```
 *
 * Any other AFI makes the whole message unreadable, because the length of its address is not known (RFC 9301 5.1).
 */
import { type IpAddress, ipFromBytes, ipToBytes } from '../address.ts';
import { EncodeError, type Reader, type Writer } from '../bytes.ts';
import { AFI_LCAF, decodeLcaf, encodeLcaf, isLcaf, type Lcaf } from './lcaf.ts';

export type LispAddress = NoAddress | IpLispAddress | MacAddress | DistinguishedName | Lcaf;

export interface NoAddress {
  readonly kind: 'none';
}

export interface IpLispAddress {
  readonly kind: 'ip';
  readonly address: IpAddress;
}

export interface MacAddress {
  readonly kind: 'mac';
  /** `00:11:22:aa:bb:cc` */
  readonly mac: string;
}

export interface DistinguishedName {
  readonly kind: 'name';
  readonly name: string;
}

export const NO_ADDRESS: NoAddress = { kind: 'none' };

export function ipLispAddress(address: IpAddress): IpLispAddress {
  return { kind: 'ip', address };
}

/** `depth` counts the LCAFs around this address. */
export function decodeAddress(reader: Reader, field: string, depth = 0): LispAddress {
  const afi = reader.u16(`${field} AFI`);
  switch (afi) {
    case 0:
      return NO_ADDRESS;
    case 1:
      return { kind: 'ip', address: ipFromBytes(reader.bytes(4, field)) };
    case 2:
      return { kind: 'ip', address: ipFromBytes(reader.bytes(16, field)) };
    case AFI_MAC:
    case AFI_MAC_48:
      return { kind: 'mac', mac: macFromBytes(reader.bytes(6, field)) };
    case AFI_NAME:
      return { kind: 'name', name: decodeName(reader, field) };
    case AFI_LCAF:
      return decodeLcaf(reader, field, depth);
    default:
      throw reader.fail(`${field} AFI`, `${afi} is unknown`);
  }
}

export function encodeAddress(address: LispAddress, writer: Writer, depth = 0): void {
  if (isLcaf(address)) {
    writer.u16(AFI_LCAF, 'AFI');
    encodeLcaf(address, writer, depth);
    return;
  }
  switch (address.kind) {
    case 'none':
      writer.u16(0, 'AFI');
      return;
    case 'ip': {
      const bytes = ipToBytes(address.address);
      writer.u16(bytes.length === 4 ? 1 : 2, 'AFI').bytes(bytes);
      return;
    }
    case 'mac':
      writer.u16(AFI_MAC, 'AFI').bytes(macToBytes(address.mac));
      return;
    case 'name':
      writer.u16(AFI_NAME, 'AFI').bytes(nameToBytes(address.name)).u8(0, 'name');
      return;
    default:
      throw unknownKind(address);
  }
}

function decodeName(reader: Reader, field: string): string {
  const bytes = reader.untilZero(field);
  if (bytes.some((octet) => octet > 0x7f)) throw reader.fail(field, 'a distinguished name is ASCII');
  return new TextDecoder().decode(bytes);
}

function nameToBytes(name: string): Uint8Array {
  const bytes = new TextEncoder().encode(name);
  if (bytes.some((octet) => octet === 0 || octet > 0x7f)) {
    throw new EncodeError('name', 'a distinguished name is ASCII without zero octets');
  }
  return bytes;
}

function macFromBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (octet) => octet.toString(16).padStart(2, '0')).join(':');
}

function macToBytes(mac: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) throw new EncodeError('MAC address', 'six hex octets needed');
  return Uint8Array.from(mac.split(':'), (octet) => Number.parseInt(octet, 16));
}

function unknownKind(address: never): EncodeError {
  return new EncodeError('address', `unknown kind ${JSON.stringify(address)}`);
}

const AFI_MAC = 6;
const AFI_NAME = 17;
const AFI_MAC_48 = 16389;
