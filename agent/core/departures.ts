/**
 * EIDs that left this host for another agent: what the old side of a move still does.
 *
 * The data plane forwards what arrives late. Whoever talked to the EID lately, or still sends here, is told by us, the
 * owner that it knows, where the EID is now; and the new owner is told who they are, so that it can speak first to them.
 * A departure is _settled_ when the map server has named the new owner (a newer generation); it ends DRAIN after that.
 * One that only the new owner told us of is not settled: it lasts until the map server is back, and meanwhile we go on to
 * answer for the EID in the mapping system, at our generation, and forward what that brings.
 */
import type { IpPrefix } from '../../proto/address.ts';
import { type Eid, type EidKey, eidKey, parseEidKey } from '../../proto/eid.ts';
import { asTarget, type Generation, type Mapping, type TunnelKey, type XtrId } from '../../proto/mapping.ts';
import { type Instant, minutes, seconds } from '../../proto/time.ts';
import { type DataplaneTable, DRAIN } from './dataplane-table.ts';
import type { KnownTargets } from './known-targets.ts';
import type { Outbox } from './outbox.ts';
import type { PeerChannel } from './peer-channel.ts';
import type { Preparations } from './preparations.ts';
import { bare, type RemoteMappings } from './remote-mappings.ts';
import { TokenBucket } from './token-bucket.ts';

interface Departure {
  readonly eid: Eid;
  readonly prefix: IpPrefix;
  readonly since: Instant;
  /** When the new owner last said that it has it, or did not have to. */
  heardAt: Instant;
  to: TunnelKey;
  owner: XtrId;
  generation: Generation;
  settled: boolean;
  endsAt: Instant;
  /** When the data plane is asked again who still sends. */
  askAt: Instant;
  renewAt: Instant;
  readonly told: Set<TunnelKey>;
  /** Those of whom the new owner was told before the move. */
  prepared: ReadonlySet<TunnelKey>;
  /** The new owner knows of the other targets. */
  introduced: boolean;
}

/** One that the map server does not know of, as it is written to disk. */
export interface SavedDeparture {
  readonly eid: EidKey;
  readonly to: TunnelKey;
  readonly owner: XtrId;
  readonly generation: Generation;
}

export interface DepartureParts {
  readonly remote: RemoteMappings;
  readonly table: DataplaneTable;
  readonly channel: PeerChannel;
  readonly targets: KnownTargets;
  readonly preparations: Preparations;
  readonly outbox: Outbox;
}

export class Departures {
  private readonly parts: DepartureParts;
  private readonly departures = new Map<EidKey, Departure>();
  private readonly asking: TokenBucket;

  constructor(parts: DepartureParts, now: Instant) {
    this.parts = parts;
    this.asking = new TokenBucket(ASKS_AT_ONCE, ASKS_PER_SECOND, now);
  }

  /** Goes on with what a process before this one began. */
  restore(saved: readonly SavedDeparture[], now: Instant): void {
    for (const { eid: key, to, owner, generation } of saved) {
      const eid = parseEidKey(key);
      if (eid.kind !== 'prefix') continue;
      this.parts.remote.handleYielded({ ...bare({ eid, generation, owner }), tunnelKey: to }, now);
      this.begin(eid, { key: to, owner }, generation, false, now);
      this.parts.table.redirect(eid.prefix, generation, to, now);
    }
  }

  save(): readonly SavedDeparture[] {
    return [...this.departures]
      .filter(([, { settled }]) => !settled)
      .map(([eid, { to, owner, generation }]) => ({ eid, to, owner, generation }));
  }

  /** From now on packets for it go to `to`. Its mapping is known to `remote`. */
  begin(
    eid: Eid & { kind: 'prefix' },
    to: { readonly key: TunnelKey; readonly owner: XtrId },
    generation: Generation,
    settled: boolean,
    now: Instant,
  ): void {
    const { table, preparations } = this.parts;
    table.pinPeer(to.key, now);
    table.removeLocal(eid.prefix, generation, to.key, now);
    const departure: Departure = {
      eid,
      prefix: eid.prefix,
      since: now,
      heardAt: now,
      to: to.key,
      owner: to.owner,
      generation,
      settled,
      endsAt: now + DRAIN,
      askAt: now + FIRST_ASK,
      renewAt: now + RENEWAL,
      told: new Set([to.key]),
      prepared: preparations.conclude(eidKey(eid), to.key),
      introduced: false,
    };
    this.departures.set(eidKey(eid), departure);
    // Of most it is known already who they are.
    if (departure.prepared.size > 0) this.spread(departure, [...departure.prepared], now);
    this.ask(eid.prefix);
  }

  /** The new owner says again that it has it. */
  heard(key: EidKey, now: Instant): void {
    const departure = this.departures.get(key);
    if (departure !== undefined) departure.heardAt = now;
  }

  /** Unsettled ones of which the new owner has said nothing since then. */
  silentSince(before: Instant): readonly EidKey[] {
    return [...this.departures].filter(([, { settled, heardAt }]) => !settled && heardAt <= before).map(([key]) => key);
  }

  /** To whom it went, while that lasts. */
  successor(key: EidKey): TunnelKey | undefined {
    return this.departures.get(key)?.to;
  }

  /** The map server has not named the new owner yet. */
  isUnsettled(key: EidKey): boolean {
    return this.departures.get(key)?.settled === false;
  }

  /** The EIDs that went to this agent. */
  to(key: TunnelKey): readonly EidKey[] {
    return [...this.departures].filter(([, { to }]) => to === key).map(([eid]) => eid);
  }

  /** It is here again, or detached. */
  forget(key: EidKey): void {
    this.departures.delete(key);
  }

  /** What the map server says of an EID that left. Returns true when that settles it. */
  handleMapping({ eid, generation, owner, tunnelKey }: Mapping, now: Instant): boolean {
    const departure = this.departures.get(eidKey(eid));
    if (departure === undefined || generation <= departure.generation) return false;
    departure.generation = generation;
    departure.settled = true;
    departure.endsAt = now + DRAIN;
    if (owner === undefined || tunnelKey === undefined) return true;
    this.direct(departure, tunnelKey, owner, now);
    return true;
  }

  /** The new owner says that it passed the EID on. */
  handlePassedOn(key: EidKey, from: TunnelKey, to: TunnelKey, owner: XtrId, now: Instant): void {
    const departure = this.departures.get(key);
    if (departure?.to === from) this.direct(departure, to, owner, now);
  }

  /** Those who talked to it lately: each is told once, and the new owner of them. */
  handleCorrespondents(prefix: IpPrefix, peers: readonly TunnelKey[], now: Instant): void {
    const departure = [...this.departures.values()].find((each) => each.prefix === prefix);
    if (departure !== undefined) this.spread(departure, peers, now);
  }

  private spread(departure: Departure, peers: readonly TunnelKey[], now: Instant): void {
    const { table, remote, channel, outbox } = this.parts;
    const news = peers.filter((key) => !departure.told.has(key) && table.peerLocators(key) !== undefined);
    const moved = this.subject(departure);
    const rivals = departure.introduced ? [] : this.rivals(departure);
    departure.introduced = true;
    const agent = this.agentOf(departure.to);
    const strangers = remote.introductions(news.filter((key) => !departure.prepared.has(key)));
    // Even if there is nobody to introduce: it speaks first to those whom it was prepared for.
    let greets = departure.prepared.size > 0 && departure.told.size <= 1;
    // A few at a time, so that the new owner begins with the first while the last are told.
    for (let at = 0; at === 0 || at < news.length; at += TOLD_AT_ONCE) {
      const some = news.slice(at, at + TOLD_AT_ONCE);
      const known = some.flatMap((key) => strangers.get(key) ?? []);
      const introductions = at === 0 ? [...rivals, ...known] : known;
      if (introductions.length > 0 || greets) channel.notify(departure.to, 'handover', moved, introductions, now);
      greets = false;
      const told = some.slice(0, MAX_TOLD - departure.told.size);
      for (const key of told) departure.told.add(key);
      channel.notifyEach(told, 'notice', moved, agent, now);
    }
    if (news.length > 0) outbox.note({ type: 'correspondents', count: news.length });
  }

  /** Says to somebody who asks us where it is now. */
  tell(key: EidKey, peer: TunnelKey, now: Instant): void {
    const departure = this.departures.get(key);
    if (departure === undefined || departure.to === peer) return;
    this.parts.channel.notify(peer, 'notice', this.subject(departure), this.agentOf(departure.to), now);
  }

  /** Returns the EIDs whose departure ended. */
  handleTimeout(now: Instant): readonly EidKey[] {
    const ended: EidKey[] = [];
    for (const [key, departure] of this.departures) {
      if (departure.settled && departure.endsAt <= now) {
        this.departures.delete(key);
        ended.push(key);
        continue;
      }
      if (departure.askAt <= now) {
        const age = now - departure.since;
        const may = this.asking.take(now);
        const wait = age < DRAIN ? LATE_ASK : Math.min(Math.max(age / 4, SELDOM_ASK), RAREST_ASK);
        departure.askAt = now + (may ? Math.min(Math.max(age, FIRST_ASK), wait) : LATE_ASK);
        if (may) this.ask(departure.prefix);
      }
      if (!departure.settled && departure.renewAt <= now) this.renew(departure, now);
    }
    return ended;
  }

  pollTimeout(): Instant {
    let at = Number.POSITIVE_INFINITY;
    for (const { askAt, endsAt, renewAt, settled } of this.departures.values()) {
      at = Math.min(at, askAt, settled ? endsAt : renewAt);
    }
    return at;
  }

  private ask(prefix: IpPrefix): void {
    if (this.parts.table.isAttached) this.parts.outbox.command({ type: 'correspondents', prefix });
  }

  private direct(departure: Departure, to: TunnelKey, owner: XtrId, now: Instant): void {
    if (to !== departure.to) {
      departure.told.clear();
      departure.heardAt = now;
      this.parts.outbox.persist('eids');
      departure.introduced = false;
      departure.prepared = new Set();
    }
    departure.told.add(to);
    Object.assign(departure, { to, owner });
    this.renew(departure, now);
  }

  /** The data plane redirects for DRAIN at a time. */
  private renew(departure: Departure, now: Instant): void {
    const { table } = this.parts;
    departure.renewAt = now + RENEWAL;
    table.pinPeer(departure.to, now);
    table.redirect(departure.prefix, departure.generation, departure.to, now);
  }

  private subject({ eid, generation, owner, to }: Departure): Mapping {
    return bare({ eid, generation, owner, tunnelKey: to });
  }

  private agentOf(key: TunnelKey): readonly Mapping[] {
    const agent = this.parts.remote.agentIntroduction(key);
    return agent === undefined ? [] : [agent];
  }

  /** Others who may take it over: from now on the new owner has to know them. */
  private rivals(departure: Departure): readonly Mapping[] {
    const others = this.parts.targets.of(eidKey(departure.eid)).filter((key) => key !== departure.to);
    return others.flatMap((key) => {
      const agent = this.parts.remote.agentIntroduction(key);
      if (agent?.owner === undefined) return [];
      const { owner, locators } = agent;
      return [asTarget({ ...this.subject(departure), owner, tunnelKey: key, locators: locators.slice(0, 1) }), agent];
    });
  }
}

const FIRST_ASK = 50;
/** While it drains a late sender is told within a second. */
const LATE_ASK = seconds(1);
const SELDOM_ASK = seconds(10);
/** Of one that is not settled for long. */
const RAREST_ASK = minutes(5);
/** Of all departures, beyond the first time for each. */
const ASKS_AT_ONCE = 64;
const ASKS_PER_SECOND = 32;
const RENEWAL = DRAIN * 0.6;
const MAX_TOLD = 16_384;
const TOLD_AT_ONCE = 64;
