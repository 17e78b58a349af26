/**
 * The agent: an xTR's control plane as one state machine. It composes the registrar (what we own), the remote mappings
 * (what others own), the map-requests, the locators (where we are) and the data plane's table (what is forwarded).
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
import { hostPrefix, type IpAddress, type IpPrefix, prefixAddress } from '../../proto/address.ts';
import type { DataplaneEvent, HelloReply } from '../../proto/dataplane/messages.ts';
import { type Eid, type EidKey, eidKey, parseEidKey, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf } from '../../proto/identity.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mapNotifyAck, mappingsOf, mapRegister, subscribeRequest } from '../../proto/lisp/native.ts';
import { isWithdrawal, type Mapping, type TunnelKey } from '../../proto/mapping.ts';
import { type Instant, minutes, seconds } from '../../proto/time.ts';
import { Callers } from './callers.ts';
import { DataplaneTable, DRAIN } from './dataplane-table.ts';
import { type ConfiguredLocator, Locators } from './locators.ts';
import type { CacheEntry, SavedEntry } from './map-cache.ts';
import { MapRequests, type Ticket } from './map-requests.ts';
import type { AgentOutput, Answer, Note, Persistent, Resolution } from './output.ts';
import { type AgentIdentity, type OwnedEid, Registrar, type SavedEid } from './registrar.ts';
import { isAgentPrefix, RemoteMappings } from './remote-mappings.ts';
import { TokenBucket } from './token-bucket.ts';

export interface AgentOptions {
  readonly identity: AgentIdentity;
  /** X25519 private key and the overlay's PSK, base64; only passed on. */
  readonly privateKey: string;
  readonly presharedKey: string;
  readonly overlay: readonly IpPrefix[];
  readonly listenPort: number;
  readonly mtu: number;
  readonly locators: readonly ConfiguredLocator[];
  readonly saved: SavedState;
  readonly cacheLimit?: number;
}

/** What must outlive the process. */
export interface SavedState {
  readonly eids: readonly SavedEid[];
  readonly cache: readonly SavedEntry[];
  readonly dataplane: SavedDataplane;
}

/** The epoch that the data plane process `process` was configured with. */
export interface SavedDataplane {
  readonly process: string | null;
  readonly epoch: number;
}

/** What the map server's welcome says. */
export interface Session {
  readonly overlay: readonly IpPrefix[];
  readonly observed: IpAddress | null;
}

export interface AttachRequest {
  readonly prefix: IpPrefix;
  /** Null keeps the names that it has. */
  readonly names: readonly string[] | null;
  /** Where the workload is; null: this host itself. */
  readonly interface: string | null;
}

interface PendingRegister {
  readonly sentAt: Instant;
  /** What it gives up: to be said again if it is not answered. */
  readonly withdrawals: readonly Mapping[];
}

export class Agent {
  private readonly options: AgentOptions;
  private readonly identity: AgentIdentity;
  private readonly registrar: Registrar;
  private readonly remote: RemoteMappings;
  private readonly requests: MapRequests;
  private readonly locators: Locators;
  private readonly table: DataplaneTable;
  private readonly outputs: AgentOutput[] = [];
  private readonly queuedForDisk = new Set<Persistent>();
  private readonly registers = new Map<bigint, PendingRegister>();
  private readonly withdrawals: Mapping[] = [];
  private readonly attaching = new Callers<EidKey>(MAX_ATTACHING);
  private readonly probing = new Callers<number>(MAX_PROBES);
  private readonly interfaces = new Map<string, boolean>();
  private readonly resolutionRate: TokenBucket;
  private readonly strangerRate: TokenBucket;
  private resubscribe: Eid[] = [];
  /** Subscriptions whose entry left the map-cache. */
  private unsubscribe: Eid[] = [];
  private overlay: readonly IpPrefix[];
  private dataplane: SavedDataplane;
  private hello: HelloReply | null = null;
  private sessionSince: Instant | null = null;
  private lastNonce = 0n;
  private lastToken = 0;
  private nextRegister: Instant;
  private nextSweep: Instant;

  constructor(options: AgentOptions, now: Instant) {
    const { identity, saved } = options;
    this.options = options;
    this.identity = identity;
    this.overlay = options.overlay;
    this.dataplane = saved.dataplane;
    this.table = new DataplaneTable((command) => this.outputs.push({ to: 'dataplane', command }));
    this.registrar = new Registrar(identity, saved.eids, now);
    this.remote = new RemoteMappings(
      identity,
      this.table,
      options.cacheLimit ?? CACHE_LIMIT,
      () => this.overlay,
      (note) => this.note(note),
    );
    this.requests = new MapRequests(() => this.nonce());
    this.locators = new Locators(options.listenPort, options.locators);
    this.resolutionRate = new TokenBucket(1000, 500, now);
    this.strangerRate = new TokenBucket(64, 32, now);
    this.nextRegister = now;
    this.nextSweep = now + SWEEP;
    const here = this.registrar.addresses().filter((owned) => this.registrar.isHere(owned));
    this.remote.restore(saved.cache, (key) => here.some((owned) => owned.key === key), now);
    for (const owned of here) this.setLocal(owned);
    this.updateWatches();
  }

  // ── data plane ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** `wallSeconds`: seconds since 1970, so that a lost state file does not make the epoch smaller. */
  handleDataplaneHello(hello: HelloReply, wallSeconds: number, now: Instant): void {
    this.hello = hello;
    if (hello.process !== this.dataplane.process || !hello.configured) {
      const epoch = Math.max(this.dataplane.epoch + 1, Math.floor(wallSeconds));
      this.dataplane = { process: hello.process, epoch };
      this.persist('dataplane');
    }
    this.configure();
    this.table.attach(now);
  }

  handleDataplaneEvent(event: DataplaneEvent, now: Instant): void {
    switch (event.type) {
      case 'locators': {
        const { moved, changed } = this.locators.handleLocal(event.addresses, this.overlay);
        if (moved) this.outputs.push({ to: 'link', addresses: this.locators.localAddresses() });
        if (!changed) return;
        this.note({ type: 'locators', count: this.locators.list().length });
        this.register(now);
        return;
      }
      case 'interface':
        this.handleInterface(event.name, event.up, now);
        return;
      case 'miss': {
        const eid = this.addressEid(event.eid);
        if (!this.remote.repeat(eid, now)) this.askForDataplane(eid, now);
        return;
      }
      case 'conflict':
        this.askForDataplane(this.addressEid(event.eid), now);
        return;
      case 'unknown-peer':
        this.handleUnknownPeer(event.publicKey, now);
        return;
      case 'handover':
        this.note({ type: 'handover', publicKey: event.publicKey, micros: event.micros });
        return;
      case 'probe-result':
        for (const ticket of this.probing.take(event.token)) this.answer(ticket, { kind: 'probe', rttUs: event.rttUs });
        return;
      case 'superseded':
        this.note({ type: 'dataplane-superseded' });
        return;
      case 'peer-moved':
      case 'peer-message':
        return;
      default:
        event satisfies never;
    }
  }

  handleDataplaneLost(): void {
    this.hello = null;
    this.table.detach();
    for (const { ticket } of this.probing.expire(Number.POSITIVE_INFINITY)) this.answer(ticket, NO_ANSWER);
  }

  // ── map server ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A new session, also when it takes the place of one that was not lost. */
  handleSession(session: Session, now: Instant): void {
    this.sessionSince = now;
    this.forgetRegisters([...this.registers.keys()]);
    this.registrar.handleSession();
    if (JSON.stringify(session.overlay) !== JSON.stringify(this.overlay)) this.handleOverlay(session.overlay);
    if (session.observed !== null && !this.locators.localAddresses().includes(session.observed)) {
      this.locators.handleObserved(session.observed, this.overlay);
    }
    this.register(now);
    this.requests.restart(now);
    this.resubscribe = [...this.remote.cache.subscriptions()];
    this.unsubscribe = [];
    this.sendRequests(now);
  }

  handleSessionLost(): void {
    this.sessionSince = null;
    this.forgetRegisters([...this.registers.keys()]);
  }

  /** @throws DecodeError when a record is not understood; nothing of the message is applied then */
  handleMessage(message: LispMessage, now: Instant): void {
    if (message.type !== 'map-notify' && message.type !== 'map-reply') return;
    const mappings = mappingsOf(message);
    const register = message.type === 'map-notify' ? this.registers.get(message.nonce) : undefined;
    const registered = register !== undefined && this.registers.delete(message.nonce);
    const asked = registered ? null : this.requests.finish(message.nonce);
    if (message.type === 'map-reply' && asked === null) return;
    // A withdrawal is done with its answer, whatever that says: it may have been attached again meanwhile.
    if (register === undefined || register.withdrawals.length === 0) {
      this.applyRecords(mappings, registered, asked?.eid ?? null, now);
    }
    if (!registered && asked === null) {
      this.send(mapNotifyAck(message.nonce));
      this.note({ type: 'push', records: mappings.length });
    }
    if (asked === null) return;
    const resolution = this.known(asked.eid, now) ?? { kind: 'absent', action: 'no-action' };
    this.note({ type: 'resolution', result: resolution.kind });
    for (const ticket of asked.waiters) this.answer(ticket, { kind: 'resolution', resolution });
    this.sendRequests(now);
  }

  // ── operator, DNS ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** Answered with `attachment` when it is decided, or after a while without the map server. False: too many EIDs. */
  attach(request: AttachRequest, ticket: Ticket, now: Instant): boolean {
    const known = this.registrar.find(this.prefixEid(request.prefix));
    if (known === undefined && this.registrar.addresses().length >= MAX_OWN_EIDS) return false;
    const up = request.interface === null || this.interfaces.get(request.interface) === true;
    const watched = request.interface !== null && this.interfaces.has(request.interface);
    const owned = this.registrar.attach(request.prefix, request.names, request.interface, up, now);
    this.updateWatches();
    this.noteState(owned);
    this.persist('eids');
    const waits = owned.state !== 'target' || (this.table.isAttached && !watched);
    if (!waits || !this.attaching.add(owned.key, ticket, now + ATTACH_PATIENCE)) this.answerAttachment(ticket, owned);
    if (owned.state === 'target') {
      this.table.removeLocal(request.prefix, owned.generation, null, now);
      // Whoever has it now should be a known peer by the time it comes here.
      this.requests.ask(owned.eid, null, now);
      this.sendRequests(now);
      return true;
    }
    owned.confirmedAt = null;
    this.takeIn(owned, now);
    this.sendRegister(this.registrar.claimGroup(owned, this.locators.list()), now);
    return true;
  }

  /** False if it is not attached here. */
  detach(prefix: IpPrefix, now: Instant): boolean {
    const result = this.registrar.detach(prefix, now);
    if (result === null) return false;
    const { owned, withdrawals } = result;
    this.table.removeLocal(prefix, owned.generation, null, now);
    this.queueWithdrawals(withdrawals);
    this.flushWithdrawals(now);
    for (const ticket of this.attaching.take(owned.key)) this.answerAttachment(ticket, owned);
    this.updateWatches();
    this.persist('eids');
    return true;
  }

  /** Answered with `resolution`, from what is known at once, else within `RESOLVE_PATIENCE`. */
  resolve(eid: Eid, ticket: Ticket, now: Instant): void {
    const known = this.known(eid, now);
    if (known !== null) {
      this.answer(ticket, { kind: 'resolution', resolution: known });
    } else if (this.requests.ask(eid, ticket, now, RESOLVE_PATIENCE)) {
      this.sendRequests(now);
    } else {
      this.note({ type: 'limit', what: 'map-requests' });
      this.answer(ticket, UNAVAILABLE);
    }
  }

  /** Answered with `probe`. */
  probe(publicKey: TunnelKey, ticket: Ticket, now: Instant): void {
    const token = ++this.lastToken;
    if (!this.table.isAttached || !this.probing.add(token, ticket, now + PROBE_PATIENCE)) {
      this.answer(ticket, NO_ANSWER);
      return;
    }
    this.outputs.push({ to: 'dataplane', command: { type: 'probe', publicKey, token } });
  }

  // ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  handleTimeout(now: Instant): void {
    const { tickets, ended } = this.requests.expire(now);
    for (const ticket of tickets) this.answer(ticket, UNAVAILABLE);
    for (const eid of ended) {
      this.remote.cache.refreshFailed(eid);
      this.note({ type: 'resolution', result: 'unavailable' });
    }
    if (now >= this.nextRegister) this.register(now);
    if (now >= this.nextSweep) this.sweep(now);
    this.sendRequests(now);
  }

  /** When `handleTimeout` wants to be called; now or earlier while outputs wait. */
  pollTimeout(): Instant {
    if (this.outputs.length > 0) return Number.NEGATIVE_INFINITY;
    const requests = this.requests.pollTimeout(this.sessionSince !== null) ?? Number.POSITIVE_INFINITY;
    const register = this.sessionSince === null ? Number.POSITIVE_INFINITY : this.nextRegister;
    return Math.min(this.nextSweep, requests, register);
  }

  pollOutput(): AgentOutput | undefined {
    const output = this.outputs.shift();
    if (output?.to === 'disk') this.queuedForDisk.delete(output.what);
    return output;
  }

  // ── views ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  save(now: Instant): SavedState {
    return { eids: this.registrar.save(), cache: this.remote.cache.save(now), dataplane: this.dataplane };
  }

  ownEids(): readonly OwnedEid[] {
    return [...this.registrar.values()];
  }

  cached(): readonly CacheEntry[] {
    return [...this.remote.cache.values()];
  }

  interfaceUp(name: string): boolean {
    return this.interfaces.get(name) === true;
  }

  snapshot(now: Instant) {
    return {
      overlay: this.overlay,
      locators: this.locators.list(),
      sessionMs: this.sessionSince === null ? null : now - this.sessionSince,
      dataplane: this.hello,
      cache: this.remote.cache.counts(now),
      peers: this.table.peerCount,
    };
  }

  // ── resolution ────────────────────────────────────────────────────────────────────────────────────────────────────

  private known(eid: Eid, now: Instant): Resolution | null {
    const own = eid.kind === 'name' ? this.registrar.find(eid) : this.registrar.covering(prefixAddress(eid.prefix));
    if (own === undefined || !this.registrar.isHere(own)) return this.remote.find(eid, this.sessionSince !== null, now);
    const mapping = this.registrar.mapping(own, this.locators.list());
    return { kind: 'found', mapping, own: true, stale: false, ageMs: 0 };
  }

  /** A peer that we know nothing of is authorised by its agent address mapping, or not at all. */
  private handleUnknownPeer(publicKey: TunnelKey, now: Instant): void {
    const eid = this.addressEid(agentAddressOf(publicKey));
    if (this.table.peerLocators(publicKey) !== undefined) this.table.repeatPeer(publicKey);
    else if (this.remote.cache.find(eid)?.negative === true) this.note({ type: 'peer-refused', publicKey });
    else if (!this.strangerRate.take(now)) this.note({ type: 'limit', what: 'unknown-peers' });
    else this.askForDataplane(eid, now);
  }

  private askForDataplane(eid: Eid, now: Instant): void {
    if (this.resolutionRate.take(now) && this.requests.ask(eid, null, now)) this.sendRequests(now);
    else this.note({ type: 'limit', what: 'map-requests' });
  }

  private sendRequests(now: Instant): void {
    if (this.sessionSince === null) return;
    while (this.resubscribe.length > 0 && this.requests.size < RESUBSCRIBE_WINDOW) {
      const eid = this.resubscribe.pop();
      if (eid !== undefined) this.requests.ask(eid, null, now);
    }
    const { xtrId, agentAddress: itr } = this.identity;
    for (const { nonce, eid } of this.requests.due(now)) {
      this.send(subscribeRequest({ nonce, xtrId, eid, itr, subscribe: true }));
    }
  }

  private queueUnsubscriptions(entries: readonly CacheEntry[]): void {
    if (this.sessionSince === null) return;
    for (const { mapping, asked } of entries) {
      if (asked.size > 0) this.unsubscribe.push(mapping.eid, ...asked.values());
    }
    this.unsubscribe.splice(0, this.unsubscribe.length - MAX_UNSUBSCRIPTIONS);
  }

  /** A few at a time: registrations must not wait behind them. */
  private sendUnsubscriptions(): void {
    const { xtrId, agentAddress: itr } = this.identity;
    const eids = new Map(this.unsubscribe.splice(0, UNSUBSCRIPTIONS_PER_SWEEP).map((eid) => [eidKey(eid), eid]));
    for (const [key, eid] of eids) {
      if (this.requests.has(key) || this.remote.cache.exact(key) !== undefined) continue;
      this.send(subscribeRequest({ nonce: this.nonce(), xtrId, eid, itr, subscribe: false }));
    }
  }

  // ── records ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Agent addresses first, so that the peers are known when the mappings that need them come. */
  private applyRecords(mappings: readonly Mapping[], registered: boolean, asked: Eid | null, now: Instant): void {
    const agents = mappings.filter(isAgent);
    const others = agents.flatMap(({ tunnelKey }) => tunnelKey ?? []).filter((key) => key !== this.identity.tunnelKey);
    for (const mapping of [...agents, ...mappings.filter((each) => !isAgent(each))]) {
      this.applyRecord(mapping, registered, asked, others[0], now);
    }
    this.queueUnsubscriptions(this.remote.evict(now));
    this.persist('map-cache');
  }

  private applyRecord(
    mapping: Mapping,
    registered: boolean,
    asked: Eid | null,
    previousOwner: TunnelKey | undefined,
    now: Instant,
  ): void {
    const outcome = this.registrar.handleRecord(mapping, registered, now);
    switch (outcome.kind) {
      case 'not-ours':
        // What we asked to own and do not any more is not followed: nobody would tell us of its next owner.
        if (registered && !isAgent(mapping)) return;
        this.remote.apply(mapping, asked, now);
        // Told as the owner before, and detached meanwhile.
        if (asked === null && !isAgent(mapping) && !this.remote.isFollowed(mapping.eid))
          this.askForDataplane(mapping.eid, now);
        return;
      case 'unchanged':
        return;
      case 'unwanted':
        this.queueWithdrawals([{ ...mapping, ttl: 0, locators: [], names: [], targets: [] }]);
        this.flushWithdrawals(now);
        return;
      case 'accepted': {
        const { owned, took, entered } = outcome;
        if (owned.kind === 'address') this.takeIn(owned, now, took ? previousOwner : undefined);
        this.settle(owned, 'accepted', took || entered);
        return;
      }
      case 'lost':
        this.handleLostOwnership(outcome.owned, outcome.to, now);
        return;
      case 'denied': {
        const { owned } = outcome;
        if (owned.eid.kind === 'prefix') this.table.removeLocal(owned.eid.prefix, owned.generation, null, now);
        this.settle(owned, 'denied', true);
        return;
      }
      case 'forgotten':
        this.nextRegister = Math.min(this.nextRegister, now + FORGOTTEN_RETRY);
        this.note({ type: 'registration', result: 'forgotten', eid: outcome.owned.key });
        return;
      default:
        outcome satisfies never;
    }
  }

  private handleLostOwnership(owned: OwnedEid, to: Mapping, now: Instant): void {
    if (owned.eid.kind === 'prefix') {
      this.remote.apply(to, null, now);
      const key = this.remote.isVouched(to) ? (to.tunnelKey ?? null) : null;
      if (key !== null) this.table.pinPeer(key, now);
      this.table.removeLocal(owned.eid.prefix, to.generation, key, now);
    }
    this.updateWatches();
    this.settle(owned, 'lost', true);
    // The mapping came because we were the owner; from now on we follow it as anybody else does.
    this.requests.ask(owned.eid, null, now);
    this.sendRequests(now);
  }

  private settle(owned: OwnedEid, result: 'accepted' | 'lost' | 'denied', changed: boolean): void {
    for (const ticket of this.attaching.take(owned.key)) this.answerAttachment(ticket, owned);
    if (!changed) return;
    this.note({ type: 'registration', result, eid: owned.key });
    this.noteState(owned);
    this.persist('eids');
  }

  // ── what we own ───────────────────────────────────────────────────────────────────────────────────────────────────

  private handleInterface(name: string, up: boolean, now: Instant): void {
    this.interfaces.set(name, up);
    for (const owned of this.registrar.waitingFor(name)) {
      if (!up) {
        for (const ticket of this.attaching.take(owned.key)) this.answerAttachment(ticket, owned);
        continue;
      }
      this.registrar.claim(owned, now);
      this.takeIn(owned, now);
      this.sendRegister(this.registrar.claimGroup(owned, this.locators.list()), now);
      this.noteState(owned);
      this.persist('eids');
    }
  }

  /** From now on packets for it are for this host. */
  private takeIn(owned: OwnedEid, now: Instant, previousOwner?: TunnelKey): void {
    if (owned.eid.kind !== 'prefix') return;
    const previous = previousOwner ?? this.remote.release(owned.key);
    if (previous !== undefined) {
      owned.redirectFrom = previous;
      this.table.pinPeer(previous, now);
    }
    this.remote.release(owned.key);
    this.setLocal(owned);
    this.table.removeMapping(owned.eid.prefix, now);
  }

  private setLocal({ eid, generation, interface: via, redirectFrom }: OwnedEid): void {
    if (eid.kind === 'prefix') this.table.setLocal({ prefix: eid.prefix, generation, interface: via, redirectFrom });
  }

  private updateWatches(): void {
    const wanted = this.registrar.interfaces();
    for (const name of wanted) this.table.watch(name);
    for (const name of this.table.watched) {
      if (wanted.has(name)) continue;
      this.table.unwatch(name);
      this.interfaces.delete(name);
    }
  }

  private register(now: Instant): void {
    this.nextRegister = now + REGISTER_INTERVAL;
    if (this.sessionSince === null || this.locators.list().length === 0) return;
    this.flushWithdrawals(now);
    for (const group of this.registrar.registrations(this.locators.list())) this.sendRegister(group, now);
  }

  private sendRegister(mappings: readonly Mapping[], now: Instant): void {
    if (this.sessionSince === null || mappings.length === 0 || this.locators.list().length === 0) return;
    if (this.registers.size >= MAX_REGISTERS) {
      this.note({ type: 'limit', what: 'registrations' });
      return;
    }
    const nonce = this.nonce();
    this.registers.set(nonce, { sentAt: now, withdrawals: mappings.filter(isWithdrawal) });
    this.send(mapRegister({ nonce, xtrId: this.identity.xtrId, mappings }));
  }

  private forgetRegisters(nonces: readonly bigint[]): void {
    for (const nonce of nonces) {
      this.queueWithdrawals(this.registers.get(nonce)?.withdrawals ?? []);
      this.registers.delete(nonce);
    }
  }

  private queueWithdrawals(withdrawals: readonly Mapping[]): void {
    this.withdrawals.push(...withdrawals);
    this.withdrawals.splice(0, this.withdrawals.length - MAX_WITHDRAWALS);
  }

  /** What was detached, unless it was attached again meanwhile. */
  private flushWithdrawals(now: Instant): void {
    if (this.sessionSince === null) return;
    const wanted = this.withdrawals.splice(0).filter(({ eid }) => this.registrar.find(eid) === undefined);
    for (let i = 0; i < wanted.length; i += WITHDRAWALS_PER_MESSAGE) {
      this.sendRegister(wanted.slice(i, i + WITHDRAWALS_PER_MESSAGE), now);
    }
  }

  private handleOverlay(overlay: readonly IpPrefix[]): void {
    this.overlay = overlay;
    this.persist('overlay');
    this.note({ type: 'overlay', overlay });
    if (this.table.isAttached) this.configure();
  }

  private configure(): void {
    const { privateKey, presharedKey, listenPort, mtu } = this.options;
    const { instance, agentAddress } = this.identity;
    const { epoch } = this.dataplane;
    const keys = { privateKey, presharedKey, epoch };
    const command = {
      type: 'configure',
      ...keys,
      instance,
      agentAddress,
      listenPort,
      mtu,
      overlay: this.overlay,
    } as const;
    this.outputs.push({ to: 'dataplane', command });
  }

  // ── small things ──────────────────────────────────────────────────────────────────────────────────────────────────

  private sweep(now: Instant): void {
    this.nextSweep = now + SWEEP;
    for (const owned of this.registrar.addresses()) this.sweepOwned(owned, now);
    for (const { key, ticket } of this.attaching.expire(now)) {
      const owned = this.registrar.find(parseEidKey(key));
      if (owned !== undefined) this.answerAttachment(ticket, owned);
    }
    for (const { ticket } of this.probing.expire(now)) this.answer(ticket, NO_ANSWER);
    const unanswered = [...this.registers].filter(([, { sentAt }]) => now - sentAt >= REGISTER_PATIENCE);
    this.forgetRegisters(unanswered.map(([nonce]) => nonce));
    if (unanswered.length > 0) this.nextRegister = now;
    this.table.sweep(now);
    if (this.sessionSince === null) return;
    const { ended, refresh } = this.remote.sweep(now);
    if (ended.length > 0) this.persist('map-cache');
    for (const eid of refresh) if (!this.requests.ask(eid, null, now)) this.remote.cache.refreshFailed(eid);
    this.queueUnsubscriptions(ended);
    this.sendUnsubscriptions();
  }

  private sweepOwned(owned: OwnedEid, now: Instant): void {
    const age = now - owned.since;
    if (owned.state === 'drain' && age >= DRAIN) {
      this.registrar.forget(owned, now);
      this.noteState(owned);
      this.persist('eids');
    }
    if (owned.redirectFrom !== null && owned.state === 'live' && age >= REDIRECT_LIFE) {
      owned.redirectFrom = null;
      this.setLocal(owned);
    }
  }

  private nonce(): Nonce {
    this.lastNonce += 1n;
    return nonce(this.lastNonce);
  }

  private addressEid(address: IpAddress): Eid {
    return this.prefixEid(hostPrefix(address));
  }

  private prefixEid(prefix: IpPrefix): Eid {
    return prefixEid(this.identity.instance, prefix);
  }

  private send(message: LispMessage): void {
    this.outputs.push({ to: 'map-server', message });
  }

  private answer(ticket: Ticket, answer: Answer): void {
    this.outputs.push({ to: 'caller', ticket, answer });
  }

  private answerAttachment(ticket: Ticket, { state, generation, problem }: OwnedEid): void {
    this.answer(ticket, { kind: 'attachment', state, generation, problem });
  }

  private noteState({ key, kind, state, generation }: OwnedEid): void {
    if (kind !== 'agent') this.note({ type: 'eid-state', eid: key, state, generation });
  }

  private note(note: Note): void {
    this.outputs.push({ to: 'operator', note });
  }

  private persist(what: Persistent): void {
    if (this.queuedForDisk.has(what)) return;
    this.queuedForDisk.add(what);
    this.outputs.push({ to: 'disk', what });
  }
}

function isAgent({ eid }: Mapping): boolean {
  return eid.kind === 'prefix' && isAgentPrefix(eid.prefix);
}

const UNAVAILABLE: Answer = { kind: 'resolution', resolution: { kind: 'unavailable' } };
const NO_ANSWER: Answer = { kind: 'probe', rttUs: null };
const CACHE_LIMIT = 4096;
const MAX_OWN_EIDS = 1024;
const MAX_WITHDRAWALS = 256;
const WITHDRAWALS_PER_MESSAGE = 16;
const MAX_REGISTERS = 2048;
const MAX_ATTACHING = 1024;
const MAX_PROBES = 64;
const RESUBSCRIBE_WINDOW = 128;
const MAX_UNSUBSCRIPTIONS = 16_384;
const UNSUBSCRIPTIONS_PER_SWEEP = 256;
const SWEEP = seconds(1);
const REGISTER_INTERVAL = minutes(1);
const REGISTER_PATIENCE = seconds(5);
const FORGOTTEN_RETRY = seconds(1);
const RESOLVE_PATIENCE = seconds(2);
const ATTACH_PATIENCE = seconds(5);
const PROBE_PATIENCE = seconds(4);
const REDIRECT_LIFE = seconds(90);
