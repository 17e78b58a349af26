/**
 * What becomes of the ownership of an EID when routers of a site register it, or do not any more.
 *
 * The same rules as for agents (`registration.ts`), where the configuration of the site is the grant: who takes an EID
 * over from another gets the next generation, written hard; all else is soft. Plain LISP has no generations, so each
 * registration of a site claims: of two that register the same EID, the latest has it, as RFC 9301 has it.
 *
 * What a site does not register any more stays its own, withdrawn, so that it comes back at its generation. At a limit of
 * EIDs, what was withdrawn longest ago makes room for what is new; at the limit of all, first what nobody has any more
 * that sites had.
 */
import { Reader } from '../../../proto/bytes.ts';
import { type EidKey, type PrefixEid, parseEidKey } from '../../../proto/eid.ts';
import {
  decodeRlocRecords,
  type EidRecord,
  encodeRlocRecords,
  type RlocRecord,
  TTL_RECEIVER_DECIDES,
} from '../../../proto/lisp/eid-record.ts';
import { eidToRecordKey, recordToMapping } from '../../../proto/lisp/mapping-record.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import { isPlausibleLocator } from '../../../proto/overlay.ts';
import { minutes, type WallClock } from '../../../proto/time.ts';
import { forgetFirst, isFromBackup, nextGeneration } from '../generations.ts';
import type { Overlay } from '../grants.ts';
import type { MappingDatabase } from '../mapping-database.ts';
import { type OwnershipRecord, ownershipKey, type SiteContent, type StoreRecord, siteKey } from '../records.ts';
import { sameMapping } from '../registration.ts';
import type { Replica } from '../replica.ts';
import type { Transaction } from '../transactions.ts';
import { mayRegister, type Site } from './sites.ts';
import type { RegisteredContent } from './xtr-registrations.ts';

export type SiteOutcome =
  | {
      readonly kind: 'accepted';
      readonly how: 'taken' | 'refreshed' | 'released';
      readonly record: OwnershipRecord;
      /** Of the owner before, if that was another. */
      readonly previous?: OwnershipRecord;
    }
  /** It was not the site's, and is not now. */
  | { readonly kind: 'nothing' }
  | {
      readonly kind: 'denied';
      readonly reason: 'revoked' | 'not-granted' | 'too-many';
      readonly limit?: 'mappingsPerSite' | 'mappings';
    };

export interface SiteOwnershipContext {
  readonly overlay: Overlay;
  readonly limits: { readonly mappingsPerSite: number; readonly mappings: number };
  readonly wallClock: () => WallClock;
  readonly replica: Replica;
  readonly database: MappingDatabase;
}

/** Judges EIDs by what the xTRs of the site say of each together; undefined: nothing any more. */
export function siteJudge(
  transaction: Transaction,
  site: Site,
  { overlay, limits, wallClock, replica, database }: SiteOwnershipContext,
): (eid: EidKey, content: RegisteredContent | undefined) => SiteOutcome {
  const { owner } = site;
  const current = transaction.get(siteKey(site.record.name));
  // It can have changed since the registration came.
  const mayHave = (eid: PrefixEid): boolean =>
    current === site.record || (current?.kind === 'site' && mayRegister(current, eid));
  const mostOwn = Math.min(limits.mappingsPerSite, site.record.maxEids ?? limits.mappingsPerSite);
  const withdrawn = database.withdrawnOf(owner);
  const vacated = database.vacatedBySites();
  let own = database.ownedCount(owner) + moreOwned(transaction, owner, replica);
  return (eid, content) => {
    const record = transaction.get(ownershipKey(eid));
    const stored = record?.kind === 'eid' ? record : undefined;
    const owned = stored !== undefined && stored.state !== 'released' && stored.owner === owner;
    if (content === undefined) {
      if (!owned || stored.state !== 'live') return { kind: 'nothing' };
      const withdrawn: OwnershipRecord = { ...stored, state: 'withdrawn', locators: [] };
      transaction.putSoft(withdrawn);
      return { kind: 'accepted', how: 'released', record: withdrawn };
    }
    if (current === undefined) return { kind: 'denied', reason: 'revoked' };
    const prefix = parseEidKey(eid) as PrefixEid;
    if (!mayHave(prefix)) return { kind: 'denied', reason: 'not-granted' };
    const told = fieldsOf(prefix, site, content, overlay);
    // Who claims anew after a restore gets a generation newer than all that the backup does not know.
    if (owned && !isFromBackup(transaction, stored)) {
      const refreshed: OwnershipRecord = { ...stored, ...told };
      if (!sameMapping(stored, refreshed)) transaction.putSoft(refreshed);
      return { kind: 'accepted', how: 'refreshed', record: refreshed };
    }
    const isFull = (): 'mappingsPerSite' | 'mappings' | undefined => {
      if (!owned && own >= mostOwn) return 'mappingsPerSite';
      const total = replica.counts.eid + transaction.hard.size;
      return stored === undefined && total >= limits.mappings ? 'mappings' : undefined;
    };
    const limit = isFull();
    if (limit !== undefined && !(limit === 'mappings' && forgetFirst(transaction, vacated))) {
      if (!forgetFirst(transaction, withdrawn)) return { kind: 'denied', reason: 'too-many', limit };
      own--;
    }
    if (!owned) own++;
    const taken: OwnershipRecord = {
      kind: 'eid',
      eid,
      generation: nextGeneration(transaction, stored),
      owner,
      ownerSince: wallClock(),
      state: told.state,
      ttl: told.ttl,
      locators: told.locators,
      names: told.names,
      targets: told.targets,
      site: told.site,
    };
    transaction.put(taken);
    const previous = stored !== undefined && stored.state !== 'released' && stored.owner !== owner ? stored : undefined;
    return { kind: 'accepted', how: 'taken', record: taken, ...(previous === undefined ? {} : { previous }) };
  };
}

/** How many EIDs more are its own by what the transaction has written so far. */
function moreOwned(transaction: Transaction, owner: XtrId, replica: Replica): number {
  const isOwn = (record: StoreRecord | undefined): boolean =>
    record?.kind === 'eid' && record.owner === owner && record.state !== 'released';
  let more = 0;
  for (const [key, record] of transaction.hard) more += Number(isOwn(record)) - Number(isOwn(replica.get(key)));
  return more;
}

/** The EID-record as its xTRs registered it together; undefined for what is not a site's, or nobody's now. */
export function siteRecordOf({ eid, ttl, state, site }: OwnershipRecord): EidRecord | undefined {
  if (site === undefined || state !== 'live') return undefined;
  const key = eidToRecordKey(parseEidKey(eid));
  return {
    eid: key.eid,
    maskLength: key.maskLength,
    ttl: ttl / minutes(1),
    action: 0,
    authoritative: true,
    mapVersion: site.mapVersion,
    locators: rlocsOf(site),
  };
}

export function rlocsOf({ rlocs, rlocCount }: SiteContent): readonly RlocRecord[] {
  return decodeRlocRecords(new Reader(Buffer.from(rlocs, 'base64')), rlocCount);
}

/** The RLOCs as they are, and those of them that agents can send to. */
function fieldsOf(
  eid: PrefixEid,
  site: Site,
  { ttl, mapVersion, rlocs, proxyReply }: RegisteredContent,
  overlay: Overlay,
): Pick<OwnershipRecord, 'state' | 'ttl' | 'locators' | 'names' | 'targets'> & { readonly site: SiteContent } {
  // Names of RLOCs are no names of the EID, and who may speak of owners does not speak plain LISP.
  const places = rlocs.filter(({ locator }) => locator.kind !== 'name' && !NOT_OF_SITES.has(locator.kind));
  const record = { ...eidToRecordKey(eid), ttl, action: 0, authoritative: true, mapVersion, locators: places };
  const { locators } = recordToMapping(record);
  return {
    state: 'live',
    ttl: ttl === TTL_RECEIVER_DECIDES ? DEFAULT_TTL : minutes(ttl),
    locators: locators.filter(({ address }) => isPlausibleLocator(address, overlay.prefixes)).slice(0, MAX_LOCATORS),
    names: [],
    targets: [],
    site: {
      name: site.record.name,
      rlocs: Buffer.from(encodeRlocRecords(rlocs)).toString('base64'),
      rlocCount: rlocs.length,
      proxyReply,
      mapVersion,
    },
  };
}

const NOT_OF_SITES: ReadonlySet<string> = new Set(['vendor', 'security-key']);
/** What agents take of a mapping. */
const MAX_LOCATORS = 16;
const DEFAULT_TTL = minutes(24 * 60);
