/**
 * Encapsulated Control Message (RFC 9301 5.8).
 *
 * ```
 * |Type=8 |S|D|E|M|-|R|N|              Reserved                   |   R, N: NAT traversal draft (bits 9 and 10)
 * | authentication data, see security-data.ts                     |   when S
 * | IPv4 or IPv6 header                                           |
 * | UDP source port (16)  | UDP destination port (16)             |
 * | UDP length (16)       | UDP checksum (16)                     |
 * | LISP control message                                          |
 * ```
 *
 * The control message stays in octets: whoever forwards it must not change it, and its authentication is over them.
 * `encapsulatedMessage` in message.ts decodes it. A wrong inner UDP checksum is an error, none is not: lispers.net
 * sends none.
 */
import { type IpAddress, ipFamily, ipToBytes } from '../address.ts';
import { EncodeError, type Reader, Writer } from '../bytes.ts';
import { decodeIpPacket, type IpPacket, PROTOCOL } from '../ip-packet.ts';
import { bit, encodeWord0, isSet, TYPE } from './header.ts';
import { decodeEcmSecurity, type EcmSecurity, encodeEcmSecurity } from './security-data.ts';

export interface EncapsulatedControl {
  readonly type: 'encapsulated-control';
  /** D: the sender is a DDT client. */
  readonly ddt: boolean;
  /** E: to be forwarded to the ETR. */
  readonly toEtr: boolean;
  /** M: meant for the map server. */
  readonly toMapServer: boolean;
  /** R: for an RTR, which shall relay it. */
  readonly forRtr: boolean;
  /** N: relayed by an RTR. */
  readonly relayed: boolean;
  /** S */
  readonly security?: EcmSecurity;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly hopLimit: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** The control message. */
  readonly payload: Uint8Array;
}

export function decodeEcm(reader: Reader): EncapsulatedControl {
  const word = reader.u32('header');
  const security = isSet(word, S) ? decodeEcmSecurity(reader) : undefined;
  const ip = decodeIpPacket(reader);
  if (ip.fragment) throw reader.fail('inner IP packet', 'is a fragment');
  if (ip.protocol !== PROTOCOL.udp) throw reader.fail('inner protocol', `${ip.protocol} is not UDP`);
  return {
    type: 'encapsulated-control',
    ddt: isSet(word, D),
    toEtr: isSet(word, E),
    toMapServer: isSet(word, M),
    forRtr: isSet(word, R),
    relayed: isSet(word, N),
    ...(security === undefined ? {} : { security }),
    source: ip.source,
    destination: ip.destination,
    hopLimit: ip.hopLimit,
    ...decodeUdp(ip),
  };
}

export function encodeEcm(ecm: EncapsulatedControl, writer: Writer): void {
  encodeWord0(
    TYPE.encapsulatedControl,
    [
      bit(ecm.security !== undefined, S),
      bit(ecm.ddt, D),
      bit(ecm.toEtr, E),
      bit(ecm.toMapServer, M),
      bit(ecm.forRtr, R),
      bit(ecm.relayed, N),
    ],
    writer,
  );
  if (ecm.security !== undefined) encodeEcmSecurity(ecm.security, writer);
  if (ipFamily(ecm.source) !== ipFamily(ecm.destination)) {
    throw new EncodeError('inner IP header', 'source and destination are of different families');
  }
  const udp = encodeUdp(ecm);
  encodeIpHeader(ecm, udp.length, writer);
  writer.bytes(udp);
}

function decodeUdp(ip: IpPacket): Pick<EncapsulatedControl, 'sourcePort' | 'destinationPort' | 'payload'> {
  const { body } = ip;
  const sourcePort = body.u16('inner source port');
  const destinationPort = body.u16('inner destination port');
  const length = body.u16('inner UDP length');
  const checksum = body.u16('inner UDP checksum');
  if (length < 8) throw body.fail('inner UDP length', `${length} is less than its header`);
  const payload = body.bytes(length - 8, 'inner UDP payload');
  const packet = udpPacket(sourcePort, destinationPort, checksum, payload);
  if (checksum !== 0 && udpChecksum(ip.source, ip.destination, packet) !== 0) {
    throw body.fail('inner UDP checksum', 'is wrong');
  }
  return { sourcePort, destinationPort, payload };
}

function encodeIpHeader(ecm: EncapsulatedControl, length: number, writer: Writer): void {
  const header = new Writer();
  const source = ipToBytes(ecm.source);
  const destination = ipToBytes(ecm.destination);
  if (source.length === 16) {
    header.u32(0x6000_0000, 'inner IP header').u16(length, 'inner payload length');
    header.u8(PROTOCOL.udp, 'inner next header').u8(ecm.hopLimit, 'inner hop limit').bytes(source).bytes(destination);
    writer.bytes(header.finish());
    return;
  }
  header
    .u16(0x4500, 'inner IP header')
    .u16(20 + length, 'inner total length')
    .u32(0, 'inner identification');
  header.u8(ecm.hopLimit, 'inner TTL').u8(PROTOCOL.udp, 'inner protocol').u16(0, 'inner header checksum');
  const bytes = header.bytes(source).bytes(destination).finish();
  new DataView(bytes.buffer).setUint16(10, internetChecksum([bytes]));
  writer.bytes(bytes);
}

function encodeUdp(ecm: EncapsulatedControl): Uint8Array {
  const packet = udpPacket(ecm.sourcePort, ecm.destinationPort, 0, ecm.payload);
  const checksum = udpChecksum(ecm.source, ecm.destination, packet);
  new DataView(packet.buffer).setUint16(6, checksum === 0 ? 0xffff : checksum);
  return packet;
}

function udpPacket(sourcePort: number, destinationPort: number, checksum: number, payload: Uint8Array): Uint8Array {
  return new Writer()
    .u16(sourcePort, 'inner source port')
    .u16(destinationPort, 'inner destination port')
    .u16(8 + payload.length, 'inner UDP length')
    .u16(checksum, 'inner UDP checksum')
    .bytes(payload)
    .finish();
}

/** 0 when the checksum inside `packet` is right. */
function udpChecksum(source: IpAddress, destination: IpAddress, packet: Uint8Array): number {
  const pseudo = new Writer().bytes(ipToBytes(source)).bytes(ipToBytes(destination));
  return internetChecksum([
    pseudo.u32(packet.length, 'inner UDP length').u32(PROTOCOL.udp, 'inner protocol').finish(),
    packet,
  ]);
}

/** RFC 1071; every part but the last must have an even length. */
function internetChecksum(parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += ((part[i] ?? 0) << 8) | (part[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

const S = 0x0800_0000;
const D = 0x0400_0000;
const E = 0x0200_0000;
const M = 0x0100_0000;
const R = 0x0040_0000;
const N = 0x0020_0000;
