/**
 * UDP datagrams with outer headers of one's choice: TTL, ECN, and checksums of zero, which Node's sockets know nothing of.
 * The data plane's program does it (`--raw-udp`), where it may open raw sockets.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { formatHostPort } from '../../runtime/host-port.ts';
import { NotTried } from '../check.ts';
import type { Pacer } from '../pacer.ts';
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
  /** All that came to the own port, oldest first, up to a bound. */
  readonly inbox: RawDatagram[] = [];
  private readonly child: ChildProcessWithoutNullStreams;
  private readonly pacer: Pacer;
  private readonly waiting = new Set<() => void>();
  private said = '';
  private ready: boolean | undefined;

  private constructor(program: string, address: string, port: number, pacer: Pacer) {
    this.pacer = pacer;
    this.child = spawn(program, ['--raw-udp', formatHostPort(address, port)]);
    this.child.stdin.on('error', () => {});
    this.child.stderr.on('data', (part: Buffer) => {
      this.said = `${this.said}${part}`.slice(0, MAX_SAID);
    });
    const ended = (why: string): void => {
      this.ready ??= false;
      this.said ||= why;
      this.wake();
    };
    this.child.on('error', ({ message }) => ended(message));
    this.child.on('close', (code) => ended(`it ended with ${code}`));
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      if (this.ready === undefined) this.ready = true;
      else if (this.inbox.length < MAX_INBOX) this.inbox.push(datagramOf(line));
      this.wake();
    });
  }

  /** `program`: the data plane; beside a socket that has the port. @throws NotTried without it, or without CAP_NET_RAW */
  static async open(program: string | undefined, address: string, port: number, pacer: Pacer): Promise<RawUdp> {
    if (program === undefined) throw new NotTried('It needs stayput-dataplane on this machine, for a raw socket.');
    const raw = new RawUdp(program, address, port, pacer);
    await raw.until(() => raw.ready, START_MS);
    if (raw.ready === true) return raw;
    raw.close();
    throw new NotTried(`It needs a raw socket, and so CAP_NET_RAW (${raw.said.trim() || 'no answer'}).`);
  }

  async send(octets: Octets, address: string, port: number, outer: Partial<OuterHeader> = {}): Promise<void> {
    const { ttl = 64, tos = 0, checksum = 'right' } = outer;
    await this.pacer.turn();
    const hex = Buffer.from(octets).toString('hex');
    this.child.stdin.write(`${formatHostPort(address, port)} ${ttl} ${tos} ${checksum} ${hex}\n`);
  }

  /** The first of those from `from` on that `matches`; undefined when none comes within `ms`. */
  wait<T>(matches: (datagram: RawDatagram) => T | undefined, ms: number, from = 0): Promise<T | undefined> {
    let at = from;
    return this.until(() => {
      for (; at < this.inbox.length; at++) {
        const datagram = this.inbox[at];
        const match = datagram === undefined ? undefined : matches(datagram);
        if (match !== undefined) return match;
      }
      return undefined;
    }, ms);
  }

  close(): void {
    this.child.stdin.end();
    this.child.kill();
  }

  private async until<T>(found: () => T | undefined, ms: number): Promise<T | undefined> {
    const deadline = performance.now() + ms;
    for (;;) {
      const match = found();
      const left = deadline - performance.now();
      if (match !== undefined || left <= 0) return match;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          this.waiting.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, left);
        this.waiting.add(wake);
      });
    }
  }

  private wake(): void {
    for (const wake of this.waiting) wake();
  }
}

/** Of `ADDRESS:PORT TTL TOS CHECKSUM OCTETS`. */
function datagramOf(line: string): RawDatagram {
  const [, ttl, tos, checksum, hex = ''] = line.split(' ');
  const said = checksum === 'zero' || checksum === 'right' ? checksum : 'other';
  return { ttl: Number(ttl), tos: Number(tos), checksum: said, octets: new Uint8Array(Buffer.from(hex, 'hex')) };
}

const MAX_INBOX = 1_000;
const MAX_SAID = 300;
const START_MS = 30_000;
