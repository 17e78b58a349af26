import { connect, createServer, type Server, type Socket } from 'node:net';

/** A TCP relay with a fixed port, whose connections can go silent, as those of an address that is gone. */
export class Relay {
  connections = 0;
  target: number;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private silent = new Set<Socket>();

  constructor(target: number) {
    this.target = target;
    this.server = createServer((socket) => {
      this.connections++;
      const upstream = connect(this.target, '127.0.0.1');
      for (const [from, to] of [
        [socket, upstream],
        [upstream, socket],
      ] as const) {
        this.sockets.add(from);
        from.on('data', (chunk) => {
          if (!this.silent.has(from)) to.write(chunk);
        });
        from.on('close', () => {
          if (!this.silent.has(from)) to.destroy();
        });
        from.on('error', () => undefined);
      }
    });
  }

  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.server.listen(0, '127.0.0.1', () => {
        const address = this.server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : 0);
      });
    });
  }

  /** Everything that is open passes nothing any more. */
  swallow(): void {
    this.silent = new Set(this.sockets);
  }

  close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}
