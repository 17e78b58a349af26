/**
 * The map server for peers that speak LISP as the RFCs say: RFC 9301 over UDP port 4342.
 *
 * It works on the same records, transactions and publications as the sessions of agents, so there is one truth and two
 * transports. One datagram is one input: it is charged to its source, decoded, and handed to the part that its type
 * concerns, each with what it needs to know in its own file. Nothing that comes over UDP is believed because of where it
 * comes from; what is dropped is counted by its reason. What is to be sent leaves as `datagram` actions.
 */
import { DecodeError } from '../../../proto/errors.ts';
import type { Nonce } from '../../../proto/lisp/header.ts';
import {
  decodeLispMessage,
  encapsulatedMessage,
  encodeLispMessage,
  type LispMessage,
} from '../../../proto/lisp/message.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import type { Instant, WallClock } from '../../../proto/time.ts';
import type { Action } from '../actions.ts';
import type { Overlay } from '../grants.ts';
import type { MappingDatabase } from '../mapping-database.ts';
import { RateTable } from '../rate-table.ts';
import type { StoreRecord } from '../records.ts';
import type { Replica } from '../replica.ts';
import type { Transactions } from '../transactions.ts';
import { MapReplies } from './map-replies.ts';
import { type MapRequestSettings, MapRequests } from './map-requests.ts';
import { Sites } from './sites.ts';
import { chargedTo, type Received, type UdpPeer } from './udp-peer.ts';

export interface LispSettings {
  /** Of one source (IPv6: /64). */
  readonly messagesPerSecond: number;
  readonly requests: MapRequestSettings;
}

/** What became of a message: taken, or why not. */
export type LispResult =
  | 'accepted'
  /** The source sends too many. */
  | 'limited'
  | 'malformed'
  /** Not from, or for, anybody who may. */
  | 'refused'
  /** Nothing that a map server is sent, or asked for nothing. */
  | 'unexpected';

export type LispMessageKind = LispMessage['type'] | 'unknown';

export interface LispParts {
  readonly settings: LispSettings;
  readonly overlay: Overlay;
  readonly database: MappingDatabase;
  readonly replica: Replica;
  readonly transactions: Transactions;
  readonly wallClock: () => WallClock;
  /** 64 random bits. */
  readonly randomNonce: () => Nonce;
  readonly act: (action: Action) => void;
}

export class LispServer {
  private readonly parts: LispParts;
  private readonly sites = new Sites();
  private readonly rates: RateTable;
  private readonly requests: MapRequests;

  constructor(parts: LispParts) {
    this.parts = parts;
    const { messagesPerSecond, requests } = parts.settings;
    const { overlay, database } = parts;
    this.requests = new MapRequests({
      settings: requests,
      database,
      replies: new MapReplies({
        overlay,
        database,
        sitePrefixes: (iid) => this.sites.prefixes(iid),
        gateways: () => [],
        ttl: requests.ttl,
      }),
      isSiteRloc: () => false,
      randomNonce: parts.randomNonce,
      send: (to, message) => this.send(to, message),
    });
    this.rates = new RateTable(messagesPerSecond, 2 * messagesPerSecond, MAX_SOURCES);
  }

  handleDatagram(from: UdpPeer, bytes: Uint8Array, now: Instant): void {
    let kind: LispMessageKind = 'unknown';
    let result: LispResult = 'limited';
    if (this.rates.tryTake(chargedTo(from), now)) {
      try {
        const received = unwrapped(from, bytes);
        kind = received.message.type;
        result = this.dispatch(received, now);
      } catch (error) {
        if (!(error instanceof DecodeError)) throw error;
        result = 'malformed';
      }
    }
    this.parts.act({ kind: 'event', event: { kind: 'lisp-received', message: kind, result, from: from.address } });
  }

  /** A record has changed, by whatever way. */
  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    this.sites.follow(before, after);
    const from = before?.kind === 'eid' ? before : undefined;
    const to = after?.kind === 'eid' ? after : undefined;
    if (from !== undefined || to !== undefined) this.requests.follow(from, to);
  }

  /** Whether the owner is a site and not an agent. */
  isSite(owner: XtrId): boolean {
    return this.sites.ownedBy(owner) !== undefined;
  }

  /** After each input. */
  settle(now: Instant): void {
    this.requests.settle(now);
  }

  handleTimeout(now: Instant): void {
    this.requests.handleTimeout(now);
  }

  pollTimeout(): Instant | undefined {
    return this.requests.pollTimeout();
  }

  send(to: UdpPeer, message: LispMessage): void {
    this.sendEncoded(to, message.type, encodeLispMessage(message));
  }

  /** Octets as they are, e.g. signed. */
  sendEncoded(to: UdpPeer, kind: LispMessage['type'], bytes: Uint8Array): void {
    this.parts.act({ kind: 'datagram', to, bytes });
    this.parts.act({ kind: 'event', event: { kind: 'lisp-sent', message: kind } });
  }

  private dispatch(
    received: Received<Exclude<LispMessage, { type: 'encapsulated-control' }>>,
    now: Instant,
  ): LispResult {
    const { message } = received;
    switch (message.type) {
      case 'map-request':
        return this.requests.handleRequest({ ...received, message }, now);
      case 'map-register':
      case 'map-notify-ack':
      case 'info-request':
        return 'unexpected';
      case 'map-reply':
      case 'map-notify':
      case 'info-reply':
      case 'map-referral':
      case 'shared-extension':
        return 'unexpected';
      default:
        return message satisfies never;
    }
  }
}

/** @throws DecodeError */
function unwrapped(from: UdpPeer, bytes: Uint8Array): Received<Exclude<LispMessage, { type: 'encapsulated-control' }>> {
  const message = decodeLispMessage(bytes);
  if (message.type !== 'encapsulated-control') return { message, bytes, from };
  return { message: encapsulatedMessage(message), bytes: message.payload, from, ecm: message };
}

const MAX_SOURCES = 20_000;
