/** LISP data packets (RFC 9300 5) with an ICMP or ICMPv6 echo inside, whose payload tells them apart, or a UDP datagram. */
import { type IpAddress, ipFamily, ipToBytes } from '../../proto/address.ts';
import { innerPacket, internetChecksum } from '../lisp/encapsulation.ts';
import { join, type Octets, u8, u16, u32, u64 } from '../lisp/octets.ts';

/** The first octet of the LISP header. */
export const HEADER = { N: 0x80, L: 0x40, E: 0x20, V: 0x10, I: 0x08, R: 0x04 } as const;

export interface Echo {
  readonly source: string;
  readonly destination: string;
  /** 0: the I bit is not set. */
  readonly instance: number;
  readonly serial: bigint;
  /** Besides I. */
  readonly flags: number;
  /** 24 bits: nonce or map-versions. */
  readonly nonce: number;
  /** 8 bits with I, else 32. */
  readonly statusBits: number;
  /** DSCP and ECN of the inner packet. */
  readonly trafficClass: number;
  readonly hopLimit: number;
  /** IP version that the inner packet says. */
  readonly version: number;
  readonly ipChecksum: number;
  /** Added to the length that the inner packet says. */
  readonly excess: number;
}

type Given = Pick<Echo, 'source' | 'destination' | 'instance' | 'serial'>;

export function echoPacket(echo: Given & Partial<Echo>): Octets {
  const { instance, flags = 0, nonce = 0, statusBits = 0 } = echo;
  const first = flags | (instance === 0 ? 0 : HEADER.I);
  const low = instance === 0 ? u32(statusBits) : u32(((instance << 8) | (statusBits & 0xff)) >>> 0);
  return join(u8(first), u32(nonce).subarray(1), low, innerEcho(echo));
}

/** Whether a LISP packet carries the reply to the echo of this serial. */
export function isEchoReply(octets: Octets, serial: bigint): boolean {
  const six = (octets[HEADER_LENGTH] ?? 0) >>> 4 === 6;
  const icmp = HEADER_LENGTH + (six ? 40 : ((octets[HEADER_LENGTH] ?? 0) & 0xf) * 4);
  if (octets.length < icmp + 16) return false;
  const said = new DataView(octets.buffer, octets.byteOffset).getBigUint64(icmp + 8);
  return octets[icmp] === (six ? 129 : 0) && said === serial;
}

export interface Probe {
  readonly source: string;
  readonly destination: string;
  readonly instance: number;
  readonly sourcePort: number;
  readonly trafficClass: number;
  readonly hopLimit: number;
}

/** A LISP packet with a UDP datagram to a port that nobody has, which hosts answer with what they were delivered. */
export function probePacket({ source, destination, instance, ...probe }: Probe): Octets {
  const inner = { source, destination, destinationPort: CLOSED_PORT, ...probe };
  return join(lispHeader(instance), innerPacket(new Uint8Array(8), inner));
}

/** The fields of an inner IP header that an outer one may change. */
export interface InnerHeader {
  readonly trafficClass: number;
  readonly hopLimit: number;
}

export function innerHeader(packet: Octets): InnerHeader {
  if ((packet[0] ?? 0) >>> 4 !== 6) return { trafficClass: packet[1] ?? 0, hopLimit: packet[8] ?? 0 };
  const trafficClass = (((packet[0] ?? 0) & 0xf) << 4) | ((packet[1] ?? 0) >>> 4);
  return { trafficClass, hopLimit: packet[7] ?? 0 };
}

/** How the datagram from this port was delivered, if a LISP packet says that its port is not there. */
export function deliveredAs(octets: Octets, sourcePort: number): InnerHeader | undefined {
  const inner = octets.subarray(HEADER_LENGTH);
  const six = (inner[0] ?? 0) >>> 4 === 6;
  const icmp = inner.subarray(six ? 40 : ((inner[0] ?? 0) & 0xf) * 4);
  const [type, code] = six ? [1, 4] : [3, 3];
  if (inner[six ? 6 : 9] !== (six ? 58 : 1) || icmp[0] !== type || icmp[1] !== code) return undefined;
  const quoted = icmp.subarray(8);
  const udp = quoted.subarray(six ? 40 : ((quoted[0] ?? 0) & 0xf) * 4);
  if (udp.length < 4 || (((udp[0] ?? 0) << 8) | (udp[1] ?? 0)) !== sourcePort) return undefined;
  return innerHeader(quoted);
}

function lispHeader(instance: number): Octets {
  return instance === 0 ? new Uint8Array(8) : join(u8(HEADER.I, 0, 0, 0), u32((instance << 8) >>> 0));
}

function innerEcho(echo: Given & Partial<Echo>): Octets {
  const { serial, trafficClass = 0, hopLimit = 64, excess = 0 } = echo;
  const [source, destination] = [echo.source, echo.destination].map((address) => ipToBytes(address as IpAddress));
  if (source === undefined || destination === undefined) throw new Error('no addresses');
  const six = ipFamily(echo.destination as IpAddress) === 6;
  const { version = six ? 6 : 4 } = echo;
  const pseudo = six ? join(source, destination, u32(16), u32(58)) : u8();
  const icmp = (checksum: number): Octets => join(u8(six ? 128 : 8, 0), u16(checksum), u32(0x636f_6e66), u64(serial));
  const message = icmp(internetChecksum(join(pseudo, icmp(0))));
  if (six) {
    const head = u32(((version << 28) | (trafficClass << 20)) >>> 0);
    return join(head, u16(message.length + excess), u8(58, hopLimit), source, destination, message);
  }
  const head = (checksum: number): Octets =>
    join(
      u8((version << 4) | 5, trafficClass),
      u16(20 + message.length + excess),
      u32(0),
      u8(hopLimit, 1),
      u16(checksum),
      source,
      destination,
    );
  return join(head(echo.ipChecksum ?? internetChecksum(head(0))), message);
}

const HEADER_LENGTH = 8;
/** That of traceroute, which nobody listens on. */
const CLOSED_PORT = 33_434;
