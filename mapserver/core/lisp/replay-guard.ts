/**
 * Refuses Map-Registers that were recorded and are sent again (RFC 9301 section 5.6).
 *
 * Strict: of each xTR with each key the nonce has to grow. The last ones are stored, so they hold over restarts, except
 * those of the seconds before a crash. An xTR without an xTR-ID shares its key's nonce with all such, since a source
 * address proves nothing. Where the MAC does not cover the xTR-ID, a message could be sent again in another xTR's name;
 * so the MACs of late are remembered for each site, whoever they were of. Legacy, for peers whose nonces do not grow on
 * the wire: only the nonces of late are refused.
 */
import type { SiteRecord } from '../records.ts';

/** Nonces by key ID and xTR-ID, in hex. */
export type LastNonces = Readonly<Record<string, string>>;

interface SiteMemory {
  readonly last: Map<string, bigint>;
  /** Nonces (legacy) and MACs, the oldest first. */
  readonly late: Set<string>;
}

export class ReplayGuard {
  private readonly sites = new Map<string, SiteMemory>();
  private readonly dirty = new Set<string>();

  /** `mac`: what it was authenticated by, if that leaves the xTR-ID out. */
  accept(site: SiteRecord, keyId: number, xtrId: string | undefined, nonce: bigint, mac: string | undefined): boolean {
    const memory = this.memory(site.name);
    const id = `${keyId} ${xtrId ?? '-'}`;
    const once = [...(site.legacyReplay ? [`${id} ${nonce}`] : []), ...(mac === undefined ? [] : [mac])];
    if (once.some((each) => memory.late.has(each))) return false;
    if (!site.legacyReplay) {
      const last = memory.last.get(id);
      if (last !== undefined && nonce <= last) return false;
      // To forget one would let it be used again.
      if (last === undefined && memory.last.size >= MAX_NONCES) return false;
      memory.last.set(id, nonce);
      this.dirty.add(site.name);
    }
    for (const each of once) memory.late.add(each);
    for (const oldest of memory.late) {
      if (memory.late.size <= MAX_LATE) break;
      memory.late.delete(oldest);
    }
    return true;
  }

  restore(site: string, nonces: LastNonces): void {
    const memory = this.memory(site);
    for (const [id, hex] of Object.entries(nonces)) memory.last.set(id, BigInt(`0x${hex}`));
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
    for (const { keyId, secret } of before.keys) {
      if (after.keys.some((key) => key.keyId === keyId && key.secret === secret)) continue;
      for (const id of memory.last.keys()) if (id.startsWith(`${keyId} `)) memory.last.delete(id);
    }
  }

  get hasDirty(): boolean {
    return this.dirty.size > 0;
  }

  /** Sites of which not all is stored, at most `limit`; from then on it counts as stored. */
  takeDirty(limit: number): { readonly site: string; readonly last: LastNonces }[] {
    const taken = [...this.dirty].slice(0, limit);
    return taken.map((site) => {
      this.dirty.delete(site);
      const last = [...(this.sites.get(site)?.last ?? [])].map(([id, nonce]) => [id, nonce.toString(16)]);
      return { site, last: Object.fromEntries(last) as LastNonces };
    });
  }

  private memory(site: string): SiteMemory {
    const known = this.sites.get(site);
    if (known !== undefined) return known;
    const memory: SiteMemory = { last: new Map(), late: new Set() };
    this.sites.set(site, memory);
    return memory;
  }
}

/** Of a site. */
const MAX_NONCES = 1_024;
const MAX_LATE = 4_096;
