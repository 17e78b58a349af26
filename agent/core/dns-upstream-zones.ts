/** Which upstreams are asked what: those of the longest zone that a name is in, or those for everything else. */
import type { Instant } from '../../proto/time.ts';
import { sameUpstreams, type Upstream, type UpstreamHealth, UpstreamSet } from './dns-upstreams.ts';

/** Resolvers for a zone and all below it. */
export interface ZoneUpstreams {
  readonly zone: string;
  readonly upstreams: readonly Upstream[];
}

export class UpstreamZones {
  #everything = new UpstreamSet([], 0);
  /** The longest zone first. */
  #zones: readonly OwnZone[] = [];

  get health(): readonly UpstreamHealth[] {
    return [this.#everything, ...this.#zones.map(({ upstreams }) => upstreams)].flatMap(({ health }) => health);
  }

  setEverything(upstreams: readonly Upstream[], now: Instant): void {
    this.#everything = new UpstreamSet(upstreams, now);
  }

  /** A zone that stays as it was keeps what is known of its upstreams. Returns the labels of the others, old and new. */
  setZones(zones: readonly ZoneUpstreams[], now: Instant): readonly (readonly string[])[] {
    const before = this.#zones;
    this.#zones = zones
      .map(({ zone, upstreams }) => {
        const labels = labelsOf(zone);
        const same = before.find((each) => each.labels.join('.') === labels.join('.'));
        if (same !== undefined && sameUpstreams(same.upstreams.list, upstreams)) return same;
        return { labels, upstreams: new UpstreamSet(upstreams, now) };
      })
      .sort((a, b) => b.labels.length - a.labels.length);
    const gone = before.filter((zone) => !this.#zones.includes(zone));
    const come = this.#zones.filter((zone) => !before.includes(zone));
    return [...gone, ...come].map(({ labels }) => labels);
  }

  of(labels: readonly string[]): UpstreamSet {
    return this.#zoneOf(labels)?.upstreams ?? this.#everything;
  }

  /** Labels of the zone that the name is in; 0 when it is in none. */
  depth(labels: readonly string[]): number {
    return this.#zoneOf(labels)?.labels.length ?? 0;
  }

  #zoneOf(labels: readonly string[]): OwnZone | undefined {
    return this.#zones.find((zone) => isBelow(labels, zone.labels));
  }
}

interface OwnZone {
  readonly labels: readonly string[];
  readonly upstreams: UpstreamSet;
}

function labelsOf(zone: string): string[] {
  return zone
    .toLowerCase()
    .split('.')
    .filter((label) => label !== '');
}

/** The zone itself is. */
export function isBelow(labels: readonly string[], zone: readonly string[]): boolean {
  const skip = labels.length - zone.length;
  return skip >= 0 && zone.every((label, i) => labels[skip + i] === label);
}
