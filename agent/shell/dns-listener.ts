/**
 * The sockets that clients ask: one UDP and one TCP socket for each listen address, opened here or, if there are such,
 * taken over from whoever started the agent.
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import type { EventEmitter } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type DnsTransport, MAX_QUERY } from '../../proto/dns/message.ts';
import { UsageError } from '../../proto/errors.ts';
import { onBothTransports } from '../../runtime/any-port.ts';
import { FrameReader, frame } from '../../runtime/dns-stream.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import type { InheritedSockets } from '../../runtime/inherited-sockets.ts';

/** Somebody who waits for an answer. Exactly one of the two is called. */
export interface DnsClient {
  readonly address: string;
  reply(packet: Uint8Array): void;
  ignore(): void;
}

/** `stranger`: not from this host, on an address where only this host may ask. */
export type DnsPacketHandler = (
  client: DnsClient,
  packet: Uint8Array,
  transport: DnsTransport,
  stranger: boolean,
) => void;

export interface DnsListener {
  readonly host: string;
  readonly port: number;
  close(): Promise<void>;
}

/** @throws UsageError when the address cannot be had */
export async function listenForDns(
  listen: string,
  inherited: InheritedSockets,
  handle: DnsPacketHandler,
): Promise<DnsListener> {
  const { host, port } = parseHostPort(listen);
  return await onBothTransports(port, async () => {
    const { server, close: closeTcp } = tcpServer(host, handle);
    const taken = await bindTcp(server, host, port, inherited.take('tcp', host, port));
    try {
      const udp = await udpSocket(host, taken, inherited.take('udp', host, port), handle);
      return {
        host,
        port: taken,
        close: async () => {
          await Promise.all([closeTcp(), new Promise<void>((resolve) => udp.close(() => resolve()))]);
        },
      };
    } catch (error) {
      await closeTcp();
      throw error;
    }
  });
}

export function isOwnHost(host: string): boolean {
  if (isLoopback(host)) return true;
  return Object.values(networkInterfaces()).some((addresses) =>
    addresses?.some(({ address, scopeid }) => address === host || `${address}%${scopeid}` === host),
  );
}

export function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}

async function udpSocket(
  host: string,
  port: number,
  fd: number | undefined,
  handle: DnsPacketHandler,
): Promise<UdpSocket> {
  const socket = createSocket({
    type: host.includes(':') ? 'udp6' : 'udp4',
    ipv6Only: host.includes(':') && host !== '::',
    // Clients are addresses; the default takes another turn of the loop to find that out.
    lookup: (address, _options, done) => done(null, address, host.includes(':') ? 6 : 4),
  });
  const strangers = isWildcard(host);
  socket.on('message', (packet, from) => {
    if (from.port !== 0) handle(new UdpClient(socket, from), packet, 'udp', strangers && isStranger(from.address));
  });
  await bound(socket, formatHostPort(host, port), 'udp', (done) =>
    socket.bind({ ...(fd === undefined ? { address: host, port } : { fd }), exclusive: true }, done),
  );
  // E.g. ECONNREFUSED for an earlier answer.
  socket.on('error', () => {});
  return socket;
}

class UdpClient implements DnsClient {
  readonly #socket: UdpSocket;
  readonly #from: RemoteInfo;

  constructor(socket: UdpSocket, from: RemoteInfo) {
    this.#socket = socket;
    this.#from = from;
  }

  get address(): string {
    return this.#from.address;
  }

  /** Without a callback, which costs a turn of the queue: a client that has gone is not our trouble. */
  reply(answer: Uint8Array): void {
    this.#socket.send(answer, this.#from.port, this.#from.address);
  }

  ignore(): void {}
}

function tcpServer(host: string, handle: DnsPacketHandler): { server: Server; close(): Promise<void> } {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    serveStream(socket, isWildcard(host) && isStranger(socket.remoteAddress ?? ''), handle);
  });
  server.maxConnections = MAX_CONNECTIONS;
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  return { server, close };
}

function serveStream(socket: Socket, stranger: boolean, handle: DnsPacketHandler): void {
  const reader = new FrameReader(MAX_QUERY);
  const address = socket.remoteAddress ?? '';
  const queued: Buffer[] = [];
  let outstanding = 0;
  let ended = false;
  const idle = setTimeout(() => socket.destroy(), IDLE_TIME);
  const serve = (): void => {
    if (socket.destroyed) return;
    while (outstanding < MAX_PIPELINED) {
      const packet = queued.shift();
      if (packet === undefined) break;
      outstanding += 1;
      // Only a whole message shows that there is somebody (RFC 7766 section 6.2.3).
      idle.refresh();
      handle({ address, reply: (answer) => settle(answer), ignore: () => settle(undefined) }, packet, 'tcp', stranger);
    }
    if (queued.length > 0) socket.pause();
    else if (socket.isPaused()) socket.resume();
    if (ended && outstanding === 0 && queued.length === 0) socket.end();
  };
  const settle = (answer: Uint8Array | undefined): void => {
    outstanding -= 1;
    if (socket.destroyed) return;
    if (answer !== undefined) socket.write(frame(answer));
    if (socket.writableLength > MAX_UNREAD) socket.destroy();
    else queueMicrotask(serve);
  };
  socket.on('data', (chunk) => {
    try {
      queued.push(...reader.push(chunk));
      serve();
    } catch {
      socket.destroy();
    }
  });
  socket.on('end', () => {
    ended = true;
    serve();
  });
  socket.on('error', () => socket.destroy());
  socket.once('close', () => clearTimeout(idle));
}

function isStranger(remote: string): boolean {
  return !isOwnHost(remote.startsWith('::ffff:') ? remote.slice(7) : remote);
}

function bound(
  socket: EventEmitter,
  where: string,
  transport: DnsTransport,
  bind: (done: () => void) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException): void => {
      const reason = cause.code ?? cause.message;
      reject(
        new UsageError(`DNS cannot listen on ${where}/${transport} (${reason})${ADVICE[reason] ?? ''}`, { cause }),
      );
    };
    socket.once('error', failed);
    bind(() => {
      socket.off('error', failed);
      resolve();
    });
  });
}

function isLoopback(host: string): boolean {
  return host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

async function bindTcp(server: Server, host: string, port: number, fd: number | undefined): Promise<number> {
  await bound(server, formatHostPort(host, port), 'tcp', (done) =>
    server.listen(fd === undefined ? { port, host } : { fd }, done),
  );
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

const MAX_CONNECTIONS = 128;
/** Questions of one connection that are worked on at a time; more wait in the socket. */
const MAX_PIPELINED = 32;
/** Octets of answers that a client may leave unread. */
const MAX_UNREAD = 512 * 1024;
const IDLE_TIME = 10_000;
const ADVICE: Readonly<Record<string, string>> = {
  EADDRINUSE: ': another program answers DNS there; choose another address in dns.listen',
  EACCES: ': a port below 1024 needs CAP_NET_BIND_SERVICE',
  EADDRNOTAVAIL: ': this host does not have the address',
};
