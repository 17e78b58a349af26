/**
 * What others own, as far as this host needs it: the map-cache on one side, the data plane's table on the other.
 *
 * A mapping from the map server is believed if its owner follows from its tunnel key, or if it is of a site of LISP
 * routers, which have none. Believed ones go into the cache, and what the cache holds is what is forwarded: a mapping with a
 * tunnel key to that peer, one without in plain packets (where the operator allows it), a negative one as a drop.
 *
 * Other agents introduce peers as well. Their word leads to handshakes with hosts that may never have asked for one, so of
 * those whom the map server has not confirmed there are few at a time, and who is no agent is forgotten when it says so.
 */
import { hostPrefix, type IpPrefix, prefixContains } from '../../proto/address.ts';
import type { ForwardingReply } from '../../proto/dataplane/messages.ts';
import { type Eid, type EidKey, eidKey, type InstanceId, parseEidKey, prefixEid } from '../../proto/eid.ts';
import { AGENT_PREFIX, agentAddressOf, xtrIdOf } from '../../proto/identity.ts';
import {
  type Generation,
  type Locator,
  type Mapping,
  NEVER_USE,
  type TunnelKey,
  type XtrId,
} from '../../proto/mapping.ts';
import { isPlausibleLocator } from '../../proto/overlay.ts';
import { type Instant, minutes } from '../../proto/time.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import { type CacheEntry, MapCache, type SavedEntry } from './map-cache.ts';
import type { Note, Resolution } from './output.ts';
import type { AgentIdentity } from './registrar.ts';
import { TokenBucket } from './token-bucket.ts';

export class RemoteMappings {
  readonly cache: MapCache;
  private readonly identity: AgentIdentity;
  private readonly table: DataplaneTable;
  private readonly overlay: () => readonly IpPrefix[];
  private readonly note: (note: Note) => void;
  /** Keys that the map server revoked, in the order in which that was heard. */
  private readonly revoked = new Set<TunnelKey>();
  /** Peers on the word of another agent alone, by their agent addresses, the latest last. */
  private readonly unconfirmed = new Map<EidKey, TunnelKey>();
  private readonly introductionRate: TokenBucket;

  constructor(
    identity: AgentIdentity,
    table: DataplaneTable,
    cacheLimit: number,
    overlay: () => readonly IpPrefix[],
    note: (note: Note) => void,
    now: Instant,
  ) {
    this.identity = identity;
    this.table = table;
    this.cache = new MapCache(cacheLimit);
    this.overlay = overlay;
    this.note = note;
    this.introductionRate = new TokenBucket(UNCONFIRMED_AT_ONCE, UNCONFIRMED_PER_SECOND, now);
  }

  /** From disk; `isOwn` are the EIDs that this agent has itself. */
  restore(saved: readonly SavedEntry[], isOwn: (key: EidKey) => boolean, now: Instant): void {
    this.cache.restore(
      saved
        .filter(({ mapping }) => !isOwn(eidKey(mapping.eid)) && this.isVouched(mapping))
        // Packets follow what was told but not asked for yet. Asked for again, we hear of its next owner.
        .map((entry) => ({ ...entry, asked: entry.asked || !isAgentEid(entry.mapping.eid) })),
      now,
    );
    for (const entry of this.cache.values()) this.forward(entry, now);
  }

  /**
   * What the data plane forwards and the disk does not know, or not as new: it was in use a moment ago, so it stays in use
   * until the map server has been asked. `isOwn`: attached here.
   */
  adopt({ peers, mappings }: ForwardingReply, isOwn: (eid: Eid) => boolean, now: Instant): void {
    for (const { publicKey, locators } of peers) {
      if (this.revoked.has(publicKey)) continue;
      if (this.table.peerLocators(publicKey) === undefined)
        this.table.setPeer(publicKey, usableLocators(locators, this.overlay()));
      this.table.pinPeer(publicKey, now);
    }
    for (const { prefix, generation, publicKey: tunnelKey } of mappings) {
      const eid = prefixEid(this.identity.instance, prefix);
      const mapping = { ...bare({ eid, generation, owner: xtrIdOf(tunnelKey), tunnelKey }), tunnelKey };
      const known = this.cache.exact(eidKey(eid))?.mapping;
      const isNews = known === undefined || known.generation < generation || known.tunnelKey !== tunnelKey;
      if (!isNews || (known?.generation ?? 0) > generation || isOwn(eid) || !this.isVouched(mapping)) continue;
      this.provide(mapping, null, now);
    }
  }

  /** A record of a Map-Notify or Map-Reply about an EID that is not ours. `asked`: it answers this question. */
  apply(mapping: Mapping, asked: Eid | null, now: Instant): void {
    if (mapping.eid.iid !== this.identity.instance) return;
    // What the zone has at a name of ours may be more than what we gave it.
    if (mapping.owner === this.identity.xtrId && mapping.eid.kind !== 'name') return;
    if (mapping.owner !== undefined && !this.isVouched(mapping)) {
      this.note({ type: 'mapping-refused', reason: 'the owner does not follow from the tunnel key' });
      return;
    }
    const answered = asked !== null && answers(mapping, asked) ? asked : null;
    this.judgeIntroduced(answered ?? mapping.eid, mapping, now);
    if (answered !== null && eidKey(answered) !== eidKey(mapping.eid)) this.forget(answered, now);
    if (this.cache.insert(mapping, answered, now) === 'older') return;
    const entry = this.cache.exact(eidKey(mapping.eid));
    if (entry !== undefined) this.forward(entry, now);
  }

  /** Makes room after insertions. Returns what had to go. */
  evict(now: Instant): readonly CacheEntry[] {
    const evicted = this.cache.evict();
    for (const entry of evicted) this.unforward(entry, now);
    return evicted;
  }

  find(eid: Eid, connected: boolean, now: Instant): Resolution | null {
    const entry = this.cache.find(eid);
    if (entry === undefined) return null;
    entry.touchedAt = now;
    if (entry.negative) return { kind: 'absent', action: entry.mapping.action };
    const ageMs = now - entry.receivedAt;
    const stale = !connected || ageMs > entry.mapping.ttl;
    return { kind: 'found', mapping: entry.mapping, own: false, stale, ageMs };
  }

  /** Tells the data plane again what it asks for. False if the cache does not know. */
  repeat(eid: Eid, now: Instant): boolean {
    const entry = this.cache.find(eid);
    if (entry === undefined) return false;
    entry.touchedAt = now;
    this.forward(entry, now);
    const { mapping } = entry;
    if (mapping.tunnelKey !== undefined) this.table.repeatPeer(mapping.tunnelKey);
    if (mapping.eid.kind === 'prefix') this.table.repeatMapping(mapping.eid.prefix);
    return true;
  }

  /** Asked for, so that the map server tells of its changes. */
  isFollowed(eid: Eid): boolean {
    return (this.cache.find(eid)?.asked.size ?? 0) > 0;
  }

  /** The EID is ours from now on. Returns who had it. */
  release(eid: Eid): Mapping | undefined {
    return this.cache.release(eid)?.mapping;
  }

  /** As the map server told it. */
  agentMapping(key: TunnelKey): Mapping | undefined {
    const entry = this.cache.exact(eidKey(agentEid(this.identity.instance, key)));
    return entry === undefined || entry.negative ? undefined : entry.mapping;
  }

  /** What another agent has to know to talk to these and to believe them: each one's agent address and a few EIDs. */
  introductions(peers: readonly TunnelKey[]): ReadonlyMap<TunnelKey, readonly Mapping[]> {
    const eids = this.eidsOf(new Set(peers), MAX_EIDS_INTRODUCED);
    return new Map(
      peers.map((peer) => {
        const agent = this.agentIntroduction(peer);
        return [peer, [...(agent === undefined ? [] : [agent]), ...(eids.get(peer) ?? []).map(bare)]];
      }),
    );
  }

  /** Its agent address, with a few locators. */
  agentIntroduction(key: TunnelKey): Mapping | undefined {
    const agent = this.agentMapping(key);
    return agent === undefined ? undefined : { ...agent, locators: agent.locators.slice(0, MAX_INTRODUCED) };
  }

  /** The EIDs that these agents are known for, at most `limit` of each. */
  private eidsOf(keys: ReadonlySet<TunnelKey>, limit: number): ReadonlyMap<TunnelKey, readonly Mapping[]> {
    const found = new Map<TunnelKey, Mapping[]>();
    if (keys.size === 0) return found;
    for (const { mapping, negative } of this.cache.values()) {
      const { eid, tunnelKey } = mapping;
      if (negative || tunnelKey === undefined || !keys.has(tunnelKey)) continue;
      if (eid.kind === 'name' || isAgentEid(eid)) continue;
      const list = found.get(tunnelKey) ?? [];
      if (list.length < limit) found.set(tunnelKey, [...list, mapping]);
    }
    return found;
  }

  /** A peer on the word of another agent, for a while. What is known of it already is not touched. */
  introduce(key: TunnelKey, agent: Mapping | undefined, now: Instant): void {
    if (this.revoked.has(key)) return;
    const known = this.table.peerLocators(key);
    if (known === undefined || known.length === 0) {
      const eid = eidKey(agentEid(this.identity.instance, key));
      if (this.cache.exact(eid)?.negative === true) return;
      if (!this.introductionRate.take(now)) {
        this.note({ type: 'limit', what: 'introductions' });
        return;
      }
      this.unconfirmed.set(eid, key);
      for (const oldest of this.unconfirmed.keys()) {
        if (this.unconfirmed.size <= MAX_UNCONFIRMED) break;
        this.unconfirmed.delete(oldest);
      }
      this.table.setPeer(key, usableLocators(agent?.locators ?? [], this.overlay()).slice(0, MAX_INTRODUCED));
    }
    this.table.pinPeer(key, now);
  }

  /** The agent addresses of those whom only other agents know. */
  introduced(): readonly Eid[] {
    return [...this.unconfirmed.keys()].map(parseEidKey);
  }

  /** The map server's word about `eid`: who is no agent was introduced in vain. */
  private judgeIntroduced(eid: Eid, { owner }: Mapping, now: Instant): void {
    const key = this.unconfirmed.get(eidKey(eid));
    if (key === undefined) return;
    this.unconfirmed.delete(eidKey(eid));
    if (owner === undefined) this.table.unpinPeer(key, now);
  }

  /** `from` says that `moved` is somebody else's now. Only the owner that we know may say so. */
  handleNotice(
    from: TunnelKey,
    moved: Mapping & { readonly tunnelKey: TunnelKey },
    agent: Mapping | undefined,
    now: Instant,
  ): 'accepted' | 'known' | 'stranger' | 'refused' {
    const entry = this.cache.exact(eidKey(moved.eid));
    if (entry === undefined || entry.negative) return 'refused';
    const { tunnelKey, owner, generation, ttl, names } = entry.mapping;
    if (tunnelKey === moved.tunnelKey) return 'known';
    if (tunnelKey !== from || owner === undefined) return 'stranger';
    if (moved.generation < generation) return 'refused';
    this.introduce(moved.tunnelKey, agent, now);
    this.provide({ ...moved, generation, ttl, names }, owner, now);
    return 'accepted';
  }

  /** An EID of ours that we yielded to another agent, which the map server will name later. */
  handleYielded(moved: Mapping & { readonly tunnelKey: TunnelKey }, now: Instant): void {
    this.provide(moved, this.identity.xtrId, now);
  }

  /**
   * The map server is away: what another agent knows is taken for what we do not know ourselves, at no generation, so that
   * whatever the map server says later holds.
   */
  believe(mapping: Mapping & { readonly tunnelKey: TunnelKey }, now: Instant): void {
    if (this.cache.find(mapping.eid) !== undefined) return;
    this.provide({ ...mapping, generation: 0 as Generation }, null, now);
  }

  private provide(mapping: Mapping & { readonly tunnelKey: TunnelKey }, formerOwner: XtrId | null, now: Instant): void {
    const locators = this.table.peerLocators(mapping.tunnelKey) ?? [];
    this.forward(this.cache.insertProvisional({ ...mapping, locators }, formerOwner, now), now);
  }

  /** The map server revoked it. Returns what has to be asked for again. */
  revoke(key: TunnelKey, now: Instant): readonly Eid[] {
    this.revoked.add(key);
    for (const oldest of this.revoked) {
      if (this.revoked.size <= MAX_REVOKED) break;
      this.revoked.delete(oldest);
    }
    const entries = [...this.cache.values()].filter(({ mapping }) => mapping.tunnelKey === key);
    for (const entry of entries) {
      this.cache.remove(entry.key);
      this.unforward(entry, now);
    }
    this.table.revokePeer(key, now);
    return entries.filter(({ mapping }) => !isAgentEid(mapping.eid)).flatMap(({ asked }) => [...asked.values()]);
  }

  isRevoked(key: TunnelKey): boolean {
    return this.revoked.has(key);
  }

  /** Removes what ended, names what should be asked for again. */
  sweep(now: Instant): { readonly ended: readonly CacheEntry[]; readonly refresh: readonly Eid[] } {
    const swept = this.cache.sweep(now);
    for (const entry of swept.ended) this.unforward(entry, now);
    return swept;
  }

  /** The owner's xTR-ID, and the agent address if it is one, follow from the key, and that was not revoked. */
  isVouched({ eid, owner, tunnelKey }: Mapping): boolean {
    if (tunnelKey === undefined) return !isAgentEid(eid);
    if (this.revoked.has(tunnelKey)) return false;
    if (owner === undefined || xtrIdOf(tunnelKey) !== owner) return false;
    return eid.kind === 'name' || !isAgentEid(eid) || eid.prefix === hostPrefix(agentAddressOf(tunnelKey));
  }

  private forward({ mapping, negative }: CacheEntry, now: Instant): void {
    const { eid, generation, tunnelKey, locators } = mapping;
    if (eid.kind === 'name') return;
    if (!negative && tunnelKey !== undefined) {
      this.table.setPeer(tunnelKey, usableLocators(locators, this.overlay()));
      this.table.forward(eid.prefix, generation, tunnelKey);
    } else if (isAgentEid(eid)) {
      this.table.removeMapping(eid.prefix, now);
    } else if (!negative) {
      this.table.forwardPlainly(eid.prefix, generation, usableLocators(locators, this.overlay()));
    } else {
      this.table.drop(eid.prefix, generation);
    }
  }

  /** The map server has no such mapping. */
  private forget(eid: Eid, now: Instant): void {
    const entry = this.cache.remove(eidKey(eid));
    if (entry !== undefined) this.unforward(entry, now);
  }

  private unforward({ mapping }: CacheEntry, now: Instant): void {
    if (mapping.eid.kind === 'prefix') this.table.removeMapping(mapping.eid.prefix, now);
  }
}

/** The EID under which an agent registers its agent address. */
export function agentEid(instance: InstanceId, key: TunnelKey): Eid {
  return prefixEid(instance, hostPrefix(agentAddressOf(key)));
}

/** Who owns it and nothing else; locators are those of the agent. */
export function bare(mapping: Pick<Mapping, 'eid' | 'generation' | 'owner' | 'tunnelKey'>): Mapping {
  const { eid, generation, owner, tunnelKey } = mapping;
  return {
    eid,
    ttl: NOTICE_TTL,
    action: 'no-action',
    generation,
    ...(owner === undefined ? {} : { owner }),
    ...(tunnelKey === undefined ? {} : { tunnelKey }),
    locators: [],
    names: [],
    targets: [],
  };
}

/** An agent address, under which an agent registers itself. */
export function isAgentEid(eid: Eid): boolean {
  return eid.kind === 'prefix' && prefixContains(AGENT_PREFIX, eid.prefix);
}

/** True when `mapping` is the answer to a request for `asked`: the EID itself or a prefix that contains it. */
function answers({ eid }: Mapping, asked: Eid): boolean {
  if (asked.kind === 'name' || eid.kind === 'name') return eidKey(eid) === eidKey(asked);
  return prefixContains(eid.prefix, asked.prefix);
}

/** What a peer says of itself must not make this host send to itself, to its link, or into the overlay. */
export function usableLocators(locators: readonly Locator[], overlay: readonly IpPrefix[]): readonly Locator[] {
  return locators
    .filter(({ priority, port, address }) => priority < NEVER_USE && port > 0 && isPlausibleLocator(address, overlay))
    .slice(0, MAX_LOCATORS)
    .map((locator) => ({ ...locator, weight: Math.min(locator.weight, MAX_WEIGHT) }));
}

const NOTICE_TTL = minutes(10);
const MAX_LOCATORS = 8;
/** Locators in an introduction. */
const MAX_INTRODUCED = 4;
const MAX_EIDS_INTRODUCED = 4;
const MAX_WEIGHT = 100;
/** Correspondents of a move that nothing has prepared; those of a prepared one are confirmed before it. */
const UNCONFIRMED_AT_ONCE = 1024;
const UNCONFIRMED_PER_SECOND = 16;
/** The map server was not asked for older ones, or did not answer. */
const MAX_UNCONFIRMED = 4096;
/** More than that, and the oldest is only refused by the map server. */
const MAX_REVOKED = 4096;
