/**
 * The map server for peers that speak LISP as the RFCs say: RFC 9301 over UDP port 4342.
 *
 * It works on the same records, transactions and publications as the sessions of agents, so there is one truth and two
 * transports. One datagram is one input: it is charged to its source, decoded, and handed to the part that its type
 * concerns, each with what it needs to know in its own file. Nothing that comes over UDP is believed because of where it
 * comes from; what is dropped is counted by its reason. What is to be sent leaves as `datagram` actions.
 */
import type { IpAddress } from '../../../proto/address.ts';
import { DecodeError } from '../../../proto/errors.ts';
import { siteXtrIdOf } from '../../../proto/identity.ts';
import { LISP_CONTROL_PORT, type Nonce } from '../../../proto/lisp/header.ts';
import {
  decodeLispMessage,
  encapsulatedMessage,
  encodeLispMessage,
  type LispMessage,
} from '../../../proto/lisp/message.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import type { Instant, Millis, WallClock } from '../../../proto/time.ts';
import type { Action } from '../actions.ts';
import type { Overlay } from '../grants.ts';
import type { MappingDatabase } from '../mapping-database.ts';
import { RateTable } from '../rate-table.ts';
import type { OwnershipRecord, SiteRecord, StoreRecord } from '../records.ts';
import type { Replica } from '../replica.ts';
import type { Transactions } from '../transactions.ts';
import type { Gateways } from './gateways.ts';
import { InfoRequests } from './info-requests.ts';
import type { SiteSecret } from './lisp-security.ts';
import { MapReplies } from './map-replies.ts';
import { type MapRequestSettings, MapRequests } from './map-requests.ts';
import { SiteNotifier } from './site-notifier.ts';
import { type RegisterResult, SiteRegistrar } from './site-registrar.ts';
import { SiteReleases } from './site-releases.ts';
import { Sites } from './sites.ts';
import type { SubscriberLimits } from './subscribers.ts';
import { SubscriptionRequests } from './subscription-requests.ts';
import { chargedTo, type Received, type UdpPeer } from './udp-peer.ts';
import { recipientOf, Xtrs } from './xtrs.ts';

export interface LispSettings {
  /** Of one source (IPv6: /64); one of several KiB counts as so many more. */
  readonly messagesPerSecond: number;
  /** Agents that join plain sites and tunnels; the first that is there serves. */
  readonly gateways: readonly XtrId[];
  readonly requests: MapRequestSettings;
  /** That relay for routers behind NATs. */
  readonly rtrs: readonly IpAddress[];
  /** `ttl`: how long subscribers may keep what they were told, if nothing changes. */
  readonly subscriptions: SubscriberLimits & { readonly ttl: Millis };
}

/** What became of a message: taken, or why not. */
export type LispResult =
  | RegisterResult
  /** The source sends too many. */
  | 'limited'
  /** Not from, or for, anybody who may. */
  | 'refused'
  /** Nothing that a map server is sent, or asked for nothing. */
  | 'unexpected';

export type LispMessageKind = LispMessage['type'] | 'unknown';

export interface LispParts {
  readonly settings: LispSettings;
  readonly overlay: Overlay;
  readonly limits: { readonly mappingsPerSite: number; readonly mappings: number };
  readonly database: MappingDatabase;
  readonly replica: Replica;
  readonly gateways: Gateways;
  readonly transactions: Transactions;
  readonly wallClock: () => WallClock;
  /** 64 random bits. */
  readonly randomNonce: () => Nonce;
  readonly act: (action: Action) => void;
}

export class LispServer {
  private readonly parts: LispParts;
  private readonly sites = new Sites();
  private readonly xtrs = new Xtrs();
  private readonly rates: RateTable;
  private readonly requests: MapRequests;
  private readonly notifier: SiteNotifier;
  private readonly subscriptions: SubscriptionRequests;
  private readonly registrar: SiteRegistrar;
  private readonly releases: SiteReleases;
  private readonly infoRequests: InfoRequests;

  constructor(parts: LispParts) {
    this.parts = parts;
    const { messagesPerSecond, requests } = parts.settings;
    const { overlay, database } = parts;
    const replies = new MapReplies({
      overlay,
      database,
      sitePrefixes: (iid) => this.sites.prefixes(iid),
      gateways: () => parts.gateways.locators(),
      ttl: requests.ttl,
    });
    this.notifier = new SiteNotifier({
      randomNonce: parts.randomNonce,
      send: (to, bytes) => this.sendEncoded(to, 'map-notify', bytes),
      outcome: (result) => parts.act({ kind: 'event', event: { kind: 'lisp-notify', result } }),
    });
    this.subscriptions = new SubscriptionRequests({
      limits: parts.settings.subscriptions,
      ttl: parts.settings.subscriptions.ttl,
      replies,
      notifier: this.notifier,
      recipient: (xtrId, peers, signing) => {
        const known = this.xtrs.find(
          xtrId,
          peers.map(({ address }) => address),
          signing?.sites,
        );
        if (known === undefined) return undefined;
        const xtr = signing === undefined ? known : { ...known, signing };
        // All that are of no known xTR-ID share what may wait for the xTR at their RLOC: the IDs could be made up.
        if (xtr.id !== xtrId) return { ...recipientOf(xtr, peers), id: `subscribers at ${xtr.site} ${xtr.id}` };
        // One for each of its subscriptions, as all that it has subscribed to may change at once.
        const { perXtr } = parts.settings.subscriptions;
        return { ...recipientOf(xtr, peers), id: `subscriber ${xtrId}`, most: perXtr };
      },
    });
    this.requests = new MapRequests({
      settings: requests,
      overlay,
      database,
      replies,
      isSiteRloc: (address) => this.registrar.isAddress(address),
      secretsOf: (addresses, keyId) => this.secretsOf(addresses, keyId),
      etrsOf: (eid) => this.registrar.etrsOf(eid),
      subscriptions: this.subscriptions,
      randomNonce: parts.randomNonce,
      send: (to, message) => this.send(to, message),
      sendEncoded: (to, kind, bytes) => this.sendEncoded(to, kind, bytes),
    });
    this.registrar = new SiteRegistrar({
      overlay,
      limits: parts.limits,
      wallClock: parts.wallClock,
      replica: parts.replica,
      database,
      transactions: parts.transactions,
      sites: this.sites,
      xtrs: this.xtrs,
      notifier: this.notifier,
      describe: (record) => replies.recordFor(record),
      reply: (received, bytes) => this.answer(received, bytes),
      event: (event) => parts.act({ kind: 'event', event }),
    });
    const { sites } = this;
    this.releases = new SiteReleases({ database, sites, transactions: parts.transactions });
    this.infoRequests = new InfoRequests({
      sites: this.sites,
      rtrs: parts.settings.rtrs,
      addresses: requests.addresses,
      send: (to, bytes) => this.sendEncoded(to, 'info-reply', bytes),
    });
    this.rates = new RateTable(messagesPerSecond, 2 * messagesPerSecond, MAX_SOURCES);
  }

  handleDatagram(from: UdpPeer, bytes: Uint8Array, now: Instant): void {
    let kind: LispMessageKind = 'unknown';
    let result: LispResult = 'limited';
    if (this.rates.tryTake(chargedTo(from), now, this.charge(bytes))) {
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

  /** The store was read. */
  restore(now: Instant): void {
    const { database } = this.parts;
    this.releases.restore(
      [...database.owners()].filter((owner) => isOfSite(database.ownedBy(owner))),
      now,
    );
    for (const owner of database.owners()) {
      if (this.isSite(owner)) this.registrar.restore(database.ownedBy(owner), now);
    }
    for (const { record } of this.parts.replica.values()) {
      if (record.kind === 'site-nonces') this.registrar.restoreNonces(record.site, record);
    }
  }

  /** A record has changed, by whatever way. */
  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    this.sites.follow(before, after);
    this.followSite(siteOf(before), siteOf(after));
    const from = before?.kind === 'eid' ? before : undefined;
    const to = after?.kind === 'eid' ? after : undefined;
    if (from === undefined && to === undefined) return;
    this.requests.follow(from, to);
    this.registrar.follow(from, to);
  }

  private followSite(before: SiteRecord | undefined, after: SiteRecord | undefined): void {
    this.registrar.followSite(before, after);
    if (before !== undefined && before.prefixes !== after?.prefixes) this.releases.check(siteXtrIdOf(before.name));
  }

  /** Plain askers are told something else of an agent's EID now. */
  tellAgain(record: OwnershipRecord): void {
    this.requests.tellAgain(record);
  }

  /** Whether the owner is a site and not an agent. */
  isSite(owner: XtrId): boolean {
    return this.sites.ownedBy(owner) !== undefined;
  }

  /** After each input. */
  settle(now: Instant): void {
    this.requests.settle(now);
    this.registrar.settle(now);
    this.releases.settle(now);
  }

  handleTimeout(now: Instant): void {
    this.requests.handleTimeout(now);
    this.subscriptions.handleTimeout(now);
    this.registrar.handleTimeout(now);
    this.releases.handleTimeout(now);
    this.notifier.handleTimeout(now);
  }

  pollTimeout(): Instant | undefined {
    const deadlines = [this.requests, this.subscriptions, this.registrar, this.releases, this.notifier]
      .map((part) => part.pollTimeout())
      .filter((at) => at !== undefined);
    return deadlines.length === 0 ? undefined : Math.min(...deadlines);
  }

  send(to: UdpPeer, message: LispMessage): void {
    this.sendEncoded(to, message.type, encodeLispMessage(message));
  }

  /** Octets as they are, e.g. signed. */
  sendEncoded(to: UdpPeer, kind: LispMessage['type'], bytes: Uint8Array): void {
    this.parts.act({ kind: 'datagram', to, bytes });
    this.parts.act({ kind: 'event', event: { kind: 'lisp-sent', message: kind } });
  }

  /** Long messages take long to read and to verify. Any can pass, even if few are allowed. */
  private charge(bytes: Uint8Array): number {
    return Math.min(1 + Math.floor(bytes.length / OCTETS_OF_ONE), this.parts.settings.messagesPerSecond);
  }

  /** Of sites whose routers spoke from these addresses. */
  private secretsOf(addresses: readonly IpAddress[], keyId: number): SiteSecret[] {
    const sites = new Set(this.xtrs.at(addresses).map(({ site }) => site));
    return [...sites].slice(0, MAX_SITES_OF_ITR).flatMap((site) => {
      const keys = this.sites.get(site)?.keys.filter((key) => key.keyId === keyId) ?? [];
      return keys.map(({ secret }) => ({ site, secret }));
    });
  }

  /** To where it came from, in an ECM if it came in one: an RTR may be between. */
  private answer({ from, ecm }: Received<LispMessage>, bytes: Uint8Array): void {
    if (ecm === undefined) {
      this.sendEncoded(from, 'map-notify', bytes);
      return;
    }
    const { source, destination, sourcePort } = ecm;
    const back = {
      source: destination,
      destination: source,
      sourcePort: LISP_CONTROL_PORT,
      destinationPort: sourcePort,
    };
    this.send(from, { ...ecm, ...back, payload: bytes });
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
        return this.registrar.handleRegister({ ...received, message }, now);
      case 'map-notify-ack':
        return this.notifier.handleAck({ ...received, message }, now);
      case 'info-request':
        return this.infoRequests.handleRequest({ ...received, message }, now);
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

/** One owner's records: all or none are of a site. */
function isOfSite([record]: Iterable<OwnershipRecord>): boolean {
  return record?.site !== undefined;
}

function siteOf(record: StoreRecord | undefined): SiteRecord | undefined {
  return record?.kind === 'site' ? record : undefined;
}

const MAX_SOURCES = 20_000;
const OCTETS_OF_ONE = 1_024;
/** Whose keys are tried for one request. */
const MAX_SITES_OF_ITR = 4;
