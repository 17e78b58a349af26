/**
 * A model of the data plane's tunnel: peers, handshakes, sessions with counters, roaming and silence.
 *
 * As docs/wire-format.md has it, without the cryptography: a datagram is a value, and what only the holder of a key or of
 * a session could read or make is compared instead. Locators are plain addresses. Not modelled: cookies, keepalives,
 * path MTU, and that a roam sends again what was lost.
 */
import type { IpAddress } from '../../proto/address.ts';
import type { TunnelKey } from '../../proto/mapping.ts';
import { type Instant, type Millis, minutes, seconds } from '../../proto/time.ts';
import type { Clock } from './clock.ts';

export type Datagram<P> =
  | {
      readonly kind: 'initiation';
      readonly from: TunnelKey;
      readonly to: TunnelKey;
      readonly index: number;
      readonly order: Order;
    }
  | { readonly kind: 'response'; readonly to: number; readonly index: number; readonly secret: number }
  | {
      readonly kind: 'sealed';
      readonly to: number;
      readonly secret: number;
      readonly counter: number;
      readonly body: Body<P>;
    };

type Body<P> =
  | { readonly type: 'packet'; readonly packet: P }
  /** From agent to agent. */
  | { readonly type: 'message'; readonly payload: string }
  | { readonly type: 'keepalive' }
  | { readonly type: 'probe' | 'answer'; readonly token: number };

/** Epoch and sequence. */
type Order = readonly [number, number];

export interface TunnelListener<P> {
  transmit(to: IpAddress, datagram: Datagram<P>): void;
  deliver(packet: P, from: TunnelKey): void;
  message(payload: string, from: TunnelKey): void;
  sessionUp(peer: TunnelKey): void;
  unknownPeer(key: TunnelKey): void;
  peerMoved(key: TunnelKey, address: IpAddress): void;
  handover(took: Millis): void;
  probed(token: number, rtt: Millis | null): void;
}

interface Session {
  readonly index: number;
  readonly remote: number;
  readonly secret: number;
  readonly initiator: boolean;
  readonly created: Instant;
  counter: number;
  newest: number;
  readonly received: Set<number>;
}

interface Peer {
  readonly key: TunnelKey;
  /** By `peer-set`, not only named by a mapping. */
  configured: boolean;
  locators: readonly IpAddress[];
  endpoint: IpAddress | null;
  current: Session | null;
  previous: Session | null;
  pending: Session[];
  /** Indexes of the initiations on their way; null: no handshake. */
  attempts: { tries: number; wanted: Instant; readonly indexes: Set<number> } | null;
  lastOrder: Order | null;
  lastReceived: Instant;
  silentSince: Instant | null;
  /** Tokens of the probes that may still be answered. */
  readonly probes: Map<number, { readonly sent: Instant; readonly asked: number | null }>;
  roam: { readonly started: Instant; answered: boolean } | null;
}

let lastIndex = 0;
let lastSecret = 0;

export class Tunnel<P> {
  epoch = 0;
  readonly peers = new Map<TunnelKey, Peer>();
  private readonly own: TunnelKey;
  private readonly clock: Clock;
  private readonly listener: TunnelListener<P>;
  private readonly parked = new Map<TunnelKey, { readonly from: IpAddress; readonly datagram: Datagram<P> }>();
  private sequence = 0;
  private lastToken = 0;
  private ended = false;

  constructor(own: TunnelKey, clock: Clock, listener: TunnelListener<P>) {
    this.own = own;
    this.clock = clock;
    this.listener = listener;
  }

  /** The process is gone. */
  end(): void {
    this.ended = true;
  }

  get waitingHandshakes(): number {
    return this.parked.size;
  }

  setPeer(key: TunnelKey, locators: readonly IpAddress[]): void {
    const peer = this.intern(key);
    const changed = peer.locators.join() !== locators.join();
    const first = !peer.configured;
    peer.configured = true;
    peer.locators = locators;
    if (changed && this.isUp(peer)) this.leaveUnlistedEndpoint(peer);
    else if (changed && peer.attempts !== null) this.restartHandshake(peer);
    if (!first) return;
    const parked = this.parked.get(key);
    this.parked.delete(key);
    if (parked !== undefined) this.receive(parked.datagram, parked.from);
  }

  removePeer(key: TunnelKey, stillNamed: boolean): void {
    const peer = this.peers.get(key);
    if (peer === undefined) return;
    this.peers.delete(key);
    for (const { asked } of peer.probes.values()) if (asked !== null) this.listener.probed(asked, null);
    if (stillNamed) this.intern(key).lastOrder = peer.lastOrder;
  }

  /** A mapping may name a peer before `peer-set` does. */
  intern(key: TunnelKey): Peer {
    const known = this.peers.get(key);
    if (known !== undefined) return known;
    const peer: Peer = {
      key,
      configured: false,
      locators: [],
      endpoint: null,
      current: null,
      previous: null,
      pending: [],
      attempts: null,
      lastOrder: null,
      lastReceived: Number.NEGATIVE_INFINITY,
      silentSince: null,
      probes: new Map(),
      roam: null,
    };
    this.peers.set(key, peer);
    return peer;
  }

  /** False, and a handshake is under way, when there is no session to send with. */
  send(key: TunnelKey, body: Extract<Body<P>, { type: 'packet' | 'message' }>): boolean {
    const peer = this.intern(key);
    if (!this.isUp(peer) || peer.endpoint === null) {
      this.wantSession(peer);
      return false;
    }
    if (peer.current!.initiator && this.clock.now - peer.current!.created >= OLD) this.wantSession(peer);
    this.seal(peer, peer.endpoint, body);
    if (peer.silentSince === null) this.watchSilence(peer);
    return true;
  }

  probe(key: TunnelKey, token: number): void {
    const peer = this.peers.get(key);
    if (peer === undefined || peer.endpoint === null || !this.isUp(peer)) {
      if (peer !== undefined) this.wantSession(peer);
      this.listener.probed(token, null);
      return;
    }
    this.sendProbe(peer, peer.endpoint, token);
  }

  /** This host's addresses changed: speak to every active peer at once. */
  moved(): void {
    for (const peer of this.peers.values()) {
      if (peer.attempts !== null) this.restartHandshake(peer);
      if (peer.endpoint === null || !this.isUp(peer)) continue;
      const roam = { started: this.clock.now, answered: false };
      peer.roam = roam;
      this.roamStep(peer, roam, 0);
    }
  }

  receive(datagram: Datagram<P>, from: IpAddress): void {
    switch (datagram.kind) {
      case 'initiation':
        this.handleInitiation(datagram, from);
        return;
      case 'response':
        this.handleResponse(datagram, from);
        return;
      case 'sealed':
        this.handleSealed(datagram, from);
        return;
      default:
        datagram satisfies never;
    }
  }

  isUp(peer: Peer): boolean {
    return peer.current !== null && this.clock.now - peer.current.created < DEAD;
  }

  private handleInitiation(datagram: Extract<Datagram<P>, { kind: 'initiation' }>, from: IpAddress): void {
    if (datagram.to !== this.own) return;
    const peer = this.peers.get(datagram.from);
    if (peer?.configured !== true) {
      if (this.parked.size >= MAX_PARKED && !this.parked.has(datagram.from)) return;
      const parked = { from, datagram };
      this.parked.set(datagram.from, parked);
      this.after(PARKED, () => {
        if (this.parked.get(datagram.from) === parked) this.parked.delete(datagram.from);
      });
      this.listener.unknownPeer(datagram.from);
      return;
    }
    const [epoch, sequence] = datagram.order;
    const last = peer.lastOrder;
    if (last !== null && (epoch < last[0] || (epoch === last[0] && sequence <= last[1]))) return;
    peer.lastOrder = datagram.order;
    const session = this.session(++lastIndex, datagram.index, ++lastSecret, false);
    peer.pending.push(session);
    peer.pending.splice(0, peer.pending.length - MAX_PENDING);
    peer.lastReceived = this.clock.now;
    this.listener.transmit(from, {
      kind: 'response',
      to: datagram.index,
      index: session.index,
      secret: session.secret,
    });
    this.moveEndpoint(peer, from);
  }

  private handleResponse(datagram: Extract<Datagram<P>, { kind: 'response' }>, from: IpAddress): void {
    const peer = [...this.peers.values()].find(({ attempts }) => attempts?.indexes.has(datagram.to) === true);
    if (peer === undefined) return;
    peer.previous = peer.current ?? peer.previous;
    peer.current = this.session(datagram.to, datagram.index, datagram.secret, true);
    peer.attempts = null;
    this.heard(peer);
    this.moveEndpoint(peer, from);
    this.seal(peer, from, { type: 'keepalive' });
    this.listener.sessionUp(peer.key);
  }

  private handleSealed(datagram: Extract<Datagram<P>, { kind: 'sealed' }>, from: IpAddress): void {
    for (const peer of this.peers.values()) {
      const sessions = [peer.current, peer.previous, ...peer.pending];
      const session = sessions.find((each) => each?.index === datagram.to && each.secret === datagram.secret);
      if (session === undefined || session === null) continue;
      this.open(peer, session, datagram, from);
      return;
    }
    // Somebody uses a session that this process does not have: it was restarted, and speaks first.
    const peer = [...this.peers.values()].find(({ configured, locators }) => configured && locators.includes(from));
    if (peer !== undefined && peer.current === null && peer.pending.length === 0) this.wantSession(peer);
  }

  private open(
    peer: Peer,
    session: Session,
    datagram: Extract<Datagram<P>, { kind: 'sealed' }>,
    from: IpAddress,
  ): void {
    if (this.clock.now - session.created >= DEAD || session.received.has(datagram.counter)) return;
    session.received.add(datagram.counter);
    const newest = datagram.counter > session.newest;
    session.newest = Math.max(session.newest, datagram.counter);
    this.heard(peer);
    if (peer.pending.includes(session)) this.confirm(peer, session);
    if (session === peer.previous) this.follow(peer, session);
    const latest = session !== peer.previous || (peer.current?.newest ?? -1) < 0;
    if (newest && latest) this.moveEndpoint(peer, from);
    const { body } = datagram;
    if (body.type === 'packet') this.listener.deliver(body.packet, peer.key);
    if (body.type === 'message') this.listener.message(body.payload, peer.key);
    if (body.type === 'probe') this.seal(peer, from, { type: 'answer', token: body.token });
    if (body.type === 'answer') this.handleAnswer(peer, body.token);
  }

  /** The initiator uses a session that was answered. Of two made at once, the end with the lower key decides for one. */
  private confirm(peer: Peer, session: Session): void {
    const { current } = peer;
    peer.pending = peer.pending.filter((each) => each !== session);
    const decided = this.own < peer.key || (current?.newest ?? -1) >= 0;
    const keepOwn = current !== null && crossed(current, session) && decided;
    if (keepOwn) peer.previous = session;
    else {
      peer.previous = current ?? peer.previous;
      peer.current = session;
    }
    peer.attempts = null;
    this.listener.sessionUp(peer.key);
    if (!keepOwn && current?.initiator === true && peer.endpoint !== null) {
      this.seal(peer, peer.endpoint, { type: 'keepalive' });
    }
  }

  /** The end with the lower key uses the other one of two sessions that were made at once. */
  private follow(peer: Peer, previous: Session): void {
    if (this.own < peer.key || peer.current === null || !crossed(previous, peer.current)) return;
    peer.previous = peer.current;
    peer.current = previous;
  }

  private handleAnswer(peer: Peer, token: number): void {
    const probe = peer.probes.get(token);
    if (probe === undefined) return;
    peer.probes.delete(token);
    if (probe.asked !== null) this.listener.probed(probe.asked, this.clock.now - probe.sent);
    if (peer.roam === null || peer.roam.answered || probe.sent < peer.roam.started) return;
    peer.roam.answered = true;
    this.listener.handover(this.clock.now - peer.roam.started);
  }

  private wantSession(peer: Peer): void {
    if (peer.attempts !== null) {
      peer.attempts.wanted = this.clock.now;
      return;
    }
    peer.attempts = { tries: 0, wanted: this.clock.now, indexes: new Set() };
    this.attempt(peer, peer.attempts);
  }

  private restartHandshake(peer: Peer): void {
    const wanted = peer.attempts?.wanted ?? this.clock.now;
    peer.attempts = { tries: 0, wanted, indexes: new Set(peer.attempts?.indexes) };
    this.attempt(peer, peer.attempts);
  }

  private attempt(peer: Peer, handshake: NonNullable<Peer['attempts']>): void {
    if (peer.attempts !== handshake || this.peers.get(peer.key) !== peer) return;
    if (this.clock.now - handshake.wanted > GIVE_UP) {
      peer.attempts = null;
      return;
    }
    const paths = candidates(peer);
    if (paths.length === 0 || !peer.configured) return;
    const wait = RETRIES[handshake.tries] ?? RETRY_CAP;
    const path = paths[handshake.tries++ % paths.length]!;
    const index = ++lastIndex;
    handshake.indexes.add(index);
    if (handshake.indexes.size > MAX_ATTEMPTS) handshake.indexes.delete(handshake.indexes.values().next().value!);
    const order = [this.epoch, ++this.sequence] as const;
    this.listener.transmit(path, { kind: 'initiation', from: this.own, to: peer.key, index, order });
    this.after(wait, () => this.attempt(peer, handshake));
  }

  private seal(peer: Peer, to: IpAddress, body: Body<P>): void {
    const session = peer.current;
    if (session === null || !this.isUp(peer)) return;
    const counter = session.counter++;
    this.listener.transmit(to, { kind: 'sealed', to: session.remote, secret: session.secret, counter, body });
  }

  private sendProbe(peer: Peer, to: IpAddress, asked: number | null = null): void {
    const token = ++this.lastToken;
    peer.probes.set(token, { sent: this.clock.now, asked });
    if (peer.probes.size > MAX_PROBES) peer.probes.delete(peer.probes.keys().next().value!);
    this.seal(peer, to, { type: 'probe', token });
    if (asked === null) return;
    this.after(PROBE_PATIENCE, () => {
      if (peer.probes.delete(token)) this.listener.probed(asked, null);
    });
  }

  private watchSilence(peer: Peer): void {
    const since = this.clock.now;
    peer.silentSince = since;
    const first = peer.locators.length > 1 ? SILENCE_MULTIHOMED : SILENCE;
    for (const delay of [first, first + 100, 3000]) {
      this.after(delay, () => {
        if (peer.silentSince !== since || !this.isUp(peer)) return;
        for (const path of candidates(peer).slice(0, delay === first ? 1 : 8)) this.sendProbe(peer, path);
      });
    }
    this.after(SILENCE_BEFORE_HANDSHAKE, () => {
      if (peer.silentSince !== since || this.peers.get(peer.key) !== peer) return;
      peer.silentSince = null;
      this.wantSession(peer);
    });
  }

  private roamStep(peer: Peer, roam: NonNullable<Peer['roam']>, step: number): void {
    if (peer.roam !== roam || roam.answered || this.peers.get(peer.key) !== peer) return;
    const wait = ROAM_STEPS[step];
    if (wait === undefined) {
      peer.roam = null;
      this.wantSession(peer);
      return;
    }
    for (const path of step === 0 ? candidates(peer).slice(0, 1) : candidates(peer)) this.sendProbe(peer, path);
    this.after(wait, () => this.roamStep(peer, roam, step + 1));
  }

  private leaveUnlistedEndpoint(peer: Peer): void {
    const [best] = peer.locators;
    if (best === undefined || (peer.endpoint !== null && peer.locators.includes(peer.endpoint))) return;
    if (this.clock.now - peer.lastReceived >= STALE_ENDPOINT) this.moveEndpoint(peer, best);
    this.sendProbe(peer, best);
  }

  private moveEndpoint(peer: Peer, to: IpAddress): void {
    const before = peer.endpoint;
    peer.endpoint = to;
    if (before !== null && before !== to) this.listener.peerMoved(peer.key, to);
  }

  private heard(peer: Peer): void {
    peer.lastReceived = this.clock.now;
    peer.silentSince = null;
  }

  private session(index: number, remote: number, secret: number, initiator: boolean): Session {
    const created = this.clock.now;
    return { index, remote, secret, initiator, created, counter: 0, newest: -1, received: new Set() };
  }

  private after(delay: Millis, act: () => void): void {
    this.clock.after(delay, () => {
      if (!this.ended) act();
    });
  }
}

/** Both ends initiated at once: the peer's was answered before ours was. */
function crossed(own: Session, answered: Session): boolean {
  return own.initiator && !answered.initiator && answered.created <= own.created;
}

/** Everything to try, what worked last first. */
function candidates({ endpoint, locators }: Peer): IpAddress[] {
  return endpoint === null ? [...locators] : [endpoint, ...locators.filter((each) => each !== endpoint)];
}

const MAX_PARKED = 256;
const PARKED = seconds(5);
const MAX_PENDING = 4;
const MAX_ATTEMPTS = 8;
const MAX_PROBES = 32;
const RETRIES: readonly Millis[] = [100, 200, 400, 800, 1000, 2000];
const RETRY_CAP = seconds(5);
const GIVE_UP = seconds(90);
const OLD = minutes(2);
const DEAD = minutes(3);
const SILENCE: Millis = 1500;
const SILENCE_MULTIHOMED: Millis = 200;
const SILENCE_BEFORE_HANDSHAKE = seconds(5);
const STALE_ENDPOINT = seconds(1);
const PROBE_PATIENCE = seconds(2);
const ROAM_STEPS: readonly Millis[] = [20, 30, 50, 100, 200, 400, 800, 1600, 3000];
