/**
 * Tells whom changes of mappings concern (RFC 9437).
 *
 * Every change of a record, by whatever way it came, is noted by `follow`; `settle`, after each input, sends each
 * session concerned one publication with all of it: the subscribers, and the owner before. The owner itself gets the
 * acknowledgement of its registration instead; of a name it is told as everybody is, since there may be more at it.
 */
import { type Eid, type EidKey, type InstanceId, type NameEid, parseEidKey } from '../../proto/eid.ts';
import type { Mapping, XtrId } from '../../proto/mapping.ts';
import type { ServerEvent } from './actions.ts';
import type { Companions } from './companions.ts';
import type { NameChanges, Names } from './names.ts';
import type { Orders } from './orders.ts';
import type { OwnershipRecord } from './records.ts';
import type { Sessions } from './sessions.ts';
import type { Subscriptions } from './subscriptions.ts';

export interface PublisherParts {
  readonly instance: InstanceId;
  readonly sessions: Sessions;
  readonly subscriptions: Subscriptions;
  readonly companions: Companions;
  readonly names: Names;
  readonly orders: Orders;
  readonly event: (event: ServerEvent) => void;
}

export class Publisher {
  private readonly parts: PublisherParts;
  private readonly changed = new Map<
    EidKey,
    { readonly before: OwnershipRecord | undefined; after: OwnershipRecord | undefined }
  >();

  constructor(parts: PublisherParts) {
    this.parts = parts;
  }

  follow(eid: EidKey, before: OwnershipRecord | undefined, after: OwnershipRecord | undefined): void {
    const known = this.changed.get(eid);
    if (known === undefined) this.changed.set(eid, { before, after });
    else known.after = after;
  }

  /** What subscribers are told of this EID is something else now, although the record is the same. */
  tellAgain(record: OwnershipRecord): void {
    if (!this.changed.has(record.eid)) this.changed.set(record.eid, { before: record, after: record });
  }

  /** Nobody is told of what changed so far. */
  discard(): void {
    this.changed.clear();
    this.parts.names.takeChanges();
  }

  /** Tells everybody whom the changes since the last call concern. */
  settle(): void {
    const { sessions, companions, names, event } = this.parts;
    const changes = names.takeChanges();
    if (changes.names.size + changes.below.size > 0) event({ kind: 'names-changed', ...changes });
    if (this.changed.size + changes.names.size + changes.below.size === 0) return;
    const letters = new Letters();
    const movedNames = new Map<string, XtrId>();
    for (const { before, after } of this.changed.values()) {
      if (after === undefined || (after.state !== 'live' && before?.state !== 'live')) continue;
      const eid = parseEidKey(after.eid);
      const concerned = this.concerned(before, after, eid);
      if (eid.kind === 'prefix') for (const xtrId of concerned) letters.of(xtrId).records.push(after);
      else if (isMoved(before, after)) movedNames.set(eid.name, before.owner);
    }
    this.changed.clear();
    for (const eid of this.affectedNames(changes)) this.tellName(eid, movedNames.get(eid.name), letters);
    for (const [xtrId, { records, mappings }] of letters.all) {
      const session = sessions.of(xtrId);
      if (session !== undefined) sessions.publish(session, [...companions.with(records, xtrId), ...mappings]);
    }
  }

  private tellName(eid: NameEid, formerOwner: XtrId | undefined, letters: Letters): void {
    const { subscriptions, names } = this.parts;
    const concerned = subscriptions.concerned(eid);
    if (names.entry(eid.name) !== undefined) subscriptions.settle(eid, concerned);
    if (formerOwner !== undefined) concerned.add(formerOwner);
    if (concerned.size === 0) return;
    const mapping = names.mapping(eid.name) ?? names.withdrawal(eid.name);
    for (const xtrId of concerned) letters.of(xtrId).mappings.push(mapping);
  }

  private affectedNames(changes: NameChanges): NameEid[] {
    const { instance, subscriptions } = this.parts;
    const affected = [...changes.names].filter((name) => !name.startsWith('*')).map((name) => nameOf(instance, name));
    if (changes.below.size === 0) return affected;
    for (const eid of subscriptions.namesBelow(changes.below)) if (!changes.names.has(eid.name)) affected.push(eid);
    return affected;
  }

  private concerned(before: OwnershipRecord | undefined, after: OwnershipRecord, eid: Eid): ReadonlySet<XtrId> {
    const { subscriptions, orders, event } = this.parts;
    const moved = isMoved(before, after);
    if (moved) {
      event({ kind: 'moved', eid: after.eid, from: before.owner, to: after.owner, generation: after.generation });
    }
    orders.handleRecord(after);
    const concerned = subscriptions.concerned(eid);
    if (after.state === 'live') subscriptions.settle(eid, concerned);
    if (moved) concerned.add(before.owner);
    if (after.state === 'live') concerned.delete(after.owner);
    return concerned;
  }
}

/** What goes to whom. */
class Letters {
  readonly all = new Map<XtrId, { readonly records: OwnershipRecord[]; readonly mappings: Mapping[] }>();

  of(xtrId: XtrId): { readonly records: OwnershipRecord[]; readonly mappings: Mapping[] } {
    const known = this.all.get(xtrId);
    if (known !== undefined) return known;
    const letter = { records: [], mappings: [] };
    this.all.set(xtrId, letter);
    return letter;
  }
}

function isMoved(before: OwnershipRecord | undefined, after: OwnershipRecord): before is OwnershipRecord {
  return before !== undefined && before.state !== 'released' && before.owner !== after.owner;
}

function nameOf(iid: InstanceId, name: string): NameEid {
  return { kind: 'name', iid, name };
}
