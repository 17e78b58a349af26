/**
 * LISP messages from agent to agent, inside the tunnel (UDP 4342 between agent addresses; the data plane carries them).
 *
 * The tunnel says who speaks, so messages carry no authentication of their own. What has to arrive is a Map-Notify: it
 * is repeated, at growing intervals and at most ATTEMPTS times, until the Map-Notify-Ack with its nonce comes from that
 * peer. An SMR (RFC 9301 section 6.1) is a hint and is sent once. Bounded in number and, by MAX_PEER_MESSAGE, in size.
 */
import { MAX_PEER_MESSAGE } from '../../proto/dataplane/messages.ts';
import type { Eid } from '../../proto/eid.ts';
import { type Nonce, withNonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { encodedMapping, encodedNotify, mapNotifyAck, solicitMapRequest } from '../../proto/lisp/native.ts';
import type { Mapping, TunnelKey } from '../../proto/mapping.ts';
import type { Instant } from '../../proto/time.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import type { MapServerSession } from './map-server-session.ts';
import type { Outbox } from './outbox.ts';
import type { PeerMessageKind } from './output.ts';
import type { AgentIdentity } from './registrar.ts';

interface Unanswered {
  readonly to: TunnelKey;
  readonly kind: PeerMessageKind;
  readonly payload: string;
  attempts: number;
  nextAt: Instant;
}

export class PeerChannel {
  private readonly identity: AgentIdentity;
  private readonly table: DataplaneTable;
  private readonly session: MapServerSession;
  private readonly outbox: Outbox;
  private readonly unanswered = new Map<bigint, Unanswered>();
  /** Nothing is repeated before; a thousand acknowledgements in a row do not look through what waits for others. */
  private nextRepeat: Instant = Number.POSITIVE_INFINITY;

  constructor(identity: AgentIdentity, table: DataplaneTable, session: MapServerSession, outbox: Outbox) {
    this.identity = identity;
    this.table = table;
    this.session = session;
    this.outbox = outbox;
  }

  /** As many messages as `rest` needs, whose nonces are returned; each begins with `subject`: what it is about. */
  notify(
    to: TunnelKey,
    kind: PeerMessageKind,
    subject: Mapping,
    rest: readonly Mapping[],
    now: Instant,
  ): readonly Nonce[] {
    const nonces: Nonce[] = [];
    const about = encodedMapping(subject);
    const least = AROUND_MAPPINGS + about.length;
    let [begun, size] = [[about], least];
    for (const mapping of rest.map(encodedMapping)) {
      if (size + mapping.length > MAX_PEER_MESSAGE && begun.length > 1) {
        nonces.push(...this.sendNotify(to, kind, begun, now));
        [begun, size] = [[about], least];
      }
      begun.push(mapping);
      size += mapping.length;
    }
    nonces.push(...this.sendNotify(to, kind, begun, now));
    return nonces;
  }

  /** The same to each, in one message. It is encoded once, as there may be thousands of them. */
  notifyEach(
    to: readonly TunnelKey[],
    kind: PeerMessageKind,
    subject: Mapping,
    rest: readonly Mapping[],
    now: Instant,
  ): void {
    if (to.length === 0) return;
    const payload = this.encodeNotify(this.session.nextNonce(), [subject, ...rest].map(encodedMapping));
    for (const peer of to) {
      const nonce = this.session.nextNonce();
      this.sendRepeatedly(peer, kind, nonce, textOf(withNonce(payload, nonce)), now);
    }
  }

  /** "Ask for this EID again." */
  solicit(to: readonly TunnelKey[], eid: Eid): void {
    const itr = this.identity.agentAddress;
    const message = encodeLispMessage(solicitMapRequest({ nonce: this.session.nextNonce(), eid, itr }));
    for (const peer of to) {
      if (this.send(peer, textOf(withNonce(message, this.session.nextNonce())))) this.count('solicit', 'sent');
    }
  }

  acknowledge(to: TunnelKey, nonce: Nonce): void {
    this.send(to, textOf(encodeLispMessage(mapNotifyAck(nonce))));
  }

  /** What the peer says; null for the acknowledgement of something that it was not told. @throws DecodeError */
  receive(from: TunnelKey, payload: string): LispMessage | null {
    const message = decodeLispMessage(Buffer.from(payload, 'base64'));
    if (message.type !== 'map-notify-ack') return message;
    if (this.unanswered.get(message.nonce)?.to !== from) return null;
    this.unanswered.delete(message.nonce);
    return message;
  }

  handleTimeout(now: Instant): void {
    if (now < this.nextRepeat) return;
    this.nextRepeat = Number.POSITIVE_INFINITY;
    for (const [nonce, each] of this.unanswered) {
      if (each.nextAt > now) {
        this.nextRepeat = Math.min(this.nextRepeat, each.nextAt);
        continue;
      }
      if (each.attempts >= ATTEMPTS || !this.send(each.to, each.payload)) {
        this.unanswered.delete(nonce);
        this.count(each.kind, 'unanswered');
        continue;
      }
      each.nextAt = now + FIRST_REPEAT * 2 ** each.attempts;
      each.attempts++;
      this.nextRepeat = Math.min(this.nextRepeat, each.nextAt);
    }
  }

  pollTimeout(): Instant {
    return this.nextRepeat;
  }

  private sendNotify(to: TunnelKey, kind: PeerMessageKind, mappings: readonly Uint8Array[], now: Instant) {
    const nonce = this.session.nextNonce();
    return this.sendRepeatedly(to, kind, nonce, textOf(this.encodeNotify(nonce, mappings)), now);
  }

  /** Returns the nonce if an acknowledgement is awaited. */
  private sendRepeatedly(
    to: TunnelKey,
    kind: PeerMessageKind,
    nonce: Nonce,
    payload: string,
    now: Instant,
  ): readonly Nonce[] {
    if (!this.send(to, payload)) return [];
    this.count(kind, 'sent');
    if (this.unanswered.size >= MAX_UNANSWERED) return [];
    const nextAt = now + FIRST_REPEAT;
    this.unanswered.set(nonce, { to, kind, payload, attempts: 1, nextAt });
    this.nextRepeat = Math.min(this.nextRepeat, nextAt);
    return [nonce];
  }

  private encodeNotify(nonce: Nonce, mappings: readonly Uint8Array[]): Uint8Array {
    return encodedNotify({ nonce, xtrId: this.identity.xtrId, mappings });
  }

  /** False if there is no such peer. */
  private send(publicKey: TunnelKey, payload: string): boolean {
    if (this.table.peerLocators(publicKey) === undefined) return false;
    this.outbox.command({ type: 'peer-send', publicKey, payload });
    return true;
  }

  private count(kind: PeerMessageKind, result: 'sent' | 'unanswered'): void {
    this.outbox.note({ type: 'peer-message', kind, result });
  }
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}

/** 100, 200, ... 3200 ms after one another: a few round trips, and the time that a handshake with losses takes. */
const FIRST_REPEAT = 100;
const ATTEMPTS = 6;
const MAX_UNANSWERED = 8192;
/** Octets of a Map-Notify beside its mappings: header, authentication, xTR-ID and site-ID. */
const AROUND_MAPPINGS = 12 + 4 + 24;
