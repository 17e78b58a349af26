/**
 * The agent: an xTR's control plane as one state machine. It composes the registrar (what we own) with its Map-Registers,
 * the mover (how that comes and goes), the remote mappings (what others own) with their resolver, the locators (where we
 * are) and the data plane's table (what is forwarded), and hands each input to those whom it concerns.
 *
 * Rules that hold it together:
 * - Forwarding never waits for the map server. What the disk says is in the data plane before a session exists, and
 *   losing the session changes nothing.
 * - A change is acted on when it is seen: a new locator is registered, a push is passed to the data plane, a target
 *   whose interface came up is claimed, all in the call that reports it. Timers only repeat and expire.
 * - The newest generation wins. Ownership ends only by a newer generation of somebody else, by the operator, or by
 *   policy; never by silence.
 * - A peer exists for the data plane only if the map server vouches for its key.
 * - Nothing is registered before this host's locators are known: a mapping without locators would cut off everybody
 *   who talks to us.
 *
 * Driven by `handle…(…, now)`, `pollOutput()` and `pollTimeout()`.
 */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import type { DataplaneEvent, ForwardingReply, HelloReply, PlainRules } from '../../proto/dataplane/messages.ts';
import type { Eid } from '../../proto/eid.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mapNotifyAck, mappingsOf } from '../../proto/lisp/native.ts';
import { orderOf } from '../../proto/lisp/order.ts';
import type { TunnelKey } from '../../proto/mapping.ts';
import type { AgentPolicy } from '../../proto/policy.ts';
import { type Instant, type Millis, minutes, seconds } from '../../proto/time.ts';
import { Callers } from './callers.ts';
import { DataplaneProcess, type DataplaneSettings, type SavedDataplane } from './dataplane-process.ts';
import { DataplaneTable } from './dataplane-table.ts';
import { Departures, type SavedDeparture } from './departures.ts';
import { KnownTargets, LIFE, type SavedTarget } from './known-targets.ts';
import type { LispOutcome, LispPeer } from './lisp-responder.ts';
import { type LispElsewhere, LispRouters } from './lisp-routers.ts';
import { type ConfiguredLocator, Locators } from './locators.ts';
import type { CacheEntry, SavedEntry } from './map-cache.ts';
import { MapRegisters, type SavedWithdrawal } from './map-registers.ts';
import type { Ticket } from './map-requests.ts';
import { MapServerSession } from './map-server-session.ts';
import { type AttachRequest, Mover } from './mover.ts';
import { Outbox } from './outbox.ts';
import type { AgentOutput, Answer } from './output.ts';
import { PeerChannel } from './peer-channel.ts';
import { PeerMoves } from './peer-moves.ts';
import { EnforcedPolicy } from './policy.ts';
import { Preparations } from './preparations.ts';
import { ReceivedMappings } from './received-mappings.ts';
import { type AgentIdentity, type OwnedEid, Registrar, type SavedEid } from './registrar.ts';
import { RemoteMappings } from './remote-mappings.ts';
import { Resolver } from './resolver.ts';
import { type ProbedRloc, plainProbes, type RlocProbing } from './rloc-probes.ts';
import { Takeovers } from './takeovers.ts';

export interface AgentOptions extends DataplaneSettings {
  readonly identity: AgentIdentity;
  readonly overlay: readonly IpPrefix[];
  readonly locators: readonly ConfiguredLocator[];
  /** With which sites of LISP routers plain packets are exchanged; null for none. */
  readonly plain?: PlainRules | null;
  /** Mapping systems of others; only together with `plain`. */
  readonly elsewhere?: LispElsewhere | null;
  /** Of RLOCs that plain packets go to; null: they are not probed. */
  readonly probing?: RlocProbing | null;
  readonly saved: SavedState;
  readonly cacheLimit?: number;
}

/** What must outlive the process. */
export interface SavedState {
  readonly eids: readonly SavedEid[];
  readonly withdrawals: readonly SavedWithdrawal[];
  /** Who may take over which EID of ours. */
  readonly targets: readonly SavedTarget[];
  /** EIDs that were given to another agent, which the map server does not know yet. */
  readonly departures: readonly SavedDeparture[];
  readonly cache: readonly SavedEntry[];
  readonly dataplane: SavedDataplane;
  /** Null before the map server has ever said one. */
  readonly policy: AgentPolicy | null;
}

/** What the map server's welcome says. */
export interface Session {
  readonly overlay: readonly IpPrefix[];
  readonly observed: IpAddress | null;
}

export class Agent {
  private readonly outbox = new Outbox();
  private readonly session = new MapServerSession();
  private readonly registrar: Registrar;
  private readonly registers: MapRegisters;
  private readonly remote: RemoteMappings;
  private readonly resolver: Resolver;
  private readonly mover: Mover;
  private readonly received: ReceivedMappings;
  private readonly channel: PeerChannel;
  private readonly peerMoves: PeerMoves;
  private readonly departures: Departures;
  private readonly targets: KnownTargets;
  private readonly preparations: Preparations;
  private readonly locators: Locators;
  private readonly table: DataplaneTable;
  private readonly policy: EnforcedPolicy;
  private readonly lispRouters: LispRouters | null;
  private readonly probing = new Callers<number>(MAX_PROBES);
  private overlay: readonly IpPrefix[];
  private readonly dataplane: DataplaneProcess;
  /** From where the map server saw the last session. */
  private observed: IpAddress | null = null;
  private lastToken = 0;
  private nextRegister: Instant;
  private nextSweep: Instant;

  constructor(options: AgentOptions, now: Instant) {
    const { identity, saved } = options;
    const { outbox, session } = this;
    this.overlay = options.overlay;
    this.dataplane = new DataplaneProcess(saved.dataplane, options, identity, outbox);
    const plain = options.plain ?? null;
    const probes = plainProbes(
      options,
      { locators: () => locators.list(), changed: (prefix) => table.repeatMapping(prefix), outbox },
      now,
    );
    const table = new DataplaneTable((command) => outbox.command(command), plain, probes);
    const registrar = new Registrar(identity, saved.eids, now);
    const cacheLimit = options.cacheLimit ?? CACHE_LIMIT;
    const remote = new RemoteMappings(
      identity,
      table,
      cacheLimit,
      () => this.overlay,
      (note) => outbox.note(note),
      now,
    );
    const here = registrar.addresses().filter((owned) => registrar.isHere(owned));
    remote.restore(saved.cache, (key) => here.some((owned) => owned.key === key), now);
    const locators = new Locators(options.listenPort, options.locators);
    const registers = new MapRegisters(identity, registrar, locators, session, outbox, saved.withdrawals);
    const resolver = new Resolver({ identity, registrar, remote, locators, table, session, outbox }, now);
    const channel = new PeerChannel(identity, table, session, outbox);
    const targets = new KnownTargets(saved.targets, now);
    const preparations = new Preparations({ identity, registrar, remote, table, targets, channel, outbox }, now);
    const departures = new Departures({ remote, table, channel, targets, preparations, outbox }, now);
    const takeovers = new Takeovers(identity, locators, channel);
    const tables = { identity, registrar, registers, remote, resolver, locators, table };
    const parts = { ...tables, takeovers, departures, targets, preparations, session, outbox };
    const mover = new Mover(parts);
    departures.restore(saved.departures, now);
    this.received = new ReceivedMappings({
      ...{ identity, registrar, registers, remote, resolver, mover, outbox },
      registerBy: (at) => {
        this.nextRegister = Math.min(this.nextRegister, at);
      },
    });
    this.peerMoves = new PeerMoves({ ...parts, mover, channel });
    this.preparations = preparations;
    this.mover = mover;
    this.channel = channel;
    this.targets = targets;
    this.departures = departures;
    this.table = table;
    this.policy = new EnforcedPolicy(saved.policy, table, outbox);
    this.registrar = registrar;
    this.remote = remote;
    this.locators = locators;
    this.registers = registers;
    this.resolver = resolver;
    this.lispRouters =
      plain === null
        ? null
        : new LispRouters(
            {
              rules: plain,
              elsewhere: options.elsewhere ?? null,
              probes,
              remote,
              table,
              identity,
              instance: identity.instance,
              registrar,
              overlay: () => this.overlay,
              locators: () => locators.list(),
              isOwn: (address) => registrar.covering(address) !== undefined,
              askAgain: (eid, at) => resolver.askAgain(eid, at),
              newNonce: () => session.nextNonce(),
              outbox,
            },
            now,
          );
    this.nextRegister = now;
    this.nextSweep = now + SWEEP;
  }

  // ── data plane ────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * `forwarding`: what it does now, if it says so. `wallSeconds`: seconds since 1970, so that a lost state file does not
   * make the epoch smaller.
   */
  handleDataplaneHello(hello: HelloReply, forwarding: ForwardingReply | null, wallSeconds: number, now: Instant): void {
    const goesOn = this.dataplane.handleHello(hello, wallSeconds);
    if (goesOn && forwarding !== null) {
      this.remote.adopt(forwarding, (eid) => this.isHere(eid), now);
      this.outbox.persist('map-cache');
    }
    this.dataplane.configure(this.overlay);
    this.table.attach({ enforces: this.dataplane.enforcesPolicy, knowsPlain: hello.plain === true }, now);
  }

  handleDataplaneEvent(event: DataplaneEvent, now: Instant): void {
    switch (event.type) {
      case 'locators': {
        const { moved, changed } = this.locators.handleLocal(event.addresses, this.overlay);
        if (moved) this.outbox.addressesChanged(this.locators.localAddresses());
        if (changed && this.session.isUp) this.resolver.handleRoam(now);
        if (changed) this.announceLocators(now);
        return;
      }
      case 'interface':
        this.mover.handleInterface(event.name, event.up, now);
        return;
      case 'miss':
        if (this.lispRouters?.resolutions?.handleMiss(event.eid, event.reason, now) === true) return;
        this.resolver.handleMiss(event.eid, event.reason, now);
        return;
      case 'conflict':
        if (this.lispRouters?.resolutions?.handleConflict(event.eid, now) === true) return;
        this.resolver.handleConflict(event.eid, now);
        return;
      case 'unknown-peer':
        this.resolver.handleUnknownPeer(event.publicKey, now);
        return;
      case 'handovers':
        this.outbox.note({ type: 'handovers', micros: event.micros });
        return;
      case 'probe-result':
        for (const ticket of this.probing.take(event.token)) {
          this.outbox.answer(ticket, { kind: 'probe', rttUs: event.rttUs });
        }
        return;
      case 'resumed':
        this.dataplane.handleResumed(event);
        this.outbox.addressesChanged(this.locators.localAddresses());
        this.register(now);
        return;
      case 'superseded':
        this.outbox.note({ type: 'dataplane-superseded' });
        return;
      case 'peer-message':
        this.peerMoves.handle(event.publicKey, event.payload, now);
        return;
      case 'workload-seen':
        this.mover.handleWorkloadSeen(event.prefix, event.interface, now);
        return;
      case 'peer-moved':
        return;
      default:
        event satisfies never;
    }
  }

  handleDataplaneLost(): void {
    this.dataplane.handleLost();
    this.table.detach();
    for (const { ticket } of this.probing.expire(Number.POSITIVE_INFINITY)) this.outbox.answer(ticket, NO_ANSWER);
  }

  /** The answer to the data plane's command of that name. */
  handleCorrespondents(prefix: IpPrefix, peers: readonly TunnelKey[], now: Instant): void {
    this.departures.handleCorrespondents(prefix, peers, now);
    this.preparations.handleCorrespondents(prefix, peers, now);
  }

  /** RLOCs that exchanged plain packets with EIDs of this prefix lately, as the data plane says. */
  handlePlainCorrespondents(prefix: IpPrefix, rlocs: readonly IpAddress[], now: Instant): void {
    this.lispRouters?.solicit(prefix, rlocs, now);
  }

  // ── map server ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A new session, also when it takes the place of one that was not lost. */
  handleSession(session: Session, now: Instant): void {
    this.session.since = now;
    this.registers.forgetAll();
    this.registrar.handleSession();
    this.observed = session.observed;
    this.policy.handleSession();
    if (JSON.stringify(session.overlay) !== JSON.stringify(this.overlay)) this.handleOverlay(session.overlay);
    if (session.observed !== null && !this.locators.localAddresses().includes(session.observed)) {
      this.locators.handleObserved(session.observed, this.overlay);
    }
    this.register(now);
    this.remote.cache.handleSession(now);
    this.resolver.handleSession(now);
  }

  /** From where the map server has packets of this host, which may have another way out than its session has. */
  handleReflection(address: IpAddress, now: Instant): void {
    if (this.locators.localAddresses().includes(address)) return;
    this.observed = address;
    if (this.locators.handleObserved(address, this.overlay)) this.announceLocators(now);
  }

  /** The public addresses of this host, by the platform that it runs on. */
  handlePlatformAddresses(addresses: readonly IpAddress[], now: Instant): void {
    if (this.locators.handlePlatform(addresses, this.overlay)) this.announceLocators(now);
  }

  /** The platform is about to move or stop this host: what its move needs is done while there is time. */
  handleMaintenance(now: Instant): void {
    this.register(now);
    this.preparations.hasten(now);
    this.outbox.persist('map-cache');
  }

  handleSessionLost(): void {
    this.session.since = null;
    this.registers.forgetAll();
  }

  /** A frame with a policy or a part of one, parsed from JSON. One that is not understood changes nothing. */
  handlePolicyFrame(frame: unknown): void {
    this.policy.handleFrame(frame);
  }

  /** @throws DecodeError when a record is not understood; nothing of the message is applied then */
  handleMessage(message: LispMessage, now: Instant): void {
    if (message.type === 'map-request') {
      const order = orderOf(message);
      if (order !== null) this.mover.handleOrder(order, now);
      return;
    }
    if (message.type !== 'map-notify' && message.type !== 'map-reply') return;
    const mappings = mappingsOf(message);
    const register = message.type === 'map-notify' ? this.registers.finish(message.nonce) : null;
    const asked = register !== null ? null : this.resolver.finish(message.nonce);
    if (message.type === 'map-reply' && asked === null) return;
    // A withdrawal is done with its answer, whatever that says: it may have been attached again meanwhile.
    if (register !== 'withdrawal') this.received.apply(mappings, register !== null, asked?.eid ?? null, now);
    if (register === null && asked === null) {
      this.outbox.send(mapNotifyAck(message.nonce));
      this.outbox.note({ type: 'push', records: mappings.length });
    }
    if (asked !== null) this.resolver.answer(asked, now);
  }

  /** What the operator says of locators has changed. */
  handleConfiguredLocators(configured: readonly ConfiguredLocator[], now: Instant): void {
    if (this.locators.handleConfigured(configured, this.overlay)) this.announceLocators(now);
  }

  /** From a LISP router, over UDP. */
  handleLispDatagram(from: LispPeer, bytes: Uint8Array, now: Instant): LispOutcome {
    return this.lispRouters?.handleDatagram(from, bytes, now) ?? 'refused';
  }

  // ── operator, DNS ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** Answered with `attachment` when it is decided, or after a while without the map server. False: too many EIDs or names. */
  attach(request: AttachRequest, ticket: Ticket, now: Instant): boolean {
    return this.mover.attach(request, ticket, now);
  }

  /** False if it is not attached here. */
  detach(prefix: IpPrefix, now: Instant): boolean {
    return this.mover.detach(prefix, now);
  }

  /** The workload has gone from behind `from`: given up after `patience` unless it is elsewhere or back by then. */
  leave(prefix: IpPrefix, from: string, patience: Millis, now: Instant): boolean {
    return this.mover.leave(prefix, from, patience, now);
  }

  /** Answered with `resolution`, from what is known at once, else within about two seconds. */
  resolve(eid: Eid, ticket: Ticket, now: Instant): void {
    if (this.lispRouters?.resolutions?.resolve(eid, ticket, now) !== true) this.resolver.resolve(eid, ticket, now);
  }

  /** Answered with `probe`. */
  probe(publicKey: TunnelKey, ticket: Ticket, now: Instant): void {
    const token = ++this.lastToken;
    if (!this.table.isAttached || !this.probing.add(token, ticket, now + PROBE_PATIENCE)) {
      this.outbox.answer(ticket, NO_ANSWER);
      return;
    }
    this.outbox.command({ type: 'probe', publicKey, token });
  }

  // ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  handleTimeout(now: Instant): void {
    this.channel.handleTimeout(now);
    this.mover.handleTimeout(now);
    if (now >= this.nextRegister) this.register(now);
    if (now >= this.nextSweep) this.sweep(now);
    this.resolver.handleTimeout(now);
    this.lispRouters?.handleTimeout(now);
  }

  /** When `handleTimeout` wants to be called; now or earlier while outputs wait. */
  pollTimeout(): Instant {
    if (!this.outbox.isEmpty) return Number.NEGATIVE_INFINITY;
    const requests = this.resolver.pollTimeout() ?? Number.POSITIVE_INFINITY;
    const register = this.session.isUp ? this.nextRegister : Number.POSITIVE_INFINITY;
    const routers = this.lispRouters?.pollTimeout() ?? Number.POSITIVE_INFINITY;
    return Math.min(this.nextSweep, requests, register, this.channel.pollTimeout(), this.mover.pollTimeout(), routers);
  }

  pollOutput(): AgentOutput | undefined {
    return this.outbox.poll();
  }

  // ── views ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  save(now: Instant): SavedState {
    return {
      eids: this.registrar.save(),
      withdrawals: this.registers.save(),
      targets: this.targets.save(),
      departures: this.departures.save(),
      cache: this.remote.cache.save(now),
      dataplane: this.dataplane.save(),
      policy: this.policy.save(),
    };
  }

  ownEids(): readonly OwnedEid[] {
    return [...this.registrar.values()];
  }

  cached(): readonly CacheEntry[] {
    return [...this.remote.cache.values()];
  }

  /** Those of sites that plain packets may go to; none if they are not probed. */
  probedRlocs(): readonly ProbedRloc[] {
    return this.lispRouters?.probedRlocs() ?? [];
  }

  interfaceUp(name: string): boolean {
    return this.mover.isUp(name);
  }

  get overlayPrefixes(): readonly IpPrefix[] {
    return this.overlay;
  }

  snapshot(now: Instant) {
    return {
      overlay: this.overlay,
      locators: this.locators.list(),
      uplinks: this.locators.uplinks,
      observed: this.observed,
      sessionMs: this.session.since === null ? null : now - this.session.since,
      dataplane: this.dataplane.hello,
      cache: this.remote.cache.counts(now),
      peers: this.table.peerCount,
      policy: this.policy.current,
      policyProblem: this.policy.problem,
      enforcesPolicy: this.dataplane.hello === null || this.dataplane.enforcesPolicy,
    };
  }

  // ── repeated ──────────────────────────────────────────────────────────────────────────────────────────────────────

  private register(now: Instant): void {
    this.nextRegister = now + REGISTER_INTERVAL;
    this.registers.sendAll(now);
  }

  private sweep(now: Instant): void {
    this.nextSweep = now + SWEEP;
    this.mover.sweep(now);
    for (const { ticket } of this.probing.expire(now)) this.outbox.answer(ticket, NO_ANSWER);
    if (this.registers.expire(now)) this.nextRegister = now;
    this.table.sweep(now);
    if (this.session.since !== null && now - this.session.since > LIFE) this.targets.sweep(now);
    this.resolver.sweep(now);
  }

  private handleOverlay(overlay: readonly IpPrefix[]): void {
    this.overlay = overlay;
    this.outbox.persist('overlay');
    this.outbox.note({ type: 'overlay', overlay });
    if (this.table.isAttached) this.dataplane.configure(overlay);
  }

  private announceLocators(now: Instant): void {
    this.outbox.note({ type: 'locators', count: this.locators.list().length });
    this.register(now);
    this.lispRouters?.handleMoved(now);
  }

  private isHere(eid: Eid): boolean {
    const owned = this.registrar.find(eid);
    return owned !== undefined && this.registrar.isHere(owned);
  }
}

const NO_ANSWER: Answer = { kind: 'probe', rttUs: null };
const CACHE_LIMIT = 4096;
const MAX_PROBES = 64;
const SWEEP = seconds(1);
const REGISTER_INTERVAL = minutes(1);
const PROBE_PATIENCE = seconds(4);
