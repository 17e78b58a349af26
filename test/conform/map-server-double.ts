/**
 * A small Map-Server on real UDP that does what RFC 9301 and RFC 9437 say, or all but one thing: its fault.
 *
 * It keeps octets as they came, so it says nothing of our codecs; it is what the kit is tested with.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { type Answer, type AnswerLocator, type AnswerRecord, readAnswer } from '../../conform/lisp/answers.ts';
import { decapsulated, encapsulated } from '../../conform/lisp/encapsulation.ts';
import { codeCovers, type SiteKey, seal } from '../../conform/lisp/message-code.ts';
import {
  authenticatedMessage,
  ip,
  join,
  lcaf,
  locator,
  mapRequest,
  type Octets,
  REGISTER,
  REQUEST,
  record,
  TYPE,
  u8,
  u16,
  u32,
  u64,
} from '../../conform/lisp/octets.ts';
import { type IpAddress, type IpPrefix, ipPrefix, prefixAddress, prefixContains } from '../../proto/address.ts';

export type Fault =
  | 'accepts replays'
  | 'ignores the code'
  | 'registers any prefix'
  | 'says A=1 in proxy replies'
  | 'says L=1 in proxy replies'
  | 'answers with another nonce'
  | 'answers negatively with TTL 0'
  | 'answers negatively for a /24'
  | 'answers probes'
  | 'believes mapping data'
  | 'refuses reserved bits'
  | 'does not sign Map-Notify'
  | 'does not merge'
  | 'answers what it cannot read'
  | 'publishes with the same nonce'
  | 'does not publish again'
  | 'keeps those who unsubscribed'
  | 'forgets locators of IPv6'
  | 'does not withdraw';

interface Registered {
  readonly prefix: IpPrefix;
  readonly record: AnswerRecord;
  readonly proxy: boolean;
  readonly merged: boolean;
  /** By xTR-ID. */
  readonly sets: Map<string, { readonly locators: readonly AnswerLocator[]; readonly peer: RemoteInfo }>;
}

interface Subscriber {
  readonly eid: AnswerRecord;
  readonly peer: RemoteInfo;
  nonce: bigint;
  active: boolean;
}

export class MapServerDouble {
  private readonly socket: Socket = createSocket('udp4');
  private readonly key: SiteKey;
  private readonly site: readonly IpPrefix[];
  private readonly fault: Fault | undefined;
  private readonly late: string | undefined;
  private readonly registrations = new Map<string, Registered>();
  private readonly nonces = new Map<string, bigint>();
  private readonly subscribers = new Map<string, Subscriber>();
  /** By nonce and port. */
  private readonly awaiting = new Map<string, NodeJS.Timeout>();
  private closed = false;

  /** `late`: an EID about which port 4342 of whoever registers hears first, as if somebody before had asked for it. */
  constructor(key: SiteKey, site: readonly IpPrefix[], fault?: Fault, late?: string) {
    this.key = key;
    this.site = site;
    this.fault = fault;
    this.late = late;
    this.socket.on('message', (octets, peer) => this.receive(new Uint8Array(octets), peer));
  }

  async start(): Promise<number> {
    this.socket.bind(0, '127.0.0.1');
    await once(this.socket, 'listening');
    return this.socket.address().port;
  }

  /** EIDs that are registered. */
  get registered(): string[] {
    return [...this.registrations.keys()];
  }

  /** Nonces of Map-Notify messages for which no acknowledgement came. */
  get unacknowledged(): string[] {
    return [...this.awaiting.keys()].map((awaited) => awaited.split(' ')[0] ?? '');
  }

  close(): void {
    this.closed = true;
    for (const timer of this.awaiting.values()) clearTimeout(timer);
    this.socket.close();
  }

  private has(fault: Fault): boolean {
    return this.fault === fault;
  }

  private receive(octets: Octets, peer: RemoteInfo, inEcm = false): void {
    let message: Answer;
    try {
      message = readAnswer(octets);
      if (message.type === TYPE.ecm) {
        if (inEcm) return;
        const { message: inner, sourcePort } = openEnvelope(octets);
        this.receive(inner, { ...peer, port: sourcePort }, true);
        return;
      }
    } catch {
      if (this.has('answers what it cannot read') && octets.length > 3) this.send(u8(0xe0, 0, 0, 0), peer);
      return;
    }
    if (message.type === TYPE.mapRegister) {
      if (this.late !== undefined) this.tellLate(ip(this.late), { ...peer, port: 4342 });
      this.register(message, peer);
    }
    if (message.type === TYPE.mapRequest) this.request(message, peer);
    if (message.type === TYPE.mapNotifyAck) this.acknowledged(message, peer);
    if (message.type === TYPE.info) this.info(message, peer);
  }

  /** A change, a negative answer and a Map-Request that goes on. */
  private tellLate(eid: Octets, to: RemoteInfo): void {
    const changed = record(eid, { locators: [locator(ip('192.0.2.88'))] });
    this.send(this.notify(randomNonce(), [changed]), to);
    this.send(join(u32(0x2000_0001), u64(randomNonce()), record(eid, { ttl: 1, word: 0x2000 })), to);
    const asked = mapRequest({ nonce: randomNonce(), itrRlocs: [ip(to.address)], eid });
    const inner = { source: to.address, destination: to.address, sourcePort: 4342 };
    this.send(encapsulated(asked, inner), to);
  }

  private register(message: Answer, peer: RemoteInfo): void {
    const { word, keyId, algorithm, nonce, records, trailer } = message;
    const right = keyId === this.key.keyId && algorithm === this.key.algorithm;
    if (!this.has('ignores the code') && (!right || codeCovers(message, this.key) === 'nothing')) return;
    if (this.has('refuses reserved bits') && (word & 0x01ff_e000) !== 0) return;
    if ((word & REGISTER.I) !== 0 && trailer.length < 24) return;
    const xtr = trailer.length >= 16 ? Buffer.from(trailer.subarray(0, 16)).toString('hex') : peer.address;
    const last = this.nonces.get(xtr) ?? -1n;
    if (nonce <= last && !this.has('accepts replays')) return;
    this.nonces.set(xtr, nonce);
    const allowed = records.filter((each) => this.allowed(each));
    for (const each of allowed) this.apply(each, xtr, word, peer);
    if ((word & REGISTER.M) === 0 || allowed.length < records.length) return;
    const notified = allowed.map((each) => this.registeredRecord(each));
    this.send(this.notify(nonce, notified, message.authentication.length), peer);
  }

  private allowed({ eid, maskLength }: AnswerRecord): boolean {
    if (eid.afi !== 1 && eid.afi !== 2) return false;
    if (maskLength > (eid.afi === 1 ? 32 : 128)) return false;
    if (this.has('registers any prefix')) return true;
    return this.site.some(
      (prefix) => sameFamily(prefix, eid.text) && prefixContains(prefix, prefixOf(eid.text, maskLength)),
    );
  }

  private apply(each: AnswerRecord, xtr: string, word: number, peer: RemoteInfo): void {
    const key = keyOf(each);
    const merged = (word & REGISTER.a) !== 0 && !this.has('does not merge');
    const before = this.registrations.get(key);
    const sets = merged && before?.merged === true ? before.sets : new Map<string, never>();
    const withdraws = each.ttl === 0 || each.locators.length === 0;
    if (withdraws && this.has('does not withdraw')) return;
    const six = this.has('forgets locators of IPv6');
    const locators = each.locators.filter(({ address }) => !six || address.afi !== 2);
    if (withdraws) sets.delete(xtr);
    else sets.set(xtr, { locators, peer } as never);
    const prefix = prefixOf(each.eid.text, each.maskLength);
    const proxy = (word & REGISTER.P) !== 0;
    if (sets.size === 0) this.registrations.delete(key);
    else this.registrations.set(key, { prefix, record: each, proxy, merged, sets });
    if (merged) {
      for (const [other, { peer: to }] of sets) {
        if (other !== xtr) this.send(this.notify(randomNonce(), [this.registeredRecord(each)]), to);
      }
    }
    this.publish(each, withdraws && sets.size === 0);
  }

  private publish(each: AnswerRecord, gone: boolean): void {
    for (const subscriber of this.subscribers.values()) {
      if (keyOf(subscriber.eid) !== keyOf(each)) continue;
      if (!subscriber.active && !this.has('keeps those who unsubscribed')) continue;
      if (!this.has('publishes with the same nonce')) subscriber.nonce += 1n;
      const octets = gone
        ? record(each.eid.octets, { ttl: 0, maskLength: each.maskLength })
        : this.registeredRecord(each);
      this.repeat(subscriber.nonce, this.notify(subscriber.nonce, [octets]), subscriber.peer);
    }
  }

  private repeat(nonce: bigint, octets: Octets, peer: RemoteInfo): void {
    this.send(octets, peer);
    if (this.has('does not publish again')) return;
    this.awaiting.set(
      `${nonce} ${peer.port}`,
      setTimeout(() => this.send(octets, peer), 3_000),
    );
  }

  private acknowledged(message: Answer, { port }: RemoteInfo): void {
    if (codeCovers(message, this.key) === 'nothing') return;
    const awaited = `${message.nonce} ${port}`;
    clearTimeout(this.awaiting.get(awaited));
    this.awaiting.delete(awaited);
  }

  private request(message: Answer, peer: RemoteInfo): void {
    const { word, records, trailer, itrRlocs } = message;
    const [asked] = records;
    if (asked === undefined || ((word & REQUEST.P) !== 0 && !this.has('answers probes'))) return;
    if ((word & (REQUEST.D | REQUEST.S)) !== 0) return;
    if ((word & REQUEST.M) !== 0) {
      if (trailer.length < 12) return;
      if (this.has('believes mapping data')) this.believe(trailer, peer);
    }
    if ((word & REQUEST.I) !== 0 && asked.subscribes) {
      this.subscribe(message, asked, peer);
      return;
    }
    if (!itrRlocs.some(({ afi }) => afi === 1)) return;
    if (asked.eid.afi !== 1 && asked.eid.afi !== 2) return;
    if (asked.maskLength > (asked.eid.afi === 1 ? 32 : 128)) return;
    this.answer(message, asked, peer);
  }

  private answer(message: Answer, asked: AnswerRecord, peer: RemoteInfo): void {
    const found = this.longest(asked);
    if (found !== undefined && !found.proxy) {
      const rloc = [...found.sets.values()][0]?.locators[0]?.address.text ?? '';
      const inner = { source: peer.address, destination: asked.eid.text, sourcePort: peer.port };
      this.send(encapsulated(message.octets, inner), { ...peer, address: rloc, port: 4342 });
      return;
    }
    const inside = found === undefined ? [] : this.moreSpecifics(found);
    const records = found === undefined ? [this.negative(asked)] : [found, ...inside].map((each) => this.reply(each));
    const nonce = this.has('answers with another nonce') ? message.nonce ^ 1n : message.nonce;
    this.send(join(u32(((TYPE.mapReply << 28) | records.length) >>> 0), u64(nonce), ...records), peer);
  }

  private subscribe(message: Answer, asked: AnswerRecord, peer: RemoteInfo): void {
    const { nonce, trailer, itrRlocs } = message;
    if (trailer.length < 16) return;
    const key = `${Buffer.from(trailer.subarray(0, 16)).toString('hex')} ${keyOf(asked)}`;
    const before = this.subscribers.get(key);
    if (before !== undefined && nonce <= before.nonce) return;
    const active = itrRlocs.some(({ afi }) => afi !== 0);
    this.subscribers.set(key, { eid: asked, peer, nonce, active });
    if (!active) {
      this.send(this.notify(nonce, [this.negative(asked)]), peer);
      return;
    }
    const found = this.longest(asked);
    if (found === undefined) this.send(join(u32(0x2000_0001), u64(nonce), this.negative(asked)), peer);
    else this.repeat(nonce, this.notify(nonce, [this.registeredRecord(found.record)]), peer);
  }

  private info(message: Answer, peer: RemoteInfo): void {
    if ((message.word & 0x0800_0000) !== 0 || message.keyId !== this.key.keyId) return;
    const whole = { ...message, recordsEnd: message.octets.length };
    if (!this.has('ignores the code') && codeCovers(whole, this.key) === 'nothing') return;
    const body = message.octets.subarray(16 + message.authentication.length, message.octets.length - 2);
    const nat = lcaf(7, join(u16(4342), u16(peer.port), ip(peer.address), ip('127.0.0.1'), u16(0), u16(0)));
    const { keyId, algorithm } = this.key;
    const code = new Uint8Array(message.authentication.length);
    const plain = join(u32(0x7800_0000), u64(message.nonce), u8(keyId, algorithm), u16(code.length), code, body, nat);
    this.send(seal(plain, this.key), peer);
  }

  /** Octets of the EID-record in M. */
  private believe(trailer: Octets, peer: RemoteInfo): void {
    const carried = readAnswer(join(u32(0x2000_0001), u64(0n), trailer)).records;
    for (const each of carried) this.apply(each, 'believed', REGISTER.P, peer);
  }

  private longest({ eid, maskLength }: AnswerRecord): Registered | undefined {
    return [...this.registrations.values()]
      .filter(({ prefix }) => sameFamily(prefix, eid.text) && prefixContains(prefix, prefixOf(eid.text, maskLength)))
      .sort((a, b) => b.record.maskLength - a.record.maskLength)[0];
  }

  private moreSpecifics(found: Registered): Registered[] {
    return [...this.registrations.values()].filter(
      (each) =>
        each !== found && sameFamily(found.prefix, each.record.eid.text) && prefixContains(found.prefix, each.prefix),
    );
  }

  private reply(found: Registered): Octets {
    const local = this.has('says L=1 in proxy replies');
    return this.recordOf(
      found,
      (flags) => (flags & 1) | (local ? 4 : 0),
      this.has('says A=1 in proxy replies') ? 0x1000 : 0,
    );
  }

  private registeredRecord(each: AnswerRecord): Octets {
    const found = this.registrations.get(keyOf(each));
    if (found === undefined) return record(each.eid.octets, { ttl: 0, maskLength: each.maskLength, word: 0 });
    return this.recordOf(found, (flags) => flags & 7, 0x1000);
  }

  private recordOf(found: Registered, flagsOf: (flags: number) => number, word: number): Octets {
    const { record: each, sets } = found;
    const locators = [...sets.values()]
      .flatMap((set) => set.locators)
      .map(({ octets }) => {
        const copy = Uint8Array.from(octets);
        copy.set(u16(flagsOf(copy[5] ?? 0)), 4);
        return copy;
      })
      .sort((a, b) => Buffer.compare(a.subarray(6), b.subarray(6)));
    return record(each.eid.octets, { ttl: 1, maskLength: each.maskLength, word, locators });
  }

  private negative({ eid }: AnswerRecord): Octets {
    const whole = eid.afi === 1 ? 32 : 128;
    const configured = this.site.some(
      (prefix) => sameFamily(prefix, eid.text) && prefixContains(prefix, eid.text as IpAddress),
    );
    let maskLength = this.has('answers negatively for a /24') ? whole - 8 : configured ? whole - 16 : 16;
    while (maskLength < whole && !this.has('answers negatively for a /24') && this.meets(eid.text, maskLength))
      maskLength++;
    const ttl = this.has('answers negatively with TTL 0') ? 0 : configured ? 1 : 15;
    const start = prefixAddress(prefixOf(eid.text, maskLength));
    return record(ip(start), { ttl, maskLength, word: 0x2000 });
  }

  private meets(address: string, maskLength: number): boolean {
    const prefix = prefixOf(address, maskLength);
    const others = [...this.registrations.values()].map((each) => each.prefix);
    return [...others].some((each) => sameFamily(prefix, prefixAddress(each)) && prefixContains(prefix, each));
  }

  private notify(nonce: bigint, records: readonly Octets[], length = 32): Octets {
    const { keyId, algorithm } = this.key;
    const authentication = new Uint8Array(length);
    const plain = authenticatedMessage({
      type: TYPE.mapNotify,
      flags: 0,
      nonce,
      keyId,
      algorithm,
      authentication,
      records,
    });
    return this.has('does not sign Map-Notify') ? plain : seal(plain, this.key);
  }

  private send(octets: Octets, to: Pick<RemoteInfo, 'address' | 'port'>): void {
    if (!this.closed) this.socket.send(octets, to.port, to.address, () => {});
  }
}

function openEnvelope(ecm: Octets): { readonly message: Octets; readonly sourcePort: number } {
  const six = (ecm[4] ?? 0) >>> 4 === 6;
  if (((ecm[0] ?? 0) & 0x08) !== 0 || ecm[six ? 10 : 13] !== 17) throw new Error('no UDP inside');
  const { message } = decapsulated(ecm);
  const udp = 4 + (six ? 40 : 20);
  const length = ((ecm[udp + 4] ?? 0) << 8) | (ecm[udp + 5] ?? 0);
  if ((ecm[4] ?? 0) >>> 4 === 7 || length !== message.length + 8) throw new Error('another length');
  return { message, sourcePort: ((ecm[udp] ?? 0) << 8) | (ecm[udp + 1] ?? 0) };
}

function keyOf({ eid, maskLength }: AnswerRecord): string {
  return `${eid.text}/${maskLength}`;
}

function prefixOf(address: string, maskLength: number): IpPrefix {
  return ipPrefix(address as IpAddress, maskLength);
}

function sameFamily(prefix: IpPrefix, address: string): boolean {
  return prefix.includes(':') === address.includes(':');
}

function randomNonce(): bigint {
  return BigInt(Math.floor(Math.random() * 2 ** 48));
}
