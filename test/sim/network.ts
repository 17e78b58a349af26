/**
 * The underlay: who can reach whom, datagrams that get lost, late, doubled and out of order, and streams.
 *
 * A node is an agent's host or the map server. A datagram goes from address to address, and arrives at whoever has the
 * address then. A stream keeps order and loses nothing while both ends and the way between them are there; while they
 * are not, what is said waits, and each end gives up by itself when it has heard nothing for three heartbeats. What one
 * end had said and the other never heard is lost then: neither knows which part of it.
 */
import type { IpAddress } from '../../proto/address.ts';
import { type Millis, seconds } from '../../proto/time.ts';
import type { Chance, Clock } from './clock.ts';

export type NodeName = string;

export interface Weather {
  /** Share of the datagrams. */
  readonly loss: number;
  readonly doubled: number;
  readonly latency: Millis;
  /** Added to the latency, up to; larger than the distance of two datagrams: they come out of order. */
  readonly jitter: Millis;
}

export const FAIR: Weather = { loss: 0, doubled: 0, latency: 2, jitter: 1 };

export interface Receiver<T> {
  receive(datagram: T, from: IpAddress): void;
}

export class Network<T> {
  weather: Weather = FAIR;
  /** Datagrams that are on their way. */
  inFlight = 0;
  private readonly clock: Clock;
  private readonly chance: Chance;
  private readonly receivers = new Map<IpAddress, { readonly node: NodeName; readonly receiver: Receiver<T> }>();
  private readonly cut = new Set<string>();
  private readonly streams = new Set<Stream<never, never>>();

  constructor(clock: Clock, chance: Chance) {
    this.clock = clock;
    this.chance = chance;
  }

  plug(address: IpAddress, node: NodeName, receiver: Receiver<T>): void {
    this.receivers.set(address, { node, receiver });
  }

  unplug(address: IpAddress): void {
    this.receivers.delete(address);
    this.look();
  }

  /** Whether the way between two nodes is there. */
  setWay(a: NodeName, b: NodeName, open: boolean): void {
    const changed = open ? this.cut.delete(wayOf(a, b)) : !this.cut.has(wayOf(a, b));
    if (!open) this.cut.add(wayOf(a, b));
    if (changed) this.look();
  }

  isOpen(a: NodeName, b: NodeName): boolean {
    return !this.cut.has(wayOf(a, b));
  }

  delay(): Millis {
    return this.weather.latency + this.chance.next() * this.weather.jitter;
  }

  send(from: IpAddress, fromNode: NodeName, to: IpAddress, datagram: T): void {
    if (this.inFlight >= MAX_IN_FLIGHT || this.chance.takes(this.weather.loss)) return;
    const copies = this.chance.takes(this.weather.doubled) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      this.inFlight++;
      this.clock.after(this.delay(), () => {
        this.inFlight--;
        const target = this.receivers.get(to);
        if (target !== undefined && this.isOpen(fromNode, target.node)) target.receiver.receive(datagram, from);
      });
    }
  }

  /** A stream of `client`, which has this address now, to `server`. */
  open<C, S>(client: NodeName, address: IpAddress, server: NodeName): Stream<C, S> {
    const stream = new Stream<C, S>(
      this.clock,
      this.chance,
      () => this.delay(),
      () => this.receivers.get(address)?.node === client && this.isOpen(client, server),
      () => this.streams.delete(stream as unknown as Stream<never, never>),
    );
    this.streams.add(stream as unknown as Stream<never, never>);
    return stream;
  }

  get streamCount(): number {
    return this.streams.size;
  }

  /** The ways, or the addresses at their ends, changed. */
  look(): void {
    for (const stream of [...this.streams]) stream.look();
  }
}

interface EndListener<T> {
  onMessage(message: T): void;
  /** Once; `code` if the other end closed it politely. */
  onEnd(code: number | null): void;
}

interface End<T> {
  listener: EndListener<T> | null;
  /** What this end will hear, in order. */
  readonly coming: ({ readonly message: T } | { readonly code: number | null })[];
  arriving: boolean;
  ended: boolean;
}

/** `C` is what the client hears, `S` what the server hears. */
export class Stream<C, S> {
  private readonly clock: Clock;
  private readonly chance: Chance;
  private readonly delay: () => Millis;
  private readonly wayIsOpen: () => boolean;
  private readonly onGone: () => void;
  private readonly client: End<C> = { listener: null, coming: [], arriving: false, ended: false };
  private readonly server: End<S> = { listener: null, coming: [], arriving: false, ended: false };
  private outage = 0;
  private dark = false;

  constructor(clock: Clock, chance: Chance, delay: () => Millis, wayIsOpen: () => boolean, onGone: () => void) {
    this.clock = clock;
    this.chance = chance;
    this.delay = delay;
    this.wayIsOpen = wayIsOpen;
    this.onGone = onGone;
    this.look();
  }

  listenAsClient(listener: EndListener<C>): void {
    this.client.listener = listener;
    this.deliver(this.client);
  }

  listenAsServer(listener: EndListener<S>): void {
    this.server.listener = listener;
    this.deliver(this.server);
  }

  get isOpen(): boolean {
    return !this.dark;
  }

  /** Both ends are gone. */
  get isOver(): boolean {
    return this.client.ended && this.server.ended;
  }

  /** What waits to be heard by either end. */
  get queued(): number {
    return this.client.coming.length + this.server.coming.length;
  }

  sendToServer(message: S): void {
    if (!this.client.ended) this.push(this.server, { message });
  }

  sendToClient(message: C): void {
    if (!this.server.ended) this.push(this.client, { message });
  }

  /** The client is gone: the server's end hears of it, if the way is there. */
  abandonByClient(): void {
    this.end(this.client, this.server, null, false);
  }

  closeByServer(code: number | null): void {
    this.end(this.server, this.client, code, false);
  }

  look(): void {
    const dark = !this.wayIsOpen();
    if (dark === this.dark) return;
    this.dark = dark;
    const outage = ++this.outage;
    if (!dark) {
      // The next retransmission of what waits.
      const delay = this.chance.between(1, 400);
      this.clock.after(delay, () => {
        if (this.outage !== outage) return;
        this.deliver(this.client);
        this.deliver(this.server);
      });
      return;
    }
    const ends = [
      [this.client, this.server],
      [this.server, this.client],
    ] as const;
    for (const [end, other] of ends) {
      this.clock.after(this.chance.between(HEARTBEATS, HEARTBEATS + HEARTBEAT), () => {
        if (this.outage === outage) this.end(end as End<unknown>, other as End<unknown>, null, true);
      });
    }
  }

  private push<T>(end: End<T>, item: { readonly message: T } | { readonly code: number | null }): void {
    if (end.ended) return;
    end.coming.push(item);
    this.deliver(end);
  }

  private deliver<T>(end: End<T>): void {
    if (end.arriving || end.coming.length === 0 || this.dark || end.listener === null) return;
    end.arriving = true;
    this.clock.after(this.delay(), () => {
      end.arriving = false;
      if (this.dark || end.ended || end.listener === null) return;
      for (const item of end.coming.splice(0)) {
        if (end.ended) return;
        if ('message' in item) end.listener.onMessage(item.message);
        else this.end(end, this.other(end), item.code, true);
      }
      this.deliver(end);
    });
  }

  private end<A, B>(end: End<A>, other: End<B>, code: number | null, tell: boolean): void {
    if (end.ended) return;
    end.ended = true;
    end.coming.length = 0;
    // Nobody took the other end.
    if (other.listener === null) other.ended = true;
    if (!other.ended) this.push(other, { code });
    else this.onGone();
    if (tell) end.listener?.onEnd(code);
  }

  private other(end: unknown): End<unknown> {
    return (end === this.client ? this.server : this.client) as End<unknown>;
  }
}

function wayOf(a: NodeName, b: NodeName): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}

const MAX_IN_FLIGHT = 20_000;
const HEARTBEAT: Millis = seconds(1);
const HEARTBEATS: Millis = seconds(3);
