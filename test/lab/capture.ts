/** Packets on the underlay, by tcpdump into a file. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './lab.ts';
import type { LabProcess } from './lab-process.ts';

const PCAP_HEADER = 24;
const RECORD_HEADER = 16;
const ETHERNET = 14;
const IPV4_PROTOCOL_UDP = 17;

export interface Datagram {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Buffer;
}

export class Capture {
  readonly file: string;
  private readonly tcpdump: LabProcess;

  private constructor(file: string, tcpdump: LabProcess) {
    this.file = file;
    this.tcpdump = tcpdump;
  }

  static async start(host: Host, networkInterface: string, filter = ''): Promise<Capture> {
    const file = join(host.dir, `capture-${Math.round(performance.now())}.pcap`);
    const tcpdump = host.spawn('tcpdump', [
      ...['tcpdump', '-i', networkInterface, '-U', '--immediate-mode', '-Z', 'root', '-s', '0', '-w', file],
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
  datagrams(): Datagram[] {
    return readDatagrams(readFileSync(this.file));
  }
}

function readDatagrams(pcap: Buffer): Datagram[] {
  const found: Datagram[] = [];
  let at = PCAP_HEADER;
  while (at + RECORD_HEADER <= pcap.length) {
    const length = pcap.readUInt32LE(at + 8);
    const frame = pcap.subarray(at + RECORD_HEADER, at + RECORD_HEADER + length);
    at += RECORD_HEADER + length;
    const ip = frame.subarray(ETHERNET);
    if (frame.length < ETHERNET + 28 || frame.readUInt16BE(12) !== 0x0800 || ip[9] !== IPV4_PROTOCOL_UDP) continue;
    const udp = ip.subarray(((ip[0] ?? 0) & 15) * 4, ip.readUInt16BE(2));
    found.push({
      source: ip.subarray(12, 16).join('.'),
      destination: ip.subarray(16, 20).join('.'),
      sourcePort: udp.readUInt16BE(0),
      destinationPort: udp.readUInt16BE(2),
      payload: Buffer.from(udp.subarray(8)),
    });
  }
  return found;
}
