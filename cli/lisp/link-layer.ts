/** From a captured frame to its UDP datagram, if it has one. */
import { Reader } from '../../proto/bytes.ts';
import { DecodeError } from '../../proto/errors.ts';
import { decodeIpPacket, type IpPacket, PROTOCOL } from '../../proto/ip-packet.ts';

export interface UdpDatagram {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

/** The IP packet in a frame; null for ARP and the like. @throws DecodeError */
export function ipPacketOf(linkType: number, frame: Uint8Array): IpPacket | null {
  const reader = new Reader(frame);
  const header = LINK_TYPES.get(linkType);
  if (header === undefined) throw new DecodeError('link type', 0, `${linkType} is not known here`);
  return header(reader) ? decodeIpPacket(reader) : null;
}

/** Null for other protocols. @throws DecodeError */
export function udpDatagramOf({ protocol, fragment, body }: IpPacket): UdpDatagram | null {
  if (protocol !== PROTOCOL.udp || fragment) return null;
  const sourcePort = body.u16('source port');
  const destinationPort = body.u16('destination port');
  const length = body.u16('UDP length');
  body.skip(2, 'UDP checksum');
  if (length < 8) throw body.fail('UDP length', `${length} is less than its header`);
  return { sourcePort, destinationPort, payload: body.bytes(length - 8, 'UDP payload') };
}

/** Passes over the link layer's header; true when an IP packet follows. */
type LinkHeader = (reader: Reader) => boolean;

function ethernet(reader: Reader): boolean {
  reader.skip(12, 'MAC addresses');
  return isIp(reader);
}

/** Reads an EtherType, and VLAN tags before it. */
function isIp(reader: Reader): boolean {
  let type = reader.u16('EtherType');
  while (VLAN_TAGS.has(type)) {
    reader.skip(2, 'VLAN tag');
    type = reader.u16('EtherType');
  }
  return type === 0x0800 || type === 0x86dd;
}

function linuxCooked(reader: Reader): boolean {
  reader.skip(14, 'cooked header');
  return isIp(reader);
}

function linuxCooked2(reader: Reader): boolean {
  const type = reader.u16('protocol type');
  reader.skip(18, 'cooked header');
  return type === 0x0800 || type === 0x86dd;
}

/** The address family in the octet order of the machine that captured: it is small in one of them. */
function loopback(reader: Reader): boolean {
  const family = reader.u32('address family');
  const value = family > 0xffff ? family >>> 24 : family;
  return IP_FAMILIES.has(value);
}

const raw: LinkHeader = () => true;

const VLAN_TAGS: ReadonlySet<number> = new Set([0x8100, 0x88a8, 0x9100]);
/** AF_INET, and what AF_INET6 is on BSD, Linux and macOS. */
const IP_FAMILIES: ReadonlySet<number> = new Set([2, 10, 24, 28, 30]);
const LINK_TYPES: ReadonlyMap<number, LinkHeader> = new Map([
  [0, loopback],
  [1, ethernet],
  [12, raw],
  [14, raw],
  [101, raw],
  [108, loopback],
  [113, linuxCooked],
  [228, raw],
  [229, raw],
  [276, linuxCooked2],
]);
