/**
 * Captures as tcpdump, Wireshark and tshark write them: pcap (both octet orders, micro- and nanoseconds) and pcapng.
 *
 * ```
 * pcap    magic (32) | version | ... | link type (32)   then { seconds | fraction | captured | original | octets }
 * pcapng  blocks { type (32) | total length (32) | body | total length (32) }: section header, interface description,
 *         enhanced, simple and (obsolete) packet block; other blocks are passed over
 * ```
 */
import { DecodeError } from '../../proto/errors.ts';

export interface CapturedFrame {
  /** Counted from 1, as in Wireshark. */
  readonly number: number;
  /** Microseconds since 1970; null where the capture has no time. */
  readonly time: number | null;
  /** https://www.tcpdump.org/linktypes.html */
  readonly linkType: number;
  readonly bytes: Uint8Array;
  /** The frame was longer than what was captured of it. */
  readonly cut: boolean;
}

/** @throws DecodeError when it is not a capture, or ends in the middle of something */
export function* readCapture(file: Uint8Array): Generator<CapturedFrame> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 24) throw new DecodeError('capture', 0, 'is neither pcap nor pcapng');
  const magic = view.getUint32(0);
  if (magic === SECTION_HEADER) yield* readPcapng(file, view);
  else yield* readPcap(file, view, magic);
}

function* readPcap(file: Uint8Array, view: DataView, magic: number): Generator<CapturedFrame> {
  const format = PCAP_MAGIC.get(magic);
  if (format === undefined) throw new DecodeError('capture', 0, 'is neither pcap nor pcapng');
  const { little, fraction } = format;
  const linkType = view.getUint32(20, little) & 0xffff;
  let number = 0;
  for (let at = 24; at < file.length; ) {
    need(file, at, 16, 'packet header');
    const captured = view.getUint32(at + 8, little);
    need(file, at + 16, captured, 'packet');
    yield {
      number: ++number,
      time: view.getUint32(at, little) * 1e6 + Math.round((view.getUint32(at + 4, little) * 1e6) / fraction),
      linkType,
      bytes: file.subarray(at + 16, at + 16 + captured),
      cut: view.getUint32(at + 12, little) > captured,
    };
    at += 16 + captured;
  }
}

interface Interface {
  readonly linkType: number;
  /** Of timestamps, per second. */
  readonly resolution: number;
}

function* readPcapng(file: Uint8Array, view: DataView): Generator<CapturedFrame> {
  let little = false;
  let interfaces: Interface[] = [];
  let number = 0;
  for (let at = 0; at < file.length; ) {
    need(file, at, 12, 'block');
    const type = view.getUint32(at, little);
    if (type === SECTION_HEADER) {
      little = view.getUint32(at + 8) !== BYTE_ORDER;
      interfaces = [];
    }
    const length = view.getUint32(at + 4, little);
    if (length < 12 || length % 4 !== 0) throw new DecodeError('block length', at + 4, `${length} is impossible`);
    need(file, at, length, 'block');
    const block = { view, little, start: at + 8, end: at + length - 4 };
    if (type === INTERFACE_DESCRIPTION) interfaces.push(readInterface(block));
    const packet = PACKET_BLOCKS.get(type)?.(block);
    if (packet !== undefined) {
      const captured = packet.data + packet.captured > block.end ? block.end - packet.data : packet.captured;
      const { linkType, resolution } = interfaces[packet.interface] ?? {};
      if (linkType === undefined || resolution === undefined) {
        throw new DecodeError('interface', at, `${packet.interface} is not described before`);
      }
      yield {
        number: ++number,
        time: packet.time === null ? null : Math.round((packet.time / resolution) * 1e6),
        linkType,
        bytes: file.subarray(packet.data, packet.data + captured),
        cut: packet.original > captured,
      };
    }
    at += length;
  }
}

interface Block {
  readonly view: DataView;
  readonly little: boolean;
  readonly start: number;
  readonly end: number;
}

interface PacketBlock {
  readonly interface: number;
  readonly time: number | null;
  readonly captured: number;
  readonly original: number;
  /** Where the frame is. */
  readonly data: number;
}

function readInterface({ view, little, start, end }: Block): Interface {
  if (end - start < 8) throw new DecodeError('interface description', start, 'is too short');
  let resolution = 1e6;
  for (let at = start + 8; at + 4 <= end; ) {
    const code = view.getUint16(at, little);
    const length = view.getUint16(at + 2, little);
    if (code === 0) break;
    if (code === TIMESTAMP_RESOLUTION && length === 1 && at + 4 < end) {
      const value = view.getUint8(at + 4);
      resolution = value < 0x80 ? 10 ** value : 2 ** (value & 0x7f);
    }
    at += 4 + length + (-length & 3);
  }
  return { linkType: view.getUint16(start, little), resolution };
}

function enhancedPacket({ view, little, start, end }: Block): PacketBlock {
  if (end - start < 20) throw new DecodeError('packet block', start, 'is too short');
  return {
    interface: view.getUint32(start, little),
    time: view.getUint32(start + 4, little) * 2 ** 32 + view.getUint32(start + 8, little),
    captured: view.getUint32(start + 12, little),
    original: view.getUint32(start + 16, little),
    data: start + 20,
  };
}

/** As the enhanced one, with an interface of 16 bits and a count of lost packets behind it. */
function obsoletePacket(block: Block): PacketBlock {
  return { ...enhancedPacket(block), interface: block.view.getUint16(block.start, block.little) };
}

function simplePacket({ view, little, start, end }: Block): PacketBlock {
  if (end - start < 4) throw new DecodeError('packet block', start, 'is too short');
  const original = view.getUint32(start, little);
  return { interface: 0, time: null, captured: original, original, data: start + 4 };
}

function need(file: Uint8Array, at: number, length: number, field: string): void {
  if (at + length > file.length) {
    throw new DecodeError(field, at, `${length} octets needed, ${file.length - at} left: the capture is cut off`);
  }
}

/** As big-endian: a magic number that reads the other way round says that everything does. */
const PCAP_MAGIC: ReadonlyMap<number, { readonly little: boolean; readonly fraction: number }> = new Map([
  [0xa1b2c3d4, { little: false, fraction: 1e6 }],
  [0xd4c3b2a1, { little: true, fraction: 1e6 }],
  [0xa1b23c4d, { little: false, fraction: 1e9 }],
  [0x4d3cb2a1, { little: true, fraction: 1e9 }],
]);

/** Reads the same in both octet orders. */
const SECTION_HEADER = 0x0a0d0d0a;
const BYTE_ORDER = 0x1a2b3c4d;
const INTERFACE_DESCRIPTION = 1;
const TIMESTAMP_RESOLUTION = 9;
const PACKET_BLOCKS: ReadonlyMap<number, (block: Block) => PacketBlock> = new Map([
  [2, obsoletePacket],
  [3, simplePacket],
  [6, enhancedPacket],
]);
