/** UDP 4342 of the underlay, for LISP routers that plain packets are exchanged with. Datagrams in and out, no more. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { ipFamily, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { LISP_CONTROL_PORT } from '../../proto/lisp/header.ts';
import type { LispPeer } from '../core/lisp-responder.ts';

export class LispListener {
  private readonly sockets: ReadonlyMap<4 | 6, Socket>;

  private constructor(sockets: ReadonlyMap<4 | 6, Socket>) {
    this.sockets = sockets;
  }

  /** @throws UsageError when the port is taken. A host without IPv6 has only the other family. */
  static async start(handle: (from: LispPeer, bytes: Uint8Array) => void, port = LISP_CONTROL_PORT) {
    const sockets = new Map<4 | 6, Socket>();
    for (const family of [4, 6] as const) {
      const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6 });
      socket.on('message', (bytes, { address, port: from }) => {
        const plain = address.split('%', 1)[0] ?? '';
        // Nobody can be answered on port 0.
        if (from !== 0 && isIpAddress(plain)) handle({ address: parseIpAddress(plain), port: from }, bytes);
      });
      try {
        socket.bind({ port, exclusive: true });
        await once(socket, 'listening');
        // E.g. ECONNREFUSED for an earlier answer.
        socket.on('error', () => {});
        sockets.set(family, socket);
      } catch (cause) {
        socket.close();
        const { code = '' } = cause as NodeJS.ErrnoException;
        if (family === 6 && NO_FAMILY.has(code)) continue;
        for (const open of sockets.values()) open.close();
        throw new UsageError(`LISP cannot be served on UDP port ${port} (${code})`, { cause });
      }
    }
    return new LispListener(sockets);
  }

  send({ address, port }: LispPeer, bytes: Uint8Array): void {
    this.sockets.get(ipFamily(address))?.send(bytes, port, address, () => {});
  }

  close(): void {
    for (const socket of this.sockets.values()) socket.close();
  }
}

const NO_FAMILY: ReadonlySet<string> = new Set(['EAFNOSUPPORT', 'EADDRNOTAVAIL']);
