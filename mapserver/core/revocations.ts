/**
 * Tells agents who is none any more.
 *
 * A revoked agent's mappings are withdrawn like any other; that does not reach those who know it by its key alone: from
 * another agent, or as the one to whom they yielded an EID. So its revocation goes to every agent that is connected, and
 * to one that asks for its agent address later. Whoever had no session at that moment is told of the latest when it has.
 */
import { type Eid, eidKey, type InstanceId } from '../../proto/eid.ts';
import type { Generation, Mapping } from '../../proto/mapping.ts';
import { type AgentRecord, agentEidKey, agentKey, ownershipKey, revocationOf } from './records.ts';
import type { Replica } from './replica.ts';
import type { Session, Sessions } from './sessions.ts';

export class Revocations {
  private readonly instance: InstanceId;
  private readonly replica: Replica;
  private readonly sessions: Sessions;
  private untold: AgentRecord[] = [];
  /** The latest, the oldest of them first. */
  private readonly latest: AgentRecord[] = [];
  /** As they are told; undefined: to be made. */
  private told: readonly Mapping[] | undefined;

  constructor(instance: InstanceId, replica: Replica, sessions: Sessions) {
    this.instance = instance;
    this.replica = replica;
    this.sessions = sessions;
  }

  /** Does nothing when it is one of the latest: it was told. */
  add(agent: AgentRecord): void {
    if (this.latest.some(({ xtrId }) => xtrId === agent.xtrId)) return;
    this.untold.push(agent);
    this.remember(agent);
  }

  /** One that was revoked before this server started. */
  remember(agent: AgentRecord): void {
    this.told = undefined;
    this.latest.push(agent);
    this.latest.sort((a, b) => (a.revokedAt ?? 0) - (b.revokedAt ?? 0));
    this.latest.splice(0, Math.max(0, this.latest.length - MAX_LATEST));
  }

  /** Its session begins. What it knows already it does not look at. */
  welcome(session: Session): void {
    if (this.latest.length === 0) return;
    this.told ??= this.latest.map((agent) => this.mapping(agent));
    this.sessions.publish(session, this.told);
  }

  /** Call when the withdrawals of its mappings were published. */
  settle(): void {
    if (this.untold.length === 0) return;
    const mappings = this.untold.map((agent) => this.mapping(agent));
    this.untold = [];
    for (const session of this.sessions.all()) this.sessions.publish(session, mappings);
  }

  /** Undefined unless `eid` is the agent address of a revoked agent. */
  of(eid: Eid): Mapping | undefined {
    const owned = this.replica.get(ownershipKey(eidKey(eid)));
    if (owned?.kind !== 'eid' || owned.tunnelKey === undefined) return undefined;
    if (owned.eid !== agentEidKey(this.instance, owned.tunnelKey)) return undefined;
    const agent = this.replica.get(agentKey(owned.owner));
    return agent?.kind === 'agent' && agent.revokedAt !== undefined ? this.mapping(agent) : undefined;
  }

  private mapping(agent: AgentRecord): Mapping {
    const owned = this.replica.get(ownershipKey(agentEidKey(this.instance, agent.tunnelKey)));
    return revocationOf(agent, this.instance, owned?.kind === 'eid' ? owned.generation : (0 as Generation));
  }
}

const MAX_LATEST = 64;
