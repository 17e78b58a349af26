/**
 * The agent: an xTR's control plane as one state machine. It composes the registrar (what we own), the map-cache and
 * the map-requests (what others own), the locators (where we are) and the data plane's table (what is forwarded).
 *
 * Rules that hold it together:
 * - Forwarding never waits for the map server. What the disk says is in the data plane before a session exists, and
 *   losing the session changes nothing.
 * - A change is acted on when it is seen: a new locator is registered, a push is forwarded to the data plane, a target
 *   whose interface came up is claimed, all in the call that reports it. Timers only repeat and expire.
 * - The newest generation wins. Ownership ends only by a newer generation of somebody else, by the operator, or by
 *   policy; never by silence.
 * - A peer exists for the data plane only if the map server vouches for its key, by a mapping whose owner is derived
 *   from that key.
 * - Nothing is registered before this host's locators are known: a mapping without locators would cut off everybody
 *   who talks to us.
 *
 * Driven by `handle…(…, now)`, `pollOutput()` and `pollTimeout()`.
 */
import { hostPrefix, type IpAddress, type IpPrefix, prefixAddress, prefixContains } from '../../proto/address.ts';
import type { DataplaneEvent, HelloReply } from '../../proto/dataplane/messages.ts';
import { type Eid, type EidKey, eidKey, parseEidKey, prefixEid } from '../../proto/eid.ts';
import { AGENT_PREFIX, agentAddressOf, xtrIdOf } from '../../proto/identity.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mapNotifyAck, mappingsOf, mapRegister, subscribeRequest } from '../../proto/lisp/native.ts';
import type { Locator, Mapping, TunnelKey } from '../../proto/mapping.ts';
import { type Instant, minutes, seconds } from '../../proto/time.ts';
import { DataplaneTable, DRAIN } from './dataplane-table.ts';
import { type ConfiguredLocator, Locators } from './locators.ts';
import { type CacheEntry, MapCache, type SavedEntry } from './map-cache.ts';
import { MapRequests, type Ticket } from './map-requests.ts';
import type { AgentOutput, Answer, Note, Persistent, Resolution } from './output.ts';
import { type AgentIdentity, type OwnedEid, Registrar, type SavedEid } from './registrar.ts';
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
  readonly saved: {
    readonly eids: readonly SavedEid[];
    readonly cache: readonly SavedEntry[];
    readonly dataplane: SavedDataplane;
  };
  readonly cacheLimit?: number;
}

/** The epoch that the data plane process `process` was configured with. */
export interface SavedDataplane {
  readonly process: string | null;
  readonly epoch: number;
}

export interface Session {
  readonly overlay: readonly IpPrefix[];
  readonly observed: IpAddress | null;
}

export class Agent {
  private readonly options: AgentOptions;
  private readonly identity: AgentIdentity;
  private readonly registrar: Registrar;
  private readonly cache: MapCache;
  private readonly requests: MapRequests;
  private readonly locators: Locators;
  private readonly table: DataplaneTable;
  private readonly outputs: AgentOutput[] = [];
  private readonly queuedForDisk = new Set<Persistent>();
  private readonly registers = new Map<bigint, Instant>();
  private readonly withdrawals: Mapping[] = [];
  private readonly attachWaiters = new Map<EidKey, { readonly ticket: Ticket; readonly deadline: Instant }[]>();
  private readonly probes = new Map<number, { readonly ticket: Ticket; readonly deadline: Instant }>();
  private readonly interfaces = new Map<string, boolean>();
  private readonly resolutionRate: TokenBucket;
  private readonly strangerRate: TokenBucket;
  private resubscribe: Eid[] = [];
  private overlay: readonly IpPrefix[];
  private dataplane: SavedDataplane;
  private hello: HelloReply | null = null;
  private sessionSince: Instant | null = null;
  private lastNonce = 0n;
  private lastToken = 0;
  private nextRegister: Instant;
  private nextSweep: Instant;

  constructor(options: AgentOptions, now: Instant) {
    this.options = options;
    this.identity = options.identity;
    this.overlay = options.overlay;
    this.dataplane = options.saved.dataplane;
    this.registrar = new Registrar(options.identity, options.saved.eids, now);
    this.cache = new MapCache(options.cacheLimit ?? CACHE_LIMIT);
    this.requests = new MapRequests(() => this.nonce());
    this.locators = new Locators(options.listenPort, options.locators);
    this.table = new DataplaneTable((command) => this.outputs.push({ to: 'dataplane', command }));
    this.resolutionRate = new TokenBucket(1000, 500, now);
    this.strangerRate = new TokenBucket(64, 32, now);
    this.nextRegister = now;
    this.nextSweep = now + SWEEP;
    this.cache.restore(options.saved.cache, now);
    for (const owned of this.registrar.values()) this.cache.remove(owned.state === 'live' ? owned.key : NO_KEY);
    for (const entry of this.cache.values()) this.forwardEntry(entry, now);
    for (const owned of this.registrar.addresses()) if (this.registrar.isHere(owned)) this.setLocal(owned);
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
        const changed = this.locators.handleLocal(event.addresses, this.overlay);
        this.outputs.push({ to: 'link', addresses: this.locators.localAddresses() });
        if (!changed) return;
        this.note({ type: 'locators', count: this.locators.list().length });
        this.register(now);
        return;
      }
      case 'interface':
        this.interfaces.set(event.name, event.up);
        if (event.up) for (const owned of this.registrar.waitingFor(event.name)) this.claim(owned, now);
        return;
      case 'miss':
        this.handleMiss(event.eid, now);
        return;
      case 'conflict':
        this.askForDataplane(this.addressEid(event.eid), now);
        return;
      case 'unknown-peer':
        this.handleUnknownPeer(event.publicKey, now);
        return;
      case 'handover':
        this.note({ type: 'handover', publicKey: event.publicKey, micros: event.micros });
        return;
      case 'probe-result': {
        const probe = this.probes.get(event.token);
        this.probes.delete(event.token);
        if (probe !== undefined) this.answer(probe.ticket, { kind: 'probe', rttUs: event.rttUs });
        return;
      }
      case 'superseded':
        this.note({ type: 'dataplane-superseded' });
        return;
      case 'peer-moved':
        return;
      default:
        event satisfies never;
    }
  }

  handleDataplaneLost(): void {
    this.hello = null;
    this.table.detach();
    for (const { ticket } of this.probes.values()) this.answer(ticket, { kind: 'probe', rttUs: null });
    this.probes.clear();
  }

  // ── map server ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A new session, also when it takes the place of one that was not lost. */
  handleSession(session: Session, now: Instant): void {
    this.sessionSince = now;
    this.registers.clear();
    this.registrar.handleSession();
    if (JSON.stringify(session.overlay) !== JSON.stringify(this.overlay)) this.handleOverlay(session.overlay);
    if (session.observed !== null && !this.locators.localAddresses().includes(session.observed)) {
      this.locators.handleObserved(session.observed, this.overlay);
    }
    this.register(now);
    this.requests.restart(now);
    this.resubscribe = [...this.cache.subscriptions()];
    this.sendRequests(now);
  }

  handleSessionLost(): void {
    this.sessionSince = null;
    this.registers.clear();
  }

  handleMessage(message: LispMessage, now: Instant): void {
    switch (message.type) {
      case 'map-notify': {
        const mappings = mappingsOf(message);
        if (this.registers.delete(message.nonce)) {
          this.applyRecords(mappings, true, null, now);
          return;
        }
        const asked = this.requests.finish(message.nonce);
        if (asked !== null) {
          this.applyAnswer(asked, mappings, now);
          return;
        }
        this.send(mapNotifyAck(message.nonce));
        this.note({ type: 'push', records: mappings.length });
        this.applyRecords(mappings, false, null, now);
        return;
      }
      case 'map-reply': {
        const asked = this.requests.finish(message.nonce);
        if (asked !== null) this.applyAnswer(asked, mappingsOf(message), now);
        return;
      }
      default:
        return;
    }
  }

  // ── operator, DNS ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** Answered with `attachment` when the map server has decided, or after a while without it. False: too many EIDs. */
  attach(
    request: { readonly prefix: IpPrefix; readonly names: readonly string[] | null; readonly interface: string | null },
    ticket: Ticket | null,
    now: Instant,
  ): boolean {
    const known = this.registrar.find(this.prefixEid(request.prefix));
    if (known === undefined && this.registrar.addresses().length >= MAX_OWN_EIDS) return false;
    const up = request.interface === null || this.interfaces.get(request.interface) === true;
    const owned = this.registrar.attach(request.prefix, request.names, request.interface, up, now);
    if (ticket !== null && owned.state !== 'target') {
      const waiters = this.attachWaiters.get(owned.key) ?? [];
      waiters.push({ ticket, deadline: now + ATTACH_PATIENCE });
      this.attachWaiters.set(owned.key, waiters.slice(-8));
    }
    this.updateWatches();
    this.noteState(owned);
    if (owned.state === 'target') {
      this.requests.ask(owned.eid, null, now);
      if (ticket !== null) this.answerAttachment(ticket, owned);
      this.sendRequests(now);
    } else {
      this.takeIn(owned, now);
      owned.confirmedAt = null;
      this.sendRegister(this.registrar.claimGroup(owned, this.locators.list()), now);
    }
    this.persist('eids');
    return true;
  }

  /** False if it is not known here. */
  detach(prefix: IpPrefix, now: Instant): boolean {
    const result = this.registrar.detach(prefix, now);
    if (result === null) return false;
    const { owned, withdrawals } = result;
    this.table.removeLocal(prefix, owned.generation, null, now);
    this.withdrawals.push(...withdrawals);
    this.withdrawals.splice(0, this.withdrawals.length - MAX_WITHDRAWALS);
    this.flushWithdrawals(now);
    for (const { ticket } of this.attachWaiters.get(owned.key) ?? []) this.answerAttachment(ticket, owned);
    this.attachWaiters.delete(owned.key);
    this.updateWatches();
    this.persist('eids');
    return true;
  }

  /** Answered with `resolution`, from what is known at once, else within `patience`. */
  resolve(eid: Eid, ticket: Ticket, now: Instant): void {
    const known = this.known(eid, now);
    if (known !== null) {
      this.answer(ticket, { kind: 'resolution', resolution: known });
      return;
    }
    if (!this.requests.ask(eid, ticket, now, RESOLVE_PATIENCE)) {
      this.note({ type: 'limit', what: 'map-requests' });
      this.answer(ticket, UNAVAILABLE);
      return;
    }
    this.sendRequests(now);
    return;
  }

  /** Answered with `probe`. */
  probe(publicKey: TunnelKey, ticket: Ticket, now: Instant): void {
    if (!this.table.isAttached || this.probes.size >= MAX_PROBES) {
      this.answer(ticket, { kind: 'probe', rttUs: null });
      return;
    }
    const token = ++this.lastToken;
    this.probes.set(token, { ticket, deadline: now + PROBE_PATIENCE });
    this.outputs.push({ to: 'dataplane', command: { type: 'probe', publicKey, token } });
    return;
  }

  // ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  handleTimeout(now: Instant): void {
    const { tickets, ended } = this.requests.expire(now);
    for (const ticket of tickets) this.answer(ticket, UNAVAILABLE);
    for (const eid of ended) {
      const entry = this.cache.find(eid);
      if (entry !== undefined) entry.refreshing = false;
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

  save(now: Instant): { eids: readonly SavedEid[]; cache: readonly SavedEntry[]; dataplane: SavedDataplane } {
    return { eids: this.registrar.save(), cache: this.cache.save(now), dataplane: this.dataplane };
  }

  ownEids(): readonly OwnedEid[] {
    return [...this.registrar.values()];
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
      epoch: this.dataplane.epoch,
      cache: this.cache.counts(now),
      peers: this.table.peerCount,
      pendingRequests: this.requests.size,
    };
  }

  cached(): readonly CacheEntry[] {
    return [...this.cache.values()];
  }

  // ── resolution ────────────────────────────────────────────────────────────────────────────────────────────────────

  private known(eid: Eid, now: Instant): Resolution | null {
    const own = eid.kind === 'name' ? this.registrar.find(eid) : this.registrar.covering(prefixAddress(eid.prefix));
    if (own !== undefined && this.registrar.isHere(own)) {
      const mapping = this.registrar.mapping(own, this.locators.list());
      return { kind: 'found', mapping, own: true, stale: false, ageMs: 0 };
    }
    const entry = this.cache.find(eid);
    if (entry === undefined) return null;
    entry.touchedAt = now;
    if (entry.negative) return { kind: 'absent', action: entry.mapping.action };
    const ageMs = now - entry.receivedAt;
    const stale = this.sessionSince === null || ageMs > entry.mapping.ttl;
    return { kind: 'found', mapping: entry.mapping, own: false, stale, ageMs };
  }

  private handleMiss(address: IpAddress, now: Instant): void {
    const eid = this.addressEid(address);
    const entry = this.cache.find(eid);
    if (entry === undefined) {
      this.askForDataplane(eid, now);
      return;
    }
    entry.touchedAt = now;
    const { mapping } = entry;
    this.forwardEntry(entry, now);
    if (mapping.tunnelKey !== undefined) this.table.repeatPeer(mapping.tunnelKey);
    if (mapping.eid.kind === 'prefix') this.table.repeatMapping(mapping.eid.prefix);
    return;
  }

  /** A peer that we know nothing of is authorised by its agent address mapping, or not at all. */
  private handleUnknownPeer(publicKey: TunnelKey, now: Instant): void {
    const eid = this.addressEid(agentAddressOf(publicKey));
    const entry = this.cache.find(eid);
    if (this.table.peerLocators(publicKey) !== undefined) {
      this.table.repeatPeer(publicKey);
      return;
    }
    if (entry?.negative === true) {
      this.note({ type: 'peer-refused', publicKey });
      return;
    }
    if (!this.strangerRate.take(now)) {
      this.note({ type: 'limit', what: 'unknown-peers' });
      return;
    }
    this.askForDataplane(eid, now);
    return;
  }

  private askForDataplane(eid: Eid, now: Instant): void {
    if (!this.resolutionRate.take(now) || !this.requests.ask(eid, null, now)) {
      this.note({ type: 'limit', what: 'map-requests' });
      return;
    }
    this.sendRequests(now);
    return;
  }

  private applyAnswer(
    asked: { readonly eid: Eid; readonly waiters: readonly Ticket[] },
    mappings: readonly Mapping[],
    now: Instant,
  ): void {
    this.applyRecords(mappings, false, asked.eid, now);
    const resolution = this.known(asked.eid, now) ?? { kind: 'absent', action: 'no-action' };
    this.note({ type: 'resolution', result: resolution.kind });
    for (const ticket of asked.waiters) this.answer(ticket, { kind: 'resolution', resolution });
    this.sendRequests(now);
  }

  // ── records ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Agent addresses first, so that the peers are known when the mappings that need them come. */
  private applyRecords(mappings: readonly Mapping[], registered: boolean, asked: Eid | null, now: Instant): void {
    const isAgent = ({ eid }: Mapping): boolean => eid.kind === 'prefix' && prefixContains(AGENT_PREFIX, eid.prefix);
    const agents = mappings.filter(isAgent);
    const previousOwners = agents.flatMap(({ tunnelKey }) =>
      tunnelKey === undefined || tunnelKey === this.identity.tunnelKey ? [] : [tunnelKey],
    );
    for (const mapping of [...agents, ...mappings.filter((each) => !isAgent(each))]) {
      this.applyRecord(mapping, registered, asked, previousOwners, now);
    }
    for (const entry of this.cache.evict()) this.unforward(entry, now);
    this.persist('map-cache');
  }

  private applyRecord(
    mapping: Mapping,
    registered: boolean,
    asked: Eid | null,
    previousOwners: readonly TunnelKey[],
    now: Instant,
  ): void {
    const outcome = this.registrar.handleRecord(mapping, registered, now);
    switch (outcome.kind) {
      case 'not-ours':
        this.applyRemote(mapping, asked !== null && answers(mapping, asked) ? asked : null, now);
        return;
      case 'unchanged':
        return;
      case 'accepted':
        this.handleAccepted(outcome.owned, outcome.took, previousOwners, now);
        return;
      case 'lost':
        this.handleLostOwnership(outcome.owned, outcome.to, now);
        return;
      case 'denied':
        if (outcome.owned.eid.kind === 'prefix') {
          this.table.removeLocal(outcome.owned.eid.prefix, outcome.owned.generation, null, now);
        }
        this.settle(outcome.owned, 'denied');
        return;
      case 'forgotten':
        this.nextRegister = Math.min(this.nextRegister, now + FORGOTTEN_RETRY);
        this.note({ type: 'registration', result: 'forgotten', eid: outcome.owned.key });
        return;
      default:
        outcome satisfies never;
    }
  }

  private handleAccepted(owned: OwnedEid, took: boolean, previousOwners: readonly TunnelKey[], now: Instant): void {
    if (owned.kind === 'address') {
      const previous = previousOwners[0];
      if (took && previous !== undefined) {
        owned.redirectFrom = previous;
        this.table.pinPeer(previous, now);
      }
      this.takeIn(owned, now);
    }
    this.settle(owned, 'accepted');
  }

  private handleLostOwnership(owned: OwnedEid, to: Mapping, now: Instant): void {
    if (owned.eid.kind === 'prefix') {
      this.applyRemote(to, null, now);
      const key = this.vouched(to) ? (to.tunnelKey ?? null) : null;
      if (key !== null) this.table.pinPeer(key, now);
      this.table.removeLocal(owned.eid.prefix, to.generation, key, now);
    }
    // The mapping came because we were the owner; from now on we want to follow it as anybody else.
    this.requests.ask(owned.eid, null, now);
    this.updateWatches();
    this.settle(owned, 'lost');
    this.sendRequests(now);
  }

  private settle(owned: OwnedEid, result: 'accepted' | 'lost' | 'denied'): void {
    this.note({ type: 'registration', result, eid: owned.key });
    this.noteState(owned);
    for (const { ticket } of this.attachWaiters.get(owned.key) ?? []) this.answerAttachment(ticket, owned);
    this.attachWaiters.delete(owned.key);
    this.persist('eids');
  }

  private applyRemote(mapping: Mapping, asked: Eid | null, now: Instant): void {
    if (mapping.owner === this.identity.xtrId) return;
    if (mapping.eid.iid !== this.identity.instance) return;
    if (mapping.owner !== undefined && !this.vouched(mapping)) {
      this.note({ type: 'mapping-refused', reason: 'the owner is not derived from the tunnel key' });
      return;
    }
    if (this.cache.insert(mapping, asked, now) === 'older') return;
    const entry = this.cache.exact(eidKey(mapping.eid));
    if (entry !== undefined) this.forwardEntry(entry, now);
  }

  /** The owner's xTR-ID, and the agent address if it is one, follow from the key. */
  private vouched({ eid, owner, tunnelKey }: Mapping): boolean {
    if (tunnelKey === undefined) return eid.kind === 'name';
    if (owner === undefined || xtrIdOf(tunnelKey) !== owner) return false;
    if (eid.kind !== 'prefix' || !prefixContains(AGENT_PREFIX, eid.prefix)) return true;
    return eid.prefix === hostPrefix(agentAddressOf(tunnelKey));
  }

  private forwardEntry({ mapping, negative }: CacheEntry, now: Instant): void {
    if (mapping.eid.kind === 'name') return;
    const { prefix } = mapping.eid;
    if (negative || mapping.tunnelKey === undefined) {
      if (prefixContains(AGENT_PREFIX, prefix)) {
        this.table.removeMapping(prefix, now);
        return;
      }
      this.table.drop(prefix, mapping.generation);
      return;
    }
    this.table.setPeer(mapping.tunnelKey, this.reachable(mapping.locators));
    this.table.forward(prefix, mapping.generation, mapping.tunnelKey);
    return;
  }

  private unforward({ mapping }: CacheEntry, now: Instant): void {
    if (mapping.eid.kind === 'prefix') this.table.removeMapping(mapping.eid.prefix, now);
  }

  private reachable(locators: readonly Locator[]): readonly Locator[] {
    return locators.filter(({ priority }) => priority < 255).slice(0, 8);
  }

  // ── registration ──────────────────────────────────────────────────────────────────────────────────────────────────

  private claim(owned: OwnedEid, now: Instant): void {
    this.registrar.claim(owned, now);
    this.takeIn(owned, now);
    this.sendRegister(this.registrar.claimGroup(owned, this.locators.list()), now);
    this.noteState(owned);
    this.persist('eids');
  }

  /** From now on packets for it are for this host. */
  private takeIn(owned: OwnedEid, now: Instant): void {
    if (owned.eid.kind !== 'prefix') return;
    const previous = this.cache.remove(owned.key)?.mapping.tunnelKey;
    if (previous !== undefined) {
      owned.redirectFrom = previous;
      this.table.pinPeer(previous, now);
    }
    this.setLocal(owned);
    this.table.removeMapping(owned.eid.prefix, now);
  }

  private setLocal({ eid, generation, interface: via, redirectFrom }: OwnedEid): void {
    if (eid.kind === 'prefix') this.table.setLocal({ prefix: eid.prefix, generation, interface: via, redirectFrom });
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
    this.registers.set(nonce, now);
    this.send(mapRegister({ nonce, xtrId: this.identity.xtrId, mappings }));
    return;
  }

  private flushWithdrawals(now: Instant): void {
    if (this.sessionSince === null) return;
    while (this.withdrawals.length > 0) {
      const batch = this.withdrawals.splice(0, 16);
      const wanted = batch.filter(({ eid }) => this.registrar.find(eid) === undefined);
      const nonce = this.nonce();
      this.registers.set(nonce, now);
      if (wanted.length > 0) this.send(mapRegister({ nonce, xtrId: this.identity.xtrId, mappings: wanted }));
    }
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

  private handleOverlay(overlay: readonly IpPrefix[]): void {
    this.overlay = overlay;
    this.persist('overlay');
    this.note({ type: 'overlay', overlay });
    if (this.table.isAttached) this.configure();
  }

  private configure(): void {
    const { privateKey, presharedKey, listenPort, mtu } = this.options;
    if (this.hello === null) return;
    const { instance, agentAddress } = this.identity;
    this.outputs.push({
      to: 'dataplane',
      command: {
        type: 'configure',
        privateKey,
        presharedKey,
        epoch: this.dataplane.epoch,
        instance,
        agentAddress,
        listenPort,
        mtu,
        overlay: this.overlay,
      },
    });
  }

  // ── small things ──────────────────────────────────────────────────────────────────────────────────────────────────

  private sweep(now: Instant): void {
    this.nextSweep = now + SWEEP;
    for (const owned of this.registrar.addresses()) {
      if (owned.state === 'drain' && now - owned.since >= DRAIN) {
        this.registrar.forget(owned, now);
        this.noteState(owned);
        this.persist('eids');
      }
      if (owned.redirectFrom !== null && owned.state === 'live' && now - owned.since >= REDIRECT_LIFE) {
        owned.redirectFrom = null;
        this.setLocal(owned);
      }
    }
    for (const [key, waiters] of this.attachWaiters) this.expireAttach(key, waiters, now);
    for (const [token, { ticket, deadline }] of this.probes) {
      if (deadline > now) continue;
      this.probes.delete(token);
      this.answer(ticket, { kind: 'probe', rttUs: null });
    }
    const lost = [...this.registers].filter(([, sentAt]) => now - sentAt >= REGISTER_PATIENCE);
    for (const [nonce] of lost) this.registers.delete(nonce);
    if (lost.length > 0) this.nextRegister = now;
    this.table.sweep(now);
    if (this.sessionSince === null) return;
    const { ended, refresh } = this.cache.sweep(now);
    for (const entry of ended) this.unforward(entry, now);
    if (ended.length > 0) this.persist('map-cache');
    for (const eid of refresh) this.requests.ask(eid, null, now);
  }

  private expireAttach(key: EidKey, waiters: readonly { ticket: Ticket; deadline: Instant }[], now: Instant): void {
    const owned = this.registrar.find(parseEidKey(key));
    const left = waiters.filter(({ deadline }) => deadline > now);
    if (owned !== undefined) {
      for (const { ticket, deadline } of waiters) if (deadline <= now) this.answerAttachment(ticket, owned);
    }
    if (left.length > 0) this.attachWaiters.set(key, left);
    else this.attachWaiters.delete(key);
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

/** True when `mapping` is the answer to a request for `asked`: the EID itself or a prefix that contains it. */
function answers(mapping: Mapping, asked: Eid): boolean {
  if (asked.kind === 'name' || mapping.eid.kind === 'name') return eidKey(mapping.eid) === eidKey(asked);
  return prefixContains(mapping.eid.prefix, asked.prefix);
}

const NO_KEY = '' as EidKey;
const UNAVAILABLE: Answer = { kind: 'resolution', resolution: { kind: 'unavailable' } };
const CACHE_LIMIT = 4096;
const MAX_OWN_EIDS = 1024;
const MAX_WITHDRAWALS = 256;
const MAX_REGISTERS = 2048;
const MAX_PROBES = 64;
const RESUBSCRIBE_WINDOW = 128;
const SWEEP = seconds(1);
const REGISTER_INTERVAL = minutes(1);
const REGISTER_PATIENCE = seconds(5);
const FORGOTTEN_RETRY = seconds(1);
const RESOLVE_PATIENCE = seconds(2);
const ATTACH_PATIENCE = seconds(5);
const PROBE_PATIENCE = seconds(4);
const REDIRECT_LIFE = seconds(90);
