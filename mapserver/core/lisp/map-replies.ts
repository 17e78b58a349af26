/**
 * What a plain LISP peer is told of an EID (RFC 9301 sections 5.4 and 8.3).
 *
 * A site's EID has the RLOCs that the site registered. An agent takes no plain packets, so its EIDs are where the
 * gateways are, and nowhere without one. Inside the overlay, what is nowhere is to be dropped, since nothing of it may
 * leak to the network around; outside it is not for us to say, so it is forwarded natively. A negative answer speaks of
 * the largest prefix around the EID that holds nothing else, so that the asker need not ask for each address.
 *
 * The best match is told with the prefixes inside it, all with the same TTL, as an asker that knew only the outer one
 * would never ask for the inner ones. Where these do not fit into a message, the answer is about the part of the best
 * match that holds none of them. TTLs are cut, as a plain ITR that missed an SMR learns of a change by the end of its TTL.
 */
import { type IpPrefix, ipPrefix, prefixAddress, prefixContains } from '../../../proto/address.ts';
import { Writer } from '../../../proto/bytes.ts';
import { eidKey, type InstanceId, type PrefixEid, parseEidKey, prefixEid } from '../../../proto/eid.ts';
import { encodeAddress, ipLispAddress, type LispAddress } from '../../../proto/lisp/afi.ts';
import { type EidRecord, encodeEidRecord, type RlocRecord } from '../../../proto/lisp/eid-record.ts';
import { eidToRecordKey, MAP_ACTIONS } from '../../../proto/lisp/mapping-record.ts';
import { type Locator, type MapAction, NEVER_USE } from '../../../proto/mapping.ts';
import { PrefixTrie } from '../../../proto/prefix-trie.ts';
import { type Millis, minutes } from '../../../proto/time.ts';
import type { Overlay } from '../grants.ts';
import type { MappingDatabase } from '../mapping-database.ts';
import type { OwnershipRecord } from '../records.ts';
import { rlocsOf } from './site-ownership.ts';

export interface MapRepliesParts {
  readonly overlay: Overlay;
  readonly database: MappingDatabase;
  /** Prefixes that sites may register. */
  readonly sitePrefixes: (iid: InstanceId) => PrefixTrie<unknown> | undefined;
  /** Where the gateways are. */
  readonly gateways: () => readonly Locator[];
  /** The longest that plain askers are to keep an answer. */
  readonly ttl: Millis;
}

export type MapAnswer =
  | {
      readonly kind: 'records';
      readonly positive: boolean;
      /** The first is about the EID, the others are inside it. */
      readonly records: readonly EidRecord[];
      readonly told: PrefixEid;
      readonly ttl: Millis;
      /** The prefix is registered, or may be. */
      readonly ours: boolean;
    }
  /** The site wants to answer itself. */
  | { readonly kind: 'forward'; readonly told: PrefixEid; readonly etrs: readonly RlocRecord[] };

export class MapReplies {
  private readonly parts: MapRepliesParts;
  private readonly overlay = new PrefixTrie<true>();

  constructor(parts: MapRepliesParts) {
    this.parts = parts;
    for (const prefix of parts.overlay.prefixes) this.overlay.set(prefix, true);
  }

  /** `room`: how many octets the records may take. `longest`: TTL that they have at most. */
  answer(eid: PrefixEid, room: number, longest = this.parts.ttl): MapAnswer {
    const { database } = this.parts;
    const match = database.match(eid);
    if (match?.site?.proxyReply === false) {
      return { kind: 'forward', told: parseEidKey(match.eid) as PrefixEid, etrs: rlocsOf(match.site) };
    }
    const best = match === undefined ? this.negative(eid, this.vacant(eid)) : this.describe(match, longest);
    const inside = this.inside(best.eid).map((record) => this.describe(record, longest));
    if (inside.length === 0) return answerOf(best);
    if (inside.length <= MAX_INSIDE && octets([best, ...inside]) <= room) return answerOf(best, inside);
    // What was asked for itself holds more than can be told: nothing but this can be said, and not for long.
    const part = ipPrefix(prefixAddress(eid.prefix), database.vacantLength(eid));
    return answerOf({ ...best, eid: prefixEid(eid.iid, part), ttl: Math.min(best.ttl, UNREGISTERED_TTL) });
  }

  /** Of the mapping alone, whatever is inside it. */
  recordFor(record: OwnershipRecord, longest = this.parts.ttl): EidRecord {
    return recordOf(this.describe(record, longest));
  }

  /** Whether a change of what is registered is a change for plain askers. */
  differs(before: OwnershipRecord | undefined, after: OwnershipRecord | undefined): boolean {
    const text = (record: OwnershipRecord | undefined): string => {
      if (record?.state !== 'live' || parseEidKey(record.eid).kind !== 'prefix') return '';
      return Buffer.from(encoded(this.recordFor(record))).toString('hex');
    };
    return text(before) !== text(after);
  }

  private inside(eid: PrefixEid): OwnershipRecord[] {
    const found: OwnershipRecord[] = [];
    for (const record of this.parts.database.within(eid.iid, eid.prefix)) {
      if (record.eid === eidKey(eid)) continue;
      found.push(record);
      if (found.length > MAX_INSIDE) break;
    }
    return found;
  }

  private describe(record: OwnershipRecord, longest: Millis): PlainMapping {
    const eid = parseEidKey(record.eid) as PrefixEid;
    const ttl = Math.min(record.ttl, longest);
    if (record.site !== undefined) {
      const { mapVersion } = record.site;
      return { eid, ttl, action: 'no-action', mapVersion, rlocs: rlocsOf(record.site).map(asTold) };
    }
    const rlocs = this.parts.gateways().map(gatewayRloc);
    if (rlocs.length === 0) return this.negative(eid, eid.prefix);
    return { eid, ttl, action: 'no-action', mapVersion: 0, rlocs };
  }

  /** About `prefix`, which lies around `eid`. */
  private negative({ iid, prefix: asked }: PrefixEid, prefix: IpPrefix): PlainMapping {
    const { overlay, sitePrefixes } = this.parts;
    const negative = { eid: prefixEid(iid, prefix), mapVersion: 0, rlocs: [] };
    const meets = overlay.prefixes.some((own) => prefixContains(own, asked) || prefixContains(asked, own));
    if (iid === overlay.instance && meets) return { ...negative, action: 'drop', ttl: UNREGISTERED_TTL };
    const configured = sitePrefixes(iid)?.longestMatch(asked) !== undefined;
    return { ...negative, action: 'natively-forward', ttl: configured ? UNREGISTERED_TTL : FOREIGN_TTL };
  }

  /** The largest prefix around the EID with neither a registered nor a configured one in it. */
  private vacant(eid: PrefixEid): IpPrefix {
    const { overlay, database, sitePrefixes } = this.parts;
    const length = Math.max(
      database.vacantLength(eid),
      sitePrefixes(eid.iid)?.vacantLength(eid.prefix) ?? 0,
      eid.iid === overlay.instance ? this.overlay.vacantLength(eid.prefix) : 0,
    );
    return ipPrefix(prefixAddress(eid.prefix), length);
  }
}

interface PlainMapping {
  readonly eid: PrefixEid;
  readonly ttl: Millis;
  readonly action: MapAction;
  readonly mapVersion: number;
  readonly rlocs: readonly RlocRecord[];
}

/** All with the same TTL, so that none of them is missed after another has ended. */
function answerOf(best: PlainMapping, inside: readonly PlainMapping[] = []): MapAnswer {
  const ttl = Math.min(best.ttl, ...inside.map((mapping) => mapping.ttl));
  const records = [best, ...inside].map((mapping) => recordOf({ ...mapping, ttl }));
  const positive = best.rlocs.length > 0;
  return { kind: 'records', positive, records, told: best.eid, ttl, ours: positive || best.ttl !== FOREIGN_TTL };
}

/** Neither A nor L: it is no ETR that speaks. */
function recordOf({ eid, ttl, action, mapVersion, rlocs }: PlainMapping): EidRecord {
  const key = eidToRecordKey(eid);
  return {
    eid: key.eid,
    maskLength: key.maskLength,
    ttl: Math.ceil(ttl / minutes(1)),
    action: MAP_ACTIONS.indexOf(action),
    authoritative: false,
    mapVersion,
    locators: sorted(rlocs),
  };
}

function asTold(rloc: RlocRecord): RlocRecord {
  return { ...rloc, local: false, probed: false };
}

function gatewayRloc({ address, priority, weight }: Locator): RlocRecord {
  return {
    priority,
    weight,
    multicastPriority: NEVER_USE,
    multicastWeight: 0,
    local: false,
    probed: false,
    reachable: true,
    locator: ipLispAddress(address),
  };
}

/** IPv4 before IPv6 before LCAFs, each ascending: all who speak of an EID have to agree on the order. */
function sorted(rlocs: readonly RlocRecord[]): RlocRecord[] {
  const key = (locator: LispAddress): string => {
    const writer = new Writer();
    encodeAddress(locator, writer);
    return Buffer.from(writer.finish()).toString('hex');
  };
  const keyed = rlocs.map((rloc) => ({ rloc, key: key(rloc.locator) }));
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ rloc }) => rloc);
}

function encoded(record: EidRecord): Uint8Array {
  const writer = new Writer();
  encodeEidRecord(record, writer);
  return writer.finish();
}

function octets(mappings: readonly PlainMapping[]): number {
  return mappings.reduce((sum, mapping) => sum + encoded(recordOf(mapping)).length, 0);
}

/** Of a prefix that is, or may be, of this mapping system; and of any other (RFC 9301 section 8.3). */
const UNREGISTERED_TTL = minutes(1);
const FOREIGN_TTL = minutes(15);
const MAX_INSIDE = 32;
