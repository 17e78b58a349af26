/** The kit as seen by a name server: a client that asks over UDP and TCP. A question that must be answered is the fence. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { FrameReader, frame } from '../../runtime/dns-stream.ts';
import { demand, NotTried } from '../check.ts';
import type { Stage } from '../engine.ts';
import type { Octets } from '../lisp/octets.ts';
import { UdpPort, type UdpTarget } from '../lisp/udp-port.ts';
import type { Pacer } from '../pacer.ts';
import { type DnsAnswer, describeDns, dnsQuery, FLAG, type QueryOptions, readDns } from './message.ts';

export interface DnsSubject {
  readonly target: UdpTarget;
  readonly local: string;
  /** A zone that the target serves or resolves. */
  readonly zone: string;
  /** A name in it that has addresses, if one is known. */
  readonly name: string | undefined;
  readonly pacer: Pacer;
  readonly answerMs: number;
  readonly graceMs: number;
}

export type Asked = Partial<QueryOptions>;

export class DnsStage implements Stage {
  readonly subject: DnsSubject;
  readonly port: UdpPort;
  private readonly sockets: Socket[] = [];

  private constructor(subject: DnsSubject, port: UdpPort) {
    this.subject = subject;
    this.port = port;
  }

  static async open(subject: DnsSubject): Promise<DnsStage> {
    return new DnsStage(subject, await UdpPort.open(subject.target, subject.pacer, { address: subject.local }));
  }

  get zone(): string {
    return this.subject.zone;
  }

  /** @throws NotTried when none was given */
  get name(): string {
    if (this.subject.name === undefined) throw new NotTried('It needs a name that has addresses (--name).');
    return this.subject.name;
  }

  /** A name in the zone that nobody has. */
  absent(): string {
    return `conform-${randomInt(2 ** 40).toString(36)}.${this.zone}`;
  }

  query(asked: Asked = {}): Octets {
    return dnsQuery({ id: randomInt(0x10000), name: this.zone, flags: FLAG.RD, ...asked });
  }

  /** Asks over UDP, three times at most. @throws Deviation without an answer */
  async ask(asked: Asked = {}): Promise<DnsAnswer> {
    const answer = await this.tryAsk(this.query(asked));
    demand(answer !== undefined, 'No answer to three questions.');
    return answer;
  }

  async tryAsk(octets: Octets, turns = 3): Promise<DnsAnswer | undefined> {
    for (let turn = 0; turn < turns; turn++) {
      await this.port.send(octets);
      const answer = await this.answerTo(octets);
      if (answer !== undefined) return answer;
    }
    return undefined;
  }

  /** @throws NotTried when the target does not answer with authority */
  async demandAuthority(): Promise<DnsAnswer> {
    const answer = await this.ask();
    if ((answer.flags & FLAG.AA) === 0) throw new NotTried('The target does not answer with authority for the zone.');
    return answer;
  }

  /** Sends what must not be answered, and demands that the target goes on to answer. @throws Deviation */
  async unanswered(octets: Octets, what: string): Promise<string> {
    const before = this.port.inbox.length;
    await this.port.send(octets);
    const fence = await this.ask();
    await sleep(this.subject.graceMs);
    const unwanted = this.port.inbox.slice(before).filter(({ octets: came }) => id(came) !== fence.id);
    demand(unwanted.length === 0, `${what} was answered.`);
    return 'It was not answered, and the target went on to answer.';
  }

  /** Sends what may be refused, but not be answered as if it were right. @throws Deviation */
  async refused(octets: Octets, rcodes: readonly number[], silence: boolean): Promise<string> {
    await this.port.send(octets);
    const answer = await this.answerTo(octets);
    if (answer === undefined) {
      demand(silence, 'No answer.');
      await this.ask();
      return 'No answer, and the target went on to answer.';
    }
    demand(rcodes.includes(answer.rcode), `${describeDns(answer)}.`);
    await this.ask();
    return `${describeDns(answer)}, and the target went on to answer.`;
  }

  /** @throws Deviation when no connection can be made */
  async tcp(): Promise<TcpClient> {
    await this.subject.pacer.turn();
    const { address, port } = this.subject.target;
    const socket = connect({ host: address, port, localAddress: this.subject.local, allowHalfOpen: true });
    socket.on('error', () => {});
    this.sockets.push(socket);
    await Promise.race([
      once(socket, 'connect'),
      once(socket, 'close'),
      sleep(this.subject.answerMs, undefined, { ref: false }),
    ]);
    demand(socket.readyState === 'open', 'No TCP connection could be made.');
    return new TcpClient(socket, this.subject.answerMs);
  }

  async clear(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    this.port.close();
  }

  private async answerTo(octets: Octets): Promise<DnsAnswer | undefined> {
    const wanted = id(octets);
    const found = await this.port.wait(
      (came) => (id(came.octets) === wanted ? came.octets : undefined),
      this.subject.answerMs,
    );
    return found === undefined ? undefined : readDns(found);
  }
}

export class TcpClient {
  readonly socket: Socket;
  readonly answers: DnsAnswer[] = [];
  private readonly reader = new FrameReader(65_535);
  private readonly answerMs: number;
  private wake: () => void = () => {};

  constructor(socket: Socket, answerMs: number) {
    this.socket = socket;
    this.answerMs = answerMs;
    socket.on('data', (chunk) => {
      for (const message of this.reader.push(chunk as Buffer)) this.answers.push(readDns(new Uint8Array(message)));
      this.wake();
    });
    socket.on('close', () => this.wake());
    socket.on('end', () => this.wake());
  }

  send(...messages: readonly Octets[]): void {
    this.socket.write(Buffer.concat(messages.map(frame)));
  }

  write(octets: Octets): void {
    this.socket.write(octets);
  }

  /** @throws Deviation when so many do not come in time */
  async take(count: number): Promise<readonly DnsAnswer[]> {
    const deadline = performance.now() + 2 * this.answerMs;
    while (this.answers.length < count && performance.now() < deadline && !this.socket.readableEnded) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadline - performance.now());
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    demand(this.answers.length >= count, `${this.answers.length} of ${count} answers came over TCP.`);
    return this.answers;
  }
}

function id(octets: Octets): number {
  return ((octets[0] ?? 0) << 8) | (octets[1] ?? 0);
}
