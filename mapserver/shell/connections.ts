/**
 * TCP connections before and while they are sessions: how many, from where, how fast they come, and how long one may
 * take to become a session. Whoever is slow in the TLS handshake, in the headers, in the body or in the upgrade runs
 * into one of two deadlines; when too many wait, the oldest gives way, since an honest one is through after a few
 * round trips.
 */
import type { Socket } from 'node:net';
import type { Instant } from '../../proto/time.ts';
import type { MapServerSettings } from '../config.ts';
import { RateTable } from '../core/rate-table.ts';
import type { LimitReports } from './limit-reports.ts';
import { sourceOf } from './source-address.ts';

interface Connection {
  readonly socket: Socket;
  readonly source: string;
  waiting: boolean;
  deadline: NodeJS.Timeout | undefined;
}

interface SourceCount {
  connections: number;
  waiting: number;
}

export class Connections {
  private readonly limits: MapServerSettings['limits'];
  private readonly reports: LimitReports;
  private readonly rates: RateTable;
  private readonly bySource = new Map<string, SourceCount>();
  /** By the ends of the connection: the TLS socket is another object than that of TCP below it. */
  private readonly connections = new Map<string, Connection>();
  /** The oldest first. */
  private readonly waiting = new Set<Connection>();

  constructor(limits: MapServerSettings['limits'], reports: LimitReports) {
    this.limits = limits;
    this.reports = reports;
    const perSecond = limits.connectionsPerSecondAndAddress;
    this.rates = new RateTable(perSecond, BURST_SECONDS * perSecond, MAX_SOURCES);
  }

  get counts(): { readonly sessions: number; readonly waiting: number } {
    return { sessions: this.connections.size - this.waiting.size, waiting: this.waiting.size };
  }

  /** A TCP connection that was accepted. False if it is closed again. */
  admit(socket: Socket, now: Instant): boolean {
    const source = sourceOf(socket);
    const count = this.bySource.get(source) ?? { connections: 0, waiting: 0 };
    const refusal = this.refusal(source, count, now);
    if (refusal !== undefined) {
      this.reports.hit(refusal, source);
      socket.destroy();
      return false;
    }
    this.makeRoom();
    const key = keyOf(socket);
    const connection: Connection = { socket, source, waiting: true, deadline: undefined };
    this.limit(connection, 'handshakeSeconds');
    this.bySource.set(source, count);
    count.connections++;
    count.waiting++;
    this.connections.set(key, connection);
    this.waiting.add(connection);
    socket.once('close', () => {
      this.connections.delete(key);
      this.endWaiting(connection);
      if (--count.connections === 0) this.bySource.delete(source);
    });
    return true;
  }

  /** Its TLS handshake is complete. */
  secured(socket: Socket): void {
    const connection = this.connections.get(keyOf(socket));
    if (connection?.waiting === true) this.limit(connection, 'requestSeconds');
  }

  /** It is the session of an agent now. */
  authenticated(socket: Socket): void {
    const connection = this.connections.get(keyOf(socket));
    if (connection !== undefined) this.endWaiting(connection);
  }

  destroyAll(): void {
    for (const { socket } of this.connections.values()) socket.destroy();
  }

  private refusal(source: string, count: SourceCount, now: Instant): keyof MapServerSettings['limits'] | undefined {
    if (!this.rates.tryTake(source, now)) return 'connectionsPerSecondAndAddress';
    if (this.connections.size >= this.limits.connections) return 'connections';
    if (count.connections >= this.limits.connectionsPerAddress) return 'connectionsPerAddress';
    if (count.waiting >= this.limits.waitingConnectionsPerAddress) return 'waitingConnectionsPerAddress';
    return undefined;
  }

  private makeRoom(): void {
    for (const oldest of this.waiting) {
      if (this.waiting.size < this.limits.waitingConnections) return;
      this.reports.hit('waitingConnections', oldest.source);
      this.endWaiting(oldest);
      oldest.socket.destroy();
    }
  }

  private limit(connection: Connection, limit: 'handshakeSeconds' | 'requestSeconds'): void {
    clearTimeout(connection.deadline);
    const deadline = setTimeout(() => {
      this.reports.hit(limit, connection.source);
      connection.socket.destroy();
    }, this.limits[limit] * 1000);
    connection.deadline = deadline.unref();
  }

  private endWaiting(connection: Connection): void {
    clearTimeout(connection.deadline);
    if (!connection.waiting) return;
    connection.waiting = false;
    this.waiting.delete(connection);
    const count = this.bySource.get(connection.source);
    if (count !== undefined) count.waiting--;
  }
}

function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

const BURST_SECONDS = 10;
const MAX_SOURCES = 65_536;
