/**
 * A model of the data plane process: what the commands of the channel make of a packet.
 *
 * It follows `proto/dataplane/messages.ts` and the crate's `forwarding.rs`, `commands.rs`, `ingress.rs` and `egress.rs`:
 * mappings with generations, EIDs of this host and those that have just left it, the source check, packets that wait for a
 * mapping, a session or an interface, and the sync that removes what it does not mention. EIDs are host prefixes.
 */
import { hostPrefix, type IpAddress, type IpPrefix, prefixAddress, prefixContains } from '../../proto/address.ts';
import type { DataplaneCommand, DataplaneEvent, ForwardingReply, HelloReply } from '../../proto/dataplane/messages.ts';
import { AGENT_PREFIX } from '../../proto/identity.ts';
import type { Generation, TunnelKey } from '../../proto/mapping.ts';
import { type Instant, type Millis, seconds } from '../../proto/time.ts';
import type { Clock } from './clock.ts';
import { type Datagram, Tunnel } from './tunnel.ts';

export interface Packet {
  readonly id: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
}

export interface DataplaneListener {
  event(event: DataplaneEvent): void;
  transmit(to: IpAddress, datagram: Datagram<Packet>): void;
  /** To the workload. */
  deliver(packet: Packet): void;
  interfaceUp(name: string): boolean;
  addresses(): readonly IpAddress[];
}

interface Mapping {
  readonly generation: number;
  readonly to: TunnelKey | 'drop';
  sync: number;
}

interface LocalEid {
  generation: number;
  interface: string | null;
  redirectFrom: { readonly key: TunnelKey; readonly until: Instant } | null;
  held: Held[];
  sync: number;
}

interface Departed {
  readonly generation: number;
  redirect: TunnelKey | null;
  readonly until: Instant;
  held: Held[];
}

interface Held {
  readonly packet: Packet;
  readonly from: TunnelKey | null;
  readonly since: Instant;
}

interface Waiting {
  readonly eid: IpAddress;
  readonly started: Instant;
  told: Instant;
  held: Held[];
}

type Route = 'here' | 'away' | 'drop' | 'miss' | 'departed' | 'outside' | { readonly to: TunnelKey };

export class Dataplane {
  readonly process: string;
  configured = false;
  readonly tunnel: Tunnel<Packet>;
  readonly mappings = new Map<IpAddress, Mapping>();
  readonly locals = new Map<IpAddress, LocalEid>();
  private readonly departed = new Map<IpAddress, Departed>();
  /** By what they wait for: `destination`, `source` or `conflict`, and the EID. */
  private readonly waiting = new Map<string, Waiting>();
  private readonly unsent = new Map<TunnelKey, Held[]>();
  private readonly unsentMessages = new Map<TunnelKey, { readonly payload: string; readonly since: Instant }[]>();
  /** By EID of this host and peer: when they last exchanged a packet. */
  private readonly talks = new Map<IpAddress, Map<TunnelKey, Instant>>();
  private readonly watched = new Map<string, number>();
  private readonly clock: Clock;
  private readonly listener: DataplaneListener;
  private agent: IpAddress | null = null;
  private overlay: readonly IpPrefix[] = [];
  private sync = 0;
  private syncing = false;
  private readonly syncedPeers = new Map<TunnelKey, number>();
  private ended = false;
  private sweeping = false;

  constructor(process: string, own: TunnelKey, clock: Clock, listener: DataplaneListener) {
    this.process = process;
    this.clock = clock;
    this.listener = listener;
    this.tunnel = new Tunnel(own, clock, {
      transmit: (to, datagram) => listener.transmit(to, datagram),
      deliver: (packet, from) => this.arrive({ packet, from, since: clock.now }),
      message: (payload, publicKey) => listener.event({ type: 'peer-message', publicKey, payload }),
      sessionUp: (key) => {
        this.release(take(this.unsent, key) ?? []);
        for (const { payload } of take(this.unsentMessages, key) ?? []) this.sendMessage(key, payload);
      },
      unknownPeer: (publicKey) => listener.event({ type: 'unknown-peer', publicKey }),
      peerMoved: (publicKey, address) => listener.event({ type: 'peer-moved', publicKey, address, port: PORT }),
      handover: (took) => listener.event({ type: 'handovers', micros: [Math.round(took * 1000)] }),
      probed: (token, rtt) => {
        listener.event({ type: 'probe-result', token, rttUs: rtt === null ? null : Math.round(rtt * 1000) });
      },
    });
  }

  end(): void {
    this.ended = true;
    this.tunnel.end();
  }

  hello(): HelloReply {
    const { process, configured } = this;
    return { capability: 1, software: 'model', process, configured, cipher: 'chacha20-poly1305', offloads: [] };
  }

  forwarding(): ForwardingReply {
    const mappings = [...this.mappings].flatMap(([eid, { generation, to }]) =>
      to === 'drop' ? [] : [{ prefix: hostPrefix(eid), generation: generation as Generation, publicKey: to }],
    );
    const peers = [...this.tunnel.peers.values()].filter(({ configured }) => configured);
    const locator = (address: IpAddress) => ({ address, port: PORT, priority: 1, weight: 100 });
    return {
      peers: peers.map(({ key, locators }) => ({ publicKey: key, locators: locators.map(locator) })),
      mappings,
    };
  }

  /** The agent's connection is gone. */
  agentLost(): void {
    this.syncing = false;
  }

  apply(command: DataplaneCommand): void {
    switch (command.type) {
      case 'configure':
        this.configured = true;
        this.tunnel.epoch = Math.max(this.tunnel.epoch, command.epoch);
        this.agent = command.agentAddress;
        this.overlay = command.overlay;
        this.reportLocators();
        return;
      case 'sync-begin':
        this.sync++;
        this.syncing = true;
        return;
      case 'sync-end':
        this.endSync();
        return;
      case 'peer-set':
        this.syncedPeers.set(command.publicKey, this.sync);
        this.tunnel.setPeer(
          command.publicKey,
          command.locators.map(({ address }) => address),
        );
        return;
      case 'peer-remove':
        this.removePeer(command.publicKey);
        return;
      case 'mapping-set':
        this.setMapping(command);
        return;
      case 'mapping-remove':
        this.mappings.delete(prefixAddress(command.prefix));
        return;
      case 'local-eid-set':
        this.setLocal(command);
        return;
      case 'local-eid-remove':
        this.removeLocal(prefixAddress(command.prefix), command.generation, command.redirectTo);
        return;
      case 'interface-watch':
        this.watched.set(command.name, this.sync);
        this.listener.event({ type: 'interface', name: command.name, up: this.listener.interfaceUp(command.name) });
        return;
      case 'interface-unwatch':
        this.watched.delete(command.name);
        return;
      case 'probe':
        this.tunnel.probe(command.publicKey, command.token);
        return;
      case 'peer-send':
        this.sendMessage(command.publicKey, command.payload);
        return;
      default:
        // The rest has no effect on forwarding.
        return;
    }
  }

  /** This host's addresses changed. */
  addressesChanged(): void {
    if (!this.configured) return;
    this.tunnel.moved();
    this.reportLocators();
  }

  interfaceChanged(name: string, up: boolean): void {
    if (this.watched.has(name)) this.listener.event({ type: 'interface', name, up });
    if (!up) return;
    for (const local of this.locals.values()) if (local.interface === name) this.release(local.held.splice(0));
  }

  receive(datagram: Datagram<Packet>, from: IpAddress): void {
    if (this.configured) this.tunnel.receive(datagram, from);
  }

  /** From a workload of this host. */
  send(packet: Packet): void {
    if (!this.configured) return;
    if (this.route(packet.destination) === 'here') {
      this.listener.deliver(packet);
      return;
    }
    this.forward({ packet, from: null, since: this.clock.now });
  }

  /** Peers that exchanged packets with this EID lately, newest first. */
  correspondents(eid: IpAddress): TunnelKey[] {
    const recent = [...(this.talks.get(eid) ?? [])].filter(([, at]) => this.clock.now - at < TALK_LIFE);
    return recent.sort(([, a], [, b]) => b - a).map(([key]) => key);
  }

  /** All packets that wait for something. */
  get heldPackets(): number {
    const queues = [...this.waiting.values(), ...this.locals.values(), ...this.departed.values()];
    const unsent = [...this.unsent.values()].reduce((sum, held) => sum + held.length, 0);
    return queues.reduce((sum, { held }) => sum + held.length, unsent);
  }

  // ── routing ───────────────────────────────────────────────────────────────────────────────────────────────────────

  private route(destination: IpAddress): Route {
    if (destination === this.agent) return 'here';
    const local = this.locals.get(destination);
    if (local !== undefined) return this.isLive(local) ? 'here' : 'away';
    const mapping = this.mappings.get(destination);
    if (mapping !== undefined) return mapping.to === 'drop' ? 'drop' : { to: mapping.to };
    const departed = this.departed.get(destination);
    if (departed !== undefined) return departed.redirect === null ? 'departed' : { to: departed.redirect };
    return this.inEidSpace(destination) ? 'miss' : 'outside';
  }

  /** Of what a peer sent: only what is or was ours goes anywhere. */
  private arrivalRoute(destination: IpAddress): Route {
    if (destination === this.agent || this.locals.has(destination)) return this.route(destination);
    const departed = this.departed.get(destination);
    if (departed === undefined) return 'outside';
    return departed.redirect === null ? 'departed' : { to: departed.redirect };
  }

  private checkSource(source: IpAddress, destination: IpAddress, from: TunnelKey): Source {
    const redirect = this.locals.get(destination)?.redirectFrom;
    if (redirect?.key === from && this.clock.now < redirect.until) return 'ok';
    const mapping = this.mappings.get(source);
    if (mapping !== undefined) return mapping.to === 'drop' ? 'denied' : mapping.to === from ? 'ok' : 'conflict';
    if (source === this.agent || this.locals.has(source)) return 'conflict';
    return this.inEidSpace(source) ? 'source' : 'outside';
  }

  private inEidSpace(address: IpAddress): boolean {
    return [AGENT_PREFIX, ...this.overlay].some((prefix) => prefixContains(prefix, address));
  }

  private isLive(local: LocalEid): boolean {
    return local.interface === null || this.listener.interfaceUp(local.interface);
  }

  // ── packets ───────────────────────────────────────────────────────────────────────────────────────────────────────

  private forward(held: Held): void {
    const { destination } = held.packet;
    const route = this.route(destination);
    if (typeof route === 'object') this.sendTo(route.to, held);
    else if (route === 'here') this.listener.deliver(held.packet);
    else if (route === 'away') this.keep(this.locals.get(destination)!.held, held);
    else if (route === 'departed') this.keep(this.departed.get(destination)!.held, held);
    else if (route === 'miss') this.wait('destination', destination, held);
  }

  /** A packet that a peer sent, or one of those that waited. */
  private arrive(held: Held): void {
    const { packet, from } = held;
    const route = this.arrivalRoute(packet.destination);
    if (route === 'outside' || from === null) return;
    const source = this.checkSource(packet.source, packet.destination, from);
    if (source === 'source' || source === 'conflict') {
      if (this.clock.now - held.since < HOLD_AGAIN) this.wait(source, packet.source, held);
      return;
    }
    if (source !== 'ok') return;
    this.noteTalk(packet.destination, from);
    if (route === 'here') this.listener.deliver(packet);
    else if (route === 'away') this.keep(this.locals.get(packet.destination)!.held, held);
    else if (route === 'departed') this.keep(this.departed.get(packet.destination)!.held, held);
    else if (typeof route === 'object' && route.to !== from) this.sendTo(route.to, held);
  }

  private noteTalk(eid: IpAddress, peer: TunnelKey): void {
    if (!this.locals.has(eid)) return;
    const peers = this.talks.get(eid) ?? new Map<TunnelKey, Instant>();
    this.talks.set(eid, peers.set(peer, this.clock.now));
  }

  private sendMessage(key: TunnelKey, payload: string): void {
    if (this.tunnel.send(key, { type: 'message', payload })) return;
    const { now } = this.clock;
    const queue = (this.unsentMessages.get(key) ?? []).filter(({ since }) => now - since < SESSION_LIFE);
    if (queue.length < MESSAGES) queue.push({ payload, since: now });
    this.unsentMessages.set(key, queue);
  }

  private sendTo(key: TunnelKey, held: Held): void {
    if (held.from === null) this.noteTalk(held.packet.source, key);
    if (this.tunnel.send(key, { type: 'packet', packet: held.packet })) return;
    const queue = this.unsent.get(key) ?? [];
    this.unsent.set(key, queue);
    this.keep(queue, held);
  }

  private wait(why: 'destination' | 'source' | 'conflict', eid: IpAddress, held: Held): void {
    const { now } = this.clock;
    const key = `${why} ${eid}`;
    let waiting = this.waiting.get(key);
    let tell = false;
    if (waiting === undefined) {
      waiting = { eid, started: now, told: now, held: [] };
      this.waiting.set(key, waiting);
      tell = true;
    } else if (now - waiting.told >= seconds(1)) {
      waiting.told = now;
      tell = true;
    }
    this.keep(waiting.held, held);
    if (!tell) return;
    if (why !== 'conflict') this.listener.event({ type: 'miss', eid, reason: why });
    else if (held.from !== null) this.listener.event({ type: 'conflict', eid, publicKey: held.from });
  }

  private keep(queue: Held[], held: Held): void {
    if (queue.length < QUEUE) queue.push(held);
    this.sweepLater();
  }

  private release(queue: readonly Held[]): void {
    for (const held of queue) {
      if (held.from === null) this.forward(held);
      else this.arrive(held);
    }
  }

  private releaseWaitingFor(eid: IpAddress): Held[] {
    return (['destination', 'source', 'conflict'] as const).flatMap(
      (why) => take(this.waiting, `${why} ${eid}`)?.held ?? [],
    );
  }

  private sweepLater(): void {
    if (this.sweeping) return;
    this.sweeping = true;
    this.clock.after(EXPIRY_STEP, () => {
      this.sweeping = false;
      if (!this.ended) this.expire();
    });
  }

  private expire(): void {
    const { now } = this.clock;
    for (const [key, { started }] of this.waiting) {
      if (now - started >= (key.startsWith('conflict') ? CONFLICT_LIFE : MISS_LIFE)) this.waiting.delete(key);
    }
    const young = (life: Millis) => (held: Held) => now - held.since < life;
    for (const local of this.locals.values()) local.held = local.held.filter(young(INTERFACE_LIFE));
    for (const [eid, departed] of this.departed) {
      departed.held = departed.held.filter(young(INTERFACE_LIFE));
      if (departed.until <= now) this.departed.delete(eid);
    }
    for (const [key, held] of this.unsent) {
      const left = held.filter(young(SESSION_LIFE));
      if (left.length === 0) this.unsent.delete(key);
      else this.unsent.set(key, left);
    }
    if (this.heldPackets > 0 || this.waiting.size > 0 || this.departed.size > 0) this.sweepLater();
  }

  // ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────

  private endSync(): void {
    if (!this.syncing) return;
    this.syncing = false;
    for (const [eid, { sync }] of this.mappings) if (sync !== this.sync) this.mappings.delete(eid);
    for (const [eid, { sync, generation }] of this.locals) {
      if (sync !== this.sync) this.removeLocal(eid, generation, null);
    }
    for (const [key, sync] of this.syncedPeers) if (sync !== this.sync) this.removePeer(key);
    for (const [name, sync] of this.watched) if (sync !== this.sync) this.watched.delete(name);
  }

  private removePeer(key: TunnelKey): void {
    this.syncedPeers.delete(key);
    this.tunnel.removePeer(
      key,
      [...this.mappings.values()].some(({ to }) => to === key),
    );
    this.unsent.delete(key);
    this.unsentMessages.delete(key);
    for (const local of this.locals.values()) if (local.redirectFrom?.key === key) local.redirectFrom = null;
    for (const departed of this.departed.values()) if (departed.redirect === key) departed.redirect = null;
  }

  private setMapping(command: Of<'mapping-set'>): void {
    const eid = prefixAddress(command.prefix);
    const { generation } = command;
    const known = this.mappings.get(eid);
    if (known !== undefined && known.generation > generation) {
      known.sync = this.sync;
      return;
    }
    const to = command.action === 'forward' ? command.publicKey! : 'drop';
    if (to !== 'drop') this.tunnel.intern(to);
    this.mappings.set(eid, { generation, to, sync: this.sync });
    const departed = this.departed.get(eid);
    if (departed !== undefined && to !== 'drop' && generation >= departed.generation) departed.redirect ??= to;
    this.release(this.releaseWaitingFor(eid));
    if (departed !== undefined && departed.redirect !== null) this.release(departed.held.splice(0));
  }

  private setLocal(command: Of<'local-eid-set'>): void {
    const eid = prefixAddress(command.prefix);
    const { generation, interface: via, redirectFrom } = command;
    const redirect = redirectFrom === null ? null : { key: redirectFrom, until: this.clock.now + REDIRECT_TRUST };
    if (redirectFrom !== null) this.tunnel.intern(redirectFrom);
    const held = [...(take(this.departed, eid)?.held ?? []), ...this.releaseWaitingFor(eid)];
    const known = this.locals.get(eid);
    if (known !== undefined && known.generation > generation) {
      known.sync = this.sync;
      this.release(held);
      return;
    }
    const local: LocalEid = {
      generation,
      interface: via,
      redirectFrom: redirect ?? known?.redirectFrom ?? null,
      held: [],
      sync: this.sync,
    };
    this.locals.set(eid, local);
    const all = [...held, ...(known?.held ?? [])];
    if (this.isLive(local)) this.release(all);
    else for (const each of all) this.keep(local.held, each);
  }

  private removeLocal(eid: IpAddress, generation: number, redirectTo: TunnelKey | null): void {
    const known = this.locals.get(eid);
    if (known !== undefined && known.generation > generation) return;
    if (known === undefined && !this.departed.has(eid) && redirectTo === null) return;
    this.locals.delete(eid);
    if (redirectTo !== null) this.tunnel.intern(redirectTo);
    const before = take(this.departed, eid);
    const mapping = this.mappings.get(eid);
    const mapped =
      mapping !== undefined && mapping.to !== 'drop' && mapping.generation >= generation ? mapping.to : null;
    const until = this.clock.now + DRAIN_TIME;
    this.departed.set(eid, { generation, redirect: redirectTo ?? mapped, until, held: [] });
    this.sweepLater();
    this.release([...(known?.held ?? []), ...(before?.held ?? [])]);
  }

  private reportLocators(): void {
    const addresses = this.listener.addresses().map((address) => ({ address, interface: 'eth0', defaultRoute: true }));
    this.listener.event({ type: 'locators', addresses });
  }
}

type Of<T extends DataplaneCommand['type']> = Extract<DataplaneCommand, { readonly type: T }>;
type Source = 'ok' | 'source' | 'conflict' | 'denied' | 'outside';

function take<K, V>(map: Map<K, V>, key: K): V | undefined {
  const value = map.get(key);
  map.delete(key);
  return value;
}

const PORT = 4341;
const QUEUE = 1024;
const MESSAGES = 64;
const TALK_LIFE = seconds(120);
const EXPIRY_STEP: Millis = 100;
const MISS_LIFE = seconds(3);
const CONFLICT_LIFE = seconds(1);
const HOLD_AGAIN = seconds(3);
const INTERFACE_LIFE = seconds(5);
const SESSION_LIFE = seconds(3);
const DRAIN_TIME = seconds(30);
const REDIRECT_TRUST = seconds(60);
