/**
 * What becomes of an agent's grant when an administrator changes it, and of what the agent owns.
 *
 * What is not covered any more is released in the same transaction: the mappings are withdrawn, others may take the
 * EIDs over, and the agent is refused when it registers them again.
 */
import { type IpPrefix, prefixContains } from '../../proto/address.ts';
import { type Eid, parseEidKey } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { covers, coversName, type Overlay } from './grants.ts';
import type { MappingDatabase } from './mapping-database.ts';
import { OperationError } from './operation-error.ts';
import { type AgentRecord, agentEidKey, type Grant, type OwnershipRecord, ownershipKey } from './records.ts';
import type { Transaction } from './transactions.ts';

/** @throws OperationError */
export function addGrant(transaction: Transaction, agent: AgentRecord, more: Grant): AgentRecord {
  const extended: AgentRecord = {
    ...agent,
    eids: [...new Set([...agent.eids, ...more.eids])],
    names: [...new Set([...agent.names, ...more.names])],
    groups: [...new Set([...agent.groups, ...more.groups])],
    ...withdrawn((agent.withdrawn ?? []).filter((each) => !more.eids.some((eid) => prefixContains(eid, each)))),
  };
  if (extended.eids.length + extended.names.length + extended.groups.length > MAX_GRANT) {
    throw new OperationError(
      'STAYPUT_TOO_MANY',
      `an agent may have at most ${MAX_GRANT} granted prefixes, names and groups`,
    );
  }
  transaction.put(extended);
  return extended;
}

/** Takes away exactly what was granted by these words. @throws OperationError when something was not */
export function removeGrant(
  transaction: Transaction,
  agent: AgentRecord,
  less: Grant,
  { overlay, database }: { readonly overlay: Overlay; readonly database: MappingDatabase },
): AgentRecord {
  const reduced: AgentRecord = {
    ...agent,
    eids: without(agent.eids, less.eids),
    names: without(agent.names, less.names),
    groups: without(agent.groups, less.groups),
    ...withdrawn([...new Set([...(agent.withdrawn ?? []), ...less.eids])]),
  };
  transaction.put(reduced);
  const own = agentEidKey(overlay.instance, agent.tunnelKey);
  releaseOwned(transaction, agent.xtrId, database, (eid, key) => key !== own && !covers(reduced, overlay, eid));
  for (const record of ownedIn(transaction, agent.xtrId, database)) {
    const names = record.names.filter((name) => coversName(reduced, name));
    if (names.length < record.names.length) transaction.put({ ...record, names });
  }
  return reduced;
}

/** Releases what the agent owns, of that what `fits`. */
export function releaseOwned(
  transaction: Transaction,
  xtrId: XtrId,
  database: MappingDatabase,
  fits: (eid: Eid, key: string) => boolean = () => true,
): void {
  for (const record of ownedIn(transaction, xtrId, database)) {
    if (record.state === 'released' || !fits(parseEidKey(record.eid), record.eid)) continue;
    transaction.put({ ...record, state: 'released', locators: [], names: [], targets: [] });
  }
}

/** What the agent owns with what the transaction has written so far. */
function ownedIn(transaction: Transaction, xtrId: XtrId, database: MappingDatabase): OwnershipRecord[] {
  const keys = new Set([...database.ownedBy(xtrId), ...transaction.written()].map(({ eid }) => ownershipKey(eid)));
  return [...keys].flatMap((key) => {
    const record = transaction.get(key);
    return record?.kind === 'eid' && record.owner === xtrId ? [record] : [];
  });
}

/** Beyond the limit the oldest are forgotten. */
function withdrawn(eids: readonly IpPrefix[]): Pick<AgentRecord, 'withdrawn'> {
  return { withdrawn: eids.slice(-MAX_WITHDRAWN) };
}

function without<T extends string>(granted: readonly T[], less: readonly T[]): T[] {
  const unknown = less.find((each) => !granted.includes(each));
  if (unknown !== undefined) {
    throw new OperationError(
      'STAYPUT_NOT_GRANTED',
      `the agent has no grant of "${unknown}"; "stayput agents list" shows what it has`,
    );
  }
  return granted.filter((each) => !less.includes(each));
}

const MAX_GRANT = 256;
const MAX_WITHDRAWN = MAX_GRANT;
