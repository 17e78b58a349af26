/** The sockets of LISP over UDP, one on each address that is listened on. What comes and goes are datagrams, no more. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { ipFamily, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import type { UdpPeer } from '../core/lisp/udp-peer.ts';

export type DatagramHandler = (from: UdpPeer, bytes: Uint8Array) => void;

export class LispListener {
  private readonly sockets: readonly { readonly socket: Socket; readonly family: 4 | 6; readonly address: string }[];

  private constructor(sockets: LispListener['sockets']) {
    this.sockets = sockets;
  }

  /** `served`: what it is for. @throws UsageError when an address cannot be had */
  static async start(listen: readonly string[], handle: DatagramHandler, served = 'LISP'): Promise<LispListener> {
    const sockets: LispListener['sockets'][number][] = [];
    try {
      for (const [index, text] of listen.entries()) sockets.push(await bind(text, index, handle, served));
    } catch (error) {
      for (const { socket } of sockets) socket.close();
      throw error;
    }
    return new LispListener(sockets);
  }

  /** HOST:PORT of each socket, as bound. */
  get addresses(): readonly string[] {
    return this.sockets.map(({ address }) => address);
  }

  /** Lost without a word when there is no way to it: UDP promises nothing, and who needs an answer asks again. */
  send({ address, port, socket: index }: UdpPeer, bytes: Uint8Array): void {
    const family = ipFamily(address);
    const asked = index === undefined ? undefined : this.sockets[index];
    const via = asked?.family === family ? asked : this.sockets.find((each) => each.family === family);
    via?.socket.send(bytes, port, address, () => {});
  }

  async close(): Promise<void> {
    await Promise.all(this.sockets.map(({ socket }) => new Promise<void>((resolve) => socket.close(() => resolve()))));
  }
}

async function bind(
  listen: string,
  index: number,
  handle: DatagramHandler,
  served: string,
): Promise<{ readonly socket: Socket; readonly family: 4 | 6; readonly address: string }> {
  const { host, port } = parseHostPort(listen);
  const family = host.includes(':') ? 6 : 4;
  const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6 });
  socket.on('message', (bytes, { address, port: from }) => {
    const plain = address.split('%', 1)[0] ?? '';
    // Nobody can be answered on port 0.
    if (from === 0 || !isIpAddress(plain)) return;
    handle({ address: parseIpAddress(plain), port: from, socket: index }, bytes);
  });
  try {
    socket.bind({ address: host, port, exclusive: true });
    await once(socket, 'listening');
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new UsageError(`${served} cannot be served on ${listen} (${reason})`, { cause });
  }
  // E.g. ECONNREFUSED for an earlier answer; each send has its own callback.
  socket.on('error', () => {});
  // Registrations come in bursts, e.g. when many sites lose the same uplink; the kernel may give less.
  socket.setRecvBufferSize(RECEIVE_BUFFER);
  return { socket, family, address: formatHostPort(host, socket.address().port) };
}

const RECEIVE_BUFFER = 4 * 1024 * 1024;
