/** Agents, their data planes and a map server as values: virtual time, messages delivered at once and in order. */
import { strict as assert } from 'node:assert';
import { Agent, type AgentOptions, type SavedState } from '../../agent/core/agent.ts';
import type { Ticket } from '../../agent/core/map-requests.ts';
import type { AttachRequest } from '../../agent/core/mover.ts';
import type { Answer, Note } from '../../agent/core/output.ts';
import { hostPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { CAPABILITY } from '../../proto/capability.ts';
import type { DataplaneCommand, DataplaneEvent, HelloReply } from '../../proto/dataplane/messages.ts';
import { DEFAULT_INSTANCE, type EidKey, eidKey, parseEid, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf, xtrIdOf } from '../../proto/identity.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { mapNotify, mappingsOf, mapReply, negativeMapping, negativeReply, queriesOf } from '../../proto/lisp/native.ts';
import { type Generation, isTarget, type Mapping, type TunnelKey, type XtrId } from '../../proto/mapping.ts';
import { type AgentPolicy, encodePolicyFrames } from '../../proto/policy.ts';
import { minutes } from '../../proto/time.ts';
import { FakeDataplaneState } from './world-dataplane.ts';

export const OVERLAY = [parseIpPrefix('10.77.0.0/16')];

export class World {
  now = 1000;
  readonly server = new FakeMapServer(this);
  readonly hosts: Host[] = [];
  /** What agents said to one another. */
  readonly carried: { readonly from: string; readonly payload: string }[] = [];
  isCut: (from: TunnelKey, to: TunnelKey) => boolean = () => false;

  host(name: string, options: HostOptions = {}): Host {
    const host = new Host(this, name, options);
    this.hosts.push(host);
    for (const text of options.eids ?? []) {
      const [prefix = '', ...names] = text.split(' ');
      host.attach(prefix, { names });
    }
    if (options.address !== undefined) host.plug(options.address);
    return host;
  }

  /** Delivers everything that waits. */
  pump(): void {
    while (this.hosts.some((host) => host.drain()));
  }

  /** A message between agents, if the underlay carries it. */
  carry(from: Host, to: TunnelKey, payload: string): void {
    this.carried.push({ from: from.name, payload });
    if (this.isCut(from.key, to)) return;
    this.hosts.find(({ key }) => key === to)?.hear(from.key, payload);
  }

  /** Lets time pass, waking each agent exactly when it asked to be woken. */
  advance(ms: number): void {
    const end = this.now + ms;
    this.pump();
    for (let steps = 0; ; steps++) {
      assert(steps < 100_000, 'the agents do not come to rest');
      const next = Math.min(...this.hosts.map((host) => host.agent.pollTimeout()));
      if (next > end) break;
      this.now = Math.max(this.now, next);
      for (const host of this.hosts) if (host.agent.pollTimeout() <= this.now) host.agent.handleTimeout(this.now);
      this.pump();
    }
    this.now = end;
  }
}

interface HostOptions {
  /** `10.77.0.5` or `10.77.0.5 db web`: attached to the host itself. */
  readonly eids?: readonly string[];
  readonly address?: string;
  readonly from?: Host;
  readonly cacheLimit?: number;
  readonly lisp?: Pick<AgentOptions, 'plain' | 'elsewhere' | 'probing'>;
}

export class Host {
  readonly name: string;
  readonly key: TunnelKey;
  readonly xtrId: XtrId;
  readonly notes: Note[] = [];
  readonly answers = new Map<Ticket, Answer>();
  readonly saved: SavedState;
  agent: Agent;
  dataplane: FakeDataplaneState | null = null;
  connected = false;
  /** Messages that the map server got. */
  readonly sent: LispMessage[] = [];
  /** To LISP routers. */
  readonly datagrams: Uint8Array[] = [];
  private readonly lisp: HostOptions['lisp'];
  private readonly world: World;
  private late: LispMessage[] | null = null;
  private parked: { readonly from: TunnelKey; readonly payload: string }[] = [];
  private lastTicket = 0;

  constructor(world: World, name: string, options: HostOptions) {
    this.world = world;
    this.name = name;
    this.key = options.from?.key ?? (Buffer.alloc(32, name).toString('base64') as TunnelKey);
    this.xtrId = xtrIdOf(this.key);
    this.saved = options.from?.saved ?? {
      eids: [],
      withdrawals: [],
      targets: [],
      departures: [],
      cache: [],
      dataplane: { process: null, epoch: 0 },
      policy: null,
    };
    this.lisp = options.lisp;
    this.agent = this.start(options.cacheLimit);
  }

  /** A data plane process appears (or, with the state of the former, is attached to again). */
  attachDataplane(state = new FakeDataplaneState()): FakeDataplaneState {
    this.dataplane = state;
    this.agent.handleDataplaneHello(
      { ...HELLO, capability: state.capability, process: state.process, configured: state.configured },
      state.configured ? state.forwarding() : null,
      1000,
      this.world.now,
    );
    this.world.pump();
    return state;
  }

  loseDataplane(): void {
    this.dataplane = null;
    this.agent.handleDataplaneLost();
    this.world.pump();
  }

  event(event: DataplaneEvent): void {
    this.agent.handleDataplaneEvent(event, this.world.now);
    this.world.pump();
  }

  /** The map server says a policy; `parts` of it, if not all. */
  say(policy: AgentPolicy, parts = (frames: string[]) => frames): void {
    for (const frame of parts(encodePolicyFrames(policy))) this.agent.handlePolicyFrame(JSON.parse(frame));
    this.world.pump();
  }

  /** This host's only address from now on. */
  plug(address: string): void {
    if (this.dataplane === null) this.attachDataplane();
    const addresses = [{ address: parseIpAddress(address), interface: 'eth0', defaultRoute: true }];
    this.event({ type: 'locators', addresses });
  }

  miss(eid: string): void {
    this.event({ type: 'miss', eid: parseIpAddress(eid), reason: 'destination' });
  }

  /** From now on what the map server says arrives later. */
  lag(): void {
    this.late ??= [];
  }

  catchUp(): void {
    const messages = this.late ?? [];
    this.late = null;
    for (const message of messages) {
      this.deliver(message);
      this.world.pump();
    }
  }

  connect(observed: string | null = null): void {
    this.late = null;
    this.connected = true;
    const address = observed === null ? null : parseIpAddress(observed);
    this.agent.handleSession({ overlay: OVERLAY, observed: address }, this.world.now);
    this.world.pump();
  }

  disconnect(): void {
    this.late = null;
    this.connected = false;
    this.agent.handleSessionLost();
    this.world.pump();
  }

  attach(
    eid: string,
    options: { names?: readonly string[]; interface?: string; when?: AttachRequest['when'] } = {},
  ): Ticket {
    const { names = null, interface: via = null, when = 'up' } = options;
    const request = { prefix: parseIpPrefix(eid), names, interface: via, when };
    const ticket = this.ticket();
    assert(this.agent.attach(request, ticket, this.world.now));
    this.world.pump();
    return ticket;
  }

  detach(eid: string): void {
    assert(this.agent.detach(parseIpPrefix(eid), this.world.now));
    this.world.pump();
  }

  leave(eid: string, from: string, patienceMs: number): boolean {
    const known = this.agent.leave(parseIpPrefix(eid), from, patienceMs, this.world.now);
    this.world.pump();
    return known;
  }

  resolve(text: string): Ticket {
    const ticket = this.ticket();
    this.agent.resolve(parseEid(text), ticket, this.world.now);
    this.world.pump();
    return ticket;
  }

  probe(key: TunnelKey): Ticket {
    const ticket = this.ticket();
    this.agent.probe(key, ticket, this.world.now);
    this.world.pump();
    return ticket;
  }

  /** A new process of the same agent, from what is on disk; not `written`: the former did not come to write the last. */
  restart(written = true): void {
    this.late = null;
    if (written) Object.assign(this.saved, this.agent.save(this.world.now));
    this.connected = false;
    this.agent = this.start();
  }

  /** `state@generation` of an own EID or name. */
  stateOf(text: string): string {
    const key = eidKey(parseEid(text));
    const own = this.agent.ownEids().find((each) => each.key === key);
    return own === undefined ? 'none' : `${own.state}@${own.generation}`;
  }

  deliver(message: LispMessage): void {
    if (this.late !== null) {
      this.late.push(message);
      return;
    }
    this.agent.handleMessage(decodeLispMessage(encodeLispMessage(message)), this.world.now);
  }

  /** True if there was anything to do. */
  drain(): boolean {
    let any = false;
    for (let output = this.agent.pollOutput(); output !== undefined; output = this.agent.pollOutput()) {
      any = true;
      switch (output.to) {
        case 'dataplane':
          this.command(output.command);
          break;
        case 'map-server': {
          const message = decodeLispMessage(encodeLispMessage(output.message));
          this.sent.push(message);
          if (this.connected) this.world.server.handle(this, message);
          break;
        }
        case 'caller':
          this.answers.set(output.ticket, output.answer);
          break;
        case 'operator':
          this.notes.push(output.note);
          break;
        case 'disk':
          Object.assign(this.saved, this.agent.save(this.world.now));
          break;
        case 'lisp-router':
          this.datagrams.push(output.bytes);
          break;
        case 'link':
          break;
        default:
          output satisfies never;
      }
    }
    return any;
  }

  private command(command: DataplaneCommand): void {
    this.dataplane?.apply(command);
    switch (command.type) {
      case 'peer-send':
        this.world.carry(this, command.publicKey, command.payload);
        break;
      case 'peer-set':
        for (const { from, payload } of this.parked.splice(0)) this.hear(from, payload);
        break;
      case 'correspondents':
        this.agent.handleCorrespondents(
          command.prefix,
          this.dataplane?.correspondents.get(command.prefix) ?? [],
          this.world.now,
        );
        break;
      default:
    }
  }

  /** A message from another agent, inside the tunnel; held while the sender is not known. */
  hear(from: TunnelKey, payload: string): void {
    if (this.dataplane === null) return;
    if (this.dataplane.peers.has(from)) {
      this.agent.handleDataplaneEvent({ type: 'peer-message', publicKey: from, payload }, this.world.now);
      return;
    }
    if (!this.parked.some((each) => each.payload === payload)) this.parked.push({ from, payload });
    this.agent.handleDataplaneEvent({ type: 'unknown-peer', publicKey: from }, this.world.now);
  }

  /** From a LISP router, at UDP 4342. What became of it. */
  hear4342(from: string, bytes: Uint8Array): string {
    const before = this.notes.length;
    this.agent.handleLispDatagram({ address: parseIpAddress(from), port: 4342 }, bytes, this.world.now);
    this.world.pump();
    const note = this.notes.slice(before).find(({ type }) => type === 'lisp');
    return note?.type === 'lisp' ? note.result : 'nothing';
  }

  private start(cacheLimit?: number): Agent {
    return new Agent(
      {
        identity: {
          xtrId: this.xtrId,
          tunnelKey: this.key,
          agentAddress: agentAddressOf(this.key),
          instance: DEFAULT_INSTANCE,
        },
        privateKey: 'private',
        presharedKey: 'psk',
        overlay: OVERLAY,
        listenPort: 4341,
        mtu: 1420,
        locators: [],
        ...this.lisp,
        saved: structuredClone(this.saved),
        ...(cacheLimit === undefined ? {} : { cacheLimit }),
      },
      this.world.now,
    );
  }

  private ticket(): Ticket {
    return ++this.lastTicket as Ticket;
  }
}

/** The map server's side of docs/control-protocol.md, without grants and grace. */
export class FakeMapServer {
  readonly mappings = new Map<EidKey, Mapping>();
  readonly denied = new Set<EidKey>();
  readonly targets = new Map<EidKey, Map<XtrId, Mapping>>();
  private readonly revoked = new Map<EidKey, Mapping>();
  /** Requests and registrations are not answered. */
  silent = false;
  private readonly world: World;
  private readonly subscribers = new Map<EidKey, Set<XtrId>>();
  private readonly history = new Map<EidKey, Generation>();
  private lastPush = 1n << 63n;

  constructor(world: World) {
    this.world = world;
  }

  handle(from: Host, message: LispMessage): void {
    if (this.silent) return;
    if (message.type === 'map-register') this.register(from, mappingsOf(message), message.nonce);
    if (message.type !== 'map-request') return;
    for (const { eid, intent } of queriesOf(message)) {
      const key = eidKey(eid);
      if (intent === 'unsubscribe') {
        this.subscribers.get(key)?.delete(from.xtrId);
        continue;
      }
      this.subscribers.set(key, (this.subscribers.get(key) ?? new Set()).add(from.xtrId));
      const mapping = this.mappings.get(key);
      const revocation = this.revoked.get(key);
      if (revocation !== undefined) {
        from.deliver(mapReply({ nonce: message.nonce, mappings: [revocation] }));
      } else if (mapping === undefined) {
        from.deliver(negativeReply({ nonce: message.nonce, eid, action: 'drop', ttl: minutes(1) }));
      } else {
        from.deliver(mapNotify({ nonce: message.nonce, mappings: [mapping, ...this.agentOf(mapping)] }));
      }
    }
  }

  /** What it owns is nobody's any more, and everybody who is connected hears that it is none. */
  revoke({ key: tunnelKey, xtrId: owner }: Host): void {
    const eid = prefixEid(DEFAULT_INSTANCE, hostPrefix(agentAddressOf(tunnelKey)));
    const nothing = { ttl: 0, locators: [], names: [], targets: [] };
    for (const [key, mapping] of this.mappings) {
      if (mapping.owner !== owner) continue;
      this.mappings.delete(key);
      this.push([{ ...mapping, ...nothing, action: 'drop' }], this.subscribers.get(key) ?? []);
    }
    const generation = 1 as Generation;
    const revocation: Mapping = { eid, action: 'auth-failure', generation, owner, tunnelKey, ...nothing };
    this.revoked.set(eidKey(eid), revocation);
    const others = this.world.hosts.filter(({ xtrId }) => xtrId !== owner);
    this.push(
      [revocation],
      others.map(({ xtrId }) => xtrId),
    );
  }

  /** A session begins: it is told who was revoked lately. */
  remind({ xtrId }: Host): void {
    this.push([...this.revoked.values()], [xtrId]);
  }

  /** Tells everybody who asked. */
  push(mappings: readonly Mapping[], to: Iterable<XtrId>): void {
    for (const host of this.world.hosts) {
      if (!host.connected || ![...to].includes(host.xtrId)) continue;
      this.lastPush += 1n;
      host.deliver(mapNotify({ nonce: nonce(this.lastPush), mappings }));
    }
  }

  subscribersOf(eid: string): number {
    return this.subscribers.get(eidKey(parseEid(eid)))?.size ?? 0;
  }

  subscriptionsOf(host: Host): number {
    return [...this.subscribers.values()].filter((each) => each.has(host.xtrId)).length;
  }

  /** A map server without memory of the sessions: subscriptions are gone, mappings are not. */
  restart(): void {
    this.subscribers.clear();
  }

  private register(
    from: Host,
    mappings: readonly Mapping[],
    requestNonce: Parameters<typeof mapNotify>[0]['nonce'],
  ): void {
    const answers: Mapping[] = [];
    const pushes: (() => void)[] = [];
    for (const mapping of mappings) {
      const key = eidKey(mapping.eid);
      const stored = this.mappings.get(key);
      const mine = stored?.owner === from.xtrId;
      if (this.denied.has(key)) {
        answers.push({ ...mapping, action: 'policy-denied', locators: [], targets: [], generation: 0 as Generation });
        continue;
      }
      if (isTarget(mapping)) {
        answers.push(stored ?? negativeMapping({ eid: mapping.eid, action: 'drop', ttl: minutes(1) }));
        if (stored !== undefined) answers.push(...this.agentOf(stored));
        const targets = this.targets.get(key) ?? new Map<XtrId, Mapping>();
        this.targets.set(key, targets);
        if (mapping.ttl === 0) targets.delete(from.xtrId);
        else targets.set(from.xtrId, mapping);
        pushes.push(() => this.tellTargets(key));
        continue;
      }
      if (mapping.generation !== 0 && stored !== undefined && (!mine || stored.generation !== mapping.generation)) {
        answers.push(stored);
        continue;
      }
      const generation = mine ? stored.generation : (((this.history.get(key) ?? 0) + 1) as Generation);
      const accepted: Mapping = { ...mapping, generation, owner: from.xtrId };
      this.history.set(key, generation);
      if (mapping.ttl === 0) this.mappings.delete(key);
      else this.mappings.set(key, accepted);
      answers.push(accepted);
      const previous = stored !== undefined && !mine ? stored : undefined;
      if (previous !== undefined) answers.push(...this.agentOf(previous));
      const audience = new Set(this.subscribers.get(key));
      if (previous?.owner !== undefined) audience.add(previous.owner);
      audience.delete(from.xtrId);
      this.targets.get(key)?.delete(from.xtrId);
      pushes.push(() => this.push([accepted, ...this.agentOf(accepted)], audience));
      pushes.push(() => this.tellTargets(key));
    }
    from.deliver(mapNotify({ nonce: requestNonce, mappings: answers }));
    for (const push of pushes) push();
  }

  /** The owner hears of those who may take its EID over. */
  private tellTargets(key: EidKey): void {
    const stored = this.mappings.get(key);
    if (stored?.owner === undefined) return;
    for (const target of this.targets.get(key)?.values() ?? []) {
      if (target.owner === stored.owner) continue;
      this.push([{ ...target, generation: stored.generation }, ...this.agentOf(target)], [stored.owner]);
    }
  }

  private agentOf({ tunnelKey }: Mapping): readonly Mapping[] {
    if (tunnelKey === undefined) return [];
    const mapping = this.mappings.get(`[0]${hostPrefix(agentAddressOf(tunnelKey))}` as EidKey);
    return mapping === undefined ? [] : [mapping];
  }
}

const HELLO: HelloReply = {
  capability: CAPABILITY,
  software: 'fake',
  process: 'one',
  configured: false,
  cipher: 'aes-256-gcm',
  offloads: [],
  plain: true,
};
