/**
 * Subscriptions of plain LISP peers (RFC 9437): an xTR is told by Map-Notify of each change of an EID, or inside it.
 *
 * A subscription is of an xTR-ID and an EID prefix, and has a nonce. A request counts if its nonce is larger than the
 * last one of them; so the nonce stays when the subscription has ended. One with a one-time key has to be larger only
 * than those that went with such a key, or anybody could keep it out by the largest. A request is answered by a
 * Map-Notify with its nonce, each publication has the next. All are sent until they are acknowledged (`notify`); a
 * publication also tells of the changes of other EIDs that were not acknowledged yet, since it replaces those. Who does
 * not acknowledge the first has no subscription, and is told so; who does not acknowledge UNANSWERED publications one
 * after the other is gone. What was subscribed with a one-time key (`signing`) is changed only by requests with one of
 * the same site, which prove that they are of it. A subscription to what nobody has registered ends after TEMPORARY.
 * Bounded per xTR and in all; of those that have ended the oldest is forgotten first.
 */
import { type EidKey, eidKey, type PrefixEid } from '../../../proto/eid.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import { type Nonce, nonce } from '../../../proto/lisp/header.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import { type Instant, minutes } from '../../../proto/time.ts';
import { EidIndex } from './eid-index.ts';
import type { SubscriptionSigning } from './lisp-security.ts';
import type { UdpPeer } from './udp-peer.ts';

export interface SubscriberLimits {
  readonly perXtr: number;
  readonly total: number;
}

/** A Map-Notify that is to be acknowledged. */
export interface Publication {
  /** A later one of the same subject replaces it. */
  readonly subject: string;
  readonly xtrId: XtrId;
  /** One after the other, until one acknowledges. */
  readonly to: readonly UdpPeer[];
  readonly signing: SubscriptionSigning | undefined;
  readonly nonce: Nonce;
  readonly records: readonly EidRecord[];
  /** Called once, unless it was replaced. */
  readonly done: (acknowledged: boolean, now: Instant) => void;
}

export interface SubscribersParts {
  readonly limits: SubscriberLimits;
  /** Returns how many messages it takes: each has the next nonce. */
  readonly notify: (publication: Publication, now: Instant) => number;
  /** What an xTR is told that did not acknowledge: once, and without waiting for anything. */
  readonly dismiss: (publication: Omit<Publication, 'done'>, now: Instant) => void;
  /** That nothing is known any more of the EID because of the authentication. */
  readonly refusal: (eid: PrefixEid) => EidRecord;
}

export interface Subscribe {
  readonly xtrId: XtrId;
  readonly eid: PrefixEid;
  readonly nonce: Nonce;
  readonly to: readonly UdpPeer[];
  /** What its Map-Notifies are signed by; undefined: the key of its site. */
  readonly signing: SubscriptionSigning | undefined;
}

export type SubscribeResult = 'accepted' | 'replay' | 'authentication' | 'full';

export class Subscribers {
  private readonly parts: SubscribersParts;
  private readonly index = new EidIndex<XtrId, Subscription>();
  /** Of those that have not ended. */
  private readonly counts = new Map<XtrId, number>();
  /** What has ended, the one that ended first in front. */
  private readonly ended = new Set<Subscription>();
  /** What ends by itself, in that order. */
  private readonly temporary = new Set<Subscription>();
  private total = 0;

  constructor(parts: SubscribersParts) {
    this.parts = parts;
  }

  /** How many xTRs and EIDs there are nonces of. */
  get size(): number {
    return this.total;
  }

  /** `records`: the mapping. `exists`: somebody has registered it. */
  subscribe(request: Subscribe, records: readonly EidRecord[], exists: boolean, now: Instant): SubscribeResult {
    const known = this.index.get(request.eid, request.xtrId);
    const refused = refusal(known, request);
    if (refused !== undefined) return refused;
    const active = known !== undefined && known.state !== 'ended';
    if (!active && this.of(request.xtrId) >= this.parts.limits.perXtr) return 'full';
    const subscription = known ?? this.add(request);
    if (subscription === undefined) return 'full';
    if (!active) this.begin(subscription);
    this.temporary.delete(subscription);
    Object.assign(subscription, { to: request.to, signing: request.signing });
    use(subscription, request.nonce, request.signing);
    subscription.untold.clear();
    subscription.endsAt = exists ? undefined : now + TEMPORARY;
    if (!exists) this.temporary.add(subscription);
    this.publish(subscription, records, now);
    return 'accepted';
  }

  /** Confirmed also when there is nothing to end: xTRs do this when they start. */
  unsubscribe(request: Subscribe, records: readonly EidRecord[], now: Instant): SubscribeResult {
    const known = this.index.get(request.eid, request.xtrId);
    const refused = refusal(known, request);
    if (refused !== undefined) return refused;
    const subscription = known ?? this.add(request);
    if (subscription === undefined) return 'full';
    use(subscription, request.nonce, request.signing);
    if (subscription.state !== 'ended') this.end(subscription);
    const { xtrId, to, signing, nonce: used } = request;
    const subject = subjectOf(subscription);
    this.parts.notify({ subject, xtrId, to, signing, nonce: used, records, done: () => {} }, now);
    return 'accepted';
  }

  /** Tells whoever it concerns of a change of `eid`. `records`: what to tell whom, nothing if it does not concern them. */
  handleChange(
    eid: PrefixEid,
    records: (asked: PrefixEid) => readonly EidRecord[],
    exists: boolean,
    now: Instant,
  ): void {
    for (const subscription of this.index.overlapping(eid)) {
      if (subscription.state === 'ended') continue;
      const told = records(subscription.eid);
      if (told.length === 0) continue;
      if (exists) {
        this.temporary.delete(subscription);
        subscription.endsAt = undefined;
      }
      use(subscription, nonce(subscription.nonce + 1n), subscription.signing);
      const { untold } = subscription;
      const changed = eidKey(eid);
      untold.delete(changed);
      untold.set(changed, told);
      for (const oldest of untold.keys()) {
        if (untold.size <= MAX_UNTOLD) break;
        untold.delete(oldest);
      }
      this.publish(subscription, [...untold.values()].flat(), now);
    }
  }

  handleTimeout(now: Instant): void {
    for (const subscription of this.temporary) {
      if ((subscription.endsAt ?? now) > now) return;
      this.end(subscription);
    }
  }

  pollTimeout(): Instant | undefined {
    for (const { endsAt } of this.temporary) return endsAt;
    return undefined;
  }

  private publish(subscription: Subscription, records: readonly EidRecord[], now: Instant): void {
    const { xtrId, to, signing, nonce: current } = subscription;
    const done = (acknowledged: boolean, later: Instant): void => this.handleOutcome(subscription, acknowledged, later);
    const count = this.parts.notify(
      { subject: subjectOf(subscription), xtrId, to, signing, nonce: current, records, done },
      now,
    );
    use(subscription, nonce(current + BigInt(Math.max(1, count) - 1)), signing);
  }

  private handleOutcome(subscription: Subscription, acknowledged: boolean, now: Instant): void {
    if (subscription.state === 'ended') return;
    if (acknowledged) {
      Object.assign(subscription, { state: 'confirmed', unanswered: 0 });
      subscription.untold.clear();
      return;
    }
    subscription.unanswered++;
    if (subscription.state === 'confirmed' && subscription.unanswered < UNANSWERED) return;
    this.end(subscription);
    const { xtrId, to, signing, nonce: last, eid } = subscription;
    const records = [this.parts.refusal(eid)];
    this.parts.dismiss({ subject: subjectOf(subscription), xtrId, to, signing, nonce: last, records }, now);
  }

  /** As one that has ended: there is nothing but the nonce. */
  private add({ xtrId, eid, nonce: first, to, signing }: Subscribe): Subscription | undefined {
    if (this.total >= this.parts.limits.total) {
      const [oldest] = this.ended;
      if (oldest === undefined) return undefined;
      this.ended.delete(oldest);
      this.index.delete(oldest.eid, oldest.xtrId);
      this.total--;
    }
    const subscription: Subscription = {
      xtrId,
      eid,
      nonce: first,
      provenNonce: undefined,
      to,
      signing,
      state: 'ended',
      unanswered: 0,
      endsAt: undefined,
      untold: new Map(),
    };
    this.ended.add(subscription);
    this.index.set(eid, xtrId, subscription);
    this.total++;
    return subscription;
  }

  private begin(subscription: Subscription): void {
    this.ended.delete(subscription);
    subscription.state = 'new';
    this.counts.set(subscription.xtrId, this.of(subscription.xtrId) + 1);
  }

  private end(subscription: Subscription): void {
    Object.assign(subscription, { state: 'ended', unanswered: 0 });
    subscription.untold.clear();
    this.temporary.delete(subscription);
    this.ended.add(subscription);
    const left = this.of(subscription.xtrId) - 1;
    if (left === 0) this.counts.delete(subscription.xtrId);
    else this.counts.set(subscription.xtrId, left);
  }

  private of(xtrId: XtrId): number {
    return this.counts.get(xtrId) ?? 0;
  }
}

interface Subscription {
  readonly xtrId: XtrId;
  readonly eid: PrefixEid;
  /** The last one that was used, by either side. */
  nonce: Nonce;
  /** The last one that went with a one-time key. */
  provenNonce: Nonce | undefined;
  to: readonly UdpPeer[];
  signing: SubscriptionSigning | undefined;
  /** `new`: not acknowledged yet. */
  state: 'new' | 'confirmed' | 'ended';
  /** Publications that were not acknowledged, since the last that was. */
  unanswered: number;
  /** Of a temporary one. */
  endsAt: Instant | undefined;
  /** What was published since the last acknowledgement, by the EID that changed. */
  readonly untold: Map<EidKey, readonly EidRecord[]>;
}

function refusal(known: Subscription | undefined, request: Subscribe): 'replay' | 'authentication' | undefined {
  if (known === undefined) return undefined;
  const last = request.signing === undefined ? known.nonce : known.provenNonce;
  if (last !== undefined && request.nonce <= last) return 'replay';
  if (known.signing === undefined || known.state === 'ended') return undefined;
  return known.signing.sites.some((site) => request.signing?.sites.includes(site)) ? undefined : 'authentication';
}

function use(subscription: Subscription, value: Nonce, signing: SubscriptionSigning | undefined): void {
  subscription.nonce = value;
  if (signing !== undefined) subscription.provenNonce = value;
}

function subjectOf({ xtrId, eid }: Subscription): string {
  return `${xtrId} ${eidKey(eid)}`;
}

const TEMPORARY = minutes(15);
const UNANSWERED = 3;
/** Changes that are told again with the next; each is told once in any case. */
const MAX_UNTOLD = 16;
