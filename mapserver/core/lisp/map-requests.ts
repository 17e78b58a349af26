/**
 * The Map-Resolver for plain LISP peers: Map-Requests, alone or in an ECM, with one EID or several (RFC 9301 section 5.2).
 *
 * A Map-Request proves nothing, and its answer is longer than it is. So only those may ask whom the configuration lists,
 * and the RLOCs of sites, which prove themselves when they register; and answers go to no other address. The answer goes
 * to an ITR-RLOC of the request: the one it comes from, if that is among them, else the first that may ask. An ITR
 * behind a NAT names none of these, and is answered where the datagram comes from. Both the answers to one address and
 * those to one address about one EID are limited, as the sender may be forged.
 *
 * Whoever is answered is remembered, to be solicited when the mapping changes. What a site wants to answer itself goes to
 * one of its routers (`etr-forwarding.ts`), which then also tells of changes.
 */
import { type IpAddress, type IpFamily, type IpPrefix, ipFamily, prefixContains } from '../../../proto/address.ts';
import { type EidKey, eidKey, type PrefixEid, parseEidKey } from '../../../proto/eid.ts';
import { DecodeError } from '../../../proto/errors.ts';
import { type LispAddress, NO_ADDRESS } from '../../../proto/lisp/afi.ts';
import type { EidRecord } from '../../../proto/lisp/eid-record.ts';
import { LISP_CONTROL_PORT, type Nonce } from '../../../proto/lisp/header.ts';
import type { MapReply } from '../../../proto/lisp/map-reply.ts';
import type { EidQuery, MapRequest } from '../../../proto/lisp/map-request.ts';
import { eidToRecordKey, MAP_ACTIONS, recordKeyToEid } from '../../../proto/lisp/mapping-record.ts';
import type { LispMessage } from '../../../proto/lisp/message.ts';
import type { Instant, Millis } from '../../../proto/time.ts';
import type { Overlay } from '../grants.ts';
import type { MappingDatabase } from '../mapping-database.ts';
import { RateTable } from '../rate-table.ts';
import type { OwnershipRecord } from '../records.ts';
import { EtrForwarder, type EtrRegistration, plainAddress } from './etr-forwarding.ts';
import { ItrMemory } from './itr-memory.ts';
import {
  protectedReply,
  type ReplyProtection,
  type SecretsOf,
  subscriptionSigning,
  wantedProtection,
} from './lisp-security.ts';
import type { LispResult } from './lisp-server.ts';
import { mapReferral } from './map-referrals.ts';
import type { MapAnswer, MapReplies } from './map-replies.ts';
import { Solicitor } from './solicitor.ts';
import type { SubscriptionOutcome, SubscriptionRequests } from './subscription-requests.ts';
import type { Received, UdpPeer } from './udp-peer.ts';

export interface MapRequestSettings {
  /** Who may ask, beside sites. */
  readonly requesters: readonly IpPrefix[];
  /** How long plain askers keep an answer at most. */
  readonly ttl: Millis;
  /** To one address. */
  readonly repliesPerSecond: number;
  /** How many answers are remembered. */
  readonly remembered: number;
  /** That datagrams can be sent over. */
  readonly families: readonly IpFamily[];
  /** Addresses at which the map server is known to be. */
  readonly addresses: readonly IpAddress[];
}

export interface MapRequestsParts {
  readonly settings: MapRequestSettings;
  readonly overlay: Overlay;
  readonly database: MappingDatabase;
  readonly replies: MapReplies;
  /** Whether a site has registered from this address, or with it as an RLOC. */
  readonly isSiteRloc: (address: IpAddress) => boolean;
  readonly secretsOf: SecretsOf;
  /** The routers that a mapping of a site comes from. */
  readonly etrsOf: (eid: EidKey) => readonly EtrRegistration[];
  readonly subscriptions: SubscriptionRequests;
  readonly randomNonce: () => Nonce;
  readonly send: (to: UdpPeer, message: LispMessage) => void;
  /** Octets as they are. */
  readonly sendEncoded: (to: UdpPeer, kind: LispMessage['type'], bytes: Uint8Array) => void;
}

/** One EID of a Map-Request. */
interface Asked {
  readonly query: EidQuery;
  /** Undefined: no EID that anybody registers here. */
  readonly eid: PrefixEid | undefined;
  readonly answer: MapAnswer | undefined;
  /** Of one that subscribes. */
  readonly subscription: SubscriptionOutcome | undefined;
}

export class MapRequests {
  private readonly parts: MapRequestsParts;
  private readonly families: ReadonlySet<IpFamily>;
  private readonly rates: RateTable;
  private readonly ratesPerEid = new RateTable(1 / SECONDS_PER_REPLY, REPLY_BURST, MAX_RATES);
  private readonly memory: ItrMemory;
  private readonly solicitor: Solicitor;
  private readonly forwarder: EtrForwarder;
  /** Since the last settling, as they were before it. */
  private readonly changed = new Map<EidKey, Change>();

  constructor(parts: MapRequestsParts) {
    this.parts = parts;
    const { families, addresses, repliesPerSecond, remembered } = parts.settings;
    this.families = new Set(families);
    this.rates = new RateTable(repliesPerSecond, 2 * repliesPerSecond, MAX_RATES);
    this.memory = new ItrMemory(remembered);
    this.forwarder = new EtrForwarder({
      families: this.families,
      overlay: parts.overlay,
      etrsOf: parts.etrsOf,
      send: parts.send,
    });
    this.solicitor = new Solicitor({
      randomNonce: parts.randomNonce,
      ownRloc: (family) => addresses.find((each) => ipFamily(each) === family),
      send: (to, message) => parts.send({ address: to, port: LISP_CONTROL_PORT }, message),
    });
  }

  get remembered(): number {
    return this.memory.size;
  }

  handleRequest(received: Received<MapRequest>, now: Instant): LispResult {
    const { message } = received;
    // A probe goes to an ETR itself, an SMR to an ITR, and who wants no reply asks nothing.
    if (message.probe || message.smr || message.dontReply) return 'unexpected';
    const subscribes = message.records.some(({ notify }) => notify);
    if (subscribes && message.xtrId === undefined) return 'malformed';
    const to = this.replyTarget(received, subscribes);
    if (to === undefined) return 'refused';
    const queries = message.records.slice(0, MAX_QUERIES);
    if (queries.length === 0 || to.port === 0) return 'malformed';
    if (!this.rates.tryTake(to.address, now, queries.length)) return 'limited';
    const addresses = [to.address, received.from.address];
    const protection = wantedProtection(received.ecm, message.nonce, addresses, this.parts.secretsOf);
    if (protection === 'unknown') return 'authentication';
    const read = queries.map((query) => ({ query, eid: eidOf(query) }));
    const due = read.filter(({ eid }) =>
      this.ratesPerEid.tryTake(`${to.address} ${eid === undefined ? '' : eidKey(eid)}`, now),
    );
    if (due.length === 0) return 'limited';
    const all = due.map(({ query, eid }) => this.ask(received, to, query, eid, protection, now));
    for (const refused of ['replay', 'authentication'] as const)
      if (all.every(({ subscription }) => subscription === refused)) return refused;
    this.reply(received, to, all, protection);
    this.refer(received, all);
    return 'accepted';
  }

  follow(before: OwnershipRecord | undefined, after: OwnershipRecord | undefined): void {
    const eid = (after ?? before)?.eid;
    if (eid === undefined || this.memory.size + this.parts.subscriptions.size === 0) return;
    const known = this.changed.get(eid);
    if (known === undefined) this.changed.set(eid, { before, after });
    else known.after = after;
  }

  /** What is told of this EID is something else now, although its record is the same. */
  tellAgain(record: OwnershipRecord): void {
    // What a site registered is told to plain peers as it is.
    if (record.site !== undefined) return;
    if (this.memory.size + this.parts.subscriptions.size === 0 || this.changed.has(record.eid)) return;
    this.changed.set(record.eid, { before: undefined, after: record });
  }

  /** Tells everybody whom the changes since the last call concern. */
  settle(now: Instant): void {
    for (const [key, { before, after }] of this.changed) {
      const eid = parseEidKey(key);
      if (eid.kind !== 'prefix' || !this.parts.replies.differs(before, after)) continue;
      const concerns = (told: PrefixEid): boolean => this.concerns(told, eid);
      this.parts.subscriptions.handleChange(eid, after, concerns, now);
      for (const itr of this.memory.concerned(eid, now)) {
        if (concerns(itr.told)) this.solicitor.solicit(itr, eid, now);
      }
    }
    this.changed.clear();
  }

  handleTimeout(now: Instant): void {
    this.solicitor.handleTimeout(now);
  }

  pollTimeout(): Instant | undefined {
    return this.solicitor.pollTimeout();
  }

  /** Not when who was told of a prefix was told of a mapping inside the one that changed. */
  private concerns(told: PrefixEid, changed: PrefixEid): boolean {
    const match = this.parts.database.match(told);
    const matched = match === undefined ? undefined : (parseEidKey(match.eid) as PrefixEid).prefix;
    return matched === undefined || matched === changed.prefix || !prefixContains(changed.prefix, matched);
  }

  private ask(
    received: Received<MapRequest>,
    to: UdpPeer,
    query: EidQuery,
    eid: PrefixEid | undefined,
    protection: ReplyProtection | undefined,
    now: Instant,
  ): Asked {
    if (eid === undefined) return { query, eid, answer: undefined, subscription: undefined };
    const { replies, subscriptions } = this.parts;
    const { sourceEid, records, xtrId, nonce, itrRlocs } = received.message;
    this.solicitor.handleRequest(to.address, eid);
    const room = (ipFamily(to.address) === 4 ? ROOM_IPV4 : ROOM_IPV6) / records.length;
    if (query.notify && xtrId !== undefined) {
      const answer = replies.answer(eid, room, subscriptions.ttl);
      const signing = protection === undefined ? undefined : subscriptionSigning(protection, nonce);
      const peers = this.subscriberPeers(received, to);
      const request = { xtrId, eid, nonce, signing, to: peers, ends: endsSubscription(itrRlocs) };
      const subscription = subscriptions.handleRequest(request, answer, now);
      if (subscription !== 'full') return { query, eid, answer, subscription };
    }
    const answer = replies.answer(eid, room);
    if (answer.kind === 'records') {
      const endsAt = now + answer.ttl + LATENCY;
      this.memory.remember({ rloc: to.address, told: answer.told, sourceEid: hostOf(sourceEid), endsAt }, now);
    }
    return { query, eid, answer, subscription: undefined };
  }

  private reply(
    received: Received<MapRequest>,
    to: UdpPeer,
    all: readonly Asked[],
    protection: ReplyProtection | undefined,
  ): void {
    const records: EidRecord[] = [];
    let unprotectedEtrs = false;
    for (const { query, eid, answer, subscription } of all) {
      if (subscription === 'told' || subscription === 'replay' || subscription === 'authentication') continue;
      if (typeof subscription === 'object') records.push(subscription);
      else if (eid === undefined || answer === undefined) records.push(unknownRecord(query));
      else if (answer.kind === 'records') records.push(...answer.records);
      else if (protection === undefined) this.forwarder.forward(received, query, eid, answer.etrs);
      else if (this.forwarder.forwardProtected(received, query, eid, answer.told, protection) === 'none') {
        unprotectedEtrs = true;
        records.push(unverifiableRecord(answer.told));
      }
    }
    if (records.length === 0) return;
    const { nonce } = received.message;
    const reply: MapReply = { type: 'map-reply', probe: false, echoNonce: false, nonce, records };
    if (protection === undefined) this.parts.send(to, reply);
    else this.parts.sendEncoded(to, 'map-reply', protectedReply(reply, protection, unprotectedEtrs));
  }

  /** A node of the DDT tree is told also whether it was right to ask here. */
  private refer({ message, from, ecm }: Received<MapRequest>, all: readonly Asked[]): void {
    const answers = all.flatMap(({ answer }) => answer ?? []);
    if (ecm?.ddt !== true || answers.length === 0 || !this.mayAsk(from.address)) return;
    this.parts.send(from, mapReferral(message.nonce, answers, this.parts.settings.addresses));
  }

  private replyTarget({ message, from, ecm }: Received<MapRequest>, subscribes: boolean): UdpPeer | undefined {
    const rlocs = message.itrRlocs.flatMap((rloc) => plainAddress(rloc) ?? []);
    const port = ecm?.sourcePort ?? from.port;
    const itself = { ...from, port };
    if (subscribes && endsSubscription(message.itrRlocs)) return this.mayAsk(from.address) ? itself : undefined;
    if (rlocs.includes(from.address) && this.mayAsk(from.address)) return itself;
    const rloc = rlocs.find((address) => this.families.has(ipFamily(address)) && this.mayAsk(address));
    if (rloc !== undefined) return { address: rloc, port };
    return rlocs.length > 0 && this.mayAsk(from.address) ? from : undefined;
  }

  /** Where it asks from, then where the RFC has it listen. */
  private subscriberPeers({ message }: Received<MapRequest>, to: UdpPeer): UdpPeer[] {
    const others = message.itrRlocs.flatMap((rloc) => plainAddress(rloc) ?? []).filter((each) => each !== to.address);
    const usable = others.filter((address) => this.families.has(ipFamily(address)) && this.mayAsk(address));
    const listening = to.port === LISP_CONTROL_PORT ? [] : [{ ...to, port: LISP_CONTROL_PORT }];
    return [to, ...listening, ...usable.map((address) => ({ address, port: LISP_CONTROL_PORT }))].slice(0, MAX_PEERS);
  }

  private mayAsk(address: IpAddress): boolean {
    return (
      this.parts.settings.requesters.some((prefix) => prefixContains(prefix, address)) || this.parts.isSiteRloc(address)
    );
  }
}

interface Change {
  readonly before: OwnershipRecord | undefined;
  after: OwnershipRecord | undefined;
}

/** Undefined for what is no IP prefix: nobody registers such EIDs here. @throws DecodeError for an impossible prefix */
function eidOf({ eid, maskLength }: EidQuery): PrefixEid | undefined {
  const inner = eid.kind === 'instance-id' ? eid.address : eid;
  if (inner.kind !== 'ip' || (eid.kind === 'instance-id' && eid.iid > 0xffffff)) return undefined;
  const read = recordKeyToEid(eid, maskLength);
  if (read.kind !== 'prefix') throw new DecodeError('EID', 0, 'is no prefix');
  return read;
}

function unknownRecord({ eid, maskLength }: EidQuery): EidRecord {
  const action = MAP_ACTIONS.indexOf('natively-forward');
  return { ttl: 15, eid, maskLength, action, authoritative: false, mapVersion: 0, locators: [] };
}

/** Of a site that answers itself, but not so that it can be verified. */
function unverifiableRecord(eid: PrefixEid): EidRecord {
  const key = eidToRecordKey(eid);
  const action = MAP_ACTIONS.indexOf('drop');
  return { ...key, ttl: 1, action, authoritative: false, mapVersion: 0, locators: [] };
}

function endsSubscription(itrRlocs: readonly LispAddress[]): boolean {
  return itrRlocs.length === 1 && itrRlocs[0]?.kind === 'none';
}

/** Nothing but a host is kept: an asker could make us keep whatever fits into a datagram. */
function hostOf(address: LispAddress): LispAddress {
  const inner = address.kind === 'instance-id' ? address.address : address;
  return inner.kind === 'ip' ? address : NO_ADDRESS;
}

const MAX_QUERIES = 16;
/** Of a subscriber. */
const MAX_PEERS = 4;
/** What a Map-Reply can carry where nothing is known of the path (RFC 9301 section 5): 576 and 1280 octets with headers. */
const ROOM_IPV4 = 576 - 28 - 12;
const ROOM_IPV6 = 1280 - 48 - 12;
/** RFC 9301 section 5.4; the burst is for who has lost the answer. */
const SECONDS_PER_REPLY = 3;
const REPLY_BURST = 5;
const MAX_RATES = 50_000;
/** An answer's time begins when it arrives. */
const LATENCY: Millis = 2_000;
