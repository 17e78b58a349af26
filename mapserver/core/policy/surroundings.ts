/** Agents, owners and grants of this map server, as policies ask for them. */
import type { Overlay } from '../grants.ts';
import type { MappingDatabase } from '../mapping-database.ts';
import { agentKey } from '../records.ts';
import type { Replica } from '../replica.ts';
import type { PolicySurroundings } from './inspection.ts';
import type { PolicyRecords } from './selection.ts';

/** Always as of the moment in which it is asked. */
export function surroundingsOf(overlay: Overlay, replica: Replica, database: MappingDatabase): PolicySurroundings {
  const records: PolicyRecords = {
    instance: overlay.instance,
    agent: (xtrId) => {
      const record = replica.get(agentKey(xtrId));
      return record?.kind === 'agent' ? record : undefined;
    },
    ownedBy: (xtrId) => database.ownedBy(xtrId),
    owners: () => database.owners(),
  };
  return {
    overlay,
    records,
    *grants() {
      for (const { record } of replica.values()) {
        if (record.kind === 'agent' && record.revokedAt === undefined) yield record.eids;
      }
    },
  };
}
