/**
 * Resolution: from the map-cache at once, else by a Map-Request that also subscribes (RFC 9437).
 *
 * What is in the map-cache and was asked for is subscribed to, again in every session; what leaves the map-cache is
 * unsubscribed from. Questions that the data plane raises are bounded in their rate, since others cause them. Peers
 * that the former owner of an EID of ours introduces are all looked up, a limited number at a time.
 */
import { hostPrefix, type IpAddress, prefixAddress } from '../../proto/address.ts';
import { DEFAULT_WEIGHT } from '../../proto/dns/record-sets.ts';
import { type Eid, type EidKey, eidKey, type NameEid, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf } from '../../proto/identity.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import { subscribeRequest } from '../../proto/lisp/native.ts';
import type { TunnelKey } from '../../proto/mapping.ts';
import { type Instant, type Millis, seconds } from '../../proto/time.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import type { Locators } from './locators.ts';
import type { CacheEntry } from './map-cache.ts';
import { MapRequests, type Ticket } from './map-requests.ts';
import type { MapServerSession } from './map-server-session.ts';
import type { Outbox } from './outbox.ts';
import type { Answer, Resolution } from './output.ts';
import type { AgentIdentity, OwnedEid, Registrar } from './registrar.ts';
import { isAgentEid, type RemoteMappings } from './remote-mappings.ts';
import { TokenBucket } from './token-bucket.ts';

export interface ResolverParts {
  readonly identity: AgentIdentity;
  readonly registrar: Registrar;
  readonly remote: RemoteMappings;
  readonly locators: Locators;
  readonly table: DataplaneTable;
  readonly session: MapServerSession;
  readonly outbox: Outbox;
}

export class Resolver {
  private readonly parts: ResolverParts;
  private readonly requests: MapRequests;
  private readonly resolutionRate: TokenBucket;
  private readonly peerRate: TokenBucket;
  private readonly strangerRate: TokenBucket;
  private readonly introductionRate: TokenBucket;
  /** In the session: what is asked for again, and from when on. */
  private resubscribe: Eid[] = [];
  private resubscribeFrom: Instant = 0;
  /** What a former owner introduced and is not asked for yet: EIDs, then agent addresses, most of which come along. */
  private readonly introduced: readonly [Map<EidKey, Eid>, Map<EidKey, Eid>] = [new Map(), new Map()];
  /** Subscriptions whose entry left the map-cache. */
  private unsubscribe: Eid[] = [];

  constructor(parts: ResolverParts, now: Instant) {
    this.parts = parts;
    this.requests = new MapRequests(() => parts.session.nextNonce());
    this.resolutionRate = new TokenBucket(1000, 500, now);
    this.peerRate = new TokenBucket(1000, 500, now);
    this.strangerRate = new TokenBucket(64, 32, now);
    this.introductionRate = new TokenBucket(MAX_INTRODUCED, 500, now);
  }

  /** Answered with `resolution`, from what is known at once, else within `RESOLVE_PATIENCE`. */
  resolve(eid: Eid, ticket: Ticket, now: Instant): void {
    const { outbox } = this.parts;
    const known = this.known(eid, now);
    if (known !== null) {
      outbox.answer(ticket, { kind: 'resolution', resolution: known });
    } else if (this.requests.ask(eid, ticket, now, RESOLVE_PATIENCE)) {
      this.send(now);
    } else {
      outbox.note({ type: 'limit', what: 'map-requests' });
      outbox.answer(ticket, UNAVAILABLE);
    }
  }

  /** Asks for a mapping and its changes, whatever is known of it. */
  follow(eid: Eid, now: Instant): void {
    this.requests.ask(eid, null, now);
    this.send(now);
  }

  /** Packets wait for a mapping of this address: ours for their destination, or a peer's for their source. */
  handleMiss(address: IpAddress, reason: 'destination' | 'source', now: Instant): void {
    const eid = this.addressEid(address);
    if (this.parts.remote.repeat(eid, now)) return;
    if (reason === 'source') this.followForPeer(eid, now);
    else this.followBounded(eid, now);
  }

  /** Somebody else sends from this address than whom the map-cache names. */
  handleConflict(address: IpAddress, now: Instant): void {
    this.followForPeer(this.addressEid(address), now);
  }

  /** A peer that we know nothing of is authorised by its agent address mapping, or not at all. */
  handleUnknownPeer(publicKey: TunnelKey, now: Instant): void {
    const { table, remote, outbox } = this.parts;
    const eid = this.addressEid(agentAddressOf(publicKey));
    if (remote.isRevoked(publicKey)) outbox.note({ type: 'peer-refused', publicKey });
    else if (table.peerLocators(publicKey) !== undefined) table.repeatPeer(publicKey);
    else if (remote.cache.find(eid)?.negative === true) outbox.note({ type: 'peer-refused', publicKey });
    else if (!this.strangerRate.take(now)) outbox.note({ type: 'limit', what: 'unknown-peers' });
    else this.followBounded(eid, now);
  }

  /** Somebody says that it changed. False if nobody here needs to know. */
  askAgain(eid: Eid, now: Instant): boolean {
    const known = this.parts.remote.cache.find(eid);
    if (known === undefined) return false;
    this.followForPeer(known.mapping.eid, now);
    return true;
  }

  /** Like `follow`, but raised by what others do. */
  followBounded(eid: Eid, now: Instant): void {
    this.followAt(this.resolutionRate, eid, now);
  }

  /** Raised by what peers say, who must not keep this host's own packets from being resolved. */
  followForPeer(eid: Eid, now: Instant): void {
    this.followAt(this.peerRate, eid, now);
  }

  /** Those who talk to what we took over, in the word of the agent that had it. */
  followIntroduced(eids: readonly Eid[], now: Instant): void {
    for (const eid of eids) {
      const queue = this.introduced[isAgentEid(eid) ? 1 : 0];
      const key = eidKey(eid);
      if (queue.has(key) || this.isToldOf(eid)) continue;
      if (queue.size < MAX_INTRODUCED && this.introductionRate.take(now)) queue.set(key, eid);
      else this.parts.outbox.note({ type: 'limit', what: 'map-requests' });
    }
    this.send(now);
  }

  private followAt(rate: TokenBucket, eid: Eid, now: Instant): void {
    if (rate.take(now) && this.requests.ask(eid, null, now)) this.send(now);
    else this.parts.outbox.note({ type: 'limit', what: 'map-requests' });
  }

  /** What was asked, if this answers one of our requests. Its waiters are told by `answer`. */
  finish(nonce: Nonce): { readonly eid: Eid; readonly waiters: readonly Ticket[] } | null {
    return this.requests.finish(nonce);
  }

  answer(asked: { readonly eid: Eid; readonly waiters: readonly Ticket[] }, now: Instant): void {
    const { outbox } = this.parts;
    const resolution = this.known(asked.eid, now) ?? { kind: 'absent', action: 'no-action' };
    outbox.note({ type: 'resolution', result: resolution.kind });
    for (const ticket of asked.waiters) outbox.answer(ticket, { kind: 'resolution', resolution });
    this.send(now);
  }

  handleSession(now: Instant): void {
    this.requests.restart(now);
    this.resubscribe = [...this.parts.remote.cache.subscriptions()];
    this.unsubscribe = [];
    this.followIntroduced(this.parts.remote.introduced(), now);
  }

  /** Until the correspondents have switched, they need the CPUs more than what is to be asked for again. */
  handleRoam(now: Instant): void {
    this.resubscribeFrom = now + RESUBSCRIBE_DELAY;
  }

  handleTimeout(now: Instant): void {
    const { outbox } = this.parts;
    const { tickets, ended } = this.requests.expire(now);
    for (const ticket of tickets) outbox.answer(ticket, UNAVAILABLE);
    for (let i = 0; i < ended; i++) outbox.note({ type: 'resolution', result: 'unavailable' });
    this.send(now);
  }

  pollTimeout(): Instant | undefined {
    const { isUp } = this.parts.session;
    const requests = this.requests.pollTimeout(isUp);
    const isToBegin = isUp && this.resubscribe.length > 0 && this.requests.size < RESUBSCRIBE_WINDOW;
    return isToBegin ? Math.min(requests ?? Number.POSITIVE_INFINITY, this.resubscribeFrom) : requests;
  }

  /** Call about once a second. While the map server is away nothing ends. */
  sweep(now: Instant): void {
    const { session, remote, outbox } = this.parts;
    if (!session.isUp) return;
    const { ended, refresh } = remote.sweep(now);
    if (ended.length > 0) outbox.persist('map-cache');
    for (const eid of refresh) this.requests.ask(eid, null, now);
    this.queueUnsubscriptions(ended);
    this.sendUnsubscriptions();
    this.send(now);
  }

  /** Keeps the map-cache within its limit after insertions. */
  evict(now: Instant): void {
    this.queueUnsubscriptions(this.parts.remote.evict(now));
  }

  private known(eid: Eid, now: Instant): Resolution | null {
    const { registrar, remote, session } = this.parts;
    if (eid.kind === 'name') return this.knownName(eid, now);
    const own = registrar.covering(prefixAddress(eid.prefix));
    return own === undefined ? remote.find(eid, session.isUp, now) : this.own(own);
  }

  /** What the map server says of the name, and the EIDs here that carry it, also before it knows of them. */
  private knownName(eid: NameEid, now: Instant): Resolution | null {
    const { registrar, remote, session } = this.parts;
    const owned = registrar.find(eid);
    const told = remote.find(eid, session.isUp, now);
    if (owned === undefined || !registrar.isHere(owned)) return told;
    const own = this.own(owned);
    if (told?.kind !== 'found') return told === null && session.isUp ? null : own;
    const { targets, zone } = told.mapping;
    const added = own.mapping.targets.filter((target) => !targets.includes(target));
    if (added.length === 0) return told;
    const weights = zone === undefined ? [] : [...zone.weights, ...added.map(() => DEFAULT_WEIGHT)];
    const more = { targets: [...targets, ...added], ...(zone === undefined ? {} : { zone: { ...zone, weights } }) };
    return { ...told, mapping: { ...told.mapping, ...more } };
  }

  private own(owned: OwnedEid): Extract<Resolution, { kind: 'found' }> {
    const { registrar, locators } = this.parts;
    const mapping = registrar.mapping(owned, locators.list());
    return { kind: 'found', mapping, own: true, stale: false, ageMs: 0 };
  }

  private send(now: Instant): void {
    const { session, identity, outbox } = this.parts;
    if (!session.isUp) return;
    const [eids, agents] = this.introduced;
    this.askIntroduced(eids, now);
    if (this.requests.size < FEW_REQUESTS) this.askIntroduced(agents, now);
    const mayResubscribe = now >= this.resubscribeFrom;
    while (mayResubscribe && this.resubscribe.length > 0 && this.requests.size < RESUBSCRIBE_WINDOW) {
      const eid = this.resubscribe.pop();
      if (eid !== undefined) this.requests.ask(eid, null, now);
    }
    const { xtrId, agentAddress: itr } = identity;
    for (const { nonce, eid } of this.requests.due(now)) {
      outbox.send(subscribeRequest({ nonce, xtrId, eid, itr, subscribe: true }));
    }
  }

  private askIntroduced(queue: Map<EidKey, Eid>, now: Instant): void {
    for (const [key, eid] of queue) {
      if (this.requests.size >= INTRODUCTION_WINDOW) break;
      queue.delete(key);
      if (!this.isToldOf(eid)) this.requests.ask(eid, null, now);
    }
  }

  /** An agent address that came along needs no question: that it is revoked is told to everybody. */
  private isToldOf(eid: Eid): boolean {
    const { remote } = this.parts;
    return isAgentEid(eid) ? remote.cache.exact(eidKey(eid)) !== undefined : remote.isFollowed(eid);
  }

  private queueUnsubscriptions(entries: readonly CacheEntry[]): void {
    if (!this.parts.session.isUp) return;
    for (const { mapping, asked } of entries) {
      if (asked.size > 0) this.unsubscribe.push(mapping.eid, ...asked.values());
    }
    this.unsubscribe.splice(0, this.unsubscribe.length - MAX_UNSUBSCRIPTIONS);
  }

  /** A few at a time: registrations must not wait behind them. */
  private sendUnsubscriptions(): void {
    const { identity, session, remote, outbox } = this.parts;
    const { xtrId, agentAddress: itr } = identity;
    const eids = new Map(this.unsubscribe.splice(0, UNSUBSCRIPTIONS_PER_SWEEP).map((eid) => [eidKey(eid), eid]));
    for (const [key, eid] of eids) {
      if (this.requests.has(key) || remote.cache.exact(key) !== undefined) continue;
      outbox.send(subscribeRequest({ nonce: session.nextNonce(), xtrId, eid, itr, subscribe: false }));
    }
  }

  private addressEid(address: IpAddress): Eid {
    return prefixEid(this.parts.identity.instance, hostPrefix(address));
  }
}

const UNAVAILABLE: Answer = { kind: 'resolution', resolution: { kind: 'unavailable' } };
const RESUBSCRIBE_WINDOW = 128;
/** A roam ends in a new session; with a thousand correspondents it takes a quarter of a second. */
const RESUBSCRIBE_DELAY: Millis = 300;
/** These have packets waiting. */
const INTRODUCTION_WINDOW = 512;
/** Until most are answered, agent addresses wait: they come along. */
const FEW_REQUESTS = 16;
/** Agents with an EID each, of as many correspondents as the data plane remembers. */
const MAX_INTRODUCED = 8192;
const MAX_UNSUBSCRIPTIONS = 16_384;
const UNSUBSCRIPTIONS_PER_SWEEP = 256;
const RESOLVE_PATIENCE = seconds(2);
