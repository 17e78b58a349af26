/**
 * Before a move: owner and target get to know each other.
 *
 * A target is an agent that is prepared to take an EID over, by its own registration or by an administrator's order.
 * The owner is told of it together with the target's agent address mapping, once in each of its sessions, so that a
 * claim that reaches it inside the tunnel needs no map server.
 */
import { type Eid, type EidKey, eidKey, type InstanceId } from '../../proto/eid.ts';
import { asTarget, type Mapping, type XtrId } from '../../proto/mapping.ts';
import type { Instant } from '../../proto/time.ts';
import type { Companions } from './companions.ts';
import { agentEidKey, agentKey, mappingOf, type OwnershipRecord, ownershipKey } from './records.ts';
import { denied, type Registration } from './registration.ts';
import type { Replica } from './replica.ts';
import type { Session, Sessions } from './sessions.ts';
import { TARGET_TTL, type Targets } from './targets.ts';

export interface HandoverParts {
  readonly instance: InstanceId;
  readonly replica: Replica;
  readonly targets: Targets;
  readonly sessions: Sessions;
  readonly companions: Companions;
}

export class Handover {
  private readonly parts: HandoverParts;

  constructor(parts: HandoverParts) {
    this.parts = parts;
  }

  /** Notes a target of a move, or that it is none any more: whoever owns the EID is not waiting for it. */
  register(session: Session, registration: Registration, now: Instant): Registration {
    const { targets, replica } = this.parts;
    if (registration.kind !== 'target') {
      if (registration.kind === 'accepted') targets.delete(registration.record.eid, session.xtrId);
      return registration;
    }
    const { eid, ttl, locators } = registration.mapping;
    const agent = replica.get(agentKey(session.xtrId));
    if (ttl === 0) {
      targets.delete(eidKey(eid), session.xtrId);
      return registration;
    }
    if (agent?.kind !== 'agent') return denied(eid, registration.record, 'revoked');
    const { xtrId, tunnelKey } = agent;
    const added = targets.add({ eid: eidKey(eid), xtrId, tunnelKey, locators }, now);
    return added ? registration : denied(eid, registration.record, 'too-many');
  }

  /** By order it is going to take the EID over: its owner has to know before its claim comes. */
  announce(xtrId: XtrId, eid: Eid, now: Instant): void {
    const { replica, targets, instance } = this.parts;
    const agent = replica.get(agentKey(xtrId));
    const owned = replica.get(ownershipKey(eidKey(eid)));
    if (agent?.kind !== 'agent' || owned?.kind !== 'eid') return;
    const address = replica.get(ownershipKey(agentEidKey(instance, agent.tunnelKey)));
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
    const agents = new Map<EidKey, Mapping>();
    for (const target of targets) companions.collect(agents, target);
    const told = targets.map(({ xtrId: owner, tunnelKey, locators }): Mapping => {
      return { ...mappingOf(record), ttl: TARGET_TTL, owner, tunnelKey, locators, names: [] };
    });
    sessions.publish(session, [...told, ...agents.values()]);
  }
}
