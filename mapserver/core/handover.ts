/**
 * Before a move: owner and target get to know each other.
 *
 * A target is an agent that is prepared to take an EID over, by its own registration or by an administrator's order.
 * The owner is told of it together with the target's agent address mapping, once in each of its sessions, so that a
 * claim that reaches it inside the tunnel needs no map server. It is told as well when an agent is a target no more because
 * its grant was taken away or its registration refused, and takes back what it yielded to that one meanwhile. Of grants
 * that were taken away it is told again when it registers the EID in a new session: it may not have heard.
 */
import { type Eid, type EidKey, eidKey, parseEidKey } from '../../proto/eid.ts';
import { asTarget, type Mapping, TARGET_GENERATION, type XtrId } from '../../proto/mapping.ts';
import type { Instant } from '../../proto/time.ts';
import type { Companions } from './companions.ts';
import { covers, type Overlay } from './grants.ts';
import type { MappingDatabase } from './mapping-database.ts';
import { type AgentRecord, agentEidKey, agentKey, mappingOf, type OwnershipRecord, ownershipKey } from './records.ts';
import { denied, type Registration } from './registration.ts';
import type { Replica } from './replica.ts';
import type { Session, Sessions } from './sessions.ts';
import { TARGET_TTL, type Targets } from './targets.ts';
import { WithdrawnGrants } from './withdrawn-grants.ts';

export interface HandoverParts {
  readonly overlay: Overlay;
  readonly database: MappingDatabase;
  readonly replica: Replica;
  readonly targets: Targets;
  readonly sessions: Sessions;
  readonly companions: Companions;
}

export class Handover {
  private readonly parts: HandoverParts;
  private readonly withdrawnGrants = new WithdrawnGrants();
  /** Whose grant has got smaller, and an EID that is to be looked at for that; what one input brought together. */
  private readonly withdrawn: IterableIterator<Withdrawn>[] = [];

  constructor(parts: HandoverParts) {
    this.parts = parts;
  }

  /** Notes a target of a move, or that it is none any more: whoever owns the EID is not waiting for it. */
  register(session: Session, registration: Registration, now: Instant): Registration {
    const { targets, replica, overlay } = this.parts;
    if (registration.kind === 'accepted') targets.delete(registration.record.eid, session.xtrId);
    if (registration.kind === 'denied') this.refuse(session.xtrId, eidKey(registration.mapping.eid));
    if (registration.kind !== 'target') return registration;
    const { eid, ttl, locators } = registration.mapping;
    const agent = replica.get(agentKey(session.xtrId));
    if (ttl === 0) {
      targets.delete(eidKey(eid), session.xtrId);
      return registration;
    }
    if (agent?.kind !== 'agent') return denied(eid, registration.record, 'revoked');
    // Its grant may have been taken away in the same transaction, after this was judged.
    if (!covers(agent, overlay, eid)) return denied(eid, registration.record, 'not-granted');
    const { xtrId, tunnelKey } = agent;
    const added = targets.add({ eid: eidKey(eid), xtrId, tunnelKey, locators }, now);
    return added ? registration : denied(eid, registration.record, 'too-many');
  }

  /**
   * It is granted less: owners hear for which of their EIDs it is no target, also if it never said that it is one. How
   * many these are depends on what others registered, so they hear of it in slices.
   */
  handleGrant(before: AgentRecord | undefined, after: AgentRecord | undefined): void {
    const { overlay, database, targets } = this.parts;
    this.withdrawnGrants.follow(before, after);
    if (before === undefined || after === undefined) return;
    const lost = before.eids.filter((eid) => !after.eids.includes(eid));
    if (lost.length === 0) return;
    const claimed = new Set<EidKey>();
    for (const eid of targets.eidsOf(after.xtrId)) {
      if (covers(after, overlay, parseEidKey(eid))) continue;
      targets.delete(eid, after.xtrId);
      claimed.add(eid);
    }
    const within = lost.flatMap((prefix) => [...database.within(overlay.instance, prefix)]);
    // What it is prepared to take comes first.
    const eids = new Set([...claimed, ...within.map(({ eid }) => eid)]);
    this.withdrawn.push(of(after.xtrId, eids));
  }

  /** Its owner is here: whom it may still take for a target of it. */
  welcome({ eid: key }: OwnershipRecord): void {
    const eid = parseEidKey(key);
    if (eid.kind === 'name') return;
    const agents = this.withdrawnGrants.of(eid.prefix);
    if (agents.length > 0) this.withdrawn.push(formerly(key, agents));
  }

  /** After each input. */
  settle(): void {
    const { replica, sessions } = this.parts;
    const toOwners = new Map<XtrId, Mapping[]>();
    let done = 0;
    for (let looked = 0; looked < SLICE && done < this.withdrawn.length; looked++) {
      const next = this.withdrawn[done]?.next();
      if (next === undefined || next.done === true) {
        done++;
        continue;
      }
      const { xtrId, eid } = next.value;
      const agent = replica.get(agentKey(xtrId));
      const record = replica.get(ownershipKey(eid));
      if (agent?.kind !== 'agent' || record?.kind !== 'eid' || record.state !== 'live') continue;
      if (record.owner === agent.xtrId || covers(agent, this.parts.overlay, parseEidKey(record.eid))) continue;
      const toOwner = toOwners.get(record.owner) ?? [];
      toOwners.set(record.owner, toOwner);
      toOwner.push(targetNoMore(record, agent));
    }
    this.withdrawn.splice(0, done);
    for (const [owner, mappings] of toOwners) {
      const session = sessions.of(owner);
      if (session !== undefined) sessions.publish(session, mappings);
    }
  }

  pollTimeout(): Instant | undefined {
    return this.withdrawn.length > 0 ? 0 : undefined;
  }

  /** By order it is going to take the EID over: its owner has to know before its claim comes. */
  announce(xtrId: XtrId, eid: Eid, now: Instant): void {
    const { replica, targets, overlay } = this.parts;
    const agent = replica.get(agentKey(xtrId));
    const owned = replica.get(ownershipKey(eidKey(eid)));
    if (agent?.kind !== 'agent' || owned?.kind !== 'eid') return;
    const address = replica.get(ownershipKey(agentEidKey(overlay.instance, agent.tunnelKey)));
    const locators = address?.kind === 'eid' ? asTarget(mappingOf(address)).locators : [];
    if (locators.length === 0) return;
    targets.add({ eid: owned.eid, xtrId, tunnelKey: agent.tunnelKey, locators }, now);
    this.tellOwner(owned);
  }

  /** Tells the owner who is authorised to take its EID over, with their agent address mappings. */
  tellOwner(record: OwnershipRecord | undefined): void {
    if (record?.state !== 'live') return;
    const { sessions, companions } = this.parts;
    const session = sessions.of(record.owner);
    if (session === undefined) return;
    const targets = this.parts.targets.untold(record.eid, record.owner, session.id);
    if (targets.length === 0) return;
    const told = targets.map(({ xtrId: owner, tunnelKey, locators }): Mapping => {
      return { ...mappingOf(record), ttl: TARGET_TTL, owner, tunnelKey, locators, names: [] };
    });
    sessions.publish(session, [...told, ...companions.of(targets)]);
  }

  private refuse(xtrId: XtrId, eid: EidKey): void {
    const { targets, replica, sessions } = this.parts;
    if (!targets.has(eid, xtrId)) return;
    targets.delete(eid, xtrId);
    const agent = replica.get(agentKey(xtrId));
    const record = replica.get(ownershipKey(eid));
    if (agent?.kind !== 'agent' || record?.kind !== 'eid' || record.owner === xtrId) return;
    const session = sessions.of(record.owner);
    if (session !== undefined) sessions.publish(session, [targetNoMore(record, agent)]);
  }
}

interface Withdrawn {
  readonly xtrId: XtrId;
  readonly eid: EidKey;
}

function* of(xtrId: XtrId, eids: Iterable<EidKey>): IterableIterator<Withdrawn> {
  for (const eid of eids) yield { xtrId, eid };
}

function* formerly(eid: EidKey, agents: Iterable<XtrId>): IterableIterator<Withdrawn> {
  for (const xtrId of agents) yield { xtrId, eid };
}

function targetNoMore(record: OwnershipRecord, { xtrId: owner, tunnelKey }: AgentRecord): Mapping {
  const nothing = { ttl: 0, locators: [], names: [], targets: [] };
  return { ...mappingOf(record), ...nothing, action: 'drop', generation: TARGET_GENERATION, owner, tunnelKey };
}

/** EIDs in one go: a millisecond or two. */
const SLICE = 256;
