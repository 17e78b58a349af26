/** A UDP socket with an inbox that can be waited on; what is sent waits for its turn. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Pacer } from '../pacer.ts';
import { Inbox } from './inbox.ts';
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
  private readonly arrived = new Inbox<Datagram>();
  private readonly socket: Socket;
  private readonly target: UdpTarget;
  private readonly pacer: Pacer;
  private responder: ((octets: Octets) => Response | undefined) | undefined;
  private responding = 0;
  private closed = false;

  private constructor(socket: Socket, target: UdpTarget, pacer: Pacer) {
    this.socket = socket;
    this.target = target;
    this.pacer = pacer;
    socket.on('error', () => {});
    socket.on('message', (octets, { address, port }) => {
      this.arrived.add({ octets: new Uint8Array(octets), address, port });
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

  /** All that came, oldest first, up to a bound. */
  get inbox(): readonly Datagram[] {
    return this.arrived.all;
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

  /** See `Inbox.wait`. */
  wait<T>(matches: (datagram: Datagram) => T | undefined, ms: number, from = 0): Promise<T | undefined> {
    return this.arrived.wait(matches, ms, from);
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
}

/** Responses that wait for their turn; a target that asks for more does not hold up what it is asked. */
const MAX_RESPONDING = 8;
