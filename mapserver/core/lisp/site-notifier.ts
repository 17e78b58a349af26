/**
 * Map-Notifies that nobody asked for, repeated until they are acknowledged (RFC 9301 section 5.7).
 *
 * Each is sent at once, then three times every 3 s and three times after twice as long, and given up. A recipient that
 * is known by the port that it spoke from and by the port of LISP is tried at both in turn: the RFC sends to 4342, and a
 * NAT lets only the other one in. How much waits for acknowledgement is bounded, for each recipient and in all.
 */
import { NO_AUTHENTICATION } from '../../../proto/lisp/authentication-data.ts';
import { type EidRecord, encodedRecordSize } from '../../../proto/lisp/eid-record.ts';
import { type Nonce, nonce } from '../../../proto/lisp/header.ts';
import type { MapNotify, MapNotifyAck } from '../../../proto/lisp/map-notify.ts';
import { type Instant, type Millis, seconds } from '../../../proto/time.ts';
import { Deadlines } from '../deadlines.ts';
import type { Received, UdpPeer } from './udp-peer.ts';

export interface NotifyRecipient {
  /** Tells recipients apart. */
  readonly id: string;
  /** Tried in turn. */
  readonly peers: readonly UdpPeer[];
  readonly sign: (notify: MapNotify) => Uint8Array;
  /** Whether an acknowledgement, by its octets, is from it. */
  readonly isFrom: (ack: Uint8Array) => boolean;
}

/** `overflow`: not sent, too many wait. */
export type NotifyOutcome = 'acknowledged' | 'unacknowledged' | 'overflow';

export interface SiteNotifierParts {
  readonly randomNonce: () => Nonce;
  readonly send: (to: UdpPeer, bytes: Uint8Array) => void;
  readonly outcome: (outcome: NotifyOutcome) => void;
}

interface Pending {
  readonly recipient: NotifyRecipient;
  readonly bytes: Uint8Array;
  attempts: number;
}

export class SiteNotifier {
  private readonly parts: SiteNotifierParts;
  private readonly pending = new Map<Nonce, Pending>();
  private readonly deadlines = new Deadlines<Nonce>();
  private readonly waiting = new Map<string, number>();

  constructor(parts: SiteNotifierParts) {
    this.parts = parts;
  }

  /** In as many messages as it takes. `first`: the nonce of the first of them; random without it. */
  announce(recipient: NotifyRecipient, records: readonly EidRecord[], now: Instant, first?: Nonce): void {
    let next = first;
    for (const part of inDatagrams(records)) {
      this.begin(recipient, part, next ?? this.parts.randomNonce(), now);
      next = next === undefined ? undefined : nonce(next + 1n);
    }
  }

  handleAck({ message, bytes }: Received<MapNotifyAck>): 'accepted' | 'unexpected' | 'authentication' {
    const pending = this.pending.get(message.nonce);
    if (pending === undefined) return 'unexpected';
    if (!pending.recipient.isFrom(bytes)) return 'authentication';
    this.end(message.nonce, pending, 'acknowledged');
    return 'accepted';
  }

  handleTimeout(now: Instant): void {
    for (const due of this.deadlines.take(now)) {
      const pending = this.pending.get(due);
      if (pending === undefined) continue;
      if (pending.attempts > PAUSES.length) this.end(due, pending, 'unacknowledged');
      else this.attempt(due, pending, now);
    }
  }

  pollTimeout(): Instant | undefined {
    return this.deadlines.next();
  }

  private begin(recipient: NotifyRecipient, records: readonly EidRecord[], used: Nonce, now: Instant): void {
    const waiting = this.waiting.get(recipient.id) ?? 0;
    if (waiting >= MAX_OF_RECIPIENT || this.pending.size >= MAX_IN_ALL || this.pending.has(used)) {
      this.parts.outcome('overflow');
      return;
    }
    const notify: MapNotify = { type: 'map-notify', nonce: used, authentication: NO_AUTHENTICATION, records };
    const pending = { recipient, bytes: recipient.sign(notify), attempts: 0 };
    this.waiting.set(recipient.id, waiting + 1);
    this.pending.set(used, pending);
    this.attempt(used, pending, now);
  }

  private attempt(used: Nonce, pending: Pending, now: Instant): void {
    const { peers } = pending.recipient;
    const peer = peers[pending.attempts % peers.length];
    if (peer !== undefined) this.parts.send(peer, pending.bytes);
    this.deadlines.set(used, now + (PAUSES[pending.attempts] ?? LAST_PAUSE));
    pending.attempts++;
  }

  private end(used: Nonce, { recipient }: Pending, outcome: NotifyOutcome): void {
    this.pending.delete(used);
    this.deadlines.delete(used);
    const left = (this.waiting.get(recipient.id) ?? 1) - 1;
    if (left > 0) this.waiting.set(recipient.id, left);
    else this.waiting.delete(recipient.id);
    this.parts.outcome(outcome);
  }
}

/** Parts that no network has to fragment, as far as one record alone allows. */
export function inDatagrams(records: readonly EidRecord[]): EidRecord[][] {
  const parts: EidRecord[][] = [];
  let size = 0;
  for (const record of records) {
    const more = encodedRecordSize(record);
    const part = parts.at(-1);
    if (part !== undefined && size + more <= MAX_DATAGRAM && part.length < MAX_RECORDS) {
      part.push(record);
      size += more;
    } else {
      parts.push([record]);
      size = OVERHEAD + more;
    }
  }
  return parts;
}

/** Before each repetition. */
const PAUSES: readonly Millis[] = [seconds(3), seconds(3), seconds(3), seconds(6), seconds(12), seconds(24)];
/** From the last repetition until it is given up. */
const LAST_PAUSE = seconds(24);
const MAX_OF_RECIPIENT = 32;
const MAX_IN_ALL = 20_000;
const MAX_RECORDS = 255;
/** The least that IPv6 carries, without headers. */
const MAX_DATAGRAM = 1_232;
/** Header and authentication. */
const OVERHEAD = 48;
