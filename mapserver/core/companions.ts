/**
 * A mapping is of use only with the agent address mapping of its owner, which tells where the owner's agent itself is;
 * so whoever is told the one is told the other with it.
 */
import type { EidKey, InstanceId } from '../../proto/eid.ts';
import type { Mapping } from '../../proto/mapping.ts';
import { agentEidKey, mappingOf, type OwnershipRecord, ownershipKey } from './records.ts';
import type { Replica } from './replica.ts';

export class Companions {
  private readonly instance: InstanceId;
  private readonly replica: Replica;

  constructor(instance: InstanceId, replica: Replica) {
    this.instance = instance;
    this.replica = replica;
  }

  /** The mappings of `records`, then the agent address mappings of their owners. */
  with(records: readonly OwnershipRecord[]): Mapping[] {
    const companions = new Map<EidKey, Mapping>();
    for (const record of records) this.collect(companions, record);
    for (const { eid } of records) companions.delete(eid);
    return [...records.map(mappingOf), ...companions.values()];
  }

  /** A mapping, then the agent address mapping of its owner, if it has one. */
  beside(mapping: Mapping): Mapping[] {
    const companions = new Map<EidKey, Mapping>();
    if (mapping.tunnelKey !== undefined) this.collect(companions, { tunnelKey: mapping.tunnelKey });
    return [mapping, ...companions.values()];
  }

  /** Adds the agent address mapping of the owner, once. */
  collect(companions: Map<EidKey, Mapping>, { tunnelKey }: Pick<OwnershipRecord, 'tunnelKey'>): void {
    const eid = agentEidKey(this.instance, tunnelKey);
    if (companions.has(eid)) return;
    const record = this.replica.get(ownershipKey(eid));
    if (record?.kind === 'eid') companions.set(eid, mappingOf(record));
  }
}
