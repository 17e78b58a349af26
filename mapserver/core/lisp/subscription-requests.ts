/**
 * Map-Requests that ask for more than an answer: for what changes (RFC 9437 sections 4 and 5).
 *
 * A Map-Request is not authentic, but what it leads to is: Map-Notifies are signed by the key of the site to which the
 * xTR-ID belongs, or from whose address the request is; or by one derived from its one-time key (LISP-SEC). An xTR of
 * no site is refused. Its ITR-RLOCs are those that may ask, so nobody can have others told. What there is no room for
 * is answered once, as if it had been asked without N.
 */
import type { PrefixEid } from '../../../proto/eid.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import type { Nonce } from '../../../proto/lisp/header.ts';
import { eidToRecordKey, MAP_ACTIONS } from '../../../proto/lisp/mapping-record.ts';
import type { MapAction, XtrId } from '../../../proto/mapping.ts';
import type { Instant, Millis } from '../../../proto/time.ts';
import type { OwnershipRecord } from '../records.ts';
import type { SubscriptionSigning } from './lisp-security.ts';
import type { MapAnswer, MapReplies } from './map-replies.ts';
import { inDatagrams, type NotifyRecipient, type SiteNotifier } from './site-notifier.ts';
import { type Publication, type SubscriberLimits, Subscribers } from './subscribers.ts';
import type { UdpPeer } from './udp-peer.ts';

export interface SubscriptionRequestsParts {
  readonly limits: SubscriberLimits;
  /** How long a subscriber may keep what it was told, if nothing changes. */
  readonly ttl: Millis;
  readonly replies: MapReplies;
  readonly notifier: SiteNotifier;
  /** The xTR as a site has it. */
  readonly recipient: (
    xtrId: XtrId,
    peers: readonly UdpPeer[],
    signing: SubscriptionSigning | undefined,
  ) => NotifyRecipient | undefined;
}

export interface SubscriptionRequest {
  readonly xtrId: XtrId;
  readonly eid: PrefixEid;
  readonly nonce: Nonce;
  readonly to: readonly UdpPeer[];
  /** By the one-time key of the request, if it has one. */
  readonly signing: SubscriptionSigning | undefined;
  /** Its only ITR-RLOC is none. */
  readonly ends: boolean;
}

/** `told`: by a Map-Notify. `full`: no room, so it is to be answered once. `authentication`: no key of its site. */
export type SubscriptionOutcome = 'told' | 'full' | 'replay' | 'authentication' | EidRecord;

export class SubscriptionRequests {
  private readonly parts: SubscriptionRequestsParts;
  private readonly subscribers: Subscribers;

  constructor(parts: SubscriptionRequestsParts) {
    this.parts = parts;
    const refusal = (eid: PrefixEid): EidRecord => negative(eid, 'auth-failure', 0);
    this.subscribers = new Subscribers({
      limits: parts.limits,
      notify: (publication, now) => this.notify(publication, now),
      dismiss: ({ xtrId, to, signing, nonce, records }) => {
        const recipient = parts.recipient(xtrId, to, signing);
        if (recipient !== undefined) parts.notifier.sendOnce(recipient, records, nonce);
      },
      refusal,
    });
  }

  get size(): number {
    return this.subscribers.size;
  }

  get ttl(): Millis {
    return this.parts.ttl;
  }

  handleRequest(request: SubscriptionRequest, answer: MapAnswer, now: Instant): SubscriptionOutcome {
    const { xtrId, eid, to, signing, ends } = request;
    if (this.parts.recipient(xtrId, to, signing) === undefined) return negative(eid, 'auth-failure', REFUSAL_MINUTES);
    // Its ETR answers, and tells of changes if it can.
    if (answer.kind === 'forward') return 'full';
    const exists = answer.ours && answer.positive;
    const result = ends
      ? this.subscribers.unsubscribe(request, answer.records, now)
      : this.subscribers.subscribe(request, answer.records, exists, now);
    if (result === 'accepted') return 'told';
    return result;
  }

  /** A mapping has changed for plain peers. */
  handleChange(eid: PrefixEid, after: OwnershipRecord | undefined, concerns: Concerns, now: Instant): void {
    const records = (asked: PrefixEid): readonly EidRecord[] => {
      if (!concerns(asked)) return [];
      if (after?.state === 'live') return [this.parts.replies.recordFor(after, this.parts.ttl)];
      const left = this.parts.replies.answer(asked, ROOM, this.parts.ttl);
      const instead = left.kind === 'records' && left.positive ? left.records : [];
      return [negative(eid, 'no-action', 0), ...instead];
    };
    this.subscribers.handleChange(eid, records, after?.state === 'live', now);
  }

  handleTimeout(now: Instant): void {
    this.subscribers.handleTimeout(now);
  }

  pollTimeout(): Instant | undefined {
    return this.subscribers.pollTimeout();
  }

  private notify({ subject, xtrId, to, signing, nonce, records, done }: Publication, now: Instant): number {
    const recipient = this.parts.recipient(xtrId, to, signing);
    if (recipient === undefined) done(false, now);
    else this.parts.notifier.announce(recipient, records, now, { nonce, subject, done });
    return inDatagrams(records).length;
  }
}

/** Whether a change concerns who asked for this prefix. */
export type Concerns = (asked: PrefixEid) => boolean;

function negative(eid: PrefixEid, action: MapAction, ttl: number): EidRecord {
  const key = eidToRecordKey(eid);
  return { ...key, ttl, action: MAP_ACTIONS.indexOf(action), authoritative: false, mapVersion: 0, locators: [] };
}

/** Of the records in a Map-Notify. */
const ROOM = 1_100;
const REFUSAL_MINUTES = 1;
