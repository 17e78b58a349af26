/**
 * The resolvers that questions may be forwarded to, and how well they do.
 *
 * One set for each zone that has resolvers of its own, and one for everything else. An answer gives a smoothed round
 * trip (the gain of RFC 6298), silence and unreachability a failure, and so does an error (SERVFAIL, REFUSED) about
 * what another one then answered: an error is quickly said, and must not pass for speed. The fastest good one is asked
 * first; those that nobody measured yet come next in the order given, those that failed last. So that a better one is
 * noticed, one that has not been heard for a while is now and then asked beside the first: this costs a packet and
 * nobody's time.
 */
import type { DnsTransport } from '../../proto/dns/message.ts';
import type { Instant, Millis } from '../../proto/time.ts';

export interface Upstream {
  readonly host: string;
  readonly port: number;
  /** DNS over TLS, to the server whose certificate has this name. */
  readonly tls?: { readonly name: string };
}

export type UpstreamTransport = DnsTransport | 'tls';

export interface UpstreamHealth {
  readonly upstream: Upstream;
  /** Milliseconds; undefined before the first answer. */
  readonly roundTrip: number | undefined;
  /** Its last questions, this many, were not answered. */
  readonly failures: number;
}

export class UpstreamSet {
  readonly list: readonly Upstream[];
  readonly #states: Map<Upstream, State>;

  constructor(list: readonly Upstream[], now: Instant) {
    this.list = list;
    this.#states = new Map(
      list.map((upstream, place) => [
        upstream,
        { place, roundTrip: undefined, failures: 0, heard: now, edns: true, randomCase: true },
      ]),
    );
  }

  get health(): readonly UpstreamHealth[] {
    return [...this.#states].map(([upstream, { roundTrip, failures }]) => ({ upstream, roundTrip, failures }));
  }

  ranking(): readonly Upstream[] {
    const states = [...this.#states];
    states.sort(([, a], [, b]) => rank(a) - rank(b) || roundTripOf(a) - roundTripOf(b) || a.place - b.place);
    return states.map(([upstream]) => upstream);
  }

  /** One that should be asked beside the best, because it was not for long. */
  rival(best: Upstream, now: Instant): Upstream | undefined {
    for (const [upstream, state] of this.#states) {
      if (upstream === best || now - state.heard < RIVAL_PERIOD) continue;
      state.heard = now;
      return upstream;
    }
    return undefined;
  }

  answered(upstream: Upstream, elapsed: Millis, now: Instant): void {
    const state = this.#states.get(upstream);
    if (state === undefined) return;
    state.roundTrip = state.roundTrip === undefined ? elapsed : state.roundTrip + (elapsed - state.roundTrip) / 8;
    state.failures = 0;
    state.heard = now;
  }

  /** With a failure, which may be the question's: nothing is known of how well it does. */
  declined(upstream: Upstream, now: Instant): void {
    const state = this.#states.get(upstream);
    if (state !== undefined) state.heard = now;
  }

  failed(upstream: Upstream): void {
    const state = this.#states.get(upstream);
    if (state !== undefined) state.failures += 1;
  }

  edns(upstream: Upstream): boolean {
    return this.#states.get(upstream)?.edns ?? true;
  }

  withoutEdns(upstream: Upstream): void {
    const state = this.#states.get(upstream);
    if (state !== undefined) state.edns = false;
  }

  /** Whether it gives back the case of the name in which it was asked. */
  randomCase(upstream: Upstream): boolean {
    return this.#states.get(upstream)?.randomCase ?? false;
  }

  withoutRandomCase(upstream: Upstream): void {
    const state = this.#states.get(upstream);
    if (state !== undefined) state.randomCase = false;
  }
}

interface State {
  readonly place: number;
  roundTrip: Millis | undefined;
  failures: number;
  /** When it answered, or was tried beside another. */
  heard: Instant;
  edns: boolean;
  randomCase: boolean;
}

function rank({ failures, roundTrip }: State): number {
  if (failures > 0) return 2;
  return roundTrip === undefined ? 1 : 0;
}

/** One that never answered comes after those that did. */
function roundTripOf({ roundTrip }: State): Millis {
  return roundTrip ?? Number.MAX_SAFE_INTEGER;
}

export function sameUpstreams(a: readonly Upstream[], b: readonly Upstream[]): boolean {
  return a.length === b.length && a.every((each, i) => sameUpstream(each, b[i]));
}

function sameUpstream(a: Upstream, b: Upstream | undefined): boolean {
  return a.host === b?.host && a.port === b.port && a.tls?.name === b.tls?.name;
}

const RIVAL_PERIOD: Millis = 30_000;
