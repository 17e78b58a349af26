/**
 * Sockets towards upstream resolvers. Over UDP one for each transmit: a fresh random source port against spoofed
 * answers (RFC 5452), connected so that the kernel drops other senders, routed as the host is connected at that moment.
 * Over TCP and TLS the connection to each resolver is kept and shared (`dns-upstream-streams.ts`).
 */
import { createSocket } from 'node:dgram';
import type { TransmitId } from '../core/dns-forwarder.ts';
import type { Upstream, UpstreamTransport } from '../core/dns-upstreams.ts';
import { UpstreamStreams } from './dns-upstream-streams.ts';

export interface UpstreamEvents {
  received(transmit: TransmitId, packet: Uint8Array): void;
  failed(transmit: TransmitId): void;
}

export class UpstreamSockets {
  readonly #events: UpstreamEvents;
  readonly #open = new Map<TransmitId, () => void>();
  readonly #streams: UpstreamStreams;

  /** `authorities` (PEM) are trusted for DNS over TLS; without them those that Node trusts. */
  constructor(events: UpstreamEvents, authorities: string | undefined) {
    this.#events = events;
    this.#streams = new UpstreamStreams(events, authorities);
  }

  send(transmit: TransmitId, upstream: Upstream, transport: UpstreamTransport, packet: Uint8Array): void {
    try {
      if (transport === 'udp') this.#open.set(transmit, this.#sendUdp(transmit, upstream, packet));
      else this.#open.set(transmit, this.#streams.send(transmit, upstream, transport, packet));
    } catch {
      // E.g. no file descriptor is left. Not reported from inside the call: the caller is still performing actions.
      queueMicrotask(() => this.#events.failed(transmit));
    }
  }

  cancel(transmit: TransmitId): void {
    this.#open.get(transmit)?.();
    this.#open.delete(transmit);
  }

  /** The host may be connected to another network now. */
  renew(): void {
    this.#streams.retireAll();
  }

  close(): void {
    for (const transmit of [...this.#open.keys()]) this.cancel(transmit);
    this.#streams.close();
  }

  #sendUdp(transmit: TransmitId, { host, port }: Upstream, packet: Uint8Array): () => void {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    let closed = false;
    socket.on('error', () => this.#events.failed(transmit));
    socket.on('message', (answer) => this.#events.received(transmit, answer));
    // The typings have no error here, Node passes one (e.g. ENETUNREACH).
    socket.connect(port, host, (error?: Error) => {
      if (closed) return;
      if (error) this.#events.failed(transmit);
      else socket.send(packet, (failure) => failure && !closed && this.#events.failed(transmit));
    });
    return () => {
      closed = true;
      socket.close();
    };
  }
}
