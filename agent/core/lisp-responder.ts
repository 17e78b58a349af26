/**
 * What an agent answers LISP routers on UDP 4342 (RFC 9301), if it exchanges plain packets with them.
 *
 * - RLOC-probes and Map-Requests for EIDs of this host, and at a gateway for the overlay's: with this host's own
 *   locators, as they have no tunnel key. Other EIDs are not answered for.
 * - Solicit-Map-Requests: nothing proves them, so they only make this agent ask its map server again for what it has in
 *   its map-cache.
 *
 * When this host's locators change, it solicits the RLOCs that exchanged plain packets with its EIDs in the last minute, each
 * once in 3 s for an EID at most.
 *
 * Only RLOCs that plain packets are exchanged with are heard, at a bounded rate, and answered where they ask from.
 */
import { type IpAddress, type IpPrefix, ipFamily, prefixAddress, prefixContains } from '../../proto/address.ts';
import type { PlainRules } from '../../proto/dataplane/messages.ts';
import { type Eid, type InstanceId, prefixEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import { ipLispAddress, type LispAddress } from '../../proto/lisp/afi.ts';
import type { EidRecord, RlocRecord } from '../../proto/lisp/eid-record.ts';
import { LISP_CONTROL_PORT, type Nonce } from '../../proto/lisp/header.ts';
import { MAP_REQUEST, type MapRequest } from '../../proto/lisp/map-request.ts';
import { eidToRecordKey, recordKeyToEid } from '../../proto/lisp/mapping-record.ts';
import {
  decodeLispMessage,
  encapsulatedMessage,
  encodeLispMessage,
  type LispMessage,
} from '../../proto/lisp/message.ts';
import { type Locator, NEVER_USE } from '../../proto/mapping.ts';
import { keptOutIn } from '../../proto/overlay.ts';
import { PrefixTrie } from '../../proto/prefix-trie.ts';
import { type Instant, seconds } from '../../proto/time.ts';
import type { Outbox } from './outbox.ts';
import { isAgentEid } from './remote-mappings.ts';
import { TokenBucket } from './token-bucket.ts';

export interface LispPeer {
  readonly address: IpAddress;
  readonly port: number;
}

/** What became of a datagram. */
export const LISP_OUTCOMES = [
  'answered',
  'solicited',
  'refused',
  'limited',
  'malformed',
  'ignored',
  /** Of Map-Notifies: a registration is done, something changed without us, or no Map-Server's key made it. */
  'acknowledged',
  'notified',
  'unauthentic',
  /** Of Map-Replies: one of our questions is answered. */
  'resolved',
  /** An RLOC-probe of ours is answered. */
  'probed',
] as const;

export type LispOutcome = (typeof LISP_OUTCOMES)[number];

export interface LispResponderParts {
  readonly rules: PlainRules;
  readonly instance: InstanceId;
  readonly overlay: () => readonly IpPrefix[];
  readonly locators: () => readonly Locator[];
  readonly isOwn: (address: IpAddress) => boolean;
  /** Of others, which this agent asks: it may solicit. */
  readonly isMapResolver: (address: IpAddress) => boolean;
  /** Asks for it again if it is in the map-cache. */
  readonly askAgain: (eid: Eid, now: Instant) => boolean;
  readonly newNonce: () => Nonce;
  readonly outbox: Outbox;
}

export class LispResponder {
  private readonly parts: LispResponderParts;
  private readonly rate: TokenBucket;
  private readonly rlocs = new PrefixTrie<true>();
  /** By RLOC and EID. */
  private readonly solicitedAt = new Map<string, Instant>();

  constructor(parts: LispResponderParts, now: Instant) {
    this.parts = parts;
    this.rate = new TokenBucket(2 * MESSAGES_PER_SECOND, MESSAGES_PER_SECOND, now);
    for (const { rlocs } of parts.rules.sites) for (const rloc of rlocs) this.rlocs.set(rloc, true);
  }

  /** Plain packets are exchanged with this RLOC. */
  isPeer(address: IpAddress): boolean {
    return this.rlocs.longestMatch(address) !== undefined;
  }

  handleDatagram(from: LispPeer, bytes: Uint8Array, now: Instant): LispOutcome {
    const isPeer = this.isPeer(from.address);
    if (!isPeer && !this.parts.isMapResolver(from.address)) return 'refused';
    if (!this.rate.take(now)) return 'limited';
    try {
      const message = unwrapped(decodeLispMessage(bytes));
      if (message?.type !== 'map-request' || message.dontReply) return 'ignored';
      if (message.smr) return this.solicited(message, now);
      return isPeer ? this.answer(from, message) : 'refused';
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return 'malformed';
    }
  }

  /** These exchanged plain packets with an EID of ours, whose mapping has changed (RFC 9301 section 6.1). */
  solicit(prefix: IpPrefix, rlocs: readonly IpAddress[], now: Instant): void {
    const { rules, locators, newNonce, outbox } = this.parts;
    for (const [known, at] of this.solicitedAt) {
      if (now - at < SMR_INTERVAL) break;
      this.solicitedAt.delete(known);
    }
    const key = eidToRecordKey(prefixEid(rules.instance, prefix));
    const own = locators()
      .slice(0, MAX_RLOCS)
      .map(({ address }) => ipLispAddress(address));
    for (const rloc of rlocs.slice(0, MAX_SOLICITED)) {
      const known = `${rloc} ${prefix}`;
      if (this.solicitedAt.has(known) || this.solicitedAt.size >= MAX_SOLICITED || own.length === 0) continue;
      this.solicitedAt.set(known, now);
      const { eid } = key;
      const request = {
        ...SOLICIT,
        nonce: newNonce(),
        sourceEid: eid,
        itrRlocs: own,
        records: [{ ...key, notify: false }],
      };
      outbox.sendPlainly({ address: rloc, port: LISP_CONTROL_PORT }, encodeLispMessage(request));
    }
  }

  /** The source EID is what changed; some name it in the record only. */
  private solicited({ sourceEid, records }: MapRequest, now: Instant): LispOutcome {
    const named = [
      ...(sourceEid.kind === 'none' ? [] : [this.eidOf(sourceEid)]),
      ...records.slice(0, 1).map(this.query),
    ];
    const asked = named.filter((eid) => eid !== undefined && this.parts.askAgain(eid, now));
    return asked.length > 0 ? 'solicited' : 'ignored';
  }

  private answer(from: LispPeer, { nonce, probe, itrRlocs, records: queries }: MapRequest): LispOutcome {
    const [query] = queries;
    // RFC 9301 section 5.2: who names no ITR-RLOC wants no answer.
    if (itrRlocs.every(({ kind }) => kind === 'none')) return 'ignored';
    if (query === undefined || !this.answersFor(this.query(query))) return 'ignored';
    const record: EidRecord = {
      ttl: TTL_MINUTES,
      eid: query.eid,
      maskLength: query.maskLength,
      action: 0,
      authoritative: true,
      mapVersion: 0,
      locators: this.ownRlocs(probe ? from : null),
    };
    const reply = { type: 'map-reply', probe, echoNonce: false, nonce, records: [record] } as const;
    this.parts.outbox.sendPlainly(from, encodeLispMessage(reply));
    return 'answered';
  }

  private answersFor(eid: Eid | undefined): boolean {
    if (eid?.kind !== 'prefix' || isAgentEid(eid)) return false;
    if (this.parts.isOwn(prefixAddress(eid.prefix))) return true;
    if (!this.parts.rules.gateway || keptOutIn(eid.prefix) !== undefined) return false;
    return this.parts.overlay().some((prefix) => prefixContains(prefix, eid.prefix));
  }

  private readonly query = ({ eid, maskLength }: MapRequest['records'][number]) => this.eidOf(eid, maskLength);

  /** In the overlay's instance what is in that of plain packets. */
  private eidOf(address: LispAddress, maskLength?: number): Eid | undefined {
    const inner = address.kind === 'instance-id' ? address.address : address;
    if (inner.kind !== 'ip') return undefined;
    const eid = recordKeyToEid(address, maskLength ?? (ipFamily(inner.address) === 4 ? 32 : 128));
    const { rules, instance } = this.parts;
    return eid.kind === 'prefix' && eid.iid === rules.instance ? prefixEid(instance, eid.prefix) : undefined;
  }

  /** `probedBy`: a probe came from there, so one locator of its family is the probed one. */
  private ownRlocs(probedBy: LispPeer | null): RlocRecord[] {
    const usable = this.parts.locators().filter(({ priority }) => priority < NEVER_USE);
    const family = probedBy === null ? null : ipFamily(probedBy.address);
    const probed = usable.findIndex(({ address }) => ipFamily(address) === family);
    return usable.slice(0, MAX_RLOCS).map(({ address, priority, weight }, at) => ({
      priority,
      weight,
      multicastPriority: NEVER_USE,
      multicastWeight: 0,
      local: true,
      probed: at === probed,
      reachable: true,
      locator: ipLispAddress(address),
    }));
  }
}

function unwrapped(message: LispMessage): LispMessage | undefined {
  return message.type === 'encapsulated-control' ? encapsulatedMessage(message) : message;
}

const SOLICIT = {
  ...MAP_REQUEST,
  smr: true,
} as const;
const SMR_INTERVAL = seconds(3);
const MAX_SOLICITED = 1024;
const MESSAGES_PER_SECOND = 500;
const MAX_RLOCS = 8;
/** Short, as a roam is told to nobody who asked here. */
const TTL_MINUTES = 1;
