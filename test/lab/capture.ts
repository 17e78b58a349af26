/** Packets on the underlay, by tcpdump into a file. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './lab.ts';
import type { LabProcess } from './lab-process.ts';

const PCAP_HEADER = 24;
const RECORD_HEADER = 16;
const ETHERNET = 14;
const IPV4_PROTOCOL_TCP = 6;
const IPV4_PROTOCOL_UDP = 17;

export interface Packet {
  readonly protocol: 'tcp' | 'udp';
  /** Wall clock. */
  readonly atMs: number;
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** As much of it as was captured. */
  readonly payload: Buffer;
  /** Octets of the whole payload. */
  readonly length: number;
}

export interface CaptureOptions {
  /** In the words of pcap-filter(7). */
  readonly filter?: string;
  /** Octets kept of each frame; all of them without it. */
  readonly snap?: number;
}

export class Capture {
  readonly file: string;
  private readonly tcpdump: LabProcess;

  private constructor(file: string, tcpdump: LabProcess) {
    this.file = file;
    this.tcpdump = tcpdump;
  }

  static async start(host: Host, networkInterface: string, options: CaptureOptions = {}): Promise<Capture> {
    const file = join(host.dir, `capture-${networkInterface}-${Math.round(performance.now())}.pcap`);
    const { filter = '', snap = 0 } = options;
    const tcpdump = host.spawn('tcpdump', [
      ...['tcpdump', '-i', networkInterface, '-U', '--immediate-mode', '-Z', 'root', '-s', String(snap), '-w', file],
      ...(filter === '' ? [] : [filter]),
    ]);
    await tcpdump.waitUntil('listening', () => tcpdump.output().includes('listening on'));
    return new Capture(file, tcpdump);
  }

  async stop(): Promise<Buffer> {
    await this.tcpdump.stop('SIGINT');
    return readFileSync(this.file);
  }

  /** UDP over IPv4, unfragmented, in the order seen. */
  datagrams(): Packet[] {
    return this.packets().filter(({ protocol }) => protocol === 'udp');
  }

  /** TCP and UDP over IPv4, unfragmented, in the order seen. */
  packets(): Packet[] {
    return readPackets(readFileSync(this.file));
  }
}

export function readPackets(pcap: Buffer): Packet[] {
  const found: Packet[] = [];
  let at = PCAP_HEADER;
  while (at + RECORD_HEADER <= pcap.length) {
    const atMs = pcap.readUInt32LE(at) * 1000 + pcap.readUInt32LE(at + 4) / 1000;
    const captured = pcap.readUInt32LE(at + 8);
    const frame = pcap.subarray(at + RECORD_HEADER, at + RECORD_HEADER + captured);
    at += RECORD_HEADER + captured;
    if (frame.length < ETHERNET + 28 || frame.readUInt16BE(12) !== 0x0800) continue;
    const packet = readPacket(frame.subarray(ETHERNET), atMs);
    if (packet !== undefined) found.push(packet);
  }
  return found;
}

function readPacket(ip: Buffer, atMs: number): Packet | undefined {
  const isUdp = ip[9] === IPV4_PROTOCOL_UDP;
  if (!isUdp && ip[9] !== IPV4_PROTOCOL_TCP) return undefined;
  const headerLength = ((ip[0] ?? 0) & 15) * 4;
  const segment = ip.subarray(headerLength, ip.readUInt16BE(2));
  const start = isUdp ? 8 : ((segment[12] ?? 0) >> 4) * 4;
  return {
    protocol: isUdp ? 'udp' : 'tcp',
    atMs,
    source: ip.subarray(12, 16).join('.'),
    destination: ip.subarray(16, 20).join('.'),
    sourcePort: segment.readUInt16BE(0),
    destinationPort: segment.readUInt16BE(2),
    payload: Buffer.from(segment.subarray(start)),
    length: ip.readUInt16BE(2) - headerLength - start,
  };
}
