/**
 * What administrators do with sites of LISP routers: judged in a transaction like all operations.
 *
 * A site that goes, or gets other prefixes, loses the EIDs that it may not have any more behind that
 * (`site-releases.ts`): there can be very many. Others may take them over at once.
 */
import type { IpPrefix } from '../../../proto/address.ts';
import type { InstanceId } from '../../../proto/eid.ts';
import { eidProblem } from '../../../proto/overlay.ts';
import type { WallClock } from '../../../proto/time.ts';
import { OperationError } from '../operation-error.ts';
import { type SiteKey, type SitePrefix, type SiteRecord, siteKey } from '../records.ts';
import type { Transaction } from '../transactions.ts';

export type SiteSettings = Partial<Pick<SiteRecord, 'prefixes' | 'allowSha1' | 'legacyReplay' | 'maxEids'>>;

export type SiteChange =
  | {
      readonly kind: 'add-site';
      readonly name: string;
      readonly iid: InstanceId;
      readonly prefixes: readonly SitePrefix[];
      readonly keys: readonly SiteKey[];
      readonly allowSha1: boolean;
      readonly legacyReplay: boolean;
      readonly maxEids?: number;
    }
  /** What is missing stays. `maxEids` 0: no limit of its own. */
  | ({ readonly kind: 'set-site'; readonly name: string } & SiteSettings)
  | { readonly kind: 'remove-site'; readonly name: string }
  | { readonly kind: 'add-site-key'; readonly name: string; readonly key: SiteKey }
  | { readonly kind: 'remove-site-key'; readonly name: string; readonly keyId: number };

export interface SiteContext {
  readonly wallClock: WallClock;
  readonly counts: { readonly sites: number };
  readonly limits: { readonly sites: number };
}

/** The site as it is then, or was. @throws OperationError, and then nothing is changed */
export function changeSite(transaction: Transaction, change: SiteChange, context: SiteContext): SiteRecord {
  switch (change.kind) {
    case 'add-site':
      return addSite(transaction, change, context);
    case 'set-site':
      return setSite(transaction, change);
    case 'remove-site': {
      const site = siteOf(transaction, change.name);
      transaction.delete(siteKey(site.name));
      return site;
    }
    case 'add-site-key': {
      const site = siteOf(transaction, change.name);
      const keys = [...site.keys, { ...change.key, addedAt: context.wallClock }];
      const problem = keysProblem(keys, site.allowSha1);
      if (problem !== undefined) throw new OperationError('STAYPUT_SITE', problem);
      return put(transaction, { ...site, keys });
    }
    case 'remove-site-key': {
      const site = siteOf(transaction, change.name);
      const keys = site.keys.filter(({ keyId }) => keyId !== change.keyId);
      if (keys.length === site.keys.length)
        throw new OperationError('STAYPUT_SITE_UNKNOWN', `site ${site.name} has no key ${change.keyId}`);
      return put(transaction, { ...site, keys });
    }
    default:
      return change satisfies never;
  }
}

function addSite(
  transaction: Transaction,
  { kind: _, ...site }: SiteChange & { kind: 'add-site' },
  { wallClock, counts, limits }: SiteContext,
): SiteRecord {
  if (transaction.get(siteKey(site.name)) !== undefined)
    throw new OperationError('STAYPUT_SITE', `there is a site ${site.name} already; remove it first`);
  if (counts.sites >= limits.sites) throw new OperationError('STAYPUT_TOO_MANY', 'there are too many sites');
  const problem = prefixesProblem(site.prefixes.map(({ prefix }) => prefix)) ?? keysProblem(site.keys, site.allowSha1);
  if (problem !== undefined) throw new OperationError('STAYPUT_SITE', problem);
  return put(transaction, { kind: 'site', ...site, createdAt: wallClock });
}

function setSite(
  transaction: Transaction,
  { kind: _, name, maxEids, ...changes }: SiteChange & { kind: 'set-site' },
): SiteRecord {
  const { maxEids: former, ...site } = siteOf(transaction, name);
  const limit = maxEids ?? former ?? 0;
  const changed: SiteRecord = { ...site, ...changes, ...(limit === 0 ? {} : { maxEids: limit }) };
  const problem =
    prefixesProblem(changed.prefixes.map(({ prefix }) => prefix)) ?? keysProblem(changed.keys, changed.allowSha1);
  if (problem !== undefined) throw new OperationError('STAYPUT_SITE', problem);
  return put(transaction, changed);
}

function put(transaction: Transaction, site: SiteRecord): SiteRecord {
  transaction.put(site);
  return site;
}

function siteOf(transaction: Transaction, name: string): SiteRecord {
  const site = transaction.get(siteKey(name));
  if (site?.kind !== 'site') throw new OperationError('STAYPUT_SITE_UNKNOWN', `there is no site ${name}`);
  return site;
}

function prefixesProblem(prefixes: readonly IpPrefix[]): string | undefined {
  if (prefixes.length === 0) return 'a site without a prefix can register nothing';
  if (new Set(prefixes).size < prefixes.length) return 'a prefix is there twice';
  for (const prefix of prefixes) {
    const problem = eidProblem(prefix);
    if (problem !== undefined) return `${prefix} cannot be an EID: ${problem}`;
  }
  return undefined;
}

function keysProblem(keys: readonly SiteKey[], allowSha1: boolean): string | undefined {
  if (keys.length > MAX_KEYS) return `a site has at most ${MAX_KEYS} keys; remove one that is not in use any more`;
  if (new Set(keys.map(({ keyId }) => keyId)).size < keys.length) return 'each key of a site has a key ID of its own';
  if (!allowSha1 && keys.some(({ algorithm }) => algorithm === 1))
    return 'HMAC-SHA-1 is only for sites that were added with it (--allow-sha1)';
  return undefined;
}

const MAX_KEYS = 8;
