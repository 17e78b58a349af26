/**
 * Refuses Map-Registers that were recorded and are sent again (RFC 9301 section 5.6).
 *
 * Strict: of each xTR with each key the nonce has to grow. The last ones are stored, so they hold over restarts, except
 * those of the seconds before a crash. An xTR without an xTR-ID shares its key's nonce with all such, since a source
 * address proves nothing.
 *
 * Where the MAC does not cover the xTR-ID, a message could be sent again in another xTR's name, whose nonces are smaller.
 * So the latest MACs are remembered for each site, whoever they were of, and of each xTR its nonces from the first to the
 * last. What is not newer than all whose MACs are forgotten, and is among the nonces of another xTR, could be a message of
 * that one, and is refused. Nonces that are the time pass, also by clocks that differ by less than MAX_LATE messages
 * take; so do counters that run far apart.
 *
 * Of more than MAX_XTRS of a site the one that was quiet for longest is forgotten. Of those there is left from where to
 * where their nonces went, for each key: who is not known has to begin beyond.
 *
 * A backup does not know the nonces that were used after it, so what was recorded then could be sent again after the
 * store came back from it. So keys from before count only nonces that are the time (milliseconds since 1970 times 65,536)
 * of a moment after the restore, until the xTR has sent such a one; routers with other nonces need a new key.
 *
 * Legacy, for peers whose nonces do not grow on the wire: only the nonces of late are refused.
 */
import type { WallClock } from '../../../proto/time.ts';
import type { SiteNoncesRecord, SiteRecord } from '../records.ts';

export type Freshness =
  | 'fresh'
  | 'replay'
  /** The nonce could be from before the store came back from a backup. */
  | 'restored'
  /** Not newer than those of xTRs that were forgotten, as there are too many. */
  | 'too-many-xtrs';

/** What a Map-Register shows of itself once its key is known. */
export interface Shown {
  readonly keyId: number;
  /** In hex. */
  readonly xtrId: string | undefined;
  readonly nonce: bigint;
  /** What it was authenticated by, if that leaves the xTR-ID out. */
  readonly mac: string | undefined;
}

/** As it is stored. */
export type StoredNonces = Pick<SiteNoncesRecord, 'last' | 'first' | 'forgotten'>;

/** Nonces, from the first to the last. */
interface Span {
  readonly first: bigint;
  readonly last: bigint;
}

interface SiteMemory {
  /** By key ID and xTR-ID, the quietest first. */
  readonly xtrs: Map<string, Span>;
  /** By key ID: of all xTRs that were forgotten. */
  readonly forgotten: Map<number, Span>;
  /** Nonces (legacy) and MACs, the oldest first, and whose nonce it was. */
  readonly late: Map<string, { readonly keyId: number; readonly nonce: bigint }>;
  /** By key ID: the largest nonce whose MAC is not remembered any more. */
  readonly unremembered: Map<number, bigint>;
}

export class ReplayGuard {
  private readonly sites = new Map<string, SiteMemory>();
  private readonly dirty = new Set<string>();

  /** `restoredAt`: when the store came back from a backup; 0: never. */
  accept(site: SiteRecord, shown: Shown, now: WallClock, restoredAt: WallClock): Freshness {
    const { keyId, xtrId, nonce, mac } = shown;
    const memory = this.memory(site.name);
    const id = `${keyId} ${xtrId ?? '-'}`;
    const once = [...(site.legacyReplay ? [`${id} ${nonce}`] : []), ...(mac === undefined ? [] : [mac])];
    if (once.some((each) => memory.late.has(each))) return 'replay';
    if (!site.legacyReplay) {
      const known = memory.xtrs.get(id);
      const gone = memory.forgotten.get(keyId);
      if (known !== undefined && nonce <= known.last) return 'replay';
      const isSinceRestore = isBetween(nonce, restoredAt, now) || (known && isBetween(known.last, restoredAt, now));
      if (isFromBefore(site, keyId, restoredAt) && !isSinceRestore) return 'restored';
      if (known === undefined && gone !== undefined && nonce <= gone.last) return 'too-many-xtrs';
      if (mac !== undefined && couldBeOfAnother(memory, keyId, id, nonce)) return 'replay';
      memory.xtrs.delete(id);
      memory.xtrs.set(id, { first: known?.first ?? nonce, last: nonce });
      forgetQuiet(memory);
      this.dirty.add(site.name);
    }
    for (const each of once) memory.late.set(each, { keyId, nonce });
    forgetLate(memory);
    return 'fresh';
  }

  restore(site: string, { last, first, forgotten }: StoredNonces): void {
    const memory = this.memory(site);
    for (const [id, hex] of Object.entries(last)) {
      const span = { first: parsed(first?.[id] ?? hex), last: parsed(hex) };
      memory.xtrs.set(id, span);
      remember(memory.unremembered, keyOf(id), span.last);
    }
    for (const [keyId, span] of Object.entries(forgotten ?? {})) {
      memory.forgotten.set(Number(keyId), { first: parsed(span.first), last: parsed(span.last) });
      remember(memory.unremembered, Number(keyId), parsed(span.last));
    }
  }

  /** A key that went may come again with another secret, and its nonces begin again. */
  followKeys(before: SiteRecord, after: SiteRecord | undefined): void {
    const memory = this.sites.get(before.name);
    if (memory === undefined) return;
    this.dirty.add(before.name);
    if (after === undefined) {
      this.sites.delete(before.name);
      return;
    }
    // Also of one that is new: a restore takes keys away without a word (`shell/restore.ts`).
    for (const { keyId } of [...keysWithout(before, after), ...keysWithout(after, before)]) {
      for (const id of memory.xtrs.keys()) if (keyOf(id) === keyId) memory.xtrs.delete(id);
      memory.forgotten.delete(keyId);
      memory.unremembered.delete(keyId);
    }
  }

  get hasDirty(): boolean {
    return this.dirty.size > 0;
  }

  /** Sites of which not all is stored, at most `limit`; from then on it counts as stored. */
  takeDirty(limit: number): ({ readonly site: string } & StoredNonces)[] {
    const taken = [...this.dirty].slice(0, limit);
    return taken.map((site) => {
      this.dirty.delete(site);
      const { xtrs = new Map<string, Span>(), forgotten = new Map<number, Span>() } = this.sites.get(site) ?? {};
      const spans = [...forgotten].map(([keyId, { first, last }]) => [
        keyId,
        { first: first.toString(16), last: last.toString(16) },
      ]);
      return {
        site,
        last: Object.fromEntries([...xtrs].map(([id, { last }]) => [id, last.toString(16)])),
        first: Object.fromEntries([...xtrs].map(([id, { first }]) => [id, first.toString(16)])),
        ...(spans.length > 0 ? { forgotten: Object.fromEntries(spans) } : {}),
      };
    });
  }

  private memory(site: string): SiteMemory {
    const known = this.sites.get(site);
    if (known !== undefined) return known;
    const memory: SiteMemory = { xtrs: new Map(), forgotten: new Map(), late: new Map(), unremembered: new Map() };
    this.sites.set(site, memory);
    return memory;
  }
}

/** Whether it is the time of a moment between these, or not much after: clocks differ. */
function isBetween(nonce: bigint, from: WallClock, to: WallClock): boolean {
  return nonce > nonceAt(from) && nonce <= nonceAt(to + CLOCK_TOLERANCE);
}

function nonceAt(time: WallClock): bigint {
  return BigInt(Math.floor(time)) << 16n;
}

/** The keys that the other has not, or not with the same secret. */
function keysWithout(site: SiteRecord, other: SiteRecord): SiteRecord['keys'] {
  return site.keys.filter(({ keyId, secret }) => {
    return !other.keys.some((key) => key.keyId === keyId && key.secret === secret);
  });
}

/** Whether messages by this key can have been recorded before the restore. */
function isFromBefore(site: SiteRecord, keyId: number, restoredAt: WallClock): boolean {
  const key = site.keys.find((each) => each.keyId === keyId);
  return (key?.addedAt ?? site.createdAt) <= restoredAt;
}

function couldBeOfAnother(memory: SiteMemory, keyId: number, id: string, nonce: bigint): boolean {
  if (nonce > (memory.unremembered.get(keyId) ?? -1n)) return false;
  const gone = memory.forgotten.get(keyId);
  if (gone !== undefined && isIn(nonce, gone)) return true;
  for (const [other, span] of memory.xtrs) if (other !== id && keyOf(other) === keyId && isIn(nonce, span)) return true;
  return false;
}

function forgetQuiet({ xtrs, forgotten }: SiteMemory): void {
  for (const [id, { first, last }] of xtrs) {
    if (xtrs.size <= MAX_XTRS) return;
    xtrs.delete(id);
    const keyId = keyOf(id);
    const gone = forgotten.get(keyId);
    const span = {
      first: gone === undefined || first < gone.first ? first : gone.first,
      last: gone === undefined || last > gone.last ? last : gone.last,
    };
    forgotten.set(keyId, span);
  }
}

function forgetLate({ late, unremembered }: SiteMemory): void {
  for (const [oldest, { keyId, nonce }] of late) {
    if (late.size <= MAX_LATE) return;
    late.delete(oldest);
    remember(unremembered, keyId, nonce);
  }
}

function remember(largest: Map<number, bigint>, keyId: number, nonce: bigint): void {
  if (nonce > (largest.get(keyId) ?? -1n)) largest.set(keyId, nonce);
}

function isIn(nonce: bigint, { first, last }: Span): boolean {
  return first <= nonce && nonce <= last;
}

function keyOf(id: string): number {
  return Number(id.slice(0, id.indexOf(' ')));
}

function parsed(hex: string): bigint {
  return BigInt(`0x${hex}`);
}

/** Of a site. */
export const MAX_XTRS = 1_024;
export const MAX_LATE = 4_096;
/** How much a router's clock may be ahead of ours. */
const CLOCK_TOLERANCE = 24 * 3_600_000;
