/**
 * Gateways: agents that join the sites of plain LISP routers and the agents' tunnels (an RTR or proxy xTR).
 *
 * The operator names them. The first that is there serves; one that has lost its session gives way to the next, although
 * its mapping stays, and stands in only while none is better. Plain askers are told its RLOCs as those of every agent's EID;
 * agents are told the EIDs of sites as if they were the gateway's, with its tunnel key, so they need not know of any of
 * this: their packets go to the gateway, and what it passes on comes from the owner that they know. A gateway itself is
 * told the truth, and so is everybody while no gateway is there.
 */
import type { InstanceId } from '../../../proto/eid.ts';
import type { Locator, XtrId } from '../../../proto/mapping.ts';
import { agentEidKey, agentKey, type OwnershipRecord, ownershipKey, type StoreRecord } from '../records.ts';
import type { Replica } from '../replica.ts';

export class Gateways {
  private readonly named: ReadonlySet<XtrId>;
  private readonly instance: InstanceId;
  private readonly replica: Replica;
  private readonly isAway: (xtrId: XtrId) => boolean;
  private changed = false;
  /** As everybody was told. */
  private told: OwnershipRecord | undefined;

  constructor(named: readonly XtrId[], instance: InstanceId, replica: Replica, isAway: (xtrId: XtrId) => boolean) {
    this.named = new Set(named);
    this.instance = instance;
    this.replica = replica;
    this.isAway = isAway;
  }

  /** Where plain packets for agents go. */
  locators(): readonly Locator[] {
    return this.serving()?.locators ?? [];
  }

  /** A record as this agent is told of it. */
  toldTo(asker: XtrId, record: OwnershipRecord): OwnershipRecord {
    if (record.site === undefined || record.state !== 'live' || this.named.has(asker)) return record;
    const gateway = this.serving();
    if (gateway?.tunnelKey === undefined) return record;
    const { owner, tunnelKey, locators } = gateway;
    return { ...record, owner, tunnelKey, locators };
  }

  /** The agent address record of the one that serves. */
  serving(): OwnershipRecord | undefined {
    let standIn: OwnershipRecord | undefined;
    for (const xtrId of this.named) {
      const agent = this.replica.get(agentKey(xtrId));
      if (agent?.kind !== 'agent' || agent.revokedAt !== undefined) continue;
      const record = this.replica.get(ownershipKey(agentEidKey(this.instance, agent.tunnelKey)));
      if (record?.kind !== 'eid' || record.state !== 'live' || record.locators.length === 0) continue;
      if (!this.isAway(xtrId)) return record;
      standIn ??= record;
    }
    return standIn;
  }

  /** The agent is away from now on, or back. */
  notePresence(xtrId: XtrId): void {
    this.changed ||= this.named.has(xtrId);
  }

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    this.changed ||= this.concerns(before) || this.concerns(after);
  }

  /** The EIDs of which somebody is told something else since the last call, as another gateway serves or elsewhere. */
  takeToldAnew(): readonly OwnershipRecord[] {
    if (!this.changed) return [];
    this.changed = false;
    const former = this.told;
    this.told = this.serving();
    if (this.told?.owner === former?.owner && this.told?.locators === former?.locators) return [];
    const anew: OwnershipRecord[] = [];
    for (const { record } of this.replica.values())
      if (record.kind === 'eid' && record.state === 'live') anew.push(record);
    return anew;
  }

  private concerns(record: StoreRecord | undefined): boolean {
    if (record?.kind === 'agent') return this.named.has(record.xtrId);
    return record?.kind === 'eid' && record.site === undefined && this.named.has(record.owner);
  }
}
