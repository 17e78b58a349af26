/**
 * TCP and TLS connections to upstream resolvers (RFC 7766, RFC 7858): one to each, with several questions on it at a
 * time, kept for ten seconds after the last.
 *
 * A server may close a connection that it finds idle just when a question is sent on it, so what was lost in this way is
 * asked once more on a new one. A connection on which a question was given up after a while is suspected to be dead and
 * gets no new ones. A certificate that does not have the name that was configured ends the connection before anything
 * is asked.
 */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { MAX_TCP } from '../../proto/dns/message.ts';
import { FrameReader, frame } from '../../runtime/dns-stream.ts';
import type { TransmitId } from '../core/dns-forwarder.ts';
import type { Upstream } from '../core/dns-upstreams.ts';
import type { UpstreamEvents } from './dns-upstream.ts';

type StreamTransport = 'tcp' | 'tls';

interface Waiting {
  readonly transmit: TransmitId;
  readonly packet: Uint8Array;
  readonly since: number;
  /** It was lost with another connection before. */
  readonly again: boolean;
}

export class UpstreamStreams {
  readonly #events: UpstreamEvents;
  readonly #authorities: string | undefined;
  readonly #connections = new Map<string, Connection>();
  readonly #retired = new Set<Connection>();

  constructor(events: UpstreamEvents, authorities: string | undefined) {
    this.#events = events;
    this.#authorities = authorities;
  }

  /** Returns what cancels it. */
  send(transmit: TransmitId, upstream: Upstream, transport: StreamTransport, packet: Uint8Array): () => void {
    const waiting: Waiting = { transmit, packet, since: performance.now(), again: false };
    this.#put(upstream, transport, waiting);
    return () => {
      for (const [key, connection] of this.#connections) {
        if (connection.forget(transmit) && performance.now() - waiting.since > DEAD_AFTER)
          this.#retire(key, connection);
      }
      for (const connection of this.#retired) connection.forget(transmit);
    };
  }

  retireAll(): void {
    for (const [key, connection] of [...this.#connections]) this.#retire(key, connection);
  }

  close(): void {
    this.retireAll();
    for (const connection of [...this.#retired]) connection.destroy();
  }

  #put(upstream: Upstream, transport: StreamTransport, waiting: Waiting): void {
    const key = `${transport} ${upstream.host} ${upstream.port} ${upstream.tls?.name ?? ''}`;
    let connection = this.#connections.get(key);
    // Answers are told apart by their IDs.
    if (connection?.isWaitingFor(waiting.packet) === true) this.#retire(key, connection);
    connection = this.#connections.get(key);
    if (connection === undefined) {
      const socket = this.#open(upstream, transport);
      const opened = new Connection(socket, this.#events, (lost, hadAnswered) => {
        this.#retired.delete(opened);
        if (this.#connections.get(key) === opened) this.#connections.delete(key);
        for (const each of lost) {
          if (!hadAnswered || each.again) this.#events.failed(each.transmit);
          else this.#put(upstream, transport, { ...each, again: true });
        }
      });
      this.#connections.set(key, opened);
      connection = opened;
    }
    connection.ask(waiting);
  }

  /** Gets no new questions, and ends with the answers to those that it has. */
  #retire(key: string, connection: Connection): void {
    this.#connections.delete(key);
    this.#retired.add(connection);
    connection.retire();
  }

  #open({ host, port, tls }: Upstream, transport: StreamTransport): Socket {
    if (transport === 'tcp') return connect({ host, port, noDelay: true });
    return connectTls({
      host,
      port,
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['dot'],
      ...(tls?.name === undefined || tls.name === '' ? {} : { servername: tls.name }),
      ...(this.#authorities === undefined ? {} : { ca: this.#authorities }),
    }).setNoDelay(true);
  }
}

class Connection {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #answered = false;
  #retired = false;
  #ended = false;

  constructor(socket: Socket, events: UpstreamEvents, ended: (lost: readonly Waiting[], hadAnswered: boolean) => void) {
    this.#socket = socket;
    const reader = new FrameReader(MAX_TCP);
    socket.setTimeout(IDLE_TIME);
    const end = (): void => {
      if (this.#ended) return;
      this.#ended = true;
      socket.destroy();
      const lost = [...this.#waiting.values()];
      this.#waiting.clear();
      ended(lost, this.#answered);
    };
    socket.on('data', (chunk) => {
      for (const answer of reader.push(chunk)) {
        const id = idOf(answer);
        const waiting = id === undefined ? undefined : this.#waiting.get(id);
        if (id === undefined || waiting === undefined) continue;
        this.#waiting.delete(id);
        this.#answered = true;
        events.received(waiting.transmit, answer);
      }
      if (this.#retired && this.#waiting.size === 0) end();
    });
    for (const event of ['error', 'end', 'close', 'timeout']) socket.on(event, end);
  }

  isWaitingFor(packet: Uint8Array): boolean {
    const id = idOf(packet);
    return id !== undefined && this.#waiting.has(id);
  }

  ask(waiting: Waiting): void {
    const id = idOf(waiting.packet);
    if (id !== undefined) this.#waiting.set(id, waiting);
    this.#socket.write(frame(waiting.packet));
  }

  /** Whether it was waited for. */
  forget(transmit: TransmitId): boolean {
    for (const [id, waiting] of this.#waiting) {
      if (waiting.transmit !== transmit) continue;
      this.#waiting.delete(id);
      if (this.#retired && this.#waiting.size === 0) this.destroy();
      return true;
    }
    return false;
  }

  retire(): void {
    this.#retired = true;
    if (this.#waiting.size === 0) this.destroy();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

function idOf(packet: Uint8Array): number | undefined {
  return packet.length < 2 ? undefined : ((packet[0] ?? 0) << 8) | (packet[1] ?? 0);
}

/** Milliseconds. */
const IDLE_TIME = 10_000;
const DEAD_AFTER = 2000;
