/**
 * Tells whom changes of mappings concern (RFC 9437).
 *
 * Every change of a record, by whatever way it came, is noted by `follow`; `settle`, after each input, sends each
 * session concerned one publication with all of it: the subscribers, and the owner before. The owner itself gets the
 * acknowledgement of its registration instead.
 */
import { type EidKey, parseEidKey } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { ServerEvent } from './actions.ts';
import type { Companions } from './companions.ts';
import type { Orders } from './orders.ts';
import type { OwnershipRecord } from './records.ts';
import type { Sessions } from './sessions.ts';
import type { Subscriptions } from './subscriptions.ts';

export interface PublisherParts {
  readonly sessions: Sessions;
  readonly subscriptions: Subscriptions;
  readonly companions: Companions;
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

  /** Nobody is told of what changed so far. */
  discard(): void {
    this.changed.clear();
  }

  /** Tells everybody whom the changes since the last call concern. */
  settle(): void {
    if (this.changed.size === 0) return;
    const letters = new Map<XtrId, OwnershipRecord[]>();
    for (const { before, after } of this.changed.values()) {
      if (after === undefined || (after.state !== 'live' && before?.state !== 'live')) continue;
      for (const xtrId of this.concerned(before, after)) {
        const letter = letters.get(xtrId);
        if (letter === undefined) letters.set(xtrId, [after]);
        else letter.push(after);
      }
    }
    this.changed.clear();
    const { sessions, companions } = this.parts;
    for (const [xtrId, records] of letters) {
      const session = sessions.of(xtrId);
      if (session !== undefined) sessions.publish(session, companions.with(records));
    }
  }

  private concerned(before: OwnershipRecord | undefined, after: OwnershipRecord): ReadonlySet<XtrId> {
    const { subscriptions, orders, event } = this.parts;
    const moved = before !== undefined && before.state !== 'released' && before.owner !== after.owner;
    if (moved) {
      event({ kind: 'moved', eid: after.eid, from: before.owner, to: after.owner, generation: after.generation });
    }
    orders.handleRecord(after);
    const eid = parseEidKey(after.eid);
    const concerned = subscriptions.concerned(eid);
    if (after.state === 'live') subscriptions.settle(eid, concerned);
    if (moved) concerned.add(before.owner);
    if (after.state === 'live') concerned.delete(after.owner);
    return concerned;
  }
}
