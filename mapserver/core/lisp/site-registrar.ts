/**
 * Map-Registers of sites (RFC 9301 sections 5.6 and 8.2).
 *
 * Whoever has a key of a site may register what the site is configured for; the key also tells which site it is. What
 * is not authentic is not answered. The RLOCs are soft state, by xTR (`xtr-registrations.ts`), and end after 3 minutes,
 * or with T after the record's TTL; who owns the EID is a record like that of an agent's (`site-ownership.ts`), and
 * agents and plain peers hear of it by the same publication. A refresh that says nothing new needs no transaction.
 */
import type { IpAddress } from '../../../proto/address.ts';
import { Writer } from '../../../proto/bytes.ts';
import { type EidKey, eidKey, type PrefixEid } from '../../../proto/eid.ts';
import { DecodeError } from '../../../proto/errors.ts';
import {
  type Coverage,
  type SigningOptions,
  signMessage,
  verifyAuthentication,
} from '../../../proto/lisp/authentication.ts';
import { NO_AUTHENTICATION } from '../../../proto/lisp/authentication-data.ts';
import { type EidRecord, encodeEidRecord, TTL_RECEIVER_DECIDES } from '../../../proto/lisp/eid-record.ts';
import type { MapRegister } from '../../../proto/lisp/map-register.ts';
import { isOlderVersion, NULL_VERSION } from '../../../proto/lisp/map-version.ts';
import { recordKeyToEid } from '../../../proto/lisp/mapping-record.ts';
import { type Instant, type Millis, minutes, seconds } from '../../../proto/time.ts';
import type { ServerEvent } from '../actions.ts';
import {
  type OwnershipRecord,
  ownershipKey,
  RESTORATION_KEY,
  type SiteContent,
  type SiteRecord,
  siteNoncesKey,
} from '../records.ts';
import type { Transactions } from '../transactions.ts';
import type { EtrRegistration } from './etr-forwarding.ts';
import { type Freshness, ReplayGuard, type StoredNonces } from './replay-guard.ts';
import { inDatagrams, type SiteNotifier } from './site-notifier.ts';
import { rlocsOf, type SiteOutcome, type SiteOwnershipContext, siteJudge, siteRecordOf } from './site-ownership.ts';
import { hasKey, type Site, type Sites } from './sites.ts';
import type { Received } from './udp-peer.ts';
import { merged, type RegisteredContent, XtrRegistrations } from './xtr-registrations.ts';
import { recipientOf, type Xtr, type Xtrs } from './xtrs.ts';

export type RegisterResult =
  | 'accepted'
  /** Some of its records are no EIDs that the site may register, or outdated; the others were taken. */
  | 'partly'
  | 'not-granted'
  /** Its map-versions are older than what is registered. */
  | 'outdated'
  | 'malformed'
  /** No site may register its first EID. */
  | 'site-unknown'
  /** No site that may register it has such a key, or the MAC is wrong. */
  | 'authentication'
  | Exclude<Freshness, 'fresh'>;

export interface SiteRegistrarParts extends SiteOwnershipContext {
  readonly transactions: Transactions;
  readonly sites: Sites;
  readonly xtrs: Xtrs;
  readonly notifier: SiteNotifier;
  /** What plain peers are told of a mapping that is not a site's. */
  readonly describe: (record: OwnershipRecord) => EidRecord;
  /** To where it came from, the way it came. */
  readonly reply: (received: Received<MapRegister>, bytes: Uint8Array) => void;
  readonly event: (event: ServerEvent) => void;
}

/** A record of a Map-Register that is to be judged. */
interface Change {
  readonly eid: EidKey;
  /** Undefined: the xTR gives it up. */
  readonly content: RegisteredContent | undefined;
  readonly merge: boolean;
  readonly fingerprint: string;
  readonly expiresAt: Instant;
}

type Outcomes = ReadonlyMap<EidKey, SiteOutcome>;

export class SiteRegistrar {
  private readonly parts: SiteRegistrarParts;
  private readonly registrations = new XtrRegistrations();
  /** Plain RLOCs of sites, each with the number of mappings that it is in. */
  private readonly rlocs = new Map<IpAddress, number>();
  private readonly replay = new ReplayGuard();
  /** Routers whose EID another took over, and the mapping as it is now. */
  private readonly lost: { readonly xtrs: readonly Xtr[]; readonly after: OwnershipRecord }[] = [];
  private flushAt: Instant | undefined;
  /** Expired or given up while the store failed, by site. */
  private readonly unwithdrawn = new Map<string, Set<EidKey>>();
  private retryAt: Instant | undefined;

  constructor(parts: SiteRegistrarParts) {
    this.parts = parts;
  }

  /** Registrations of xTRs, one for each of its EIDs. */
  get size(): number {
    return this.registrations.size;
  }

  /** Whether a site has registered from this address, or with it as an RLOC. */
  isAddress(address: IpAddress): boolean {
    return this.rlocs.has(address) || this.parts.xtrs.isAddress(address);
  }

  handleRegister(received: Received<MapRegister>, now: Instant): RegisterResult {
    const { message, from } = received;
    const { sites, event } = this.parts;
    const eids = message.records.map(prefixOf);
    const first = eids.find((eid) => eid !== undefined);
    if (first === undefined) return 'malformed';
    const candidates = sites.candidates(first);
    if (candidates.length === 0) return 'site-unknown';
    const proof = authenticate(candidates, received);
    if (proof === undefined) return 'authentication';
    const { site, signing } = proof;
    const freshness = this.freshnessOf(site, message, signing);
    if (freshness !== 'fresh') return freshness;
    const id = message.xtrId ?? from.address;
    const xtr = this.parts.xtrs.heard(site.record.name, id, {
      peer: from,
      signing,
      wantsNotify: message.wantMapNotify,
    });
    let refused: 'not-granted' | 'outdated' = 'not-granted';
    const allowed: EidKey[] = [];
    const changes: Change[] = [];
    for (const [i, record] of message.records.entries()) {
      const eid = eids[i];
      if (eid === undefined) continue;
      const key = eidKey(eid);
      if (!sites.authorises(site, eid)) {
        event({ kind: 'registration', result: 'not-granted', xtrId: site.owner, eid: key });
        continue;
      }
      if (this.isOutdated(site, key, record)) {
        event({ kind: 'registration', result: 'stale', xtrId: site.owner, eid: key });
        refused = 'outdated';
        continue;
      }
      allowed.push(key);
      const change = this.read(site, xtr, key, record, message, now);
      if (change !== undefined) changes.push(change);
    }
    if (allowed.length === 0) return refused;
    this.register(site, xtr, changes, now, (outcomes) => this.acknowledge(received, signing, allowed, outcomes));
    return allowed.length === message.records.length ? 'accepted' : 'partly';
  }

  /** The routers that a mapping of a site comes from. */
  etrsOf(eid: EidKey): EtrRegistration[] {
    const stored = this.parts.replica.get(ownershipKey(eid));
    if (stored?.kind !== 'eid' || stored.site === undefined) return [];
    const site = this.parts.sites.get(stored.site.name);
    if (site === undefined) return [];
    return this.registrations.of(eid, stored.site.name).map(({ xtr, content }) => {
      const { rlocs, securityCapable } = content;
      const isCapable = securityCapable && xtr !== undefined && hasKey(site, xtr.signing);
      return { rlocs, restored: xtr === undefined, ...(isCapable ? { securedBy: xtr.signing } : {}) };
    });
  }

  /** A mapping has changed, by whatever way. */
  follow(before: OwnershipRecord | undefined, after: OwnershipRecord | undefined): void {
    this.countRlocs(before, -1);
    this.countRlocs(after, 1);
    if (before?.site === undefined || after === undefined) return;
    const holder = after.state === 'released' ? undefined : after.site?.name;
    const removed = this.registrations.deleteOthers(after.eid, holder);
    const xtrs = removed.flatMap(({ xtr }) => (xtr === undefined ? [] : [xtr]));
    if (xtrs.length > 0 && after.owner !== before.owner) this.lost.push({ xtrs, after });
  }

  followSite(before: SiteRecord | undefined, after: SiteRecord | undefined): void {
    if (before === undefined) return;
    this.replay.followKeys(before, after);
    this.parts.xtrs.followKeys(before.name, after?.keys ?? []);
  }

  /** What is stored stays for as long as its routers need to register it again. */
  restore(records: Iterable<OwnershipRecord>, now: Instant): void {
    for (const record of records) {
      if (record.site === undefined || record.state !== 'live') continue;
      const { eid, site } = record;
      const content = storedContent(record, site);
      this.registrations.put({ eid, site: site.name, xtr: undefined, content, fingerprint: '' }, now + LIFE);
    }
  }

  restoreNonces(site: string, nonces: StoredNonces): void {
    this.replay.restore(site, nonces);
  }

  settle(now: Instant): void {
    if (this.replay.hasDirty) this.flushAt ??= now + FLUSH_DELAY;
    for (const { xtrs, after } of this.lost.splice(0)) {
      const record = siteRecordOf(after) ?? this.parts.describe(after);
      for (const xtr of xtrs) this.notify(xtr, record, now);
    }
  }

  handleTimeout(now: Instant): void {
    this.expire(now);
    if (this.retryAt !== undefined && now >= this.retryAt) {
      this.retryAt = undefined;
      const waiting = [...this.unwithdrawn];
      this.unwithdrawn.clear();
      for (const [name, eids] of waiting) this.withdrawOf(name, eids, now);
    }
    if (this.flushAt !== undefined && now >= this.flushAt) this.storeNonces(now);
  }

  pollTimeout(): Instant | undefined {
    const deadlines = [this.registrations.pollTimeout(), this.flushAt, this.retryAt].filter((at) => at !== undefined);
    return deadlines.length === 0 ? undefined : Math.min(...deadlines);
  }

  private freshnessOf({ record }: Site, { xtrId, nonce, authentication }: MapRegister, by: Signing): Freshness {
    const { replica, wallClock } = this.parts;
    const unproven = xtrId !== undefined && by.coverage === 'records';
    const mac = unproven ? Buffer.from(authentication.data).toString('latin1') : undefined;
    const restoration = replica.get(RESTORATION_KEY);
    const restoredAt = restoration?.kind === 'restoration' ? restoration.floor : 0;
    return this.replay.accept(record, { keyId: by.keyId, xtrId, nonce, mac }, wallClock(), restoredAt);
  }

  /** RFC 9302 section 7.3; versions of another site are no measure. */
  private isOutdated(site: Site, eid: EidKey, { mapVersion }: EidRecord): boolean {
    const stored = this.parts.replica.get(ownershipKey(eid));
    if (stored?.kind !== 'eid' || stored.owner !== site.owner || stored.state !== 'live') return false;
    return isOlderVersion(mapVersion, stored.site?.mapVersion ?? NULL_VERSION);
  }

  /** Undefined: it says what is known. */
  private read(
    site: Site,
    xtr: Xtr,
    eid: EidKey,
    record: EidRecord,
    message: MapRegister,
    now: Instant,
  ): Change | undefined {
    const expiresAt = now + lifeOf(record, message.useTtl);
    const fingerprint = fingerprintOf(record, message);
    const { proxyReply, merge, securityCapable } = message;
    const change = { eid, merge, fingerprint, expiresAt };
    if (record.ttl === 0 || record.locators.length === 0) return { ...change, content: undefined };
    const stored = this.parts.replica.get(ownershipKey(eid));
    const holds = stored?.kind === 'eid' && stored.owner === site.owner && stored.state === 'live';
    if (holds && this.registrations.refresh(eid, xtr, fingerprint, expiresAt)) return undefined;
    const { ttl, mapVersion, locators: rlocs } = record;
    return { ...change, content: { ttl, mapVersion, rlocs, proxyReply, merge, securityCapable } };
  }

  /** Takes over what the xTR says now, and judges what that makes of the mappings. */
  private register(
    site: Site,
    xtr: Xtr,
    changes: readonly Change[],
    now: Instant,
    done: (outcomes: Outcomes) => void,
  ): void {
    if (changes.length === 0) {
      done(new Map());
      return;
    }
    const { name } = site.record;
    const replaced = new Map<EidKey, readonly Xtr[]>();
    for (const { eid, content, merge, fingerprint, expiresAt } of changes) {
      if (content === undefined) this.registrations.delete(eid, xtr, !merge);
      else replaced.set(eid, this.registrations.put({ eid, site: name, xtr, content, fingerprint }, expiresAt));
    }
    const eids = changes.map(({ eid }) => eid);
    const complete = (outcomes: Outcomes, later: Instant): void => {
      for (const [eid, outcome] of outcomes) {
        if (outcome.kind === 'denied') this.registrations.delete(eid, xtr);
        if (outcome.kind === 'accepted') this.tellXtrs(outcome.record, xtr, replaced.get(eid) ?? [], later);
      }
      done(outcomes);
    };
    // What is not stored is not registered: the next refresh is news again. Of what is given up there is none.
    const fail = (later: Instant): void => {
      for (const eid of eids) this.registrations.delete(eid, xtr);
      const ended = changes.filter(({ content }) => content === undefined).map(({ eid }) => eid);
      if (ended.length > 0) this.withdrawLater(site, ended, later);
    };
    this.judge(site, eids, now, complete, fail);
  }

  private judge(
    site: Site,
    eids: readonly EidKey[],
    now: Instant,
    done: (outcomes: Outcomes, now: Instant) => void,
    fail: (now: Instant) => void,
  ): void {
    let outcomes = new Map<EidKey, SiteOutcome>();
    this.parts.transactions.add(
      {
        sender: site.owner,
        size: eids.length,
        evaluate: (transaction) => {
          const judge = siteJudge(transaction, site, this.parts);
          outcomes = new Map(
            eids.map((eid) => [eid, judge(eid, merged(this.registrations.of(eid, site.record.name)))]),
          );
        },
        complete: (later) => {
          for (const [eid, outcome] of outcomes) this.report(site, eid, outcome);
          done(outcomes, later);
        },
        fail,
      },
      now,
    );
  }

  private report(site: Site, eid: EidKey, outcome: SiteOutcome): void {
    const { event } = this.parts;
    const xtrId = site.owner;
    if (outcome.kind === 'accepted') {
      const from = outcome.previous === undefined ? {} : { previous: outcome.previous.owner };
      event({ kind: 'registration', result: outcome.how, xtrId, eid, ...from });
    }
    if (outcome.kind !== 'denied') return;
    event({ kind: 'registration', result: outcome.reason, xtrId, eid });
    const { limit } = outcome;
    if (limit !== undefined) event({ kind: 'limit', limit, source: `site ${site.record.name}` });
  }

  /** The others of the site: those it replaces, and those whose RLOCs are one mapping with its own. */
  private tellXtrs(record: OwnershipRecord, by: Xtr, replaced: readonly Xtr[], now: Instant): void {
    const told = siteRecordOf(record);
    if (told === undefined || record.site === undefined) return;
    const mergedWith = this.registrations.of(record.eid, record.site.name).map(({ xtr }) => xtr);
    for (const xtr of new Set([...replaced, ...mergedWith])) {
      if (xtr !== undefined && xtr !== by) this.notify(xtr, told, now);
    }
  }

  private acknowledge(
    received: Received<MapRegister>,
    signing: Signing,
    eids: readonly EidKey[],
    outcomes: Outcomes,
  ): void {
    const { nonce, records: asked, wantMapNotify } = received.message;
    if (!wantMapNotify) return;
    const records = eids.flatMap((eid) => {
      if (outcomes.get(eid)?.kind === 'denied') return [];
      const stored = this.parts.replica.get(ownershipKey(eid));
      const told = stored?.kind === 'eid' ? siteRecordOf(stored) : undefined;
      if (told !== undefined) return [told];
      const given = asked.find((record) => keyOf(record) === eid);
      return given === undefined ? [] : [{ ...given, ttl: 0, locators: [] }];
    });
    // In one message if a datagram can hold it, as the router waits for one.
    for (const part of inDatagrams(records, LONGEST_ANSWER)) {
      const notify = { type: 'map-notify' as const, nonce, authentication: NO_AUTHENTICATION, records: part };
      this.parts.reply(received, signMessage(notify, signing));
    }
  }

  private notify(xtr: Xtr, record: EidRecord, now: Instant): void {
    if (xtr.wantsNotify) this.parts.notifier.announce(recipientOf(xtr), [record], now);
  }

  private expire(now: Instant): void {
    const bySite = new Map<string, Set<EidKey>>();
    for (const { eid, site } of this.registrations.expire(now)) {
      const eids = bySite.get(site) ?? new Set<EidKey>();
      bySite.set(site, eids.add(eid));
    }
    for (const [name, eids] of bySite) this.withdrawOf(name, eids, now);
  }

  private withdrawOf(name: string, eids: ReadonlySet<EidKey>, now: Instant): void {
    const site = this.parts.sites.get(name);
    if (site !== undefined) this.withdraw(site, [...eids], now);
  }

  /** What no xTR registers any more. */
  private withdraw(site: Site, eids: readonly EidKey[], now: Instant): void {
    const done = (outcomes: Outcomes): void => {
      const count = [...outcomes.values()].filter((each) => each.kind === 'accepted' && each.how === 'released').length;
      if (count > 0) this.parts.event({ kind: 'withdrawn', xtrId: site.owner, count });
    };
    this.judge(site, eids, now, done, (later) => this.withdrawLater(site, eids, later));
  }

  private withdrawLater({ record: { name } }: Site, eids: readonly EidKey[], now: Instant): void {
    this.unwithdrawn.set(name, new Set([...(this.unwithdrawn.get(name) ?? []), ...eids]));
    this.retryAt ??= now + RETRY;
  }

  private storeNonces(now: Instant): void {
    const records = this.replay.takeDirty(FLUSH_SITES);
    this.flushAt = this.replay.hasDirty ? now + 1 : undefined;
    this.parts.transactions.add(
      {
        sender: 'site nonces',
        evaluate: (transaction) => {
          for (const { site, ...nonces } of records) {
            if (this.parts.sites.get(site) !== undefined) transaction.putSoft({ kind: 'site-nonces', site, ...nonces });
            else if (transaction.get(siteNoncesKey(site)) !== undefined) transaction.delete(siteNoncesKey(site));
          }
        },
        complete: () => {},
        // They hold here, and are stored with the next ones of their sites.
        fail: () => {},
      },
      now,
    );
  }

  private countRlocs(record: OwnershipRecord | undefined, by: number): void {
    if (record?.site === undefined || record.state !== 'live') return;
    for (const { address } of record.locators) {
      const count = (this.rlocs.get(address) ?? 0) + by;
      if (count > 0) this.rlocs.set(address, count);
      else this.rlocs.delete(address);
    }
  }
}

type Signing = SigningOptions & { readonly coverage: Coverage };

/** Whose key it is authenticated by; undefined: nobody's who may register it. */
function authenticate(
  candidates: readonly Site[],
  { message, bytes }: Received<MapRegister>,
): { readonly site: Site; readonly signing: Signing } | undefined {
  const { keyId, algorithm, data } = message.authentication;
  for (const site of candidates) {
    const key = site.keys.find((each) => each.keyId === keyId && each.algorithm === algorithm);
    const verified = key === undefined ? { ok: false as const } : verifyAuthentication(bytes, key.secret);
    if (key === undefined || !verified.ok) continue;
    const length = data.length > LONGEST_TRUNCATED ? 'full' : 'rfc';
    return { site, signing: { keyId, algorithm, psk: key.secret, coverage: verified.coverage, length } };
  }
  return undefined;
}

/** As of an xTR that merges, so that the first to speak again takes nothing from the others. */
function storedContent({ ttl }: OwnershipRecord, site: SiteContent): RegisteredContent {
  const { mapVersion, proxyReply } = site;
  const rlocs = rlocsOf(site);
  return { ttl: ttl / minutes(1), mapVersion, rlocs, proxyReply, merge: true, securityCapable: false };
}

function lifeOf({ ttl }: EidRecord, useTtl: boolean): Millis {
  if (!useTtl || ttl === TTL_RECEIVER_DECIDES) return LIFE;
  return Math.min(minutes(ttl), LONGEST_LIFE);
}

/** What of a Map-Register says something about the mapping. */
function fingerprintOf(record: EidRecord, { proxyReply, merge, securityCapable }: MapRegister): string {
  const writer = new Writer();
  encodeEidRecord(record, writer);
  const flags = [proxyReply, merge, securityCapable].map(Number).join('');
  return `${flags}${Buffer.from(writer.finish()).toString('latin1')}`;
}

function keyOf(record: EidRecord): EidKey | undefined {
  const eid = prefixOf(record);
  return eid === undefined ? undefined : eidKey(eid);
}

/** Names and other EIDs are not for sites. */
function prefixOf({ eid, maskLength }: EidRecord): PrefixEid | undefined {
  try {
    const read = recordKeyToEid(eid, maskLength);
    return read.kind === 'prefix' ? read : undefined;
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

/** RFC 9301 section 8.2. */
const LIFE = minutes(3);
const LONGEST_LIFE = minutes(24 * 60);
const RETRY = seconds(10);
/** A nonce that is not stored yet when the machine fails could be used again after it. */
const FLUSH_DELAY = seconds(5);
/** Stored at once. */
const FLUSH_SITES = 256;
/** Octets of records that a datagram carries with all headers, also in an ECM. */
const LONGEST_ANSWER = 60_000;
/** Octets of authentication data that are not the whole digest. */
const LONGEST_TRUNCATED = 16;
