/** A data plane that forwards nothing: it answers on a Unix socket and remembers what it was told. */
import { createServer, type Server, type Socket } from 'node:net';
import { encodeFrame, FrameReader } from '../../agent/shell/dataplane-link.ts';
import type { DataplaneCommand, DataplaneEvent, HelloReply } from '../../proto/dataplane/messages.ts';

export class FakeDataplane {
  readonly commands: DataplaneCommand[] = [];
  connections = 0;
  onCommand: (command: DataplaneCommand) => void = () => undefined;
  hello: HelloReply = {
    capability: 1,
    software: 'fake',
    process: 'f00d',
    configured: false,
    cipher: 'aes-256-gcm',
    offloads: [],
  };
  /** Answers to commands by type; `{}` for the others. */
  readonly results: Partial<Record<DataplaneCommand['type'], unknown>> = {
    stats: { counters: { tun_rx_packets: 7, 'drop.replay': 2 }, gauges: { peers: 1, sessions: 1 } },
    peers: { peers: [] },
  };
  /** Commands that it does not know. */
  readonly unknown = new Set<DataplaneCommand['type']>();
  /** Commands that it does not answer. */
  readonly unanswered = new Set<DataplaneCommand['type']>();
  private readonly server: Server;
  private socket: Socket | null = null;
  private readonly waiting: { readonly test: () => boolean; readonly resolve: () => void }[] = [];

  constructor() {
    this.server = createServer((socket) => this.handleConnection(socket));
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve) => this.server.listen(path, resolve));
  }

  emit(event: DataplaneEvent): void {
    this.socket?.write(encodeFrame(event));
  }

  write(bytes: Uint8Array): void {
    this.socket?.write(bytes);
  }

  disconnect(): void {
    this.socket?.destroy();
  }

  /** Resolves when `test` holds after a command or a connection. */
  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push({ test, resolve }));
  }

  close(): Promise<void> {
    this.socket?.destroy();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }

  private handleConnection(socket: Socket): void {
    const frames = new FrameReader();
    this.socket = socket;
    this.connections++;
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      for (const frame of frames.push(chunk))
        this.handle(socket, JSON.parse(frame) as DataplaneCommand & { id: number });
    });
  }

  private handle(socket: Socket, { id, ...command }: DataplaneCommand & { id: number }): void {
    this.commands.push(command as DataplaneCommand);
    const result = command.type === 'hello' ? this.hello : (this.results[command.type] ?? {});
    const refused = { ok: false, code: 'unknown-command', message: `this data plane does not know "${command.type}"` };
    const answer = this.unknown.has(command.type) ? refused : { ok: true, result };
    if (!this.unanswered.has(command.type)) socket.write(encodeFrame({ type: 'reply', id, ...answer }));
    this.onCommand(command as DataplaneCommand);
    for (const waiting of this.waiting.filter(({ test }) => test())) {
      this.waiting.splice(this.waiting.indexOf(waiting), 1);
      waiting.resolve();
    }
  }
}
