/**
 * EIDs that the server picks for agents that join, from the pools of their token.
 *
 * An EID is free when no agent that counts is granted just it, and nobody owns it. The one that is picked is written as a
 * record without an owner that counts, so that two servers that pick the same one at a time find out. Of IPv4 pools the
 * first and the last address stay out, of IPv6 pools the first: people take them for something else.
 */
import {
  hostPrefix,
  type IpPrefix,
  ipFamily,
  ipFromBytes,
  ipToBytes,
  isHostPrefix,
  prefixAddress,
  prefixContains,
  prefixLength,
} from '../../proto/address.ts';
import { eidKey, type InstanceId, prefixEid } from '../../proto/eid.ts';
import type { Generation, TunnelKey, XtrId } from '../../proto/mapping.ts';
import type { WallClock } from '../../proto/time.ts';
import { OperationError } from './operation-error.ts';
import { type AgentRecord, agentKey, ownershipKey } from './records.ts';
import type { Transaction } from './transactions.ts';

export interface Assignee {
  readonly xtrId: XtrId;
  readonly tunnelKey: TunnelKey;
  readonly instance: InstanceId;
  readonly wallClock: WallClock;
}

/** The first free EID of the pool, reserved for the agent. @throws OperationError when there is none */
export function assign(
  transaction: Transaction,
  pool: IpPrefix,
  agents: readonly AgentRecord[],
  assignee: Assignee,
): IpPrefix {
  const taken = new Set<bigint>();
  for (const { eids, revokedAt } of agents) {
    if (revokedAt !== undefined) continue;
    for (const eid of eids) if (isHostPrefix(eid) && prefixContains(pool, eid)) taken.add(offsetIn(pool, eid));
  }
  const family = ipFamily(prefixAddress(pool));
  const size = 1n << BigInt((family === 4 ? 32 : 128) - prefixLength(pool));
  const first = size > 2n ? 1n : 0n;
  const end = size > 2n && family === 4 ? size - 1n : size;
  let tries = 0;
  for (let offset = first; offset < end && tries < MAX_TRIES; offset++) {
    if (taken.has(offset)) continue;
    tries++;
    const eid = addressAt(pool, offset);
    const key = eidKey(prefixEid(assignee.instance, eid));
    const record = transaction.get(ownershipKey(key));
    if (record?.kind === 'eid' && !isFree(transaction, record.state, record.owner, eid)) continue;
    const { xtrId: owner, tunnelKey, wallClock: ownerSince } = assignee;
    const generation = ((record?.kind === 'eid' ? record.generation : 0) + 1) as Generation;
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

function offsetIn(pool: IpPrefix, eid: IpPrefix): bigint {
  return numberOf(prefixAddress(eid)) - numberOf(prefixAddress(pool));
}

function addressAt(pool: IpPrefix, offset: bigint): IpPrefix {
  const base = prefixAddress(pool);
  const digits = (numberOf(base) + offset).toString(16).padStart(ipFamily(base) === 4 ? 8 : 32, '0');
  return hostPrefix(ipFromBytes(Uint8Array.from(Buffer.from(digits, 'hex'))));
}

function numberOf(address: ReturnType<typeof prefixAddress>): bigint {
  return BigInt(`0x${Buffer.from(ipToBytes(address)).toString('hex')}`);
}

/** Free by grants, and owned all the same. */
const MAX_TRIES = 1024;
