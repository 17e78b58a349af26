/**
 * Workloads that are said to have gone: the hypervisor has ended the guest, or has sent it away. Nobody can know which
 * at that moment, so the EID stays ours and packets for it are held until somebody else takes it over, it comes back,
 * or the patience ends; only then it is given up.
 */
import type { IpPrefix } from '../../proto/address.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import type { OwnedEid } from './registrar.ts';

export class GoneWorkloads {
  private readonly until = new Map<OwnedEid, Instant>();

  add(owned: OwnedEid, patience: Millis, now: Instant): void {
    this.until.set(owned, now + patience);
  }

  /** It is wanted here again, or was given up in another way. */
  cancel(owned: OwnedEid): void {
    this.until.delete(owned);
  }

  /** What to give up now. */
  due(now: Instant): IpPrefix[] {
    const ended = [...this.until].filter(([, at]) => at <= now).map(([owned]) => owned);
    for (const owned of ended) this.until.delete(owned);
    return ended.flatMap(({ eid, state }) =>
      eid.kind === 'prefix' && (state === 'live' || state === 'base') ? [eid.prefix] : [],
    );
  }
}
