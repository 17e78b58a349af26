/**
 * The move engine: how an address EID comes to this host, and how it leaves (the states are the registrar's).
 *
 * It comes by `attach`: at once, or, with an interface that is not up yet, as a `target` that is claimed in the call that
 * reports the interface. From the claim on, packets for it are taken here (`base`), and the map server's answer makes it
 * `live`. For the host itself, an EID that it never had is taken only with that answer: if it is another's, this host
 * would break its own connections to the owner. The owner before is remembered for a while, since what it still forwards
 * is to be accepted. A target also tells the owner before (`Takeovers`). It leaves when the map server names a newer
 * owner, or when an authorised target says that it has it (`yieldTo`): then packets are redirected to that one (`drain`,
 * `Departures`), and after that it is only remembered (`lost`).
 */
import type { IpPrefix } from '../../proto/address.ts';
import { type Eid, type EidKey, eidKey, parseEidKey, prefixEid } from '../../proto/eid.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import type { Order } from '../../proto/lisp/order.ts';
import { type Generation, isWithdrawal, type Mapping, type TunnelKey, type XtrId } from '../../proto/mapping.ts';
import { type Instant, type Millis, seconds } from '../../proto/time.ts';
import { Callers } from './callers.ts';
import { type DataplaneTable, DRAIN } from './dataplane-table.ts';
import type { Departures } from './departures.ts';
import { GoneWorkloads } from './gone-workloads.ts';
import type { KnownTargets } from './known-targets.ts';
import type { Locators } from './locators.ts';
import type { MapRegisters } from './map-registers.ts';
import type { Ticket } from './map-requests.ts';
import type { MapServerSession } from './map-server-session.ts';
import type { Outbox } from './outbox.ts';
import type { Preparations } from './preparations.ts';
import type { AgentIdentity, Arrival, OwnedEid, Registrar } from './registrar.ts';
import { agentEid, bare, type RemoteMappings } from './remote-mappings.ts';
import type { Resolver } from './resolver.ts';
import type { Takeovers } from './takeovers.ts';
import { WorkloadWatches } from './workload-watches.ts';

export interface AttachRequest {
  readonly prefix: IpPrefix;
  /** Null keeps the names that it has. */
  readonly names: readonly string[] | null;
  /** Where the workload is; null: this host itself. */
  readonly interface: string | null;
  /** With an interface: when the EID is claimed. */
  readonly when: Arrival;
}

export interface MoverParts {
  readonly identity: AgentIdentity;
  readonly registrar: Registrar;
  readonly registers: MapRegisters;
  readonly remote: RemoteMappings;
  readonly resolver: Resolver;
  readonly locators: Locators;
  readonly table: DataplaneTable;
  readonly takeovers: Takeovers;
  readonly departures: Departures;
  readonly targets: KnownTargets;
  readonly preparations: Preparations;
  readonly session: MapServerSession;
  readonly outbox: Outbox;
}

export class Mover {
  private readonly parts: MoverParts;
  private readonly attaching = new Callers<EidKey>(MAX_ATTACHING);
  private readonly watches: WorkloadWatches;
  private readonly gone = new GoneWorkloads();

  constructor(parts: MoverParts) {
    this.parts = parts;
    const { registrar, table } = parts;
    this.watches = new WorkloadWatches(registrar, table);
    for (const owned of registrar.addresses()) if (registrar.isHere(owned)) this.setLocal(owned);
    this.watches.update();
  }

  isUp(name: string): boolean {
    return this.watches.isUp(name);
  }

  /** Answered with `attachment` when it is decided, or after a while without the map server. False: too many EIDs or names. */
  attach(request: AttachRequest, ticket: Ticket, now: Instant): boolean {
    return this.take(request, ticket, false, now);
  }

  /** What the map server asks on an administrator's behalf. Its answer is the registration that follows. */
  handleOrder({ what, eid, interface: via }: Order, now: Instant): void {
    const { registrar, outbox } = this.parts;
    outbox.note({ type: 'order', what, eid: eidKey(eid) });
    const known = registrar.find(eid);
    if (what === 'detach') {
      this.detach(eid.prefix, now);
      return;
    }
    const request = {
      prefix: eid.prefix,
      names: null,
      interface: via ?? known?.interface ?? null,
      when: 'up' as const,
    };
    if (!this.take(request, null, true, now)) outbox.note({ type: 'limit', what: 'eids' });
  }

  /** `announced`: its owner was told that we will claim it. */
  private take(request: AttachRequest, ticket: Ticket | null, announced: boolean, now: Instant): boolean {
    const { registrar, registers, table, outbox, resolver, locators, identity } = this.parts;
    const known = registrar.find(prefixEid(identity.instance, request.prefix));
    if (!registrar.hasRoomFor(request.prefix, request.names)) return false;
    const { when, interface: via } = request;
    const up = via === null || when === 'now' || (when === 'up' && this.isUp(via));
    const prepared = announced || known?.state === 'target';
    const watched = via !== null && this.watches.isKnown(via);
    const awaitsGrant = !announced && this.awaitsGrant(known, via);
    const { owned, withdrawals } = registrar.attach(request.prefix, request.names, via, when, up, now);
    owned.awaitsGrant = awaitsGrant && owned.state === 'base';
    registers.withdraw(withdrawals, now);
    this.gone.cancel(owned);
    this.watches.update();
    this.noteState(owned);
    outbox.persist('eids');
    const waits = owned.state !== 'target' || (when === 'up' && table.isAttached && !watched);
    if (ticket !== null && !(waits && this.attaching.add(owned.key, ticket, now + ATTACH_PATIENCE))) {
      this.answerAttachment(ticket, owned);
    }
    if (owned.state === 'target') {
      this.giveBack(owned.key, now);
      table.removeLocal(request.prefix, owned.generation, null, now);
      // Whoever has it now should be a known peer by the time it comes here, and the other way round.
      registers.send([registrar.targetRegistration(owned, locators.list())], now);
      resolver.follow(owned.eid, now);
      return true;
    }
    owned.confirmedAt = null;
    this.claim(owned, prepared, now);
    return true;
  }

  /**
   * Whether a claim may only take packets with the map server's answer: that of what this agent never had, for this host
   * itself, and of what was refused before. Without a session there would be no answer to wait for.
   */
  private awaitsGrant(known: OwnedEid | undefined, via: string | null): boolean {
    const { registrar, session } = this.parts;
    if (!session.isUp) return false;
    if (known === undefined) return via === null;
    if (known.problem !== null) return true;
    const had = known.generation > 0 || known.state === 'target' || registrar.isHere(known);
    return via === null && !had;
  }

  /** False if it is not attached here. */
  detach(prefix: IpPrefix, now: Instant): boolean {
    const { registrar, registers, table, outbox } = this.parts;
    const result = registrar.detach(prefix, now);
    if (result === null) return false;
    const { owned, withdrawals } = result;
    this.gone.cancel(owned);
    if (owned.state === 'base') this.giveBack(owned.key, now);
    this.forgetMove(owned.key);
    table.removeLocal(prefix, owned.generation, null, now);
    registers.withdraw(withdrawals, now);
    outbox.persist('eids');
    for (const ticket of this.attaching.take(owned.key)) this.answerAttachment(ticket, owned);
    this.watches.update();
    return true;
  }

  /**
   * The workload behind this interface has ended or was sent away. False if the EID is not attached here. Does nothing
   * to an EID that is elsewhere by now, or behind another interface.
   */
  leave(prefix: IpPrefix, from: string, patience: Millis, now: Instant): boolean {
    const owned = this.parts.registrar.find(prefixEid(this.parts.identity.instance, prefix));
    if (owned === undefined) return false;
    if (owned.interface !== from) return true;
    if (owned.state === 'target') return this.detach(prefix, now);
    if (owned.state === 'live' || owned.state === 'base') this.gone.add(owned, patience, now);
    return true;
  }

  handleInterface(name: string, up: boolean, now: Instant): void {
    const { registrar } = this.parts;
    this.watches.handleInterface(name, up);
    for (const owned of registrar.waitingFor(name)) {
      if (!up) {
        for (const ticket of this.attaching.take(owned.key)) this.answerAttachment(ticket, owned);
        continue;
      }
      this.arrive(owned, now);
    }
  }

  /** The data plane saw a packet, ARP or neighbour discovery of a workload that we wait for. */
  handleWorkloadSeen(prefix: IpPrefix, via: string, now: Instant): void {
    for (const owned of this.parts.registrar.waitingForWorkload()) {
      if (owned.interface !== via || owned.eid.kind !== 'prefix' || owned.eid.prefix !== prefix) continue;
      this.arrive(owned, now);
    }
  }

  /** The workload of a target is here. */
  private arrive(owned: OwnedEid, now: Instant): void {
    const { registrar, outbox } = this.parts;
    owned.awaitsGrant = this.awaitsGrant(owned, owned.interface);
    registrar.claim(owned, now);
    this.claim(owned, true, now);
    this.watches.update();
    this.noteState(owned);
    outbox.persist('eids');
  }

  /** The map server has us as the owner. `previousOwner`: of what is new to us. */
  handleAccepted(owned: OwnedEid, previousOwner: TunnelKey | undefined, changed: boolean, now: Instant): void {
    if (owned.kind === 'address') {
      const { takeovers, targets } = this.parts;
      const settles = takeovers.isUnsettled(owned.key);
      // What the former owner said of others ends here: the map server names them itself.
      if (settles) targets.forget(owned.key);
      takeovers.settle(owned.key, now);
      this.takeIn(owned, now, previousOwner);
      if (changed && (settles || previousOwner !== undefined))
        this.parts.outbox.note({ type: 'move', role: 'new-owner', result: 'live' });
    }
    this.settle(owned, 'accepted', changed);
    const { registrar, registers, locators } = this.parts;
    if (owned.confirmedAt === null) registers.send(registrar.claimGroup(owned, locators.list()), now);
  }

  /** The map server names a newer owner. */
  handleLost(owned: OwnedEid, to: Mapping, now: Instant): void {
    const { remote, resolver, table, takeovers, departures, outbox } = this.parts;
    takeovers.forget(owned.key);
    if (owned.eid.kind === 'prefix') {
      remote.apply(to, null, now);
      const { tunnelKey: key, owner } = remote.isVouched(to) ? to : {};
      if (key !== undefined && owner !== undefined)
        departures.begin(owned.eid, { key, owner }, to.generation, true, now);
      else table.removeLocal(owned.eid.prefix, to.generation, null, now);
      outbox.note({ type: 'move', role: 'old-owner', result: 'lost' });
    }
    this.watches.update();
    this.settle(owned, 'lost', true);
    // The mapping came because we were the owner; from now on we follow it as anybody else does.
    resolver.follow(owned.eid, now);
  }

  handleDenied(owned: OwnedEid, now: Instant): void {
    if (this.giveBack(owned.key, now)) this.parts.outbox.note({ type: 'move', role: 'new-owner', result: 'denied' });
    if (owned.eid.kind === 'prefix') this.parts.table.removeLocal(owned.eid.prefix, owned.generation, null, now);
    this.settle(owned, 'denied', true);
  }

  /** The map server names somebody who may take an EID over, or (as the owner before) another agent does. */
  handleTarget(mapping: Mapping, now: Instant): void {
    const { registrar, targets, remote, resolver, preparations, outbox, identity } = this.parts;
    const { owner, tunnelKey: key } = mapping;
    const owned = registrar.find(mapping.eid);
    if (owned === undefined || owner === identity.xtrId || key === undefined || !remote.isVouched(mapping)) return;
    if (isWithdrawal(mapping)) {
      this.handleTargetGone(owned, key, now);
      return;
    }
    if (!registrar.isHere(owned) || !targets.add(mapping, now)) return;
    outbox.persist('eids');
    // If it is revoked we have to hear of it.
    const agent = agentEid(identity.instance, key);
    if (!remote.isFollowed(agent)) resolver.followBounded(agent, now);
    preparations.warm(now);
  }

  /** The map server does not let it take the EID over: what we yielded to it comes back. */
  private handleTargetGone(owned: OwnedEid, key: TunnelKey, now: Instant): void {
    const { targets, departures, outbox } = this.parts;
    if (targets.delete(owned.key, key)) outbox.persist('eids');
    const yielded = departures.successor(owned.key) === key && departures.isUnsettled(owned.key);
    if (yielded && owned.state === 'drain') this.takeBack(owned, now);
  }

  /**
   * Nothing is given to this agent or taken from it any more. What we yielded to it comes back. The map server says it
   * again in each session, and once is enough: nothing of a revoked key is believed from then on.
   */
  handleRevoked(
    { owner, tunnelKey: key }: Mapping & Required<Pick<Mapping, 'owner' | 'tunnelKey'>>,
    now: Instant,
  ): void {
    const { registrar, remote, targets, takeovers, departures, resolver, outbox, identity } = this.parts;
    if (owner !== xtrIdOf(key) || key === identity.tunnelKey || remote.isRevoked(key)) return;
    targets.revoke(key);
    for (const owned of registrar.addresses()) if (owned.redirect?.from === key) owned.redirect = null;
    for (const eid of takeovers.from(key)) takeovers.forget(eid);
    const yielded = departures.to(key).filter((eid) => departures.isUnsettled(eid));
    for (const eid of departures.to(key)) departures.forget(eid);
    const unknown = remote.revoke(key, now);
    for (const eid of yielded) {
      const owned = registrar.find(parseEidKey(eid));
      if (owned?.state === 'drain') this.takeBack(owned, now);
    }
    for (const eid of unknown) {
      const owned = registrar.find(eid);
      if (owned === undefined || !registrar.isHere(owned)) resolver.follow(eid, now);
    }
    outbox.persist('eids');
    outbox.persist('map-cache');
    outbox.note({ type: 'peer-revoked', publicKey: key });
  }

  /** An agent was revoked, or is away for too long. */
  handleAgentGone(agent: Eid): void {
    const { targets, identity } = this.parts;
    for (const key of targets.keys()) {
      if (eidKey(agentEid(identity.instance, key)) === eidKey(agent)) targets.revoke(key);
    }
  }

  /** An authorised target has it, and the map server need not know yet. */
  yieldTo(
    owned: OwnedEid,
    to: { readonly key: TunnelKey; readonly owner: XtrId },
    generation: Generation,
    now: Instant,
  ): void {
    const { registrar, remote, takeovers, departures, resolver, outbox } = this.parts;
    if (owned.eid.kind !== 'prefix') return;
    const before = takeovers.predecessor(owned.key);
    takeovers.forget(owned.key);
    registrar.yieldTo(owned, now);
    this.gone.cancel(owned);
    outbox.persist('eids');
    remote.handleYielded({ ...bare({ eid: owned.eid, generation, owner: to.owner }), tunnelKey: to.key }, now);
    departures.begin(owned.eid, to, generation, false, now);
    // It still sends what comes late for the EID to us.
    if (before !== undefined) departures.tell(owned.key, before.key, now);
    this.watches.update();
    this.noteState(owned);
    outbox.note({ type: 'move', role: 'old-owner', result: 'yielded' });
    resolver.follow(owned.eid, now);
  }

  /** What we yielded comes back: the map server refused the new owner. */
  takeBack(owned: OwnedEid, now: Instant): void {
    const { registrar, registers, locators, outbox } = this.parts;
    this.forgetMove(owned.key);
    registrar.takeBack(owned, now);
    this.takeIn(owned, now);
    this.watches.update();
    registers.send(registrar.claimGroup(owned, locators.list()), now);
    this.noteState(owned);
    outbox.persist('eids');
    outbox.note({ type: 'move', role: 'old-owner', result: 'given-back' });
  }

  /** What this peer still forwards for the EID is for us. */
  acceptRedirects(owned: OwnedEid, from: TunnelKey, now: Instant): void {
    owned.redirect = { from, since: now };
    this.parts.table.pinPeer(from, now);
    this.setLocal(owned);
  }

  /** What the map server says of an EID that is not here: it may settle a move away. */
  handleElsewhere(mapping: Mapping, now: Instant): void {
    const { departures, registrar } = this.parts;
    const owned = registrar.find(mapping.eid);
    if (owned === undefined || !departures.handleMapping(mapping, now)) return;
    registrar.settle(owned);
    this.parts.outbox.persist('eids');
  }

  handleTimeout(now: Instant): void {
    const { registrar, departures, takeovers, preparations, targets, outbox } = this.parts;
    takeovers.handleTimeout(now);
    preparations.handleTimeout(now);
    for (const key of departures.handleTimeout(now)) {
      const owned = registrar.find(parseEidKey(key));
      targets.forget(key);
      if (owned?.state !== 'drain') continue;
      registrar.forget(owned, now);
      this.noteState(owned);
      outbox.persist('eids');
    }
  }

  pollTimeout(): Instant {
    const { takeovers, departures, preparations } = this.parts;
    return Math.min(takeovers.pollTimeout(), departures.pollTimeout(), preparations.pollTimeout());
  }

  /** Call about once a second. */
  sweep(now: Instant): void {
    const { registrar, preparations } = this.parts;
    for (const prefix of this.gone.due(now)) this.detach(prefix, now);
    preparations.sweep(now);
    this.endAbandoned(now);
    for (const owned of registrar.addresses()) this.sweepOwned(owned, now);
    for (const { key, ticket } of this.attaching.expire(now)) {
      const owned = registrar.find(parseEidKey(key));
      if (owned !== undefined) this.answerAttachment(ticket, owned);
    }
  }

  /**
   * Whoever we yielded to would long have said it again, or have told the map server, which has been there all the time
   * and still has us as the owner. What is still behind its interface is taken back; for the rest somebody has to decide.
   */
  private endAbandoned(now: Instant): void {
    const { session, departures, registrar, registers, outbox } = this.parts;
    if (session.since === null || now - session.since < ABANDONED_AFTER) return;
    for (const key of departures.silentSince(now - ABANDONED_AFTER)) {
      const owned = registrar.find(parseEidKey(key));
      if (owned?.yielded !== true) continue;
      if (owned.interface !== null && owned.when !== 'seen' && this.isUp(owned.interface)) {
        this.takeBack(owned, now);
        continue;
      }
      departures.forget(key);
      registrar.abandon(owned, now);
      registers.withdraw([registrar.withdrawal(owned)], now);
      this.noteState(owned);
      outbox.persist('eids');
      outbox.note({ type: 'move', role: 'old-owner', result: 'abandoned' });
    }
  }

  private sweepOwned(owned: OwnedEid, now: Instant): void {
    const { state, since, redirect } = owned;
    // One that went to nobody whom we could redirect to.
    if (state === 'drain' && now - since >= DRAIN && this.parts.departures.successor(owned.key) === undefined) {
      this.parts.registrar.forget(owned, now);
      this.noteState(owned);
      this.parts.outbox.persist('eids');
    }
    // Before the map server has settled it, packets may come from there for any time.
    if (redirect !== null && state === 'live' && now - Math.max(since, redirect.since) >= REDIRECT_LIFE) {
      owned.redirect = null;
      this.setLocal(owned);
    }
  }

  /** At the map server and, as the target of a prepared move, from the owner. */
  private claim(owned: OwnedEid, prepared: boolean, now: Instant): void {
    const { registrar, registers, remote, takeovers, locators } = this.parts;
    const before = remote.cache.exact(owned.key);
    this.forgetMove(owned.key);
    if (!owned.awaitsGrant) this.takeIn(owned, now);
    registers.send(registrar.claimGroup(owned, locators.list()), now);
    if (prepared && !owned.awaitsGrant && before !== undefined && !before.negative)
      takeovers.begin(before.mapping, now);
  }

  /** Gives the EID back to the agent that yielded it, if the map server has not confirmed us. False: none did. */
  private giveBack(key: EidKey, now: Instant): boolean {
    const { takeovers, remote } = this.parts;
    const predecessor = takeovers.predecessor(key);
    if (predecessor === undefined) return false;
    takeovers.giveBack(key, remote.agentMapping(predecessor.key)?.owner, now);
    return true;
  }

  /** Nothing of a former move counts any more. */
  private forgetMove(key: EidKey): void {
    this.parts.departures.forget(key);
    this.parts.takeovers.forget(key);
  }

  /** From now on packets for it are for this host. */
  private takeIn(owned: OwnedEid, now: Instant, previousOwner?: TunnelKey): void {
    const { remote, table } = this.parts;
    if (owned.eid.kind !== 'prefix') return;
    const previous = previousOwner ?? remote.release(owned.eid)?.tunnelKey;
    if (previous !== undefined) {
      owned.redirect = { from: previous, since: now };
      table.pinPeer(previous, now);
    }
    remote.release(owned.eid);
    this.setLocal(owned);
    table.removeMapping(owned.eid.prefix, now);
  }

  private setLocal({ eid, generation, interface: via, redirect }: OwnedEid): void {
    if (eid.kind !== 'prefix') return;
    const redirectFrom = redirect?.from ?? null;
    this.parts.table.setLocal({ prefix: eid.prefix, generation, interface: via, redirectFrom });
  }

  private settle(owned: OwnedEid, result: 'accepted' | 'lost' | 'denied', changed: boolean): void {
    if (changed) this.parts.outbox.persist('eids');
    for (const ticket of this.attaching.take(owned.key)) this.answerAttachment(ticket, owned);
    if (!changed) return;
    this.parts.outbox.note({ type: 'registration', result, eid: owned.key });
    this.noteState(owned);
  }

  private answerAttachment(ticket: Ticket, { state, generation, problem }: OwnedEid): void {
    this.parts.outbox.answer(ticket, { kind: 'attachment', state, generation, problem });
  }

  private noteState({ key, kind, state, generation }: OwnedEid): void {
    if (kind !== 'agent') this.parts.outbox.note({ type: 'eid-state', eid: key, state, generation });
  }
}

const MAX_ATTACHING = 1024;
const ATTACH_PATIENCE = seconds(5);
const REDIRECT_LIFE = seconds(90);
/** A new owner that the map server does not know repeats itself every 10 s. */
const ABANDONED_AFTER = seconds(90);
