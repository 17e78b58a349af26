/** The sockets of the zone's name server: one of UDP and one of TCP on an address. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import { type IpAddress, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { MAX_TCP } from '../../proto/dns/message.ts';
import { UsageError } from '../../proto/errors.ts';
import { onBothTransports } from '../../runtime/any-port.ts';
import { FrameReader, frame } from '../../runtime/dns-stream.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import { remoteAddressOf, sourceOf } from './source-address.ts';

/** Somebody who waits for an answer. */
export interface ZoneClient {
  /** Takes the messages as fast as they can be sent, to the end or until the client is gone. */
  answer(messages: Iterator<Uint8Array>): Promise<void>;
  /** There is none. */
  ignore(): void;
}

export type ZoneRequestHandler = (
  client: ZoneClient,
  packet: Uint8Array,
  transport: 'udp' | 'tcp',
  from: IpAddress,
) => void;

export interface ZoneListener {
  /** HOST:PORT, as bound. */
  readonly address: string;
  close(): Promise<void>;
}

/** @throws UsageError when the address cannot be had */
export async function listenForZone(listen: string, handle: ZoneRequestHandler): Promise<ZoneListener> {
  const { host, port } = parseHostPort(listen);
  try {
    return await onBothTransports(port, () => listenAt(host, port, handle));
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new UsageError(`the zone cannot be served on ${listen} (${reason})`, { cause });
  }
}

async function listenAt(host: string, port: number, handle: ZoneRequestHandler): Promise<ZoneListener> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const source = sourceOf(socket);
    const others = [...sockets].filter((each) => sourceOf(each) === source);
    if (others.length >= MAX_CONNECTIONS_PER_SOURCE) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    void serveStream(socket, handle);
  });
  server.maxConnections = MAX_CONNECTIONS;
  try {
    const taken = await bindTcp(server, host, port);
    const udp = await bindUdp(host, taken, handle);
    return {
      address: formatHostPort(host, taken),
      close: async () => {
        for (const socket of sockets) socket.destroy();
        await Promise.all([
          new Promise<void>((resolve) => server.close(() => resolve())),
          new Promise<void>((resolve) => udp.close(() => resolve())),
        ]);
      },
    };
  } catch (error) {
    server.close();
    throw error;
  }
}

async function bindTcp(server: Server, host: string, port: number): Promise<number> {
  server.listen(port, host);
  await once(server, 'listening');
  // A connection that could not be taken, e.g. ENFILE: others can.
  server.on('error', () => {});
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function bindUdp(host: string, port: number, handle: ZoneRequestHandler): Promise<UdpSocket> {
  const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', ipv6Only: host.includes(':') });
  socket.on('message', (packet, { address, port: from }) => {
    if (from === 0) return;
    const client: ZoneClient = {
      answer: async (messages) => {
        const { value } = messages.next();
        // A client that has gone is not our trouble.
        if (value !== undefined) socket.send(value, from, address, () => {});
      },
      ignore: () => {},
    };
    handle(client, packet, 'udp', addressOf(address));
  });
  socket.bind({ address: host, port, exclusive: true });
  await once(socket, 'listening');
  // E.g. ECONNREFUSED for an earlier answer; each send has its own callback.
  socket.on('error', () => {});
  return socket;
}

/** One request after the other: the next is read when the last is answered. */
async function serveStream(socket: Socket, handle: ZoneRequestHandler): Promise<void> {
  const from = addressOf(remoteAddressOf(socket));
  const reader = new FrameReader(MAX_TCP);
  // Whoever does not read for so long, or does not ask, gives its place to others.
  socket.setTimeout(IDLE_TIME, () => socket.destroy());
  socket.on('error', () => socket.destroy());
  try {
    for await (const chunk of socket) {
      for (const packet of reader.push(chunk as Buffer)) {
        await new Promise<void>((resolve) => {
          const client: ZoneClient = {
            answer: (messages) => send(socket, messages).then(resolve),
            ignore: resolve,
          };
          handle(client, packet, 'tcp', from);
        });
      }
    }
    socket.end();
  } catch {
    socket.destroy();
  }
}

async function send(socket: Socket, messages: Iterator<Uint8Array>): Promise<void> {
  for (let next = messages.next(); next.done !== true; next = messages.next()) {
    if (socket.destroyed) return;
    const { value } = next;
    // Called with an error when the socket is closed.
    await new Promise<void>((resolve) => socket.write(frame(value), () => resolve()));
    // The kernel may take a whole zone at once, and others have to have their turn.
    await setImmediate();
  }
}

function addressOf(text: string): IpAddress {
  const plain = text.split('%', 1)[0]?.replace(/^::ffff:(?=\d+\.)/, '') ?? '';
  return isIpAddress(plain) ? parseIpAddress(plain) : UNKNOWN;
}

const UNKNOWN = parseIpAddress('::');
const MAX_CONNECTIONS = 64;
/** So that one that asks nothing does not keep all others out. */
const MAX_CONNECTIONS_PER_SOURCE = 16;
const IDLE_TIME = 10_000;
