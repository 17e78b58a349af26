/**
 * EIDs that the server picks for agents that join, from the pools of their token.
 *
 * An EID is free when no agent that counts is granted just it, and nobody owns it. The one that is picked is written as a
 * record without an owner that counts, so that two servers that pick the same one at a time find out. Of IPv4 pools the
 * first and the last address stay out, of IPv6 pools the first: people take them for something else. So do those at
 * which platforms have services of their own.
 */
import { type IpPrefix, ipFamily, prefixAddress } from '../../proto/address.ts';
import { eidKey, type InstanceId, prefixEid } from '../../proto/eid.ts';
import type { TunnelKey, XtrId } from '../../proto/mapping.ts';
import { keptOutIn } from '../../proto/overlay.ts';
import { firstHost, lastHost, nodePrefix, prefixNode } from '../../proto/prefix-node.ts';
import type { WallClock } from '../../proto/time.ts';
import { nextGeneration } from './generations.ts';
import type { HeldAddresses } from './held-addresses.ts';
import { OperationError } from './operation-error.ts';
import { agentKey, ownershipKey } from './records.ts';
import type { Transaction } from './transactions.ts';

export interface Assignee {
  readonly xtrId: XtrId;
  readonly tunnelKey: TunnelKey;
  readonly instance: InstanceId;
  readonly wallClock: WallClock;
}

/** The first free EID of the pool, reserved for the agent. @throws OperationError when there is none */
export function assign(transaction: Transaction, pool: IpPrefix, held: HeldAddresses, assignee: Assignee): IpPrefix {
  // What others were given in the same transaction is not held yet.
  const justGranted = new Set([...transaction.agents()].flatMap(({ eids }) => eids));
  const family = ipFamily(prefixAddress(pool));
  const node = prefixNode(pool);
  const [first, last] = [firstHost(family, node), lastHost(family, node)];
  const isSmall = last - first < 2n;
  const end = family === 4 && !isSmall ? last - 1n : last;
  let host = held.firstFree(family, isSmall ? first : first + 1n, end);
  for (let tries = 0; host !== undefined && tries < MAX_TRIES; host = held.firstFree(family, host + 1n, end)) {
    const eid = nodePrefix(family, host);
    const kept = keptOutIn(eid);
    if (kept !== undefined) {
      host = lastHost(family, prefixNode(kept[0]));
      continue;
    }
    if (justGranted.has(eid)) continue;
    tries++;
    const key = eidKey(prefixEid(assignee.instance, eid));
    const found = transaction.get(ownershipKey(key));
    const record = found?.kind === 'eid' ? found : undefined;
    if (record !== undefined && !isFree(transaction, record.state, record.owner, eid)) continue;
    const { xtrId: owner, tunnelKey, wallClock: ownerSince } = assignee;
    const generation = nextGeneration(transaction, record);
    const nothing = { ttl: 0, locators: [], names: [], targets: [] };
    transaction.put({ kind: 'eid', eid: key, generation, owner, tunnelKey, state: 'released', ownerSince, ...nothing });
    return eid;
  }
  throw new OperationError('STAYPUT_POOL_EMPTY', `the pool ${pool} of the join token has no free address left`);
}

/** Released, and not reserved for somebody else. */
function isFree(transaction: Transaction, state: string, owner: XtrId, eid: IpPrefix): boolean {
  if (state !== 'released') return false;
  const agent = transaction.get(agentKey(owner));
  // Not known yet: another server enrols it at this moment.
  if (agent?.kind !== 'agent') return false;
  return agent.revokedAt !== undefined || !agent.eids.includes(eid);
}

/** Free by grants, and owned all the same. */
const MAX_TRIES = 1024;
