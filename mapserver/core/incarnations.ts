/**
 * Which start of an agent counts, when there may be several with the same identity.
 *
 * A copied disk (an image, a backup) counts its runs on from where it was copied, so of two copies the one that was
 * started more often since is the newer. The newest run wins; of two equal ones, which can only be copies, the first
 * that came. A copied memory (a snapshot of a running VM) has the run and the process in common with its original, and
 * counts its connections on from where it was copied: a number that was there before comes from the other one.
 * Whoever is refused once must not come back by itself, since a restart would make it the newest.
 *
 * One process that connects again, and an agent that was restarted while its last connection lingers, are newer than
 * what they replace, and go on.
 */
import type { Incarnation } from '../../proto/incarnation.ts';
import type { XtrId } from '../../proto/mapping.ts';

/** What is kept on disk: the process that made the newest run. */
export type Run = Omit<Incarnation, 'connection'>;

export type Verdict = 'newest' | 'known' | 'older' | 'copy';

export class Incarnations {
  private readonly newest = new Map<XtrId, Incarnation>();

  /** `stored`: the newest run that the store knows. Null for an agent that does not say; it is taken as it comes. */
  judge(xtrId: XtrId, stored: Run | undefined, candidate: Incarnation | null): Verdict {
    if (candidate === null) return 'known';
    const newest = this.newestOf(xtrId, stored);
    if (newest === undefined || candidate.run > newest.run) return 'newest';
    if (candidate.run < newest.run) return 'older';
    if (candidate.process !== newest.process || candidate.connection <= newest.connection) return 'copy';
    return 'known';
  }

  newestOf(xtrId: XtrId, stored: Run | undefined): Incarnation | undefined {
    const heard = this.newest.get(xtrId);
    if (stored === undefined || (heard !== undefined && heard.run >= stored.run)) return heard;
    return { ...stored, connection: 0 };
  }

  accepted(xtrId: XtrId, incarnation: Incarnation): void {
    this.newest.set(xtrId, incarnation);
  }
}
