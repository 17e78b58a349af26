/**
 * Sockets towards upstream resolvers, one for each transmit: a fresh random source port against spoofed answers
 * (RFC 5452), connected so that the kernel drops other senders, routed as the host is connected at that moment.
 */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { MAX_TCP } from '../../proto/dns/message.ts';
import { FrameReader, frame } from '../../runtime/dns-stream.ts';
import type { TransmitId } from '../core/dns-forwarder.ts';
import type { Upstream, UpstreamTransport } from '../core/dns-upstreams.ts';

export interface UpstreamEvents {
  received(transmit: TransmitId, packet: Uint8Array): void;
  failed(transmit: TransmitId): void;
}

export class UpstreamSockets {
  readonly #events: UpstreamEvents;
  readonly #open = new Map<TransmitId, () => void>();

  constructor(events: UpstreamEvents) {
    this.#events = events;
  }

  send(transmit: TransmitId, upstream: Upstream, transport: UpstreamTransport, packet: Uint8Array): void {
    try {
      const close =
        transport === 'udp' ? this.#sendUdp(transmit, upstream, packet) : this.#sendTcp(transmit, upstream, packet);
      this.#open.set(transmit, close);
    } catch {
      // E.g. no file descriptor is left. Not reported from inside the call: the caller is still performing actions.
      queueMicrotask(() => this.#events.failed(transmit));
    }
  }

  cancel(transmit: TransmitId): void {
    this.#open.get(transmit)?.();
    this.#open.delete(transmit);
  }

  close(): void {
    for (const transmit of [...this.#open.keys()]) this.cancel(transmit);
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

  #sendTcp(transmit: TransmitId, { host, port }: Upstream, packet: Uint8Array): () => void {
    const socket = connect({ host, port, noDelay: true });
    const reader = new FrameReader(MAX_TCP);
    socket.on('error', () => this.#events.failed(transmit));
    socket.on('end', () => this.#events.failed(transmit));
    socket.on('data', (chunk) => {
      for (const answer of reader.push(chunk)) this.#events.received(transmit, answer);
    });
    socket.write(frame(packet));
    return () => {
      socket.destroy();
    };
  }
}
