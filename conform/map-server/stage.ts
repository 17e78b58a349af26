/**
 * The kit as seen by a Map-Server: ETRs of one site and ITRs that ask, on one UDP socket for each check.
 *
 * Whether something was dropped is told by a fence: behind the datagram that must not be answered goes one that must,
 * and once that was answered, and a moment more has passed, silence about the first is a fact, however slow the network
 * is. Without a site key the fence is a Map-Request, with one a Map-Register that wants a Map-Notify.
 *
 * Port 4342 goes from check to check, and with it comes what a target sends late, or again, to an earlier one: at that
 * port only what is about EIDs of the stage's own block counts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AddressBlock, AddressRange } from '../address-range.ts';
import { Deviation, demand, NotTried } from '../check.ts';
import type { Stage } from '../engine.ts';
import type { Exclusive } from '../exclusive.ts';
import { type Answer, prefixOf, readAnswer } from '../lisp/answers.ts';
import { decapsulated } from '../lisp/encapsulation.ts';
import type { SiteKey } from '../lisp/message-code.ts';
import { nonceIn, randomNonce } from '../lisp/nonces.ts';
import { ip, mapRequest, NO_ADDRESS, type Octets, type RequestOptions, TYPE } from '../lisp/octets.ts';
import { StagePorts } from '../lisp/stage-ports.ts';
import type { Datagram, UdpPort, UdpTarget } from '../lisp/udp-port.ts';
import type { Pacer } from '../pacer.ts';
import { Etr } from './etr.ts';
import type { Xtr, XtrPool } from './xtrs.ts';

export interface MapServerSubject {
  readonly target: UdpTarget;
  /** Own address, as the target sees it unless a NAT is between. */
  readonly local: string;
  readonly key: SiteKey | undefined;
  /** What the site may register; the kit registers nothing else, unless to see that it is refused. */
  readonly range: AddressRange;
  /** Addresses that no site of the target has. */
  readonly outside: AddressRange;
  readonly pacer: Pacer;
  /** Whose turn it is to have this machine's UDP port 4342. */
  readonly lispPort: Exclusive;
  readonly xtrs: XtrPool;
  /** How long an answer is waited for before it is asked for again. */
  readonly answerMs: number;
  /** How long after a fence something unwanted could still come. */
  readonly graceMs: number;
}

export type RequestChange = Partial<Omit<RequestOptions, 'nonce'>>;

export class MapServerStage implements Stage {
  readonly subject: MapServerSubject;
  readonly port: UdpPort;
  readonly block: AddressBlock;
  readonly outside: AddressBlock;
  private readonly etrs: Etr[] = [];
  private readonly taken: Xtr[] = [];
  private fencing: Etr | undefined;
  private readonly endings: (() => Promise<void>)[] = [];
  private readonly ports: StagePorts;
  private lispPortOpened: UdpPort | undefined;

  private constructor(subject: MapServerSubject, ports: StagePorts, port: UdpPort) {
    this.subject = subject;
    this.ports = ports;
    this.port = port;
    this.block = subject.range.next();
    this.outside = subject.outside.next();
  }

  static async open(subject: MapServerSubject): Promise<MapServerStage> {
    const ports = new StagePorts(subject.pacer, subject.local);
    return new MapServerStage(subject, ports, await ports.open(subject.target));
  }

  /** @throws NotTried without a site key */
  get key(): SiteKey {
    if (this.subject.key === undefined) throw new NotTried('It needs a site key (--site-key).');
    return this.subject.key;
  }

  /** An ETR of the site with an xTR-ID of its own. */
  etr(xtr: Xtr = this.xtr()): Etr {
    const etr = new Etr(this, this.key, xtr);
    this.etrs.push(etr);
    return etr;
  }

  /** One that no other check plays until this one ends. */
  xtr(): Xtr {
    const xtr = this.subject.xtrs.take();
    this.taken.push(xtr);
    return xtr;
  }

  /** Another socket. */
  openPort(): Promise<UdpPort> {
    return this.ports.open(this.subject.target);
  }

  /** The port of LISP on this machine, where xTRs are sent what they did not ask for. @throws NotTried if it is taken */
  async lispPort(): Promise<UdpPort> {
    const { target, lispPort } = this.subject;
    this.lispPortOpened ??= await this.ports.openInTurn(lispPort, target, LISP_PORT);
    return this.lispPortOpened;
  }

  request(eid: Octets, change: RequestChange = {}): { readonly octets: Octets; readonly nonce: bigint } {
    const nonce = randomNonce();
    return { nonce, octets: mapRequest({ nonce, itrRlocs: [ip(this.subject.local)], eid, ...change }) };
  }

  /** The answer to a Map-Request, asked up to four times with a second between, as RFC 9301 5.2 limits it. */
  async ask(eid: Octets, change: RequestChange = {}): Promise<Answer | undefined> {
    for (let turn = 0; turn < ASKS; turn++) {
      const { octets, nonce } = this.request(eid, change);
      await this.port.send(octets);
      const answer = await this.answer(nonce, Math.max(this.subject.answerMs, turn * 1000));
      if (answer !== undefined) return answer;
    }
    return undefined;
  }

  /** @throws Deviation when nothing comes, or something else than a Map-Reply */
  async reply(eid: Octets, change: RequestChange = {}): Promise<Answer> {
    const answer = await this.ask(eid, change);
    demand(answer !== undefined, `No answer to ${ASKS} Map-Requests.`);
    demand(answer.type === TYPE.mapReply, `A message of type ${answer.type} and no Map-Reply.`);
    return answer;
  }

  /** Whether a Map-Request for the EID is answered with locators. @throws Deviation when it is not answered */
  async isRegistered(eid: Octets): Promise<boolean> {
    return ((await this.reply(eid)).records[0]?.locators.length ?? 0) > 0;
  }

  /** What came with this nonce. */
  answer(nonce: bigint, ms = this.subject.answerMs, on = this.port, from = 0): Promise<Answer | undefined> {
    return on.wait((datagram) => withNonce(datagram, nonce), ms, from);
  }

  /** Sends what must not be answered, and demands that nothing comes but the answer to the fence. */
  async unanswered(octets: Octets, what: string, on = this.port): Promise<string> {
    const before = on.inbox.length;
    await on.send(octets);
    const fenced = await this.fence();
    const nonce = nonceIn(octets);
    const unwanted = on.inbox
      .slice(before)
      .filter((datagram) => !informs(datagram, nonce) && withNonce(datagram, fenced) === undefined)
      .filter((datagram) => on !== this.lispPortOpened || !this.isLate(datagram));
    demand(unwanted.length === 0, `${what} was answered with ${unwanted.map(describeDatagram).join(', ')}.`);
    return `Nothing came back for ${what}, and the target went on to answer.`;
  }

  /** The Map-Notify about an EID of this stage, if the datagram is one. @throws Deviation when it cannot be read */
  notification({ octets }: Datagram): Answer | undefined {
    if ((octets[0] ?? 0) >>> 4 !== TYPE.mapNotify) return undefined;
    const answer = readAnswer(octets);
    return this.isForeign(answer) ? undefined : answer;
  }

  /** @returns the nonce of the fence. @throws Deviation when the target does not answer it */
  async fence(): Promise<bigint> {
    const nonce = this.subject.key === undefined ? await this.fenceByRequest() : await this.fenceByRegister();
    await sleep(this.subject.graceMs);
    return nonce;
  }

  /** Something to undo at the end, before what was registered is withdrawn. */
  atEnd(ending: () => Promise<void>): void {
    this.endings.push(ending);
  }

  async clear(): Promise<void> {
    try {
      for (const ending of this.endings) await ending();
      for (const etr of this.etrs) await etr.withdrawAll();
    } finally {
      this.ports.close();
      for (const xtr of this.taken) this.subject.xtrs.giveBack(xtr);
    }
  }

  private isLate({ octets }: Datagram): boolean {
    try {
      const isEcm = (octets[0] ?? 0) >>> 4 === TYPE.ecm;
      return this.isForeign(readAnswer(isEcm ? decapsulated(octets).message : octets));
    } catch (error) {
      if (error instanceof Deviation) return false;
      throw error;
    }
  }

  /** Whether it is about IP prefixes, and none of them has EIDs of this stage. */
  private isForeign({ records }: Answer): boolean {
    const prefixes = records.map(prefixOf);
    return prefixes.length > 0 && prefixes.every((each) => each !== undefined && !this.block.meets(each));
  }

  private async fenceByRegister(): Promise<bigint> {
    this.fencing ??= this.etr();
    const registration = await this.fencing.register([{ eid: ip(this.block.v4(FENCE_HOST)) }]);
    return registration.nonce;
  }

  private async fenceByRequest(): Promise<bigint> {
    const answer = await this.ask(ip(this.outside.v4(FENCE_HOST)), { sourceEid: NO_ADDRESS });
    demand(answer !== undefined, 'Afterwards the target did not answer a plain Map-Request any more.');
    return answer.nonce;
  }
}

export function describeDatagram({ octets }: Datagram): string {
  return `${octets.length} octets of type ${(octets[0] ?? 0) >>> 4}`;
}

/** An SMR, and a Map-Notify with another nonce than what was sent, answer nothing: they tell of a change. */
function informs({ octets }: Datagram, sent: bigint | undefined): boolean {
  const type = (octets[0] ?? 0) >>> 4;
  if (type === TYPE.mapNotify) return nonceIn(octets) !== sent;
  return type === TYPE.mapRequest && ((octets[0] ?? 0) & 0x01) !== 0;
}

function withNonce({ octets }: Datagram, nonce: bigint): Answer | undefined {
  return (octets[0] ?? 0) >>> 4 !== TYPE.ecm && nonceIn(octets) === nonce ? readAnswer(octets) : undefined;
}

const ASKS = 4;
const LISP_PORT = 4342;
/** The last address of a block; checks use the first ones. */
const FENCE_HOST = 7;
