/**
 * A host: an agent process with its disk, a data plane process, interfaces with workloads behind them, one underlay
 * address. Each process can crash by itself. What is between them takes a moment and keeps order.
 */
import type { Agent, AgentOptions, SavedState } from '../../agent/core/agent.ts';
import type { Ticket } from '../../agent/core/map-requests.ts';
import type { AgentOutput, Answer, Persistent } from '../../agent/core/output.ts';
import { hostPrefix, type IpAddress, type IpPrefix, prefixAddress } from '../../proto/address.ts';
import type { DataplaneCommand, DataplaneEvent } from '../../proto/dataplane/messages.ts';
import { DEFAULT_INSTANCE, type Eid } from '../../proto/eid.ts';
import { agentAddressOf, xtrIdOf } from '../../proto/identity.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';
import type { TunnelKey, XtrId } from '../../proto/mapping.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import { type Contract, ContractError, checkQueued, wakeNeedlessly } from './contract.ts';
import { ControlLink } from './control-link.ts';
import { Dataplane, type Packet } from './dataplane.ts';
import { OVERLAY } from './overlay.ts';
import type { World } from './world.ts';

/** How the core is made; another class is a mutant. */
export type MakeAgent = (options: AgentOptions, now: Instant) => Agent;

interface Disk {
  readonly saved: SavedState;
  /** By the wall clock. */
  readonly cacheSavedAt: number;
}

export class Host {
  readonly name: string;
  readonly key: TunnelKey;
  readonly xtrId: XtrId;
  readonly agentAddress: IpAddress;
  agent: Agent | null = null;
  dataplane: Dataplane | null = null;
  address: IpAddress | null = null;
  /** What the wall clock of this host is wrong by. */
  clockError: Millis = 0;
  readonly answers = new Map<Ticket, Answer>();
  private readonly world: World;
  private readonly make: MakeAgent;
  private readonly interfaces = new Set<string>();
  private disk: Disk = {
    saved: {
      eids: [],
      withdrawals: [],
      targets: [],
      departures: [],
      cache: [],
      dataplane: { process: null, epoch: 0 },
      policy: null,
    },
    cacheSavedAt: 0,
  };
  private link: ControlLink | null = null;
  /** The connection between the two processes; null: none. */
  private channel: Channel | null = null;
  private life = 0;
  private runs = 0;
  private processes = 0;
  private lastTicket = 0;
  private eidsBusy = false;
  private eidsChanged = false;
  private cacheBusy = false;

  constructor(world: World, name: string, make: MakeAgent) {
    this.world = world;
    this.name = name;
    this.make = make;
    this.key = Buffer.alloc(32, name).toString('base64') as TunnelKey;
    this.xtrId = xtrIdOf(this.key);
    this.agentAddress = agentAddressOf(this.key);
  }

  // ── the machine ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** Its only underlay address from now on. */
  plug(address: IpAddress | null): void {
    if (address === this.address) return;
    const { network } = this.world;
    const before = this.address;
    this.address = address;
    if (before !== null) network.unplug(before);
    if (address !== null) {
      network.plug(address, this.name, { receive: (datagram, from) => this.dataplane?.receive(datagram, from) });
    }
    network.look();
    this.dataplane?.addressesChanged();
  }

  setInterface(name: string, up: boolean): void {
    if (this.interfaces.has(name) === up) return;
    if (up) this.interfaces.add(name);
    else this.interfaces.delete(name);
    this.dataplane?.interfaceChanged(name, up);
  }

  isUp(name: string): boolean {
    return this.interfaces.has(name);
  }

  // ── the data plane's process ──────────────────────────────────────────────────────────────────────────────────────

  startDataplane(): void {
    if (this.dataplane !== null) return;
    const process = `${this.name}-${++this.processes}`;
    const { network, observer } = this.world;
    const dataplane: Dataplane = new Dataplane(process, this.key, this.world.clock, {
      event: (event) => this.channel?.toAgent(() => this.handleEvent(event)),
      transmit: (to, datagram) => {
        if (this.address !== null) network.send(this.address, this.name, to, datagram);
      },
      deliver: (packet) => observer.delivered(this, packet),
      interfaceUp: (name) => this.interfaces.has(name),
      addresses: () => (this.address === null ? [] : [this.address]),
    });
    this.dataplane = dataplane;
    this.world.note(this.name, `data plane ${process} starts`);
    this.attach();
  }

  crashDataplane(): void {
    if (this.dataplane === null) return;
    this.world.note(this.name, 'data plane crashes');
    this.dataplane.end();
    this.dataplane = null;
    this.world.observer.dataplaneGone(this);
    if (this.channel === null) return;
    this.channel.close();
    this.channel = null;
    this.input((agent) => agent.handleDataplaneLost());
  }

  send(packet: Packet): void {
    this.dataplane?.send(packet);
  }

  // ── the agent's process ───────────────────────────────────────────────────────────────────────────────────────────

  startAgent(): void {
    if (this.agent !== null) return;
    this.life++;
    // Counted on disk before anybody hears of it.
    const run = ++this.runs;
    const process = run.toString(16).padStart(16, '0');
    const { saved, cacheSavedAt } = this.disk;
    const elapsed = Math.max(0, this.wallClock() - cacheSavedAt);
    this.agent = this.make(
      {
        identity: {
          xtrId: this.xtrId,
          tunnelKey: this.key,
          agentAddress: this.agentAddress,
          instance: DEFAULT_INSTANCE,
        },
        privateKey: 'private',
        presharedKey: 'psk',
        overlay: OVERLAY,
        listenPort: 4341,
        mtu: 1420,
        locators: [],
        saved: { ...saved, cache: saved.cache.map((entry) => ({ ...entry, ageMs: entry.ageMs + elapsed })) },
      },
      this.world.clock.now,
    );
    this.world.note(this.name, 'agent starts');
    this.world.observer.restarted(this);
    this.drain();
    this.link = new ControlLink(
      this.world,
      this.name,
      () => this.address,
      (stream, address, connection) => {
        this.world.mapServer.accept(stream, this.xtrId, address, { run, process, connection });
      },
      {
        onSession: ({ observed }) => {
          this.world.note(this.name, 'session');
          this.input((agent, now) => agent.handleSession({ overlay: OVERLAY, observed }, now));
        },
        onMessage: (bytes) => this.handleMessage(bytes),
        onLost: () => {
          this.world.note(this.name, 'session lost');
          this.input((agent) => agent.handleSessionLost());
        },
      },
    );
    this.attach();
  }

  /** `clean`: it was asked to stop, and writes what it has. */
  stopAgent(clean: boolean): void {
    if (this.agent === null) return;
    this.world.note(this.name, clean ? 'agent stops' : 'agent crashes');
    if (clean) {
      this.writeEids();
      this.writeCache();
    }
    this.life++;
    this.agent = null;
    this.link?.close();
    this.link = null;
    this.channel?.agentGone();
    this.channel = null;
    this.dataplane?.agentLost();
    [this.eidsBusy, this.eidsChanged, this.cacheBusy] = [false, false, false];
  }

  /** An input of the agent, and all that it brings about. */
  input(feed: (agent: Agent, now: Instant) => void): void {
    const { agent } = this;
    if (agent === null) return;
    wakeNeedlessly(this.contract(agent), this.world.clock.now, this.world.chance);
    feed(agent, this.world.clock.now);
    this.drain();
    checkQueued(this.contract(agent));
    this.world.observer.handled(this);
  }

  attachEid(eid: IpAddress, names: readonly string[] | null, via: string | null): void {
    this.input((agent, now) => {
      this.world.observer.attached(this, eid, names, via);
      agent.attach({ prefix: hostPrefix(eid), names, interface: via, when: 'up' }, this.ticket(), now);
    });
  }

  detachEid(eid: IpAddress): void {
    this.input((agent, now) => {
      if (agent.detach(hostPrefix(eid), now)) this.world.observer.detached(this, eid);
    });
  }

  /** The answer is in `answers`, then or later. */
  resolve(eid: Eid): Ticket {
    const ticket = this.ticket();
    this.input((agent, now) => agent.resolve(eid, ticket, now));
    return ticket;
  }

  /** Once the data plane has carried out all that the agent has said so far; never if it is not listening. */
  afterCommands(act: () => void): void {
    if (this.dataplane !== null && this.channel?.ready === true) this.channel.toDataplane(act);
  }

  wakeAt(): Instant {
    return this.agent?.pollTimeout() ?? Number.POSITIVE_INFINITY;
  }

  wake(): void {
    this.input((agent, now) => agent.handleTimeout(now));
  }

  get connected(): boolean {
    return this.link?.connected === true;
  }

  // ── between them ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Whichever process came last: the agent connects as soon as there is something to connect to. */
  private attach(): void {
    const { agent, dataplane } = this;
    if (agent === null || dataplane === null || this.channel !== null) return;
    const channel = new Channel(this.world);
    this.channel = channel;
    const { life } = this;
    this.world.clock.after(this.world.chance.between(1, 150), () => {
      if (this.life !== life || this.dataplane !== dataplane || this.channel !== channel) return;
      channel.ready = true;
      this.input((current, now) =>
        current.handleDataplaneHello(dataplane.hello(), dataplane.forwarding(), this.wallClock() / 1000, now),
      );
    });
  }

  private command(command: DataplaneCommand): void {
    const { dataplane, channel } = this;
    if (dataplane === null || channel?.ready !== true) return;
    channel.toDataplane(() => {
      if (this.dataplane !== dataplane) return;
      this.world.note(this.name, command, 'dp');
      dataplane.apply(command);
      this.world.observer.applied(this, command);
      if (command.type === 'correspondents') this.answerCorrespondents(command.prefix, channel, dataplane);
    });
  }

  private answerCorrespondents(prefix: IpPrefix, channel: Channel, dataplane: Dataplane): void {
    const peers = dataplane.correspondents(prefixAddress(prefix));
    channel.toAgent(() => this.input((agent, now) => agent.handleCorrespondents(prefix, peers, now)));
  }

  private handleEvent(event: DataplaneEvent): void {
    this.world.note('dp', event, this.name);
    this.world.observer.event(this, event);
    this.input((agent, now) => agent.handleDataplaneEvent(event, now));
  }

  private handleMessage(bytes: Uint8Array): void {
    const message = decodeLispMessage(bytes);
    this.world.note('ms', message, this.name);
    this.world.observer.told(this, message);
    this.input((agent, now) => agent.handleMessage(message, now));
  }

  private contract(agent: Agent): Contract {
    return {
      name: `the agent of ${this.name}`,
      pollTimeout: () => agent.pollTimeout(),
      handleTimeout: (now) => agent.handleTimeout(now),
      takeOutputs: () => {
        let count = 0;
        while (agent.pollOutput() !== undefined) count++;
        return count;
      },
    };
  }

  private drain(): void {
    const { agent } = this;
    if (agent === null) return;
    const due = agent.pollTimeout();
    for (let output = agent.pollOutput(); output !== undefined; output = agent.pollOutput()) {
      if (due > this.world.clock.now) {
        throw new ContractError(`the agent of ${this.name} has something to say (${output.to}) but is not due`);
      }
      this.carryOut(output);
    }
  }

  private carryOut(output: AgentOutput): void {
    switch (output.to) {
      case 'dataplane':
        this.command(output.command);
        return;
      case 'map-server':
        this.link?.send(output.message);
        return;
      case 'caller':
        if (this.answers.size > MAX_ANSWERS) this.answers.clear();
        this.answers.set(output.ticket, output.answer);
        return;
      case 'disk':
        this.persist(output.what);
        return;
      case 'link':
        this.link?.handleAddresses(output.addresses);
        return;
      case 'operator':
      case 'lisp-router':
        return;
      default:
        output satisfies never;
    }
  }

  // ── disk, as often as `agent/shell/state-writer.ts` writes it ───────────────────────────────────────────────────────────

  private persist(what: Persistent): void {
    if (what === 'eids') {
      this.eidsChanged = true;
      if (!this.eidsBusy) this.writeEids();
    } else if (what === 'dataplane') {
      this.disk = { ...this.disk, saved: { ...this.disk.saved, dataplane: this.state().dataplane } };
    } else if (what === 'map-cache' && !this.cacheBusy) {
      this.cacheBusy = true;
      this.afterInThisLife(CACHE_WRITE, () => {
        this.cacheBusy = false;
        this.writeCache();
      });
    }
  }

  private writeEids(): void {
    this.eidsChanged = false;
    const { cache, dataplane } = this.disk.saved;
    this.disk = { ...this.disk, saved: { ...this.state(), cache, dataplane } };
    this.world.observer.saved(this);
    if (this.eidsBusy) return;
    this.eidsBusy = true;
    this.afterInThisLife(EIDS_WRITE, () => {
      this.eidsBusy = false;
      if (this.eidsChanged) this.writeEids();
    });
  }

  private writeCache(): void {
    const { cache } = this.state();
    this.disk = { saved: { ...this.disk.saved, cache }, cacheSavedAt: this.wallClock() };
  }

  private state(): SavedState {
    return this.agent!.save(this.world.clock.now);
  }

  private afterInThisLife(delay: Millis, act: () => void): void {
    const { life } = this;
    this.world.clock.after(delay, () => {
      if (this.life === life && this.agent !== null) act();
    });
  }

  private wallClock(): number {
    return this.world.wallClock() + this.clockError;
  }

  private ticket(): Ticket {
    return ++this.lastTicket as Ticket;
  }
}

/** A Unix socket: in order, each way a moment later. */
class Channel {
  ready = false;
  private readonly world: World;
  private readonly open = { toAgent: true, toDataplane: true };
  private readonly last = { toAgent: 0, toDataplane: 0 };

  constructor(world: World) {
    this.world = world;
  }

  toAgent(act: () => void): void {
    if (this.ready) this.pass('toAgent', act);
  }

  toDataplane(act: () => void): void {
    this.pass('toDataplane', act);
  }

  /** What the agent wrote is still read. */
  agentGone(): void {
    this.open.toAgent = false;
  }

  close(): void {
    this.open.toAgent = false;
    this.open.toDataplane = false;
  }

  private pass(way: 'toAgent' | 'toDataplane', act: () => void): void {
    const { clock, chance } = this.world;
    this.last[way] = Math.max(this.last[way], clock.now + chance.between(0.02, 0.3));
    clock.after(this.last[way] - clock.now, () => {
      if (this.open[way]) act();
    });
  }
}

const MAX_ANSWERS = 1000;
const EIDS_WRITE: Millis = 100;
const CACHE_WRITE: Millis = 1000;
