/**
 * Map-Notifies that nobody asked for, repeated until they are acknowledged (RFC 9301 section 5.7).
 *
 * Each is sent at once, then three times every 3 s and three times after twice as long, and given up. A recipient that
 * is known by the port that it spoke from and by the port of LISP is sent each to both: the RFC sends to 4342, and a
 * NAT lets only the other one in. Of several addresses one is tried after the other. How much waits for acknowledgement
 * is bounded, for each recipient and in all. What is said of a subject replaces what was said of it before and is not
 * acknowledged yet. An acknowledgement is of what it repeats: nonces are chosen by subscribers too, who may use one for
 * several EIDs. One without records is of the only message that it can be of, if there is only one.
 */
import { Writer } from '../../../proto/bytes.ts';
import { NO_AUTHENTICATION } from '../../../proto/lisp/authentication-data.ts';
import { type EidRecord, encodedRecordSize, encodeEidRecord } from '../../../proto/lisp/eid-record.ts';
import { type Nonce, nonce } from '../../../proto/lisp/header.ts';
import type { MapNotify, MapNotifyAck } from '../../../proto/lisp/map-notify.ts';
import { type Instant, type Millis, seconds } from '../../../proto/time.ts';
import { Deadlines } from '../deadlines.ts';
import type { Received, UdpPeer } from './udp-peer.ts';

export interface NotifyRecipient {
  /** Tells recipients apart. */
  readonly id: string;
  /** Of one address all at once, several addresses in turn. */
  readonly peers: readonly UdpPeer[];
  /** How many messages may wait for it; few without it. */
  readonly most?: number;
  readonly sign: (notify: MapNotify) => Uint8Array;
  /** Whether an acknowledgement, by its octets, is from it. */
  readonly isFrom: (ack: Uint8Array) => boolean;
}

export interface NotifyOptions {
  /** Of the first message; random without it. */
  readonly nonce?: Nonce;
  readonly subject?: string;
  /** Once, when all is acknowledged or something is not; not when it is replaced. */
  readonly done?: (acknowledged: boolean, now: Instant) => void;
}

/** `overflow`: not sent, too many wait. */
export type NotifyOutcome = 'acknowledged' | 'unacknowledged' | 'overflow';

export interface SiteNotifierParts {
  readonly randomNonce: () => Nonce;
  readonly send: (to: UdpPeer, bytes: Uint8Array) => void;
  readonly outcome: (outcome: NotifyOutcome) => void;
}

/** One message that waits to be acknowledged. */
interface Pending {
  readonly nonce: Nonce;
  readonly recipient: NotifyRecipient;
  readonly records: readonly EidRecord[];
  readonly bytes: Uint8Array;
  readonly done: ((acknowledged: boolean, now: Instant) => void) | undefined;
  attempts: number;
}

export class SiteNotifier {
  private readonly parts: SiteNotifierParts;
  /** Those of different recipients may have the same nonce. */
  private readonly pending = new Map<Nonce, Set<Pending>>();
  private readonly deadlines = new Deadlines<Pending>();
  private readonly subjects = new Map<string, readonly Pending[]>();
  private readonly waiting = new Map<string, number>();

  constructor(parts: SiteNotifierParts) {
    this.parts = parts;
  }

  /** In as many messages as it takes. */
  announce(recipient: NotifyRecipient, records: readonly EidRecord[], now: Instant, options: NotifyOptions = {}): void {
    const { subject, done } = options;
    if (subject !== undefined) this.forget(subject);
    const parts = inDatagrams(records);
    let left = parts.length;
    const partDone = (acknowledged: boolean, later: Instant): void => {
      if (left === 0) return;
      left = acknowledged ? left - 1 : 0;
      if (left > 0) return;
      if (subject !== undefined) this.forget(subject);
      done?.(acknowledged, later);
    };
    const begun: Pending[] = [];
    let next = options.nonce;
    for (const part of parts) {
      const pending = this.begin(recipient, part, next ?? this.parts.randomNonce(), partDone, now);
      if (pending !== undefined) begun.push(pending);
      next = next === undefined ? undefined : nonce(next + 1n);
    }
    if (subject !== undefined && left > 0) this.subjects.set(subject, begun);
  }

  /** Without waiting for an acknowledgement. */
  sendOnce({ peers, sign }: NotifyRecipient, records: readonly EidRecord[], used: Nonce): void {
    const [peer] = peers;
    const notify: MapNotify = { type: 'map-notify', nonce: used, authentication: NO_AUTHENTICATION, records };
    if (peer !== undefined) this.parts.send(peer, sign(notify));
  }

  handleAck({ message, bytes }: Received<MapNotifyAck>, now: Instant): 'accepted' | 'unexpected' | 'authentication' {
    const waiting = [...(this.pending.get(message.nonce) ?? [])];
    if (waiting.length === 0) return 'unexpected';
    const told = waiting.filter(({ recipient }) => recipient.isFrom(bytes));
    if (told.length === 0) return 'authentication';
    const repeated = encoded(message.records);
    const isOfAny = message.records.length === 0 && told.length === 1;
    const acknowledged = isOfAny ? told : told.filter(({ records }) => repeated.equals(encoded(records)));
    for (const each of acknowledged) this.end(each, 'acknowledged', now);
    return acknowledged.length > 0 ? 'accepted' : 'unexpected';
  }

  handleTimeout(now: Instant): void {
    for (const due of this.deadlines.take(now)) {
      if (due.attempts > PAUSES.length) this.end(due, 'unacknowledged', now);
      else this.attempt(due, now);
    }
  }

  pollTimeout(): Instant | undefined {
    return this.deadlines.next();
  }

  private begin(
    recipient: NotifyRecipient,
    records: readonly EidRecord[],
    used: Nonce,
    done: Pending['done'],
    now: Instant,
  ): Pending | undefined {
    const waiting = this.waiting.get(recipient.id) ?? 0;
    if (waiting >= (recipient.most ?? MAX_OF_RECIPIENT) || this.deadlines.size >= MAX_IN_ALL) {
      this.parts.outcome('overflow');
      done?.(false, now);
      return undefined;
    }
    const notify: MapNotify = { type: 'map-notify', nonce: used, authentication: NO_AUTHENTICATION, records };
    const pending: Pending = { nonce: used, recipient, records, bytes: recipient.sign(notify), done, attempts: 0 };
    this.waiting.set(recipient.id, waiting + 1);
    const same = this.pending.get(used) ?? new Set<Pending>();
    this.pending.set(used, same.add(pending));
    this.attempt(pending, now);
    return pending;
  }

  private attempt(pending: Pending, now: Instant): void {
    const { peers } = pending.recipient;
    const addresses = [...new Set(peers.map(({ address }) => address))];
    const tried = addresses[pending.attempts % addresses.length];
    for (const peer of peers) if (peer.address === tried) this.parts.send(peer, pending.bytes);
    this.deadlines.set(pending, now + (PAUSES[pending.attempts] ?? LAST_PAUSE));
    pending.attempts++;
  }

  private end(pending: Pending, outcome: NotifyOutcome, now: Instant): void {
    this.remove(pending);
    this.parts.outcome(outcome);
    pending.done?.(outcome === 'acknowledged', now);
  }

  private forget(subject: string): void {
    for (const each of this.subjects.get(subject) ?? []) this.remove(each);
    this.subjects.delete(subject);
  }

  private remove(pending: Pending): void {
    const { nonce: used, recipient } = pending;
    const same = this.pending.get(used);
    if (same === undefined || !same.delete(pending)) return;
    if (same.size === 0) this.pending.delete(used);
    this.deadlines.delete(pending);
    const left = (this.waiting.get(recipient.id) ?? 1) - 1;
    if (left > 0) this.waiting.set(recipient.id, left);
    else this.waiting.delete(recipient.id);
  }
}

/** Parts of at most `longest` octets, as far as one record alone allows; without it, that no network has to fragment. */
export function inDatagrams(records: readonly EidRecord[], longest = MAX_DATAGRAM): EidRecord[][] {
  const parts: EidRecord[][] = [];
  let size = 0;
  for (const record of records) {
    const more = encodedRecordSize(record);
    const part = parts.at(-1);
    if (part !== undefined && size + more <= longest && part.length < MAX_RECORDS) {
      part.push(record);
      size += more;
    } else {
      parts.push([record]);
      size = OVERHEAD + more;
    }
  }
  return parts;
}

function encoded(records: readonly EidRecord[]): Buffer {
  const writer = new Writer();
  for (const record of records) encodeEidRecord(record, writer);
  return Buffer.from(writer.finish());
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
