/** The kit as seen by the native endpoint of a map server: a stranger with TLS and HTTP, and no certificate. */
import { once } from 'node:events';
import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { demand } from '../check.ts';
import type { Stage } from '../engine.ts';
import type { UdpTarget } from '../lisp/udp-port.ts';
import type { Pacer } from '../pacer.ts';

export interface NativeSubject {
  readonly target: UdpTarget;
  readonly local: string;
  readonly pacer: Pacer;
  readonly answerMs: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface HttpAsked {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export class NativeStage implements Stage {
  readonly subject: NativeSubject;
  private readonly sockets: Socket[] = [];

  constructor(subject: NativeSubject) {
    this.subject = subject;
  }

  /** @throws Deviation when no connection can be made */
  async tcp(): Promise<Socket> {
    await this.subject.pacer.turn();
    const { address, port } = this.subject.target;
    const socket = connect({ host: address, port, localAddress: this.subject.local });
    this.keep(socket);
    await this.within(once(socket, 'connect'));
    demand(socket.readyState === 'open', 'No TCP connection could be made.');
    return socket;
  }

  /** Undefined when the handshake fails. */
  async tls(options: ConnectionOptions = {}): Promise<TLSSocket | undefined> {
    await this.subject.pacer.turn();
    const { address, port } = this.subject.target;
    const where = { host: address, port, localAddress: this.subject.local };
    const socket = tlsConnect({ ...where, rejectUnauthorized: false, ...options } as ConnectionOptions);
    this.keep(socket);
    const ready = await this.within(
      new Promise<boolean>((resolve) => {
        socket.once('secureConnect', () => resolve(true));
        socket.once('error', () => resolve(false));
        socket.once('close', () => resolve(false));
      }),
    );
    return ready === true ? socket : undefined;
  }

  /** One request over a connection of its own. @throws Deviation without an answer */
  async http(asked: HttpAsked, over?: TLSSocket): Promise<HttpAnswer> {
    const socket = over ?? (await this.tls());
    demand(socket !== undefined, 'No TLS connection could be made.');
    const { method = 'GET', path, headers = {}, body } = asked;
    const answer = await new Promise<HttpAnswer | undefined>((resolve) => {
      const framed = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
      const all = { host: 'localhost', ...framed, ...headers };
      const sent = request({ createConnection: () => socket, method, path, headers: all });
      const read = (message: IncomingMessage): void => {
        const parts: Buffer[] = [];
        message.on('data', (part: Buffer) => parts.push(part));
        const end = (): void =>
          resolve({ status: message.statusCode ?? 0, headers: message.headers, body: Buffer.concat(parts).toString() });
        message.on('end', end).on('close', end);
      };
      sent.on('response', read);
      sent.on('upgrade', (message) => resolve({ status: message.statusCode ?? 0, headers: message.headers, body: '' }));
      sent.on('error', () => resolve(undefined));
      sent.setTimeout(3 * this.subject.answerMs, () => sent.destroy());
      sent.end(body);
    });
    demand(answer !== undefined, 'No answer to the request.');
    return answer;
  }

  /** @throws Deviation when the target does not answer a newcomer's first question any more */
  async fence(): Promise<void> {
    const { status } = await this.http({ path: '/v1/ca' });
    demand(status === 200, `Afterwards GET /v1/ca is answered with ${status}.`);
  }

  async clear(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
  }

  private keep(socket: Socket): void {
    socket.on('error', () => {});
    this.sockets.push(socket);
  }

  /** Undefined when it fails, or takes too long. */
  private async within<T>(work: Promise<T>): Promise<T | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), 3 * this.subject.answerMs);
    });
    try {
      return await Promise.race([work.catch(() => undefined), limit]);
    } finally {
      clearTimeout(timer);
    }
  }
}
