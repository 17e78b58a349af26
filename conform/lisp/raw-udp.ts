/**
 * UDP datagrams with outer headers of one's choice: TTL, ECN, and checksums of zero, which Node's sockets know nothing of.
 * The data plane's program does it (`--raw-udp`), where it may open raw sockets.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { formatHostPort } from '../../runtime/host-port.ts';
import { NotTried } from '../check.ts';
import type { Pacer } from '../pacer.ts';
import { Inbox } from './inbox.ts';
import type { Octets } from './octets.ts';

export interface OuterHeader {
  readonly ttl: number;
  /** DSCP and ECN. */
  readonly tos: number;
  /** Of UDP; `other`, of what came: wrong, or left to the interface. */
  readonly checksum: 'right' | 'zero' | 'other';
}

export interface RawDatagram extends OuterHeader {
  readonly octets: Octets;
}

export class RawUdp {
  private readonly arrived = new Inbox<RawDatagram>();
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly pacer: Pacer;
  /** Rejects with what the program said, or how it ended. */
  private readonly ready: Promise<void>;

  private constructor(child: ChildProcessWithoutNullStreams, pacer: Pacer) {
    this.child = child;
    this.pacer = pacer;
    child.stdin.on('error', () => {});
    this.ready = new Promise((resolve, reject) => {
      let said = '';
      child.stderr.on('data', (part: Buffer) => {
        said = `${said}${part}`.slice(0, MAX_SAID);
      });
      child.on('error', reject);
      child.on('close', (code) => reject(new Error(said.trim() || `it ended with ${code}`)));
      const lines = createInterface({ input: child.stdout });
      lines.once('line', () => {
        lines.on('line', (line) => this.arrived.add(datagramOf(line)));
        resolve();
      });
    });
  }

  /** `program`: the data plane; beside a socket that has the port. @throws NotTried without it, or without CAP_NET_RAW */
  static async open(program: string | undefined, address: string, port: number, pacer: Pacer): Promise<RawUdp> {
    if (program === undefined) throw new NotTried('It needs stayput-dataplane on this machine, for a raw socket.');
    const raw = new RawUdp(spawn(program, ['--raw-udp', formatHostPort(address, port)]), pacer);
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('no answer')), START_MS);
    });
    try {
      await Promise.race([raw.ready, limit]);
      return raw;
    } catch (error) {
      raw.close();
      throw new NotTried(`It needs a raw socket, and so CAP_NET_RAW (${(error as Error).message}).`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** All that came to the own port, oldest first, up to a bound. */
  get inbox(): readonly RawDatagram[] {
    return this.arrived.all;
  }

  async send(octets: Octets, address: string, port: number, outer: Partial<OuterHeader> = {}): Promise<void> {
    const { ttl = 64, tos = 0, checksum = 'right' } = outer;
    await this.pacer.turn();
    const hex = Buffer.from(octets).toString('hex');
    this.child.stdin.write(`${formatHostPort(address, port)} ${ttl} ${tos} ${checksum} ${hex}\n`);
  }

  /** See `Inbox.wait`. */
  wait<T>(matches: (datagram: RawDatagram) => T | undefined, ms: number, from = 0): Promise<T | undefined> {
    return this.arrived.wait(matches, ms, from);
  }

  close(): void {
    this.child.stdin.end();
    this.child.kill();
  }
}

/** Of `ADDRESS:PORT TTL TOS CHECKSUM OCTETS`. */
function datagramOf(line: string): RawDatagram {
  const [, ttl, tos, checksum, hex = ''] = line.split(' ');
  const said = checksum === 'zero' || checksum === 'right' ? checksum : 'other';
  return { ttl: Number(ttl), tos: Number(tos), checksum: said, octets: new Uint8Array(Buffer.from(hex, 'hex')) };
}

const MAX_SAID = 300;
const START_MS = 30_000;
