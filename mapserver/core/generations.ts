/**
 * Which generation comes next, also after the store came back from a backup.
 *
 * Generations tell what is newer because each is larger than all before it. A backup does not know those that were given
 * after it was made, so a restored map server must neither give one of them again, nor take the owners that it remembers
 * for the last ones. Both follow from a _floor_ that is set when a backup is restored, and that no generation given
 * before can reach: the milliseconds since 1970, as long as an EID does not change its owner a thousand times a second.
 *
 * - What is given after the restore is above the floor, so it is newer than all from before.
 * - Who claims an EID that it has from before the restore gets such a generation too; routers of sites always claim.
 * - An agent that says it owns an EID at a generation beyond the stored one, and below the floor, was given that after the
 *   backup was made. It is believed where its grant covers the EID and nobody has got the EID since: it could take the
 *   EID over by a claim as well, so it gains nothing that it may not have. Of several the largest is the last owner, and
 *   wins in whatever order they come.
 *
 * The record of an EID that nobody has any more may be forgotten. Then its generation lives on in a floor of all that were
 * forgotten: an EID without a record begins above it, and what was given to it before is not taken for news.
 */
import type { Generation } from '../../proto/mapping.ts';
import { FORGOTTEN_GENERATIONS_KEY, type OwnershipRecord, ownershipKey, RESTORATION_KEY } from './records.ts';
import type { Transaction } from './transactions.ts';

/** For a new owner. */
export function nextGeneration(transaction: Transaction, stored: OwnershipRecord | undefined): Generation {
  return (Math.max(lastOf(transaction, stored), floorOf(transaction)) + 1) as Generation;
}

/** Whether it was given after the backup was made from which the store comes. */
export function isUnknownToBackup(
  transaction: Transaction,
  stored: OwnershipRecord | undefined,
  generation: Generation,
): boolean {
  return generation > lastOf(transaction, stored) && generation <= floorOf(transaction);
}

/** Whether it was given before the restore. */
export function isFromBackup(transaction: Transaction, stored: OwnershipRecord): boolean {
  return stored.generation <= floorOf(transaction);
}

/** Deletes the record of an EID that is withdrawn or released. */
function forget(transaction: Transaction, { eid, generation }: OwnershipRecord): void {
  transaction.delete(ownershipKey(eid));
  if (generation > forgottenFloorOf(transaction)) transaction.put({ kind: 'forgotten-generations', floor: generation });
}

/** Forgets the first that nobody has changed meanwhile; false: there is none. */
export function forgetFirst(transaction: Transaction, candidates: Iterator<OwnershipRecord>): boolean {
  for (let { value, done } = candidates.next(); done !== true; { value, done } = candidates.next()) {
    const record = transaction.get(ownershipKey(value.eid));
    if (record?.kind !== 'eid' || record.owner !== value.owner || record.state !== value.state) continue;
    forget(transaction, record);
    return true;
  }
  return false;
}

/** No generation that the EID ever had is larger. */
function lastOf(transaction: Transaction, stored: OwnershipRecord | undefined): number {
  return stored?.generation ?? forgottenFloorOf(transaction);
}

function forgottenFloorOf(transaction: Transaction): number {
  const forgotten = transaction.get(FORGOTTEN_GENERATIONS_KEY);
  return forgotten?.kind === 'forgotten-generations' ? forgotten.floor : 0;
}

/** 0: the store was never restored. */
function floorOf(transaction: Transaction): number {
  const restoration = transaction.get(RESTORATION_KEY);
  return restoration?.kind === 'restoration' ? restoration.floor : 0;
}
