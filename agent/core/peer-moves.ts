/**
 * What other agents say of moves, and whether it is believed. The tunnel proves who speaks; what he may say follows from
 * what the map server told us before:
 *
 * - _Claim_: "this EID of yours is mine now." From whom the map server named as a target of that EID, and for the
 *   generation at which we have it. We yield.
 * - _Notice_: "this EID is that agent's now." From whom we know as its owner, at no older generation. Believed at once but
 *   at the generation that we knew, so that each newer one overrides it, and looked up at the map server after a moment.
 * - _Prepare_: "you may take over this EID of mine, and these talk to it." From its owner, while we wait for it. There is
 *   time to ask the map server, so we speak to nobody whom it has not confirmed; while it is away, to a few.
 * - _Handover_: "this EID is yours, and these talk to it." From whom we took it. As a _give-back_, from whom we yielded
 *   it to.
 * - _SMR_: "ask for this EID again." From anybody; we ask the map server.
 *
 * Whatever else is said changes nothing, is counted, and at most makes us ask the map server.
 */
import { type EidKey, eidKey } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import { mappingsOf, queriesOf } from '../../proto/lisp/native.ts';
import { isTarget, isWithdrawal, type Mapping, type TunnelKey } from '../../proto/mapping.ts';
import type { Instant } from '../../proto/time.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import type { Departures } from './departures.ts';
import type { KnownTargets } from './known-targets.ts';
import type { MapServerSession } from './map-server-session.ts';
import type { Mover } from './mover.ts';
import type { Outbox } from './outbox.ts';
import type { PeerMessageKind } from './output.ts';
import type { PeerChannel } from './peer-channel.ts';
import type { Preparations } from './preparations.ts';
import type { AgentIdentity, Registrar } from './registrar.ts';
import { isAgentEid, type RemoteMappings } from './remote-mappings.ts';
import type { Resolver } from './resolver.ts';
import type { Takeovers } from './takeovers.ts';

export interface PeerMoveParts {
  readonly identity: AgentIdentity;
  readonly registrar: Registrar;
  readonly remote: RemoteMappings;
  readonly resolver: Resolver;
  readonly table: DataplaneTable;
  readonly session: MapServerSession;
  readonly mover: Mover;
  readonly departures: Departures;
  readonly takeovers: Takeovers;
  readonly targets: KnownTargets;
  readonly preparations: Preparations;
  readonly channel: PeerChannel;
  readonly outbox: Outbox;
}

/** A mapping that names an owner. */
type Owned = Mapping & Required<Pick<Mapping, 'owner' | 'tunnelKey'>>;

interface Said {
  readonly from: TunnelKey;
  readonly key: EidKey;
  readonly subject: Owned;
  /** Vouched agent address mappings that came along. */
  readonly agents: readonly Owned[];
  readonly others: readonly Owned[];
}

export class PeerMoves {
  private readonly parts: PeerMoveParts;

  constructor(parts: PeerMoveParts) {
    this.parts = parts;
  }

  handle(from: TunnelKey, payload: string, now: Instant): void {
    const { channel, table } = this.parts;
    if (table.peerLocators(from) === undefined) return;
    try {
      const message = channel.receive(from, payload);
      if (message === null) return;
      if (message.type === 'map-notify-ack') {
        this.parts.preparations.handleAcknowledged(message.nonce);
        return;
      }
      if (message.type === 'map-request' && message.smr) {
        for (const { eid } of queriesOf(message).slice(0, 1)) this.handleSolicit(from, eidKey(eid), now);
        return;
      }
      const said = message.type === 'map-notify' ? this.read(from, mappingsOf(message)) : null;
      if (message.type !== 'map-notify' || said === null) this.count('notice', 'malformed');
      else if (this.decide(said, now)) channel.acknowledge(from, message.nonce);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.count('notice', 'malformed');
    }
  }

  private read(from: TunnelKey, mappings: readonly Mapping[]): Said | null {
    const { instance, tunnelKey } = this.parts.identity;
    const [subject, ...rest] = mappings.filter((mapping) => this.isSound(mapping));
    if (subject === undefined || subject !== mappings[0] || isAgentEid(subject.eid)) return null;
    if (rest.some(({ eid }) => eid.iid !== instance)) return null;
    return {
      from,
      key: eidKey(subject.eid),
      subject,
      agents: rest.filter((each) => isAgentEid(each.eid) && each.tunnelKey !== tunnelKey),
      others: rest.filter((each) => !isAgentEid(each.eid)),
    };
  }

  private isSound(mapping: Mapping): mapping is Owned {
    const { eid, owner, tunnelKey } = mapping;
    if (eid.kind === 'name' || eid.iid !== this.parts.identity.instance || isWithdrawal(mapping)) return false;
    return owner !== undefined && tunnelKey !== undefined && this.parts.remote.isVouched(mapping);
  }

  /** True if it is to be acknowledged. */
  private decide(said: Said, now: Instant): boolean {
    if (said.subject.tunnelKey === said.from) return this.handleClaim(said, now);
    if (said.subject.tunnelKey !== this.parts.identity.tunnelKey) return this.handleNotice(said, now);
    if (isTarget(said.subject)) return this.handlePrepare(said, now);
    const yielded = this.parts.departures.successor(said.key) === said.from;
    return yielded ? this.handleGiveBack(said, now) : this.handleHandover(said, now);
  }

  private handleClaim({ from, key, subject }: Said, now: Instant): boolean {
    const { registrar, departures, takeovers, targets, mover } = this.parts;
    const owned = registrar.find(subject.eid);
    // Said again: the acknowledgement was lost, or the new owner is not sure of us.
    if (departures.successor(key) === from) {
      departures.heard(key, now);
      return true;
    }
    if (owned?.kind !== 'address') return this.refuse('claim');
    if (!registrar.isHere(owned)) {
      departures.tell(key, from, now);
      return departures.successor(key) !== undefined || this.refuse('claim');
    }
    const generation = owned.state === 'live' ? owned.generation : takeovers.predecessor(key)?.generation;
    if (!targets.has(key, from) || subject.generation !== generation) return this.refuse('claim');
    mover.yieldTo(owned, { key: from, owner: subject.owner }, generation, now);
    this.count('claim', 'accepted');
    return true;
  }

  /** Always acknowledged: it is heard, whatever we make of it. */
  private handleNotice({ from, key, subject, agents }: Said, now: Instant): boolean {
    const { registrar, remote, resolver, takeovers, departures, mover } = this.parts;
    const owned = registrar.find(subject.eid);
    const agent = agents.find(({ tunnelKey }) => tunnelKey === subject.tunnelKey);
    if (owned !== undefined && registrar.isHere(owned)) {
      const passedOn = owned.state === 'base' && takeovers.predecessor(key)?.key === from;
      if (passedOn) {
        remote.introduce(subject.tunnelKey, agent, now);
        mover.acceptRedirects(owned, subject.tunnelKey, now);
        takeovers.handlePassedOn(key, subject.tunnelKey, now);
      }
      this.count('notice', passedOn ? 'accepted' : 'refused');
      return true;
    }
    const verdict = remote.handleNotice(from, subject, agent, now);
    if (verdict === 'accepted') departures.handlePassedOn(key, from, subject.tunnelKey, subject.owner, now);
    if (verdict === 'stranger') resolver.followForPeer(subject.eid, now);
    if (verdict !== 'known') this.count('notice', verdict === 'accepted' ? 'accepted' : 'refused');
    if (verdict === 'accepted') this.parts.outbox.persist('map-cache');
    return true;
  }

  private handlePrepare(said: Said, now: Instant): boolean {
    const { registrar, remote, preparations } = this.parts;
    const { from, key, subject, agents } = said;
    const isOwner = remote.cache.exact(key)?.mapping.tunnelKey === from;
    if (registrar.find(subject.eid)?.state !== 'target' || !isOwner) return this.refuse('prepare');
    const peers = agents.map(({ tunnelKey }) => tunnelKey);
    const expected = preparations.expect(key, peers, now);
    const isExpected = ({ tunnelKey }: Owned): boolean => expected.has(tunnelKey);
    const { session } = this.parts;
    const [known, others] = [agents.filter(isExpected), said.others.filter(isExpected)];
    if (session.isUp) this.look(known, others, now);
    else this.meet(known, others, now);
    this.count('prepare', 'accepted');
    // Of whom there is no room for, the owner tells in the handover.
    return peers.every((peer) => expected.has(peer));
  }

  private handleHandover(said: Said, now: Instant): boolean {
    const { registrar, takeovers, targets, preparations, session } = this.parts;
    const { from, key, subject, agents, others } = said;
    const owned = registrar.find(subject.eid);
    const awaited = owned !== undefined && registrar.isHere(owned) && takeovers.listensTo(key, from, now);
    if (!awaited) return this.refuse('handover');
    this.meet(agents, others, now);
    const rivals = others.filter((each) => isTarget(each));
    // While the map server is there, only it names those to whom we yield.
    const alone = !session.isUp && takeovers.isUnsettled(key);
    for (const rival of rivals) if (alone && eidKey(rival.eid) === key) targets.add(rival, now);
    const waiting = new Set(rivals.map(({ tunnelKey }) => tunnelKey));
    takeovers.greet(
      key,
      agents.map(({ tunnelKey }) => tunnelKey).filter((peer) => !waiting.has(peer)),
    );
    takeovers.greetLater(key, preparations.arrived(key));
    this.count('handover', 'accepted');
    return true;
  }

  /** Those who talk to an EID of ours, or to one that may become ours, in the word of its owner. */
  private meet(agents: readonly Owned[], others: readonly Owned[], now: Instant): void {
    const { remote, session } = this.parts;
    for (const agent of agents) remote.introduce(agent.tunnelKey, agent, now);
    // Answers must find their way. The map server is asked while it is there; else the other host's word has to do, and
    // it is asked for peers and EIDs as soon as it is there, as for all that are known.
    if (session.isUp) this.look(agents, others, now);
    else for (const mapping of this.foreign(others)) remote.believe(mapping, now);
  }

  /** Asks the map server for them. */
  private look(agents: readonly Owned[], others: readonly Owned[], now: Instant): void {
    this.parts.resolver.followIntroduced(
      [...this.foreign(others), ...agents].map(({ eid }) => eid),
      now,
    );
  }

  private foreign(others: readonly Owned[]): readonly Owned[] {
    return others.filter((each) => !isTarget(each) && this.parts.registrar.find(each.eid) === undefined);
  }

  private handleGiveBack({ key, subject }: Said, now: Instant): boolean {
    const { registrar, departures, mover } = this.parts;
    const owned = registrar.find(subject.eid);
    if (owned === undefined || !departures.isUnsettled(key) || owned.generation !== subject.generation) {
      return this.refuse('give-back');
    }
    mover.takeBack(owned, now);
    this.count('give-back', 'accepted');
    return true;
  }

  private handleSolicit(from: TunnelKey, key: EidKey, now: Instant): void {
    const { remote, resolver, session } = this.parts;
    const entry = remote.cache.exact(key);
    const known = entry === undefined || entry.mapping.tunnelKey === from;
    this.count('solicit', known || !session.isUp ? 'ignored' : 'accepted');
    if (!known && session.isUp) resolver.followForPeer(entry.mapping.eid, now);
  }

  private refuse(kind: PeerMessageKind): false {
    this.count(kind, 'refused');
    return false;
  }

  private count(kind: PeerMessageKind, result: 'accepted' | 'refused' | 'ignored' | 'malformed'): void {
    this.parts.outbox.note({ type: 'peer-message', kind, result });
  }
}
