/**
 * The kit as seen by an xTR: a peer that probes it, solicits it and sends it packets, from one UDP socket for each check.
 *
 * Silence is judged by a fence, as with Map-Servers: behind what must not be answered goes an RLOC-probe, or a packet to
 * the EID, which must be.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AddressBlock, AddressRange } from '../address-range.ts';
import { Deviation, demand, NotTried } from '../check.ts';
import type { Stage } from '../engine.ts';
import type { Exclusive } from '../exclusive.ts';
import { type Answer, readAnswer } from '../lisp/answers.ts';
import { decapsulated } from '../lisp/encapsulation.ts';
import { nonceIn, randomNonce } from '../lisp/nonces.ts';
import {
  inInstance,
  ip,
  join,
  locator,
  mapRequest,
  type Octets,
  REQUEST,
  type RequestOptions,
  record,
  TYPE,
  u32,
  u64,
} from '../lisp/octets.ts';
import type { OuterHeader, RawUdp } from '../lisp/raw-udp.ts';
import { StagePorts } from '../lisp/stage-ports.ts';
import type { Datagram, Response, UdpPort, UdpTarget } from '../lisp/udp-port.ts';
import type { Pacer } from '../pacer.ts';
import { deliveredAs, type Echo, echoPacket, type InnerHeader, isEchoReply, probePacket } from './echo.ts';

export interface XtrSubject {
  /** Its UDP port 4342; data goes to port 4341 of the same address. */
  readonly target: UdpTarget;
  readonly local: string;
  readonly pacer: Pacer;
  /** Whose turn it is to have this machine's UDP ports 4341 and 4342. */
  readonly dataPort: Exclusive;
  readonly lispPort: Exclusive;
  readonly answerMs: number;
  readonly graceMs: number;
  /** Behind the target, which answers pings to it. */
  readonly eid: string;
  /** Of this machine for the target: packets to it come here. */
  readonly ownEid: string | undefined;
  readonly instance: number;
  /** EIDs that are not behind the target. */
  readonly outside: AddressRange;
  /** The target asks this machine when it wants a mapping. */
  readonly isMapServer: boolean;
  /** The data plane, which opens raw sockets for the kit; undefined when it is not there. */
  readonly rawProgram: string | undefined;
}

export type RequestChange = Partial<RequestOptions>;

export class XtrStage implements Stage {
  readonly subject: XtrSubject;
  readonly port: UdpPort;
  readonly outside: AddressBlock;
  private readonly ports: StagePorts;
  private data: UdpPort | undefined;
  private lisp: UdpPort | undefined;
  private raw: RawUdp | undefined;

  private constructor(subject: XtrSubject, ports: StagePorts, port: UdpPort) {
    this.subject = subject;
    this.ports = ports;
    this.port = port;
    this.outside = subject.outside.next();
  }

  static async open(subject: XtrSubject): Promise<XtrStage> {
    const ports = new StagePorts(subject.pacer, subject.local);
    return new XtrStage(subject, ports, await ports.open(subject.target));
  }

  /** With its AFI, in the instance of the run. */
  eid(address = this.subject.eid): Octets {
    const { instance } = this.subject;
    return instance === 0 ? ip(address) : inInstance(instance, ip(address));
  }

  /** @throws NotTried without an EID of its own */
  get ownEid(): string {
    if (this.subject.ownEid === undefined) throw new NotTried('It needs an EID that the target has here (--data).');
    return this.subject.ownEid;
  }

  /** @throws NotTried unless the target asks this machine */
  demandMapServerHere(): void {
    if (!this.subject.isMapServer) throw new NotTried('The target has to ask this machine (--map-server-here).');
  }

  /** Where SMRs come from, and Map-Requests for a Map-Server go to. @throws NotTried */
  async lispPort(): Promise<UdpPort> {
    if (this.lisp === undefined) {
      this.lisp = await this.ports.openInTurn(this.subject.lispPort, this.subject.target, LISP_PORT);
      if (this.subject.isMapServer) this.lisp.respond((octets) => this.mappingAsked(octets));
    }
    return this.lisp;
  }

  /** Where LISP data is sent from, and comes to. @throws NotTried */
  async dataPort(): Promise<UdpPort> {
    // Packets lead to questions here. Always in this order, so that two checks do not wait for each other.
    if (this.subject.isMapServer) await this.lispPort();
    const target = { ...this.subject.target, port: DATA_PORT };
    this.data ??= await this.ports.openInTurn(this.subject.dataPort, target, DATA_PORT);
    return this.data;
  }

  /** Beside the data port, which has to be open so that nothing here says that it is not. @throws NotTried */
  async rawPort(): Promise<RawUdp> {
    await this.dataPort();
    this.raw ??= await this.ports.openRaw(this.subject.rawProgram, DATA_PORT);
    return this.raw;
  }

  request(change: RequestChange = {}): { readonly octets: Octets; readonly nonce: bigint } {
    const nonce = change.nonce ?? randomNonce();
    const itrRlocs = [ip(this.subject.local)];
    return { nonce, octets: mapRequest({ itrRlocs, eid: this.eid(), ...change, nonce }) };
  }

  probe(change: RequestChange = {}): { readonly octets: Octets; readonly nonce: bigint } {
    return this.request({ flags: REQUEST.P, ...change });
  }

  /** Asks up to three times. @throws Deviation when nothing comes, or something else than a Map-Reply */
  async reply(asked: { octets: Octets; nonce: bigint }): Promise<Answer & { readonly fromPort: number }> {
    const { answerMs } = this.subject;
    for (let turn = 0; turn < TURNS; turn++) {
      await this.port.send(asked.octets);
      const came = await this.port.wait(
        (datagram) => (isDirect(datagram) && nonceIn(datagram.octets) === asked.nonce ? datagram : undefined),
        Math.max(answerMs, turn * 1_000),
      );
      if (came === undefined) continue;
      const answer = readAnswer(came.octets);
      demand(answer.type === TYPE.mapReply, `A message of type ${answer.type} and no Map-Reply.`);
      return { ...answer, fromPort: came.port };
    }
    demand(false, `No answer to ${TURNS} of them.`);
  }

  /** Sends what must not be answered, and demands that nothing comes but the answer to the fence. */
  async unanswered(octets: Octets, what: string): Promise<string> {
    const before = this.port.inbox.length;
    await this.port.send(octets);
    const fenced = await this.fence();
    const unwanted = this.port.inbox.slice(before).filter((datagram) => nonceIn(datagram.octets) !== fenced);
    const types = unwanted.map((datagram) => (datagram.octets[0] ?? 0) >>> 4);
    demand(unwanted.length === 0, `${what} was answered with messages of type ${types.join(', ')}.`);
    return `Nothing came back for ${what}, and the target went on to answer.`;
  }

  /** @returns its nonce. @throws Deviation when the target does not answer it */
  async fence(): Promise<bigint> {
    const { nonce } = await this.reply(this.probe());
    await sleep(this.subject.graceMs);
    return nonce;
  }

  /** The LISP packet with the answer of the EID's host, to one of three pings. */
  async echo(ping: Partial<Echo> = {}): Promise<Octets | undefined> {
    const port = await this.dataPort();
    for (let turn = 0; turn < TURNS; turn++) {
      const sent = this.ping(ping);
      await port.send(sent.octets);
      const came = await port.wait(({ octets }) => (isEchoReply(octets, sent.serial) ? octets : undefined), 1_000);
      if (came !== undefined) return came;
    }
    return undefined;
  }

  /** Demands that the host of an EID does not answer this ping, but the next right one. */
  async unechoed(ping: Partial<Echo>, what: string, cut?: number): Promise<string> {
    const port = await this.dataPort();
    demand((await this.echo()) !== undefined, `${this.subject.eid} did not answer a right ping.`);
    const sent = this.ping(ping);
    await port.send(sent.octets.subarray(0, cut));
    demand((await this.echo()) !== undefined, `After ${what} ${this.subject.eid} did not answer any more.`);
    await sleep(this.subject.graceMs);
    demand(!port.inbox.some(({ octets }) => isEchoReply(octets, sent.serial)), `${what} was answered.`);
    return `${what} was not answered, and right pings were.`;
  }

  /**
   * How the EID's host was delivered a datagram, as it says of one to a port that it does not have. Undefined when it
   * says nothing to `turns` of them.
   */
  async delivered(inner: InnerHeader, outer: Partial<OuterHeader>, turns = TURNS): Promise<InnerHeader | undefined> {
    const raw = await this.rawPort();
    const { instance, eid, target } = this.subject;
    for (let turn = 0; turn < turns; turn++) {
      const sourcePort = 49_152 + Number(randomNonce() % 16_384n);
      const packet = probePacket({ source: this.ownEid, destination: eid, instance, sourcePort, ...inner });
      const before = raw.inbox.length;
      await raw.send(packet, target.address, DATA_PORT, outer);
      const said = await raw.wait(({ octets }) => deliveredAs(octets, sourcePort), UNREACHABLE_MS, before);
      if (said !== undefined) return said;
    }
    return undefined;
  }

  async clear(): Promise<void> {
    this.ports.close();
  }

  /** As Map-Resolver: where the own EID is. */
  private mappingAsked(octets: Octets): Response | undefined {
    try {
      if ((octets[0] ?? 0) >>> 4 !== TYPE.ecm) return undefined;
      const { message, sourcePort } = decapsulated(octets);
      const { type, nonce, records } = readAnswer(message);
      const [asked] = records;
      if (type !== TYPE.mapRequest || asked === undefined || asked.eid.text !== this.subject.ownEid) return undefined;
      const { eid, maskLength } = asked;
      const mapping = record(eid.octets, { ttl: TTL_MINUTES, maskLength, locators: [locator(ip(this.subject.local))] });
      return { octets: join(u32(MAP_REPLY), u64(nonce), mapping), port: sourcePort };
    } catch (error) {
      if (error instanceof Deviation) return undefined;
      throw error;
    }
  }

  ping(ping: Partial<Echo>): { readonly octets: Octets; readonly serial: bigint } {
    const serial = randomNonce();
    const { instance, eid } = this.subject;
    return { serial, octets: echoPacket({ source: this.ownEid, destination: eid, instance, serial, ...ping }) };
  }
}

function isDirect({ octets }: Datagram): boolean {
  return (octets[0] ?? 0) >>> 4 !== TYPE.ecm;
}

/** An SMR: what changed is the source EID. */
export function solicitation(stage: XtrStage, address: string): Octets {
  const own = stage.eid(address);
  return stage.request({ flags: REQUEST.S, sourceEid: own, eid: stage.eid() }).octets;
}

const TURNS = 3;
const LISP_PORT = 4342;
const DATA_PORT = 4341;
/** Of one record. */
const MAP_REPLY = 0x2000_0001;
const TTL_MINUTES = 5;
/** Hosts say once a second at most that a port is not there, after some at once. */
const UNREACHABLE_MS = 1_200;
