/** A UDP socket with an inbox that can be waited on; what is sent waits for its turn. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Pacer } from '../pacer.ts';
import type { Octets } from './octets.ts';

export interface Datagram {
  readonly octets: Octets;
  readonly address: string;
  readonly port: number;
}

export interface UdpTarget {
  readonly address: string;
  readonly port: number;
  readonly family: 4 | 6;
}

/** To a port of the target. */
export interface Response {
  readonly octets: Octets;
  readonly port: number;
}

export class UdpPort {
  /** All that came, oldest first; what comes beyond the bound is only counted. */
  readonly inbox: Datagram[] = [];
  overflow = 0;
  private readonly socket: Socket;
  private readonly target: UdpTarget;
  private readonly pacer: Pacer;
  private readonly waiting = new Set<() => void>();
  private responder: ((octets: Octets) => Response | undefined) | undefined;
  private responding = 0;
  private closed = false;

  private constructor(socket: Socket, target: UdpTarget, pacer: Pacer) {
    this.socket = socket;
    this.target = target;
    this.pacer = pacer;
    socket.on('error', () => {});
    socket.on('message', (octets, { address, port }) => {
      if (this.inbox.length < MAX_INBOX) this.inbox.push({ octets: new Uint8Array(octets), address, port });
      else this.overflow++;
      for (const wake of this.waiting) wake();
      const response = this.responder?.(new Uint8Array(octets));
      if (response !== undefined && this.responding < MAX_RESPONDING) void this.answer(response);
    });
  }

  /** @throws an error of the system when the address or port cannot be had */
  static async open(target: UdpTarget, pacer: Pacer, local: { address: string; port?: number }): Promise<UdpPort> {
    const socket = createSocket({ type: target.family === 4 ? 'udp4' : 'udp6', reuseAddr: false });
    try {
      socket.bind(local.port ?? 0, local.address);
      await once(socket, 'listening');
    } catch (error) {
      socket.close();
      throw error;
    }
    return new UdpPort(socket, target, pacer);
  }

  get port(): number {
    return this.socket.address().port;
  }

  /** What comes from now on is also answered, to the target, with what `responder` makes of it, until the port is closed. */
  respond(responder: (octets: Octets) => Response | undefined): void {
    this.responder = responder;
  }

  async send(octets: Octets): Promise<void> {
    await this.pacer.turn();
    await new Promise<void>((resolve) => {
      // That the target is not there is seen by its silence.
      this.socket.send(octets, this.target.port, this.target.address, () => resolve());
    });
  }

  /** The first that `matches`, also of those that came before; undefined when none comes within `ms`. */
  async wait<T>(matches: (datagram: Datagram) => T | undefined, ms: number, from = 0): Promise<T | undefined> {
    const deadline = performance.now() + ms;
    let at = from;
    for (;;) {
      for (; at < this.inbox.length; at++) {
        const datagram = this.inbox[at];
        const match = datagram === undefined ? undefined : matches(datagram);
        if (match !== undefined) return match;
      }
      const left = deadline - performance.now();
      if (left <= 0) return undefined;
      await this.arrival(left);
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.socket.close();
  }

  /** Nobody waits for it: when it is its turn, whoever opened the port may be done. */
  private async answer({ octets, port }: Response): Promise<void> {
    this.responding++;
    await this.pacer.turn();
    this.responding--;
    if (!this.closed && port > 0) this.socket.send(octets, port, this.target.address);
  }

  private arrival(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.waiting.add(wake);
    });
  }
}

const MAX_INBOX = 1_000;
/** Responses that wait for their turn; a target that asks for more does not hold up what it is asked. */
const MAX_RESPONDING = 8;
