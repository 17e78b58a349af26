/**
 * What the map server keeps in its store, one record per key.
 *
 * `eid/KEY`: who owns an EID at which generation, and the mapping as last registered. It stays when nobody owns the EID,
 * since the next generation has to be larger than all before it; of what sites have withdrawn the oldest are forgotten
 * at their limits, and `generations/forgotten` says how large those were. `agent/XTRID`: an enrolled agent and its
 * grant. `token/ID`: a join token; its secret is known only as a hash. `policy/current`: the policy, as it was written.
 * `name/IID/NAME`: what an operator, or a dynamic update, set at a name of the zone. `site/NAME`: a site of LISP
 * routers, with its keys;
 * `site-nonces/NAME`: the last nonces of its routers. `restoration/latest`: that the store came back from a backup.
 */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import { hostPrefix } from '../../proto/address.ts';
import type { RecordSets } from '../../proto/dns/record-sets.ts';
import { type EidKey, eidKey, type InstanceId, parseEidKey, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf } from '../../proto/identity.ts';
import type { Generation, Locator, Mapping, TunnelKey, XtrId } from '../../proto/mapping.ts';
import type { Millis, WallClock } from '../../proto/time.ts';
import type { Run } from './incarnations.ts';

export type RecordKey =
  | `eid/${EidKey}`
  | `agent/${XtrId}`
  | `token/${string}`
  | `name/${number}/${string}`
  | `site/${string}`
  | `site-nonces/${string}`
  | 'policy/current'
  | 'restoration/latest'
  | 'generations/forgotten';

/**
 * Made by a literal that names what it has, or by `{ ...record }` with what `record` has as well: where more follows
 * behind `...`, V8 gives every object a hidden class of its own, which takes more octets than the object.
 */
export interface OwnershipRecord {
  readonly kind: 'eid';
  readonly eid: EidKey;
  readonly generation: Generation;
  readonly owner: XtrId;
  /** Missing: the owner is a site. */
  readonly tunnelKey?: TunnelKey;
  /** Missing: the owner is an agent. */
  readonly site?: SiteContent;
  /**
   * `live`: answered. `withdrawn`: the owner is away for too long, and may come back at its generation.
   * `released`: given up or revoked; whoever registers it next is a new owner.
   */
  readonly state: 'live' | 'withdrawn' | 'released';
  readonly ownerSince: WallClock;
  readonly ttl: Millis;
  readonly locators: readonly Locator[];
  readonly names: readonly string[];
  readonly targets: readonly IpAddress[];
}

/** What LISP routers registered of an EID, beyond what agents understand. */
export interface SiteContent {
  readonly name: string;
  /** RLOC-records of all its xTRs as octets (RFC 9301 section 5.4), in base64; as many as `rlocCount`. */
  readonly rlocs: string;
  readonly rlocCount: number;
  /** P: the map server answers for it. */
  readonly proxyReply: boolean;
  readonly mapVersion: number;
}

/** EID prefixes and names (or patterns like `*.web`) that may be registered, in the overlay's instance. */
export interface Registrable {
  readonly eids: readonly IpPrefix[];
  readonly names: readonly string[];
}

export interface Grant extends Registrable {
  /** Groups of the policy to which the EIDs belong that the agent owns. */
  readonly groups: readonly string[];
}

export interface CertificateNote {
  /** SHA-256 of the certificate of the authority that issued it, in hex. */
  readonly authority: string;
  readonly notAfter: WallClock;
}

export interface AgentRecord extends Grant {
  readonly kind: 'agent';
  readonly xtrId: XtrId;
  readonly tunnelKey: TunnelKey;
  /** SHA-256, in hex, of the public key that was certified. */
  readonly certificateKey: string;
  /** What was certified last; missing when an older version did. */
  readonly certificate?: CertificateNote;
  /** What it had before, of another authority, as long as it was not seen with that one. */
  readonly formerCertificate?: CertificateNote;
  readonly tokenId: string;
  /** What it was given from pools when it joined. */
  readonly assigned?: readonly IpPrefix[];
  /** What was taken away from its grant and not given again, the latest last. */
  readonly withdrawn?: readonly IpPrefix[];
  readonly software: string;
  readonly enrolledAt: WallClock;
  readonly revokedAt?: WallClock;
  /** The newest start of the agent that was heard of. */
  readonly incarnation?: Run;
}

export interface TokenRecord extends Grant {
  readonly kind: 'token';
  readonly id: string;
  /** SHA-256 of the secret, in hex. */
  readonly secretHash: string;
  /** SHA-256, in hex, of the authority that its text names; missing when an older version made it. */
  readonly authority?: string;
  /** Prefixes from each of which an agent that asks for no EID is given one. */
  readonly pools?: readonly IpPrefix[];
  readonly uses: number;
  readonly used: number;
  readonly createdAt: WallClock;
  readonly expiresAt: WallClock;
  readonly revokedAt?: WallClock;
}

export interface PolicyVersion {
  /** Counts the changes of the policy; 1 for the first. */
  readonly version: number;
  /** In the language of `policy/language.ts`. */
  readonly text: string;
  readonly appliedAt: WallClock;
}

export interface PolicyRecord extends PolicyVersion {
  readonly kind: 'policy';
  /** The one before, to go back to. */
  readonly previous: PolicyVersion | null;
}

/** The store came back from a backup (`generations.ts`). */
export interface RestorationRecord {
  readonly kind: 'restoration';
  readonly restoredAt: WallClock;
  readonly backedUpAt: WallClock;
  /** Larger than all generations that were given before. */
  readonly floor: Generation;
}

/** EIDs whose records are gone (`generations.ts`). */
export interface ForgottenGenerationsRecord {
  readonly kind: 'forgotten-generations';
  /** The largest that any of them had. */
  readonly floor: Generation;
}

export interface NameRecord {
  readonly kind: 'name';
  readonly iid: InstanceId;
  /** Relative to the zone, or a wildcard: `*`, `*.web`. */
  readonly name: string;
  /** Grows with each change of the name, also over a removal. */
  readonly version: number;
  readonly records: RecordSets;
}

/** Routers of other makers that register EIDs by LISP over UDP, with keys that they share. */
export interface SiteRecord {
  readonly kind: 'site';
  readonly name: string;
  readonly iid: InstanceId;
  readonly prefixes: readonly SitePrefix[];
  readonly keys: readonly SiteKey[];
  /** HMAC-SHA-1 is accepted of keys for it (RFC 9301 section 9 forbids it on the public Internet). */
  readonly allowSha1: boolean;
  /** Nonces need not grow: only those seen lately are refused. */
  readonly legacyReplay: boolean;
  /** How many EIDs it may own, if that is less than any site may. */
  readonly maxEids?: number;
  readonly createdAt: WallClock;
}

/** In hex (`lisp/replay-guard.ts`). */
export interface SiteNoncesRecord {
  readonly kind: 'site-nonces';
  readonly site: string;
  /** By key ID and xTR-ID, the quietest first. */
  readonly last: Readonly<Record<string, string>>;
  /** Of each the smallest; missing when an older version stored it. */
  readonly first?: Readonly<Record<string, string>>;
  /** By key ID, from where to where those of forgotten xTRs went. */
  readonly forgotten?: Readonly<Record<string, { readonly first: string; readonly last: string }>>;
}

export interface SitePrefix {
  readonly prefix: IpPrefix;
  /** Also prefixes inside it. */
  readonly moreSpecifics: boolean;
}

export interface SiteKey {
  /** 0 to 255. */
  readonly keyId: number;
  readonly algorithm: SiteAlgorithm;
  /** Base64. */
  readonly secret: string;
  /** Missing: with the site, or by an older version. */
  readonly addedAt?: WallClock;
}

/** Algorithm IDs of RFC 9301 section 12.5: HMAC-SHA-1-96, HMAC-SHA-256-128, and that with HKDF. */
export type SiteAlgorithm = 1 | 2 | 3;

export type StoreRecord =
  | OwnershipRecord
  | AgentRecord
  | TokenRecord
  | PolicyRecord
  | NameRecord
  | SiteRecord
  | SiteNoncesRecord
  | RestorationRecord
  | ForgottenGenerationsRecord;

/** What is true here at once, and stored behind. */
export type SoftRecord = OwnershipRecord | SiteNoncesRecord;

export function tokenState(
  { revokedAt, used, uses, expiresAt }: TokenRecord,
  now: WallClock,
): 'valid' | 'revoked' | 'used' | 'expired' {
  if (revokedAt !== undefined) return 'revoked';
  if (used >= uses) return 'used';
  return expiresAt <= now ? 'expired' : 'valid';
}

export function recordKey(record: StoreRecord): RecordKey {
  switch (record.kind) {
    case 'eid':
      return ownershipKey(record.eid);
    case 'agent':
      return agentKey(record.xtrId);
    case 'token':
      return tokenKey(record.id);
    case 'policy':
      return POLICY_KEY;
    case 'name':
      return nameKey(record.iid, record.name);
    case 'site':
      return siteKey(record.name);
    case 'site-nonces':
      return siteNoncesKey(record.site);
    case 'restoration':
      return RESTORATION_KEY;
    case 'forgotten-generations':
      return FORGOTTEN_GENERATIONS_KEY;
    default:
      return record satisfies never;
  }
}

export const POLICY_KEY: RecordKey = 'policy/current';
export const RESTORATION_KEY: RecordKey = 'restoration/latest';
export const FORGOTTEN_GENERATIONS_KEY: RecordKey = 'generations/forgotten';

export function ownershipKey(eid: EidKey): RecordKey {
  return `eid/${eid}`;
}

export function agentKey(xtrId: XtrId): RecordKey {
  return `agent/${xtrId}`;
}

export function tokenKey(id: string): RecordKey {
  return `token/${id}`;
}

export function nameKey(iid: InstanceId, name: string): RecordKey {
  return `name/${iid}/${name}`;
}

export function siteKey(name: string): RecordKey {
  return `site/${name}`;
}

export function siteNoncesKey(site: string): RecordKey {
  return `site-nonces/${site}`;
}

/** The EID of an agent's own address, registered by the agent and granted by its key alone. */
export function agentEidKey(iid: InstanceId, tunnelKey: TunnelKey): EidKey {
  return eidKey(prefixEid(iid, hostPrefix(agentAddressOf(tunnelKey))));
}

/** What is told of an agent that was revoked, under its agent address. */
export function revocationOf(agent: AgentRecord, iid: InstanceId, generation: Generation): Mapping {
  const { xtrId: owner, tunnelKey } = agent;
  const eid = prefixEid(iid, hostPrefix(agentAddressOf(tunnelKey)));
  return { eid, ttl: 0, action: 'auth-failure', generation, owner, tunnelKey, locators: [], names: [], targets: [] };
}

/** The mapping as it is told to agents; a record that is not live tells its withdrawal. */
export function mappingOf(record: OwnershipRecord): Mapping {
  const live = record.state === 'live';
  return {
    eid: parseEidKey(record.eid),
    ttl: live ? record.ttl : 0,
    action: live ? 'no-action' : 'drop',
    generation: record.generation,
    owner: record.owner,
    ...(record.tunnelKey === undefined ? {} : { tunnelKey: record.tunnelKey }),
    locators: live ? record.locators : [],
    names: live ? record.names : [],
    targets: live ? record.targets : [],
  };
}
