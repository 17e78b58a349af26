/**
 * The header of an IPv4 or IPv6 packet (RFC 791, RFC 8200), as far as it says from whom to whom and what is in it.
 *
 * The body ends where the header says; octets behind that are not the packet's. Of IPv6 the extension headers that may
 * precede a transport header are passed over. A fragment has a body that means nothing without the others.
 */
import { type IpAddress, type IpFamily, ipFromBytes } from './address.ts';
import type { Reader } from './bytes.ts';

export interface IpPacket {
  readonly family: IpFamily;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** TTL or hop limit. */
  readonly hopLimit: number;
  /** Of the body. */
  readonly protocol: number;
  readonly fragment: boolean;
  readonly body: Reader;
}

export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, icmp6: 58, sctp: 132 } as const;

/** @throws DecodeError also when the packet is longer than what is left */
export function decodeIpPacket(reader: Reader): IpPacket {
  const first = reader.u8('IP header');
  switch (first >> 4) {
    case 4:
      return decodeIpv4(reader, 4 * (first & 0xf));
    case 6:
      return decodeIpv6(reader);
    default:
      throw reader.fail('IP header', `version ${first >> 4} is unknown`);
  }
}

function decodeIpv4(reader: Reader, headerLength: number): IpPacket {
  reader.skip(1, 'type of service');
  const totalLength = reader.u16('total length');
  reader.skip(2, 'identification');
  const fragment = (reader.u16('fragment offset') & 0x3fff) !== 0;
  const hopLimit = reader.u8('TTL');
  const protocol = reader.u8('protocol');
  reader.skip(2, 'header checksum');
  const source = ipFromBytes(reader.bytes(4, 'source'));
  const destination = ipFromBytes(reader.bytes(4, 'destination'));
  if (headerLength < 20 || totalLength < headerLength) throw reader.fail('IP header', 'impossible length');
  reader.skip(headerLength - 20, 'IP options');
  const body = reader.part(totalLength - headerLength, 'IP packet');
  return { family: 4, source, destination, hopLimit, protocol, fragment, body };
}

function decodeIpv6(reader: Reader): IpPacket {
  reader.skip(3, 'flow label');
  const length = reader.u16('payload length');
  let protocol = reader.u8('next header');
  const hopLimit = reader.u8('hop limit');
  const source = ipFromBytes(reader.bytes(16, 'source'));
  const destination = ipFromBytes(reader.bytes(16, 'destination'));
  const body = reader.part(length, 'IP packet');
  let fragment = false;
  while (EXTENSION_HEADERS.has(protocol) && !fragment) {
    const next = body.u8('next header');
    const units = body.u8('extension header length');
    if (protocol === FRAGMENT) {
      fragment = (body.u16('fragment offset') & 0xfff9) !== 0;
      body.skip(4, 'identification');
    } else {
      body.skip(6 + 8 * units, 'extension header');
    }
    protocol = next;
  }
  return { family: 6, source, destination, hopLimit, protocol, fragment, body };
}

const FRAGMENT = 44;
/** Hop-by-hop options, routing, fragment, destination options. */
const EXTENSION_HEADERS: ReadonlySet<number> = new Set([0, 43, FRAGMENT, 60]);
