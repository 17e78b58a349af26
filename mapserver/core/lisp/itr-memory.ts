/**
 * Who was told what of which EIDs, so that a change of a mapping can be told to them (RFC 9301 section 6.1).
 *
 * A plain ITR keeps what it was answered until the answer's TTL ends, and nothing else makes it ask again. So each
 * answer, also a negative one, is remembered for so long: the prefix that it spoke of, and the ITR-RLOC that it went to.
 * A change of an EID concerns those who were told of it, of a prefix around it, or of one inside it. Bounded: who asked
 * longest ago is forgotten first.
 */
import type { IpAddress } from '../../../proto/address.ts';
import type { PrefixEid } from '../../../proto/eid.ts';
import type { LispAddress } from '../../../proto/lisp/afi.ts';
import type { Instant } from '../../../proto/time.ts';
import { EidIndex } from './eid-index.ts';

/** Somebody who was told of an EID. */
export interface RememberedItr {
  readonly rloc: IpAddress;
  /** The prefix of the answer. */
  readonly told: PrefixEid;
  /** Whom it asked for, as it said. */
  readonly sourceEid: LispAddress;
  /** When it forgets the answer. */
  readonly endsAt: Instant;
}

export class ItrMemory {
  private readonly limit: number;
  /** The one that asked longest ago first. */
  private readonly entries = new Map<string, RememberedItr>();
  private readonly told = new EidIndex<IpAddress, RememberedItr>();

  constructor(limit: number) {
    this.limit = limit;
  }

  get size(): number {
    return this.entries.size;
  }

  remember(itr: RememberedItr, now: Instant): void {
    this.forget(itr);
    this.entries.set(keyOf(itr), itr);
    this.told.set(itr.told, itr.rloc, itr);
    for (const oldest of this.entries.values()) {
      if (oldest.endsAt > now && this.entries.size <= this.limit) break;
      this.forget(oldest);
    }
  }

  /** Who may have something in its map-cache that a change of `eid` makes wrong. */
  concerned(eid: PrefixEid, now: Instant): RememberedItr[] {
    return this.told.overlapping(eid).filter(({ endsAt }) => endsAt > now);
  }

  private forget(itr: RememberedItr): void {
    if (this.entries.delete(keyOf(itr))) this.told.delete(itr.told, itr.rloc);
  }
}

function keyOf({ rloc, told }: RememberedItr): string {
  return `${rloc} [${told.iid}]${told.prefix}`;
}
