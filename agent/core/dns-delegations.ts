/**
 * The delegated parts of the overlay's zone, as they were met: where each is asked. The mapping system says so anew
 * with each question, so one that nobody asks for is worth nothing and goes after ten minutes; when there are too many,
 * the one that was unused for longest makes room, unless it may still be answered.
 */
import type { Instant } from '../../proto/time.ts';
import { minutes, seconds } from '../../proto/time.ts';
import type { ZoneUpstreams } from './dns-upstream-zones.ts';
import { sameUpstreams, type Upstream } from './dns-upstreams.ts';

export class Delegations {
  /** By domain name, the one unused for longest first. */
  #known = new Map<string, { readonly upstreams: readonly Upstream[]; readonly usedAt: Instant }>();

  get zones(): readonly ZoneUpstreams[] {
    return [...this.#known].map(([zone, { upstreams }]) => ({ zone, upstreams }));
  }

  /** Whether it was known so; `full`: it is not taken. */
  use(zone: string, upstreams: readonly Upstream[], now: Instant): 'known' | 'new' | 'full' {
    const known = this.#known.get(zone);
    if (known === undefined && this.#known.size >= MAX_DELEGATIONS && !this.#forgetOne(now - IN_USE)) return 'full';
    const same = known !== undefined && sameUpstreams(known.upstreams, upstreams);
    this.#known.delete(zone);
    this.#known.set(zone, { upstreams: same ? known.upstreams : upstreams, usedAt: now });
    return same ? 'known' : 'new';
  }

  /** True when some are gone. */
  expire(now: Instant): boolean {
    const before = this.#known.size;
    while (this.#forgetOne(now - LIFE));
    return this.#known.size < before;
  }

  clear(): void {
    this.#known = new Map();
  }

  pollTimeout(): Instant | undefined {
    const [oldest] = this.#known.values();
    return oldest === undefined ? undefined : oldest.usedAt + LIFE;
  }

  #forgetOne(usedUntil: Instant): boolean {
    const [oldest] = this.#known;
    return oldest !== undefined && oldest[1].usedAt <= usedUntil && this.#known.delete(oldest[0]);
  }
}

const MAX_DELEGATIONS = 64;
const LIFE = minutes(10);
/** Longer than a question is tried for. */
const IN_USE = seconds(10);
