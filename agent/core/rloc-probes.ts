/**
 * Whether the RLOCs that plain packets go to are reachable: RLOC-probing (RFC 9301 section 7.1), since nothing in plain
 * packets tells it.
 *
 * An RLOC of a site is asked at once when a mapping names it, then at an interval with jitter, by a Map-Request with the P
 * bit for one of its EID-prefixes. Without an answer it is asked again each `timeout`; after `tries` in vain it is down,
 * and asked at intervals that double up to a minute (or the interval). One answer makes it up. When this host's own
 * locators change, all are asked at once.
 *
 * Of a mapping's RLOCs those that are up are used, by priority and weight, and those that are too many to be asked; the
 * others stay in it, since packets may come from them. If none is up, all are used, as without probes: routers that answer
 * no probes must not be cut off. Asked are only RLOCs that the operator allows, so many at most, at a bounded rate; an
 * answer counts with the random nonce of the question that is open, from the RLOC that was asked, and says nothing but that.
 */
import { type IpAddress, type IpPrefix, prefixContains } from '../../proto/address.ts';
import type { PlainRules } from '../../proto/dataplane/messages.ts';
import { type InstanceId, prefixEid } from '../../proto/eid.ts';
import { ipLispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import { LISP_CONTROL_PORT, type Nonce } from '../../proto/lisp/header.ts';
import type { MapReply } from '../../proto/lisp/map-reply.ts';
import { MAP_REQUEST } from '../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../proto/lisp/mapping-record.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { type Locator, NEVER_USE } from '../../proto/mapping.ts';
import { type Instant, type Millis, minutes } from '../../proto/time.ts';
import type { PlainReachability } from './dataplane-table.ts';
import type { Outbox } from './outbox.ts';
import { TokenBucket } from './token-bucket.ts';

export interface RlocProbing {
  readonly interval: Millis;
  /** Of one probe. */
  readonly timeout: Millis;
  readonly tries: number;
  /** Unpredictable. */
  readonly randomNonce: () => Nonce;
}

export type Reachability = 'unknown' | 'up' | 'down';

export interface ProbedRloc {
  readonly rloc: IpAddress;
  readonly state: Reachability;
  /** Round trip of the last probe that was answered at its first try; null until then. */
  readonly rttMs: Millis | null;
  /** Of mappings that name it. */
  readonly eids: readonly IpPrefix[];
}

export function countRlocs(list: readonly ProbedRloc[]): Record<Reachability, number> {
  const counts = { up: 0, down: 0, unknown: 0 };
  for (const { state } of list) counts[state] += 1;
  return counts;
}

export interface RlocProbesParts {
  readonly probing: RlocProbing;
  /** Of EIDs in these messages. */
  readonly instance: InstanceId;
  /** Plain packets may go there. */
  readonly isAllowed: (rloc: IpAddress) => boolean;
  readonly locators: () => readonly Locator[];
  /** Other RLOCs of this mapping are to be used from now on. */
  readonly changed: (prefix: IpPrefix) => void;
  readonly outbox: Outbox;
}

interface Probed {
  readonly prefixes: Set<IpPrefix>;
  state: Reachability;
  /** Of the question that is open. */
  nonce: Nonce | null;
  tries: number;
  /** Rounds of tries in vain, one after the other. */
  failures: number;
  askedAt: Instant;
  nextAt: Instant;
  rttMs: Millis | null;
}

/** Null: nothing is to be probed. */
export function plainProbes(
  { plain = null, probing = null }: { readonly plain?: PlainRules | null; readonly probing?: RlocProbing | null },
  parts: Pick<RlocProbesParts, 'locators' | 'changed' | 'outbox'>,
  now: Instant,
): RlocProbes | null {
  if (plain === null || probing === null) return null;
  const { instance, sites } = plain;
  const isAllowed = (rloc: IpAddress) => sites.some(({ rlocs }) => rlocs.some((each) => prefixContains(each, rloc)));
  return new RlocProbes({ ...parts, probing, instance, isAllowed }, now);
}

export class RlocProbes implements PlainReachability {
  private readonly parts: RlocProbesParts;
  private readonly probed = new Map<IpAddress, Probed>();
  private readonly rlocsOf = new Map<IpPrefix, readonly IpAddress[]>();
  private readonly rate: TokenBucket;

  constructor(parts: RlocProbesParts, now: Instant) {
    this.parts = parts;
    this.rate = new TokenBucket(PROBES_PER_SECOND, PROBES_PER_SECOND, now);
  }

  /** A mapping has these locators from now on; none when it has ended. */
  follow(prefix: IpPrefix, locators: readonly Locator[]): void {
    const { isAllowed, outbox } = this.parts;
    const wanted = locators.filter((each) => each.priority < NEVER_USE && isAllowed(each.address));
    const rlocs = wanted.map(({ address }) => address);
    for (const rloc of this.rlocsOf.get(prefix) ?? []) {
      const known = this.probed.get(rloc);
      if (known === undefined || rlocs.includes(rloc)) continue;
      known.prefixes.delete(prefix);
      if (known.prefixes.size === 0) this.probed.delete(rloc);
    }
    if (rlocs.length === 0) this.rlocsOf.delete(prefix);
    else this.rlocsOf.set(prefix, rlocs);
    for (const rloc of rlocs) {
      const known = this.probed.get(rloc);
      if (known !== undefined) known.prefixes.add(prefix);
      else if (this.probed.size < MAX_PROBED) this.probed.set(rloc, { ...UNASKED, prefixes: new Set([prefix]) });
      else outbox.note({ type: 'limit', what: 'rloc-probes' });
    }
  }

  /** One that this mapping forbids may be up for another mapping. */
  prioritised(locators: readonly Locator[]): readonly Locator[] {
    const isUp = ({ address, priority }: Locator) => priority < NEVER_USE && this.probed.get(address)?.state === 'up';
    if (!locators.some(isUp)) return locators;
    // Nobody can say that one that is never asked is down.
    const isUsable = (each: Locator) => isUp(each) || this.isNeverAsked(each.address);
    return locators.map((each) => (isUsable(each) ? each : { ...each, priority: NEVER_USE }));
  }

  /** This host is elsewhere. */
  handleMoved(): void {
    for (const each of this.probed.values()) if (each.nonce === null) each.nextAt = AT_ONCE;
  }

  /** False if it answers no probe of ours. */
  handleReply(from: IpAddress, { nonce, probe, records }: MapReply, now: Instant): boolean {
    const known = this.probed.get(from);
    // RFC 9301 section 5.4: the answer to a probe is authoritative.
    const isAnswer = probe && records.every(({ authoritative }) => authoritative);
    if (known === undefined || known.nonce !== nonce || !isAnswer) return false;
    if (known.tries === 1) known.rttMs = now - known.askedAt;
    const withdrawn = records.some(({ locators }) => locators.some(({ probed, reachable }) => probed && !reachable));
    if (withdrawn) this.failed(from, known, nonce, now);
    else {
      known.nonce = null;
      known.failures = 0;
      known.nextAt = now + jittered(this.parts.probing.interval, nonce);
      this.become(from, known, 'up');
    }
    this.parts.outbox.note({ type: 'rloc-probe', result: 'answered' });
    return true;
  }

  handleTimeout(now: Instant): void {
    const { probing, outbox } = this.parts;
    for (const [rloc, known] of this.probed) {
      if (known.nextAt > now) continue;
      if (known.nonce !== null && known.tries >= probing.tries) {
        outbox.note({ type: 'rloc-probe', result: 'unanswered' });
        this.failed(rloc, known, known.nonce, now);
      } else {
        this.ask(rloc, known, now);
      }
    }
  }

  pollTimeout(): Instant {
    let next = Number.POSITIVE_INFINITY;
    for (const { nextAt } of this.probed.values()) next = Math.min(next, nextAt);
    return next;
  }

  list(): readonly ProbedRloc[] {
    return [...this.probed].map(([rloc, { state, rttMs, prefixes }]) => ({ rloc, state, rttMs, eids: [...prefixes] }));
  }

  private isNeverAsked(rloc: IpAddress): boolean {
    return !this.probed.has(rloc) && this.parts.isAllowed(rloc);
  }

  private ask(rloc: IpAddress, known: Probed, now: Instant): void {
    const { probing, instance, outbox } = this.parts;
    const own = this.parts.locators().filter(({ priority }) => priority < NEVER_USE);
    const [prefix] = known.prefixes;
    if (own.length === 0 || prefix === undefined || !this.rate.take(now)) {
      known.nextAt = now + PAUSE;
      return;
    }
    if (known.nonce === null) {
      known.nonce = probing.randomNonce();
      known.tries = 0;
      known.askedAt = now;
    }
    known.tries += 1;
    known.nextAt = now + probing.timeout;
    const request = {
      ...MAP_REQUEST,
      probe: true,
      nonce: known.nonce,
      sourceEid: NO_ADDRESS,
      itrRlocs: own.slice(0, MAX_ITR_RLOCS).map(({ address }) => ipLispAddress(address)),
      records: [{ ...eidToRecordKey(prefixEid(instance, prefix)), notify: false }],
    };
    outbox.sendPlainly({ address: rloc, port: LISP_CONTROL_PORT }, encodeLispMessage(request));
  }

  private failed(rloc: IpAddress, known: Probed, nonce: Nonce, now: Instant): void {
    const { interval } = this.parts.probing;
    const pause = Math.min(interval * 2 ** known.failures, Math.max(interval, LONGEST_PAUSE));
    known.nonce = null;
    known.failures += 1;
    known.nextAt = now + jittered(pause, nonce);
    this.become(rloc, known, 'down');
  }

  private become(rloc: IpAddress, known: Probed, state: Reachability): void {
    if (known.state === state) return;
    known.state = state;
    this.parts.outbox.note({ type: 'rloc', rloc, state });
    for (const prefix of known.prefixes) this.parts.changed(prefix);
  }
}

/** Between three and five quarters of it, by what is random anyway. */
function jittered(pause: Millis, nonce: Nonce): Millis {
  return (pause * (192 + Number(nonce & 0x7fn))) / 256;
}

const AT_ONCE: Instant = Number.NEGATIVE_INFINITY;
const UNASKED = {
  state: 'unknown',
  nonce: null,
  tries: 0,
  failures: 0,
  askedAt: 0,
  nextAt: AT_ONCE,
  rttMs: null,
} as const;
const LONGEST_PAUSE: Millis = minutes(1);
/** Of probes that nothing can be done about now. */
const PAUSE: Millis = 100;
const MAX_PROBED = 1024;
const MAX_ITR_RLOCS = 8;
const PROBES_PER_SECOND = 200;
