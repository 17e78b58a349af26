/**
 * The sites as they are configured: who may register an EID, and with which keys.
 *
 * A Map-Register does not say which site it is of. So the candidates for an EID are all sites with a prefix that covers
 * it, the one with the longest first, and the key proves which of them it is. Follows the replica.
 */
import { type IpPrefix, prefixContains } from '../../../proto/address.ts';
import type { InstanceId, PrefixEid } from '../../../proto/eid.ts';
import { siteXtrIdOf } from '../../../proto/identity.ts';
import type { SigningOptions } from '../../../proto/lisp/authentication.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import { PrefixTrie } from '../../../proto/prefix-trie.ts';
import type { SiteAlgorithm, SiteRecord, StoreRecord } from '../records.ts';

export interface Site {
  readonly record: SiteRecord;
  /** Of its mappings. */
  readonly owner: XtrId;
  readonly keys: readonly { readonly keyId: number; readonly algorithm: SiteAlgorithm; readonly secret: Uint8Array }[];
}

export class Sites {
  private readonly byName = new Map<string, Site>();
  private readonly byOwner = new Map<XtrId, Site>();
  /** Sites with just this prefix. */
  private readonly byPrefix = new Map<InstanceId, PrefixTrie<ReadonlySet<Site>>>();

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    if (before?.kind === 'site') this.remove(before);
    if (after?.kind === 'site') this.add(after);
  }

  get(name: string): Site | undefined {
    return this.byName.get(name);
  }

  ownedBy(owner: XtrId): Site | undefined {
    return this.byOwner.get(owner);
  }

  /** Those that may register the EID, the most specifically configured first; at most MAX_CANDIDATES. */
  candidates(eid: PrefixEid): Site[] {
    const found = new Set<Site>();
    const covering = this.byPrefix.get(eid.iid)?.covering(eid.prefix) ?? [];
    for (const { prefix, value: sites } of covering.reverse()) {
      for (const site of sites) if (covers(site.record, prefix, eid)) found.add(site);
    }
    return [...found].slice(0, MAX_CANDIDATES);
  }

  authorises(site: Site, eid: PrefixEid): boolean {
    const covering = this.byPrefix.get(eid.iid)?.covering(eid.prefix) ?? [];
    return covering.some(({ prefix, value: sites }) => sites.has(site) && covers(site.record, prefix, eid));
  }

  /** Prefixes that sites may register. */
  prefixes(iid: InstanceId): PrefixTrie<unknown> | undefined {
    return this.byPrefix.get(iid);
  }

  private add(record: SiteRecord): void {
    const keys = record.keys.map(({ keyId, algorithm, secret }) => {
      return { keyId, algorithm, secret: new Uint8Array(Buffer.from(secret, 'base64')) };
    });
    const site: Site = { record, owner: siteXtrIdOf(record.name), keys };
    this.byName.set(record.name, site);
    this.byOwner.set(site.owner, site);
    const trie = this.byPrefix.get(record.iid) ?? new PrefixTrie<ReadonlySet<Site>>();
    this.byPrefix.set(record.iid, trie);
    for (const { prefix } of record.prefixes) trie.set(prefix, new Set([...(trie.get(prefix) ?? []), site]));
  }

  private remove({ name, iid, prefixes }: SiteRecord): void {
    const site = this.byName.get(name);
    const trie = this.byPrefix.get(iid);
    if (site === undefined || trie === undefined) return;
    this.byName.delete(name);
    this.byOwner.delete(site.owner);
    for (const { prefix } of prefixes) {
      const left = [...(trie.get(prefix) ?? [])].filter((each) => each !== site);
      if (left.length > 0) trie.set(prefix, new Set(left));
      else trie.delete(prefix);
    }
  }
}

/** Whether the site still has the key. */
export function hasKey({ keys }: Site, { keyId, algorithm, psk }: SigningOptions): boolean {
  return keys.some((key) => key.keyId === keyId && key.algorithm === algorithm && Buffer.from(key.secret).equals(psk));
}

/** Whether the site may register the EID, by what a record of it says. */
export function mayRegister(record: SiteRecord, eid: PrefixEid): boolean {
  if (record.iid !== eid.iid) return false;
  return record.prefixes.some(({ prefix }) => prefixContains(prefix, eid.prefix) && covers(record, prefix, eid));
}

/** `prefix` is one of the site's that contains the EID. */
function covers({ prefixes }: SiteRecord, prefix: IpPrefix, eid: PrefixEid): boolean {
  return prefix === eid.prefix || prefixes.some((each) => each.prefix === prefix && each.moreSpecifics);
}

/** Each costs an HMAC for whoever sends a Map-Register. */
const MAX_CANDIDATES = 8;
