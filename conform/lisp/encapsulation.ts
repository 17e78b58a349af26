/** Encapsulated Control Messages (RFC 9301 5.8): the header, an inner IP and UDP header, the control message. */
import { type IpAddress, ipFamily, ipToBytes } from '../../proto/address.ts';
import { Deviation } from '../check.ts';
import { join, type Octets, TYPE, u8, u16, u32 } from './octets.ts';

export interface InnerOptions {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort?: number;
  /** Without it the right one. */
  readonly udpChecksum?: number;
  readonly ipChecksum?: number;
  /** What the UDP header says. */
  readonly udpLength?: number;
  readonly totalLength?: number;
  readonly protocol?: number;
  readonly hopLimit?: number;
  /** DSCP and ECN. */
  readonly trafficClass?: number;
}

export function encapsulated(message: Octets, inner: InnerOptions, flags = 0): Octets {
  return join(u32(((TYPE.ecm << 28) | flags) >>> 0), innerPacket(message, inner));
}

export function innerPacket(message: Octets, options: InnerOptions): Octets {
  const { sourcePort, destinationPort = 4342, udpLength = message.length + 8, protocol = 17, hopLimit = 32 } = options;
  const { trafficClass = 0 } = options;
  const source = ipToBytes(options.source as IpAddress);
  const destination = ipToBytes(options.destination as IpAddress);
  const ports = join(u16(sourcePort), u16(destinationPort), u16(udpLength));
  const pseudo = join(source, destination, u16(17), u16(message.length + 8), ports, u16(0), message);
  const udp = join(ports, u16(options.udpChecksum ?? (internetChecksum(pseudo) || 0xffff)), message);
  if (ipFamily(options.source as IpAddress) === 6) {
    const length = options.totalLength ?? udp.length;
    return join(
      u32((0x6000_0000 | (trafficClass << 20)) >>> 0),
      u16(length),
      u8(protocol, hopLimit),
      source,
      destination,
      udp,
    );
  }
  const head = (checksum: number): Octets =>
    join(
      u8(0x45, trafficClass),
      u16(options.totalLength ?? udp.length + 20),
      u32(0),
      u8(hopLimit, protocol),
      u16(checksum),
      source,
      destination,
    );
  return join(head(options.ipChecksum ?? internetChecksum(head(0))), udp);
}

export interface Decapsulated {
  readonly message: Octets;
  /** Of the inner UDP header. */
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** The control message in an ECM. @throws Deviation */
export function decapsulated(ecm: Octets): Decapsulated {
  const packet = ecm.subarray(4);
  const headerLength = (packet[0] ?? 0) >>> 4 === 6 ? 40 : ((packet[0] ?? 0) & 0xf) * 4;
  if (headerLength < 20 || packet.length < headerLength + 8)
    throw new Deviation('an ECM without an inner UDP datagram');
  const udp = packet.subarray(headerLength);
  const at = (offset: number): number => ((udp[offset] ?? 0) << 8) | (udp[offset + 1] ?? 0);
  return { message: udp.subarray(8), sourcePort: at(0), destinationPort: at(2) };
}

export function internetChecksum(octets: Octets): number {
  let sum = 0;
  for (let i = 0; i < octets.length; i += 2) sum += ((octets[i] ?? 0) << 8) | (octets[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
