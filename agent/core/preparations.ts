/**
 * What both ends of a move do before it, while an EID is at its owner and others may take it over (targets).
 *
 * Owner and target keep a session with each other, so that the first word of the move needs no handshake. And the owner
 * says who talks to the EID, again and again as that changes, so that the target keeps a session with each of them as
 * well: a handshake costs both ends CPU and a round trip, and a thousand of them are not to begin in the moment of the
 * move. The target begins a few at a time, since there is no hurry. What a target has not acknowledged counts as
 * not said, and is part of the handover. None of this changes who has what.
 */
import type { IpPrefix } from '../../proto/address.ts';
import { type EidKey, parseEidKey, prefixEid } from '../../proto/eid.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import { asTarget, type TunnelKey } from '../../proto/mapping.ts';
import { type Instant, seconds } from '../../proto/time.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import type { KnownTargets } from './known-targets.ts';
import type { Outbox } from './outbox.ts';
import type { PeerChannel } from './peer-channel.ts';
import type { AgentIdentity, OwnedEid, Registrar } from './registrar.ts';
import { bare, type RemoteMappings } from './remote-mappings.ts';
import { TokenBucket } from './token-bucket.ts';

export interface PreparationParts {
  readonly identity: AgentIdentity;
  readonly registrar: Registrar;
  readonly remote: RemoteMappings;
  readonly table: DataplaneTable;
  readonly targets: KnownTargets;
  readonly channel: PeerChannel;
  readonly outbox: Outbox;
}

/** What one target was told of one correspondent. */
interface Said {
  readonly at: Instant;
  acknowledged: boolean;
}

interface Offer {
  readonly since: Instant;
  askAt: Instant;
  readonly said: Map<TunnelKey, Map<TunnelKey, Said>>;
}

interface Message {
  readonly eid: EidKey;
  readonly target: TunnelKey;
  readonly peers: readonly TunnelKey[];
  /** Messages that the peers are spread over, of which this is one. */
  readonly parts: Set<Nonce>;
  readonly at: Instant;
}

export class Preparations {
  private readonly parts: PreparationParts;
  /** Of EIDs that are here, by what their targets were told. */
  private readonly offers = new Map<EidKey, Offer>();
  private readonly unacknowledged = new Map<Nonce, Message>();
  private readonly asking: TokenBucket;
  /** Of EIDs that may come here: who talks to them, and when that was last said. */
  private readonly expected = new Map<EidKey, Map<TunnelKey, Instant>>();
  /** When the session with each was last looked after. */
  private readonly warmedAt = new Map<TunnelKey, Instant>();
  private readonly cold = new Set<TunnelKey>();
  /** Whose sessions are renewed before the host itself is moved. */
  private readonly hurried = new Set<TunnelKey>();
  private nextTurn: Instant;

  constructor(parts: PreparationParts, now: Instant) {
    this.parts = parts;
    this.asking = new TokenBucket(ASKS_AT_ONCE, ASKS_PER_SECOND, now);
    this.nextTurn = now;
  }

  // ── at the owner ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** The data plane's answer, for an EID that is here. */
  handleCorrespondents(prefix: IpPrefix, peers: readonly TunnelKey[], now: Instant): void {
    const { registrar, identity, targets } = this.parts;
    const owned = registrar.find(prefixEid(identity.instance, prefix));
    const offer = owned === undefined ? undefined : this.offers.get(owned.key);
    if (owned === undefined || offer === undefined || !registrar.isHere(owned)) return;
    for (const target of offer.said.keys()) if (!targets.has(owned.key, target)) offer.said.delete(target);
    for (const target of targets.of(owned.key)) this.tell(owned, offer, target, peers, now);
  }

  handleAcknowledged(nonce: Nonce): void {
    const message = this.unacknowledged.get(nonce);
    this.unacknowledged.delete(nonce);
    message?.parts.delete(nonce);
    if (message === undefined || message.parts.size > 0) return;
    const said = this.offers.get(message.eid)?.said.get(message.target);
    for (const peer of message.peers) {
      const entry = said?.get(peer);
      if (entry !== undefined) entry.acknowledged = true;
    }
  }

  /** The EID goes to this target. Returns those of whom it knows, and forgets it. */
  conclude(eid: EidKey, target: TunnelKey): ReadonlySet<TunnelKey> {
    const said = this.offers.get(eid)?.said.get(target) ?? new Map<TunnelKey, Said>();
    this.offers.delete(eid);
    return new Set([...said].flatMap(([peer, { acknowledged }]) => (acknowledged ? [peer] : [])));
  }

  private tell(
    { eid, key, generation }: OwnedEid,
    offer: Offer,
    target: TunnelKey,
    peers: readonly TunnelKey[],
    now: Instant,
  ): void {
    const { remote, table, channel } = this.parts;
    const agent = remote.agentIntroduction(target);
    if (agent?.owner === undefined || agent.locators.length === 0) return;
    const before = offer.said.get(target);
    const said = new Map(peers.flatMap((peer) => entryOf(before, peer)));
    offer.said.set(target, said);
    const due = peers.filter((peer) => {
      if (peer === target || !isDue(said.get(peer), now)) return false;
      return table.peerLocators(peer) !== undefined && remote.agentMapping(peer) !== undefined;
    });
    const some = due.slice(0, TOLD_TOGETHER * this.room(target));
    if (due.length > some.length) offer.askAt = now + LEAST_ASK;
    if (some.length === 0) return;
    const { owner, locators } = agent;
    const subject = asTarget({
      ...bare({ eid, generation, owner, tunnelKey: target }),
      locators: locators.slice(0, 1),
    });
    const news = remote.introductions(some);
    for (let at = 0; at < some.length; at += TOLD_TOGETHER) {
      const together = some.slice(at, at + TOLD_TOGETHER);
      const introductions = together.flatMap((peer) => news.get(peer) ?? []);
      const nonces = channel.notify(target, 'prepare', subject, introductions, now);
      const message = { eid: key, target, peers: together, parts: new Set(nonces), at: now };
      for (const nonce of nonces) this.unacknowledged.set(nonce, message);
      for (const peer of together) said.set(peer, { at: now, acknowledged: false });
    }
  }

  /** Messages that may be sent to it now, whatever they are about: a move is not to wait behind the preparing of others. */
  private room(target: TunnelKey): number {
    let underWay = 0;
    for (const message of this.unacknowledged.values()) if (message.target === target) underWay++;
    return Math.max(0, Math.min(UNACKNOWLEDGED_BY_ONE - underWay, UNACKNOWLEDGED - this.unacknowledged.size));
  }

  private sweepOffers(now: Instant): void {
    const { registrar, targets, table, outbox } = this.parts;
    for (const [nonce, { at }] of this.unacknowledged) {
      if (now - at >= SAY_AGAIN) this.unacknowledged.delete(nonce);
    }
    for (const key of this.offers.keys()) if (targets.of(key).length === 0) this.offers.delete(key);
    const due: { readonly prefix: IpPrefix; readonly offer: Offer }[] = [];
    for (const owned of registrar.addresses()) {
      const { eid, key } = owned;
      if (eid.kind !== 'prefix' || !registrar.isHere(owned) || targets.of(key).length === 0) continue;
      const offer = this.offers.get(key) ?? { since: now, askAt: now, said: new Map() };
      this.offers.set(key, offer);
      if (offer.askAt <= now) due.push({ prefix: eid.prefix, offer });
    }
    // Who has waited longest comes first, as there may be more than can be asked for.
    due.sort((a, b) => a.offer.askAt - b.offer.askAt);
    for (const { prefix, offer } of due) {
      if (!table.isAttached || !this.asking.take(now)) return;
      offer.askAt = now + Math.min(Math.max((now - offer.since) / 4, LEAST_ASK), MOST_ASK);
      outbox.command({ type: 'correspondents', prefix });
    }
  }

  // ── at a target ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** These talk to an EID that may come here. Returns those whom to know as peers from now on: there is a limit. */
  expect(eid: EidKey, peers: readonly TunnelKey[], now: Instant): ReadonlySet<TunnelKey> {
    const known = this.expected.get(eid) ?? new Map<TunnelKey, Instant>();
    this.expected.set(eid, known);
    let all = 0;
    for (const { size } of this.expected.values()) all += size;
    const room = Math.max(0, Math.min(MAX_EXPECTED - known.size, MAX_EXPECTED_OF_ALL - all));
    const fresh = peers.filter((peer) => !known.has(peer)).slice(0, room);
    const accepted = [...peers.filter((peer) => known.has(peer)), ...fresh];
    for (const peer of accepted) known.set(peer, now);
    for (const peer of fresh) this.cold.add(peer);
    return new Set(accepted);
  }

  /** The EID is here. Returns who was said to talk to it, and forgets them. */
  arrived(eid: EidKey): readonly TunnelKey[] {
    const peers = [...(this.expected.get(eid)?.keys() ?? [])];
    this.expected.delete(eid);
    return peers;
  }

  private sweepExpected(now: Instant): void {
    for (const [eid, peers] of this.expected) {
      for (const [peer, at] of peers) if (now - at >= EXPECTED_LIFE) peers.delete(peer);
      const attached = this.parts.registrar.find(parseEidKey(eid)) !== undefined;
      if (peers.size === 0 || !attached) this.expected.delete(eid);
    }
    const wanted = new Set([...this.expected.values()].flatMap((peers) => [...peers.keys()]));
    for (const peer of this.cold) if (!wanted.has(peer)) this.cold.delete(peer);
    for (const peer of wanted) if (this.isCold(peer, now)) this.cold.add(peer);
  }

  // ── at both ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Owners and targets have a session with each other from now on. */
  warm(now: Instant): void {
    const { targets } = this.parts;
    const owners = this.owners();
    for (const key of new Set([...targets.keys(), ...owners])) if (this.isCold(key, now)) this.lookAfter(key, now);
  }

  /**
   * This host is about to be moved or stopped: targets are told at once who talks to what is here, and there is a session
   * with every peer, so that the first word from the new place needs no handshake.
   */
  hasten(now: Instant): void {
    for (const offer of this.offers.values()) offer.askAt = now;
    for (const peer of this.parts.table.peerKeys()) this.hurried.add(peer);
    this.sweepOffers(now);
  }

  handleTimeout(now: Instant): void {
    if (now < this.pollTimeout()) return;
    this.nextTurn = now + TURN;
    for (const peer of [...new Set([...this.hurried, ...this.cold])].slice(0, WARMED_IN_A_TURN)) {
      this.hurried.delete(peer);
      this.cold.delete(peer);
      this.lookAfter(peer, now);
    }
  }

  pollTimeout(): Instant {
    return this.cold.size + this.hurried.size === 0 ? Number.POSITIVE_INFINITY : this.nextTurn;
  }

  /** Call about once a second. */
  sweep(now: Instant): void {
    for (const [key, at] of this.warmedAt) if (now - at >= FORGOTTEN) this.warmedAt.delete(key);
    this.sweepExpected(now);
    this.warm(now);
    this.sweepOffers(now);
  }

  /** Those who have what this host waits for. */
  private owners(): readonly TunnelKey[] {
    const { registrar, remote } = this.parts;
    const waiting = registrar.addresses().filter(({ state }) => state === 'target');
    return waiting.flatMap(({ key }) => remote.cache.exact(key)?.mapping.tunnelKey ?? []);
  }

  private isCold(key: TunnelKey, now: Instant): boolean {
    const at = this.warmedAt.get(key);
    return at === undefined || now - at >= WARMTH;
  }

  private lookAfter(publicKey: TunnelKey, now: Instant): void {
    const { table, outbox } = this.parts;
    if (table.peerLocators(publicKey) === undefined || !table.isAttached) return;
    this.warmedAt.set(publicKey, now);
    outbox.command({ type: 'probe', publicKey, token: NOBODY_WAITS });
  }
}

function entryOf(said: ReadonlyMap<TunnelKey, Said> | undefined, peer: TunnelKey): readonly [TunnelKey, Said][] {
  const entry = said?.get(peer);
  return entry === undefined ? [] : [[peer, entry]];
}

function isDue(said: Said | undefined, now: Instant): boolean {
  return said === undefined || now - said.at >= (said.acknowledged ? SAID_LIFE : SAY_AGAIN);
}

/** Well below the age at which an idle session ends. */
const WARMTH = seconds(60);
/** Longer than that, as what is not looked after any more is to be forgotten. */
const FORGOTTEN = seconds(90);
/** Tokens of callers begin at 1. */
const NOBODY_WAITS = 0;
/** 320 handshakes a second: a twentieth of a CPU. */
const TURN = 50;
const WARMED_IN_A_TURN = 16;
const MAX_EXPECTED = 4096;
/** For all EIDs together. */
const MAX_EXPECTED_OF_ALL = 32_768;
/** As long as sessions with them are kept: they are named again every SAID_LIFE. */
const EXPECTED_LIFE = seconds(150);
const SAID_LIFE = seconds(60);
/** When all repetitions of a message have been in vain. */
const SAY_AGAIN = seconds(10);
/** With an EID each, what fits into one message. */
const TOLD_TOGETHER = 4;
/** The rest follows after LEAST_ASK: the receiver's data plane takes 512 messages at once and 256 a second. */
const UNACKNOWLEDGED_BY_ONE = 256;
/** Of all targets: half of what is repeated at all (peer-channel.ts). */
const UNACKNOWLEDGED = 4096;
const LEAST_ASK = seconds(1);
const MOST_ASK = seconds(5);
/** Of all EIDs. */
const ASKS_AT_ONCE = 64;
const ASKS_PER_SECOND = 16;
