/** A small xTR of one EID that does everything right, or all but one thing. It answers pings to the EID by itself. */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { type Answer, readAddressAt, readAnswer } from '../../conform/lisp/answers.ts';
import { decapsulated, encapsulated } from '../../conform/lisp/encapsulation.ts';
import {
  altered,
  ip,
  join,
  locator,
  mapRequest,
  type Octets,
  REQUEST,
  record,
  TYPE,
  u8,
  u32,
  u64,
} from '../../conform/lisp/octets.ts';
import { type RawDatagram, RawUdp } from '../../conform/lisp/raw-udp.ts';
import { Pacer } from '../../conform/pacer.ts';
import { HEADER } from '../../conform/xtr/echo.ts';

export type Fault =
  | 'answers with another nonce'
  | 'does not say P in answers to probes'
  | 'marks all locators as probed'
  | 'says A=0'
  | 'vouches for any EID'
  | 'answers D'
  | 'answers without an ITR-RLOC'
  | 'asks the source of an SMR'
  | 'does not react to SMRs'
  | 'asks for each SMR'
  | 'answers what it cannot read'
  | 'takes any instance'
  | 'drops nonces'
  | 'drops status bits'
  | 'answers about another EID'
  | 'reads map-versions beside a nonce'
  | 'refuses its own map-version'
  | 'takes newer map-versions'
  | 'does not tell of newer map-versions'
  | 'answers for any EID inside'
  | 'sends status bits'
  | 'stops at a truncated packet'
  | 'keeps the inner TTL'
  | 'takes the outer TTL, whatever it is'
  | 'loses congestion'
  | 'takes the outer ECN, whatever it is'
  | 'delivers congestion that cannot be said'
  | 'drops checksums of zero'
  | 'sends with its own TTL'
  | 'sends without ECN'
  | 'sends checksums';

export interface Place {
  readonly address: string;
  readonly eid: string;
  /** Of the prefix that it answers with; all of an EID without. */
  readonly maskLength?: number;
  /** Of its mapping; 0 without. */
  readonly version?: number;
  /** Its Map-Server, and where it sends packets to. */
  readonly peer: string;
}

export class XtrDouble {
  private readonly place: Place;
  private readonly fault: Fault | undefined;
  private readonly control: Socket = createSocket('udp4');
  private readonly data: Socket = createSocket('udp4');
  private solicitedAt = Number.NEGATIVE_INFINITY;
  private lastNonce = 0n;
  private stopped = false;
  private raw: RawUdp | undefined;
  private closed = false;

  constructor(place: Place, fault?: Fault) {
    this.place = place;
    this.fault = fault;
    this.control.on('message', (octets, from) => this.hear(new Uint8Array(octets), from));
    this.data.on('message', (octets) => {
      if (this.raw === undefined) this.take(new Uint8Array(octets));
    });
  }

  async start(): Promise<void> {
    this.control.bind(4342, this.place.address);
    this.data.bind(4341, this.place.address);
    await Promise.all([once(this.control, 'listening'), once(this.data, 'listening')]);
  }

  close(): void {
    this.closed = true;
    this.raw?.close();
    this.control.close();
    this.data.close();
  }

  private has(fault: Fault): boolean {
    return this.fault === fault;
  }

  private hear(octets: Octets, from: RemoteInfo): void {
    let message: Answer;
    let port = from.port;
    try {
      message = readAnswer(octets);
      if (message.type === TYPE.ecm) {
        const inner = decapsulated(octets);
        port = inner.sourcePort;
        message = readAnswer(inner.message);
      }
    } catch {
      if (this.has('answers what it cannot read')) this.send(u32(0xe000_0000), from.address, from.port);
      return;
    }
    if (message.type !== TYPE.mapRequest) return;
    const changed = readAddressAt(message.octets, 12).address.text;
    if ((message.word & REQUEST.S) !== 0) this.solicited(changed, from);
    else this.request(message, from.address, port);
  }

  private request({ word, records, nonce, trailer, itrRlocs }: Answer, address: string, port: number): void {
    const [asked] = records;
    if (itrRlocs.every(({ afi }) => afi === 0) && !this.has('answers without an ITR-RLOC')) return;
    if (asked === undefined || asked.maskLength > (asked.eid.afi === 2 ? 128 : 32)) return;
    if ((word & REQUEST.M) !== 0 && trailer.length < 12) return;
    if ((word & REQUEST.D) !== 0 && !this.has('answers D')) return;
    const own = asked.eid.text === this.place.eid && asked.eid.instance === 0;
    if (!own && !(this.has('vouches for any EID') && (asked.eid.afi === 1 || asked.eid.afi === 2))) return;
    const probe = (word & REQUEST.P) !== 0;
    const all = this.has('marks all locators as probed');
    const locators = [this.place.address, '192.0.2.99'].map((each, at) =>
      locator(ip(each), { flags: 5 | (probe && (at === 0 || all) ? 2 : 0) }),
    );
    const authority = this.has('says A=0') ? 0 : 0x1000;
    const about = this.has('answers about another EID') ? ip('192.0.2.1') : asked.eid.octets;
    const { maskLength = asked.maskLength, version = 0 } = this.place;
    const mapping = record(about, { ttl: 1, maskLength, word: authority, version, locators });
    const says = probe && !this.has('does not say P in answers to probes') ? 0x0800_0000 : 0;
    const same = this.has('answers with another nonce') ? nonce ^ 1n : nonce;
    this.send(join(u32((0x2000_0001 | says) >>> 0), u64(same), mapping), address, port);
  }

  private solicited(changed: string, { address, port }: RemoteInfo): void {
    const { eid, peer } = this.place;
    if (changed !== OTHER_EID || this.has('does not react to SMRs')) return;
    if (performance.now() - this.solicitedAt < 3_000 && !this.has('asks for each SMR')) return;
    this.solicitedAt = performance.now();
    const nonce = ++this.lastNonce;
    const asked = mapRequest({ nonce, flags: REQUEST.s, itrRlocs: [ip(this.place.address)], eid: ip(OTHER_EID) });
    if (this.has('asks the source of an SMR')) this.send(asked, address, port);
    else this.send(encapsulated(asked, { source: eid, destination: OTHER_EID, sourcePort: 4342 }), peer, 4342);
  }

  /** With raw sockets it sees outer headers and makes them, and its sockets only keep the port. */
  async useRaw(program: string): Promise<void> {
    const raw = await RawUdp.open(program, this.place.address, 4341, new Pacer(5_000));
    this.raw = raw;
    void (async () => {
      for (let at = 0; !this.closed; ) {
        const datagram = await raw.wait((each) => each, 200, at);
        if (datagram === undefined) continue;
        at++;
        this.takeRaw(datagram);
      }
    })();
  }

  private takeRaw({ octets, tos, ttl, checksum }: RawDatagram): void {
    if (checksum === 'zero' && this.has('drops checksums of zero')) return;
    const inner = octets.subarray(8);
    const [outside, inside] = [tos & 3, (inner[1] ?? 0) & 3];
    const innerTtl = inner[8] ?? 0;
    if (inside === 0 && outside === 3 && !this.has('delivers congestion that cannot be said')) return;
    let ecn = inside;
    if ((outside === 3 && inside !== 0) || (inside === 2 && outside === 1)) ecn = outside;
    if (this.has('loses congestion')) ecn = inside;
    if (this.has('takes the outer ECN, whatever it is') && outside !== 3) ecn = outside;
    const smaller = this.has('keeps the inner TTL') ? innerTtl : Math.min(ttl, innerTtl);
    const delivered = altered(octets, (copy) => {
      copy[9] = ((inner[1] ?? 0) & 0xfc) | ecn;
      copy[16] = this.has('takes the outer TTL, whatever it is') ? ttl : smaller;
    });
    if (inner[9] === 17) this.answerLisp(portUnreachable(delivered.subarray(8)));
    else this.take(delivered);
  }

  /** The inner packet, to the kit. */
  private answerLisp(inner: Octets): void {
    const { peer } = this.place;
    const packet = join(u32(this.has('sends status bits') ? 0x4000_0000 : 0), u32(0), inner);
    if (this.raw === undefined) this.data.send(packet, 4341, peer, () => {});
    else {
      void this.raw.send(packet, peer, 4341, {
        ttl: this.has('sends with its own TTL') ? 255 : (inner[8] ?? 0),
        tos: this.has('sends without ECN') ? 0 : (inner[1] ?? 0),
        checksum: this.has('sends checksums') ? 'right' : 'zero',
      });
    }
  }

  private take(octets: Octets): void {
    const first = octets[0] ?? 0;
    const inner = octets.subarray(8);
    const length = ((inner[2] ?? 0) << 8) | (inner[3] ?? 0);
    if (inner.length < 28 && this.has('stops at a truncated packet')) this.stopped = true;
    if (this.stopped || inner.length < 36 || inner[0] !== 0x45 || length > inner.length) return;
    const instance = (octets[4] ?? 0) | (octets[5] ?? 0) | (octets[6] ?? 0);
    if ((first & HEADER.I) !== 0 && instance !== 0 && !this.has('takes any instance')) return;
    if ((first & HEADER.N) !== 0 && this.has('drops nonces')) return;
    if ((first & HEADER.L) !== 0 && this.has('drops status bits')) return;
    if ((first & 0x90) === 0x90 && this.has('reads map-versions beside a nonce')) return;
    if (
      (first & (HEADER.V | HEADER.N)) === HEADER.V &&
      !this.takesVersion(((octets[2] ?? 0) & 0xf) * 256 + (octets[3] ?? 0))
    ) {
      return;
    }
    const [source, destination] = [inner.subarray(12, 16), inner.subarray(16, 20)];
    const toUs = Buffer.compare(destination, ip(this.place.eid).subarray(2)) === 0;
    if (!toUs && !this.has('answers for any EID inside')) return;
    const reply = join(inner.subarray(0, 12), destination, source, inner.subarray(20));
    reply[20] = 0;
    this.answerLisp(reply);
  }

  /** By the destination version; without versions it does not look. */
  private takesVersion(said: number): boolean {
    const { version = 0, peer, address } = this.place;
    if (version === 0) return true;
    if (said === version) return !this.has('refuses its own map-version');
    if (((said - version) & 0xfff) < 2_048) return this.has('takes newer map-versions');
    const told = { nonce: ++this.lastNonce, flags: REQUEST.S, itrRlocs: [ip(address)], eid: ip(OTHER_EID) };
    if (!this.has('does not tell of newer map-versions')) this.send(mapRequest(told), peer, 4342);
    return true;
  }

  private send(octets: Octets, address: string, port: number): void {
    this.control.send(octets, port, address, () => {});
  }
}

/** The kit's. */
export const OTHER_EID = '198.18.7.7';

/** An ICMP message that quotes an IPv4 packet, as the host that it was delivered to sends it. */
function portUnreachable(packet: Octets): Octets {
  const head = join(u8(0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0), packet.subarray(16, 20), packet.subarray(12, 16));
  return join(head, u8(3, 3, 0, 0, 0, 0, 0, 0), packet.subarray(0, 28));
}
