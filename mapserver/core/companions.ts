/**
 * A mapping is of use only with the agent address mapping of its owner, which tells where the owner's agent itself is;
 * so whoever is told the one is told the other with it.
 */
import { eidKey, type InstanceId } from '../../proto/eid.ts';
import type { Mapping, TunnelKey, XtrId } from '../../proto/mapping.ts';
import type { Gateways } from './lisp/gateways.ts';
import { agentEidKey, mappingOf, type OwnershipRecord, ownershipKey } from './records.ts';
import type { Replica } from './replica.ts';

export class Companions {
  private readonly instance: InstanceId;
  private readonly replica: Replica;
  private readonly gateways: Gateways;

  constructor(instance: InstanceId, replica: Replica, gateways: Gateways) {
    this.gateways = gateways;
    this.instance = instance;
    this.replica = replica;
  }

  /** The mappings of `records` as an agent is told of them, then the agent address mappings of their owners. */
  with(records: readonly OwnershipRecord[], asker: XtrId): Mapping[] {
    const told = new Set(records.map(({ eid }) => eid));
    const seen = records.map((record) => this.gateways.toldTo(asker, record));
    return [...seen.map(mappingOf), ...this.of(seen).filter(({ eid }) => !told.has(eidKey(eid)))];
  }

  /** A mapping, then the agent address mapping of its owner, if it has one. */
  beside(mapping: Mapping): Mapping[] {
    const { tunnelKey } = mapping;
    return [mapping, ...(tunnelKey === undefined ? [] : this.of([{ tunnelKey }]))];
  }

  /** The agent address mappings of the owners, each once. */
  of(owned: Iterable<{ readonly tunnelKey?: TunnelKey }>): Mapping[] {
    // Many EIDs are of few owners, and an address is a hash of the key.
    const keys = new Set<TunnelKey>();
    for (const { tunnelKey } of owned) if (tunnelKey !== undefined) keys.add(tunnelKey);
    return [...keys].flatMap((key) => {
      const record = this.replica.get(ownershipKey(agentEidKey(this.instance, key)));
      return record?.kind === 'eid' ? [mappingOf(record)] : [];
    });
  }
}
