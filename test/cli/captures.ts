/** Captures made for tests: a UDP datagram in the frames of several link types, in files of several formats. */
import { type IpAddress, ipToBytes } from '../../proto/address.ts';

export interface Datagram {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

/** UDP without a checksum. */
export function ipPacket({ source, sourcePort, destination, destinationPort, payload }: Datagram): Buffer {
  const udp = Buffer.alloc(8 + payload.length);
  udp.writeUInt16BE(sourcePort, 0);
  udp.writeUInt16BE(destinationPort, 2);
  udp.writeUInt16BE(udp.length, 4);
  udp.set(payload, 8);
  const [from, to] = [source, destination].map((text) => ipToBytes(text as IpAddress)) as [Uint8Array, Uint8Array];
  if (from.length === 16) {
    const head = Buffer.from('6000000000001140', 'hex');
    head.writeUInt16BE(udp.length, 4);
    return Buffer.concat([head, from, to, udp]);
  }
  const head = Buffer.from('450000000000400040110000', 'hex');
  head.writeUInt16BE(20 + udp.length, 2);
  const ip = Buffer.concat([head, from, to]);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += ip.readUInt16BE(at);
  ip.writeUInt16BE(~((sum & 0xffff) + (sum >>> 16)) & 0xffff, 10);
  return Buffer.concat([ip, udp]);
}

export function ethernetFrame(packet: Uint8Array, tags: readonly string[] = []): Buffer {
  const type = (packet[0] ?? 0) >> 4 === 6 ? '86dd' : '0800';
  return Buffer.concat([Buffer.from(`020000000002020000000001${tags.join('')}${type}`, 'hex'), packet]);
}

/** Microseconds, in the octet order of this machine or the other one. */
export function pcap(linkType: number, frames: readonly Uint8Array[], bigEndian = false): Buffer {
  const u32 = (...values: number[]): Buffer => numbers(values, bigEndian);
  const version = bigEndian ? 0x0002_0004 : 0x0004_0002;
  const records = frames.flatMap((frame, i) => [u32(1_700_000_000 + i, 250_000, frame.length, frame.length), frame]);
  return Buffer.concat([u32(0xa1b2c3d4, version, 0, 0, 0x40000, linkType), ...records]);
}

/** One section with one interface, whose times are nanoseconds; enhanced packet blocks. */
export function pcapng(linkType: number, frames: readonly Uint8Array[], bigEndian = false): Buffer {
  const u32 = (...values: number[]): Buffer => numbers(values, bigEndian);
  const u16 = (first: number, second: number): Buffer =>
    u32(bigEndian ? first * 0x10000 + second : second * 0x10000 + first);
  const block = (type: number, ...body: Uint8Array[]): Buffer => {
    const length = 12 + body.reduce((sum, part) => sum + part.length, 0);
    return Buffer.concat([u32(type, length), ...body, u32(length)]);
  };
  return Buffer.concat([
    block(0x0a0d0d0a, u32(0x1a2b3c4d), u16(1, 0), u32(0xffffffff, 0xffffffff)),
    block(1, u16(linkType, 0), u32(0), u16(9, 1), Buffer.from('09000000', 'hex'), u32(0)),
    block(5, u32(0, 0, 0)),
    ...frames.map((frame, i) => {
      const time = (1_700_000_000n + BigInt(i)) * 1_000_000_000n + 250_000_000n;
      const head = u32(0, Number(time >> 32n), Number(time & 0xffffffffn), frame.length, frame.length);
      return block(6, head, frame, Buffer.alloc(-frame.length & 3));
    }),
  ]);
}

function numbers(values: readonly number[], bigEndian: boolean): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) {
    if (bigEndian) bytes.writeUInt32BE(value, 4 * i);
    else bytes.writeUInt32LE(value, 4 * i);
  }
  return bytes;
}
