/**
 * A simulated world: a map server, hosts, the network between them and one clock. Cores are woken exactly when they asked
 * for it. What happens is told to the observer, and to the flow if there is one.
 */
import type { Agent, AgentOptions } from '../../agent/core/agent.ts';
import type { StoreRecord } from '../../mapserver/core/records.ts';
import type { IpAddress } from '../../proto/address.ts';
import type { DataplaneCommand, DataplaneEvent } from '../../proto/dataplane/messages.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import { Chance, Clock } from './clock.ts';
import { ContractError } from './contract.ts';
import type { Packet } from './dataplane.ts';
import type { Flow } from './flow.ts';
import { Host, type MakeAgent } from './host.ts';
import { MAP_SERVER, type MakeMapServer, MapServerProcess } from './map-server.ts';
import { Network } from './network.ts';
import type { Datagram } from './tunnel.ts';

/** Sees everything; throws when it is wrong. */
export interface Observer {
  attached(host: Host, eid: IpAddress, names: readonly string[] | null, via: string | null): void;
  detached(host: Host, eid: IpAddress): void;
  /** Before the agent hears it. */
  told(host: Host, message: LispMessage): void;
  event(host: Host, event: DataplaneEvent): void;
  /** The agent has dealt with an input, and all outputs are carried out. */
  handled(host: Host): void;
  /** The data plane has carried it out. */
  applied(host: Host, command: DataplaneCommand): void;
  dataplaneGone(host: Host): void;
  /** What the agent owns is on disk as it is now. */
  saved(host: Host): void;
  /** From what is on disk. */
  restarted(host: Host): void;
  committed(record: StoreRecord): void;
  sent(host: Host, packet: Packet): void;
  delivered(host: Host, packet: Packet): void;
}

export interface WorldOptions {
  readonly seed: number;
  readonly observer: Observer;
  readonly makeAgent: MakeAgent;
  readonly makeMapServer: MakeMapServer;
  readonly flow?: Flow | undefined;
}

export class World {
  readonly clock = new Clock();
  readonly chance: Chance;
  readonly network: Network<Datagram<Packet>>;
  readonly mapServer: MapServerProcess;
  readonly hosts: Host[] = [];
  readonly observer: Observer;
  private readonly makeAgent: (options: AgentOptions, now: Instant) => Agent;
  private readonly flow: Flow | undefined;
  private lastPacket = 0;

  constructor(options: WorldOptions) {
    this.chance = new Chance(options.seed);
    this.network = new Network(this.clock, this.chance);
    this.observer = options.observer;
    this.makeAgent = options.makeAgent;
    this.flow = options.flow;
    this.mapServer = new MapServerProcess(this, options.makeMapServer);
  }

  addHost(name: string): Host {
    const host = new Host(this, name, this.makeAgent);
    this.hosts.push(host);
    return host;
  }

  send(from: Host, source: IpAddress, destination: IpAddress): Packet {
    const packet = { id: ++this.lastPacket, source, destination };
    this.observer.sent(from, packet);
    this.note(from.name, packet);
    from.send(packet);
    return packet;
  }

  /** Lets time pass. */
  pass(ms: Millis): void {
    const { clock } = this;
    const end = clock.now + ms;
    const sleepers = [this.mapServer, ...this.hosts];
    let [wakes, at] = [0, Number.NaN];
    for (;;) {
      let [due, first]: [Instant, (typeof sleepers)[number] | null] = [clock.next(), null];
      for (const sleeper of sleepers) {
        const wakeAt = sleeper.wakeAt();
        if (wakeAt < due) [due, first] = [wakeAt, sleeper];
      }
      if (due > end) break;
      if (first === null) {
        clock.keepNext();
        continue;
      }
      clock.now = Math.max(clock.now, due);
      wakes = at === clock.now ? wakes + 1 : 0;
      at = clock.now;
      if (wakes > MAX_WAKES) throw new ContractError(`a core asks again and again to be woken at ${at}`);
      first.wake();
    }
    clock.now = end;
  }

  wallClock(): number {
    return EPOCH + this.clock.now;
  }

  nameOf(xtrId: XtrId): string {
    return this.hosts.find((host) => host.xtrId === xtrId)?.name ?? xtrId;
  }

  /** For the flow: what went from whom to whom, or happened at `from`. */
  note(from: string, what: Parameters<Flow['add']>[2], to: string = from): void {
    this.flow?.add(this.clock.now, from, what, to);
  }

  isOpen(a: string, b: string): boolean {
    return this.network.isOpen(a, b);
  }
}

/** More than one per core, as one may bring another about. */
const MAX_WAKES = 50;
const EPOCH = 1_700_000_000_000;

export { MAP_SERVER };
