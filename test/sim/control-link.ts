/**
 * The agent's connection to the map server, as `agent/shell/map-server-link.ts` keeps it: one session, a second connection
 * beside it when this host's address changes, and attempts at growing distances while there is none.
 */
import { CLOSE } from '../../mapserver/core/actions.ts';
import type { IpAddress } from '../../proto/address.ts';
import { encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { type Millis, seconds } from '../../proto/time.ts';
import { ContractError } from './contract.ts';
import { type ControlStream, type FromMapServer, MAP_SERVER, type Welcome } from './map-server.ts';
import type { World } from './world.ts';

export interface ControlLinkListener {
  onSession(welcome: Welcome): void;
  onMessage(bytes: Uint8Array): void;
  onLost(): void;
}

interface Connection {
  readonly stream: ControlStream;
  readonly address: IpAddress;
  welcomed: boolean;
}

export class ControlLink {
  private readonly world: World;
  private readonly node: string;
  private readonly address: () => IpAddress | null;
  private readonly accept: (stream: ControlStream, address: IpAddress, connection: number) => void;
  private readonly listener: ControlLinkListener;
  private session: Connection | null = null;
  private candidate: Connection | null = null;
  /** The attempt that is planned; a number so that an older plan does nothing. */
  private plan = 0;
  private planned = false;
  private failures = 0;
  private connections = 0;
  private closed = false;

  constructor(
    world: World,
    node: string,
    address: () => IpAddress | null,
    accept: (stream: ControlStream, address: IpAddress, connection: number) => void,
    listener: ControlLinkListener,
  ) {
    this.world = world;
    this.node = node;
    this.address = address;
    this.accept = accept;
    this.listener = listener;
    this.open();
  }

  /** Dropped when there is no session. */
  send(message: LispMessage): void {
    this.session?.stream.sendToServer(encodeLispMessage(message));
  }

  get connected(): boolean {
    return this.session !== null;
  }

  handleAddresses(addresses: readonly IpAddress[]): void {
    if (this.closed) return;
    this.failures = 0;
    if (this.session !== null && addresses.includes(this.session.address)) return;
    this.abandonCandidate();
    this.open();
  }

  /** The process is gone, and with it its connections. */
  close(): void {
    this.closed = true;
    this.plan++;
    this.abandonCandidate();
    this.session?.stream.abandonByClient();
    this.session = null;
  }

  private open(): void {
    if (this.closed || this.candidate !== null) return;
    this.plan++;
    this.planned = false;
    const address = this.address();
    if (address === null) {
      this.retry();
      return;
    }
    const { clock, network } = this.world;
    const number = ++this.connections;
    const stream = network.open<FromMapServer, Uint8Array>(this.node, address, MAP_SERVER);
    const connection: Connection = { stream, address, welcomed: false };
    this.candidate = connection;
    stream.listenAsClient({
      onMessage: (message) => this.handle(connection, message),
      onEnd: (code) => this.handleEnd(connection, code),
    });
    // TCP and TLS: two round trips, if there is a way.
    clock.after(4 * network.delay(), () => {
      if (stream.isOpen) this.accept(stream, address, number);
    });
    clock.after(HANDSHAKE, () => {
      if (this.candidate !== connection) return;
      stream.abandonByClient();
      this.handleEnd(connection, null);
    });
  }

  private handle(connection: Connection, message: FromMapServer): void {
    if (!connection.welcomed) {
      connection.welcomed = true;
      if (!(message instanceof Uint8Array)) this.handleWelcome(connection, message);
      return;
    }
    if (this.session === connection && message instanceof Uint8Array) this.listener.onMessage(message);
  }

  private handleWelcome(connection: Connection, welcome: Welcome): void {
    if (this.candidate !== connection) {
      connection.stream.abandonByClient();
      return;
    }
    const previous = this.session;
    this.candidate = null;
    this.session = connection;
    this.failures = 0;
    previous?.stream.abandonByClient();
    this.listener.onSession(welcome);
  }

  private handleEnd(connection: Connection, code: number | null): void {
    if (this.candidate === connection) this.candidate = null;
    const wasSession = this.session === connection;
    if (wasSession) this.session = null;
    if (this.closed) return;
    if (wasSession) this.listener.onLost();
    if (code === CLOSE.fenced) throw new ContractError(`${this.node} was taken for a copy of itself`);
    if (this.candidate !== null || this.planned) return;
    if (code !== null && code >= 4000) this.retry(SLOW_RETRY);
    else this.retry();
  }

  private retry(delay = this.world.chance.between(0.5, 1) * Math.min(100 * 2 ** this.failures++, 5000)): void {
    const plan = ++this.plan;
    this.planned = true;
    this.world.clock.after(delay, () => {
      if (this.plan !== plan || this.closed) return;
      this.planned = false;
      this.open();
    });
  }

  private abandonCandidate(): void {
    this.candidate?.stream.abandonByClient();
    this.candidate = null;
  }
}

const HANDSHAKE: Millis = seconds(3);
const SLOW_RETRY: Millis = seconds(10);
