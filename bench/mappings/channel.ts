/** The bench as the agent of a data plane: commands out, as many as the socket takes, and their replies. */
import { connect, type Socket } from 'node:net';
import { CAPABILITY } from '../../proto/capability.ts';
import type { DataplaneCommand } from '../../proto/dataplane/messages.ts';
import { BenchError } from '../bench-error.ts';

const HEAD = 4;

export class Channel {
  private readonly socket: Socket;
  private readonly waiting = new Map<number, (reply: Reply) => void>();
  private pending: Buffer = Buffer.alloc(0);
  private lastId = 0;
  private refusal: string | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk) => this.read(chunk));
  }

  /** Undefined while nobody listens there. */
  static open(path: string): Promise<Channel | undefined> {
    return new Promise((resolve) => {
      const socket = connect(path);
      socket.once('error', () => resolve(undefined));
      socket.once('connect', async () => {
        const channel = new Channel(socket);
        await channel.ask({ type: 'hello', capability: CAPABILITY, software: 'bench' });
        resolve(channel);
      });
    });
  }

  /** Without waiting for the reply; `settled` does. */
  async tell(command: DataplaneCommand): Promise<void> {
    this.write(command, (reply) => {
      if (!reply.ok) this.refusal ??= `${command.type}: ${reply.message}`;
    });
    if (this.socket.writableNeedDrain) await new Promise((resolve) => this.socket.once('drain', resolve));
  }

  /** Everything told so far has been carried out. @throws BenchError when something was refused */
  async settled(): Promise<void> {
    await this.ask({ type: 'stats' });
    if (this.refusal !== undefined) throw new BenchError(`the data plane refuses ${this.refusal}`);
  }

  /** @throws BenchError when it is refused */
  async ask(command: DataplaneCommand): Promise<unknown> {
    const reply = await new Promise<Reply>((resolve) => this.write(command, resolve));
    if (!reply.ok) throw new BenchError(`the data plane refuses ${command.type}: ${reply.message}`);
    return reply.result;
  }

  close(): void {
    this.socket.destroy();
  }

  private write(command: DataplaneCommand, answered: (reply: Reply) => void): void {
    this.lastId += 1;
    this.waiting.set(this.lastId, answered);
    const body = Buffer.from(JSON.stringify({ id: this.lastId, ...command }));
    const head = Buffer.alloc(HEAD);
    head.writeUInt32BE(body.length);
    this.socket.write(Buffer.concat([head, body]));
  }

  private read(chunk: Buffer): void {
    this.pending = this.pending.length === 0 ? chunk : Buffer.concat([this.pending, chunk]);
    let at = 0;
    while (this.pending.length >= at + HEAD) {
      const end = at + HEAD + this.pending.readUInt32BE(at);
      if (this.pending.length < end) break;
      this.take(JSON.parse(this.pending.toString('utf8', at + HEAD, end)) as Partial<Reply>);
      at = end;
    }
    this.pending = this.pending.subarray(at);
  }

  private take(message: Partial<Reply>): void {
    if (message.id === undefined) return;
    this.waiting.get(message.id)?.(message as Reply);
    this.waiting.delete(message.id);
  }
}

interface Reply {
  readonly id: number;
  readonly ok: boolean;
  readonly result?: unknown;
  readonly message?: string;
}
