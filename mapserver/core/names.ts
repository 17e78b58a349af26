/**
 * The names of the zone: for each, which EIDs are behind it, what an operator set there, and what a question for it is
 * answered with (RFC 1034 section 4.3.2, RFC 4592).
 *
 * An EID is behind a name when its live registration carries the name, when the live registration of the name points
 * to it, or when it was set. A name exists when something is behind it or set at it; a name that has only names below
 * it is empty (RFC 8020): it exists, with no records. Existing names are never covered by a wildcard; below a delegated
 * name nothing else is answered. What a CNAME was set at and an agent registers nevertheless is what the agent says.
 *
 * It follows the replica. What changed, and below which names answers may have changed with it, is collected until it
 * is taken.
 */
import { hostPrefix, type IpAddress, type IpPrefix, isHostPrefix, prefixAddress } from '../../proto/address.ts';
import {
  DEFAULT_WEIGHT,
  hasRecords,
  NO_RECORDS,
  type RecordSets,
  serviceTargets,
} from '../../proto/dns/record-sets.ts';
import { APEX, parseEidKey, zoneNameEid } from '../../proto/eid.ts';
import type { Generation, Mapping, XtrId } from '../../proto/mapping.ts';
import { PrefixTrie } from '../../proto/prefix-trie.ts';
import { minutes } from '../../proto/time.ts';
import { canBeEid, type Overlay } from './grants.ts';
import type { NameRecord, OwnershipRecord, StoreRecord } from './records.ts';

export interface Member {
  readonly address: IpAddress;
  readonly weight: number;
  /** Somebody answers for it and is not away, as far as is known here. */
  readonly live: boolean;
  /**
   * The address leads back to the name: its own registration carries it, or it was set. That somebody points a name to
   * it is not enough, for then anybody could have it under a name of theirs.
   */
  readonly leadsBack: boolean;
}

export interface ZoneEntry {
  /** Relative to the zone, a wildcard, or APEX. */
  readonly name: string;
  readonly members: readonly Member[];
  readonly records: RecordSets;
}

export type ZoneFinding =
  /** `entry.name` is a wildcard when that is what answers. */
  | { readonly kind: 'entry'; readonly entry: ZoneEntry }
  | { readonly kind: 'empty' }
  /** Everything from `cut` on is answered by these. */
  | { readonly kind: 'delegated'; readonly cut: string; readonly entry: ZoneEntry }
  | { readonly kind: 'absent' };

/** Of the EIDs behind the names. */
export interface Owners {
  /** Undefined: nobody has registered the address. */
  ownerOf(address: IpAddress): XtrId | undefined;
  isAway(owner: XtrId): boolean;
}

export interface NameChanges {
  readonly names: ReadonlySet<string>;
  /** All names at or below these may be answered otherwise; the empty one: all of the zone. */
  readonly below: ReadonlySet<string>;
}

export class Names {
  private readonly overlay: Overlay;
  private readonly owners: Owners;
  private readonly nodes = new Map<string, Node>();
  /** Names that point to an address, whether or not it is registered. */
  private readonly referring = new PrefixTrie<Set<string>>();
  /** Names at which SRV or NS are set, by their targets in the zone. */
  private readonly pointing = new Map<string, Set<string>>();
  private wildcards = 0;
  private delegations = 0;
  private existing = 0;
  private changed = new Set<string>();
  private reshaped = new Set<string>();

  constructor(overlay: Overlay, owners: Owners) {
    this.overlay = overlay;
    this.owners = owners;
  }

  /** Names that exist. */
  get size(): number {
    return this.existing;
  }

  /** After the mapping database has followed. */
  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    const kind = (after ?? before)?.kind;
    if (kind === 'name') {
      this.setRecord(before?.kind === 'name' ? before : undefined, after?.kind === 'name' ? after : undefined);
      return;
    }
    if (kind !== 'eid') return;
    const from = before?.kind === 'eid' && before.state === 'live' ? before : undefined;
    const to = after?.kind === 'eid' ? after : undefined;
    this.setOwnership(from, to);
  }

  /** What is at exactly this name; undefined when it does not exist. */
  entry(name: string): ZoneEntry | undefined {
    const node = this.nodes.get(name);
    return node === undefined || !exists(node) ? undefined : this.entryOf(name, node);
  }

  /** Whether an agent has registered it, or an EID that carries it. */
  isRegistered(name: string): boolean {
    const node = this.nodes.get(name);
    return node !== undefined && (node.carriers.size > 0 || (node.owned?.targets.length ?? 0) > 0);
  }

  /** Names at which SRV or NS with this target are set. */
  pointingAt(target: string): ReadonlySet<string> {
    return this.pointing.get(target) ?? NOBODY;
  }

  /** Every name that exists and that no delegation hides. */
  *entries(): IterableIterator<ZoneEntry> {
    for (const [name, node] of this.nodes) {
      if (exists(node) && this.cutAbove(parentOf(name)) === undefined) yield this.entryOf(name, node);
    }
  }

  find(name: string): ZoneFinding {
    const cut = this.cutAbove(name);
    const entry = cut === undefined ? this.entry(name) : this.entry(cut);
    if (cut !== undefined && entry !== undefined) return { kind: 'delegated', cut, entry };
    if (entry !== undefined) return { kind: 'entry', entry };
    if (name === APEX || this.isKnown(name)) return { kind: 'empty' };
    if (this.wildcards === 0) return { kind: 'absent' };
    let encloser = parentOf(name);
    while (encloser !== '' && !this.isKnown(encloser)) encloser = parentOf(encloser);
    const wildcard = this.entry(encloser === '' ? '*' : `*.${encloser}`);
    return wildcard === undefined ? { kind: 'absent' } : { kind: 'entry', entry: wildcard };
  }

  /** What an agent is told of the name; undefined when it does not exist. */
  mapping(name: string): Mapping | undefined {
    const found = this.find(name);
    switch (found.kind) {
      case 'absent':
        return undefined;
      case 'empty':
        return { ...this.bare(name), zone: { weights: [], records: NO_RECORDS, cut: null } };
      case 'delegated': {
        const { ttl, ns } = found.entry.records;
        return { ...this.bare(name), zone: { weights: [], records: { ...NO_RECORDS, ttl, ns }, cut: found.cut } };
      }
      case 'entry':
        return this.told(name, found.entry);
      default:
        return found satisfies never;
    }
  }

  /** Nothing is behind the name any more. */
  withdrawal(name: string): Mapping {
    return { ...this.bare(name), ttl: 0, action: 'drop' };
  }

  /** Whether the owner of these is away has changed, and so which EIDs of a name are preferred. */
  noteOwner(records: Iterable<OwnershipRecord>): void {
    for (const { eid: key, names } of records) {
      for (const name of names) if (this.nodes.has(name)) this.note(name);
      const eid = parseEidKey(key);
      if (eid.kind === 'prefix' && eid.iid === this.overlay.instance) this.noteReferring(eid.prefix);
    }
  }

  /** Since the last call. */
  takeChanges(): NameChanges {
    const changes = { names: this.changed, below: this.reshaped };
    if (this.changed.size > 0) this.changed = new Set();
    if (this.reshaped.size > 0) this.reshaped = new Set();
    return changes;
  }

  private entryOf(name: string, node: Node): ZoneEntry {
    const records = node.record?.records ?? NO_RECORDS;
    const addresses = new Set([...(node.owned?.targets ?? []), ...node.carriers.keys(), ...records.addresses]);
    const set = new Set(records.addresses);
    const weights = new Map(records.weights.map(({ address, weight }) => [address, weight]));
    const members = [...addresses].map((address) => ({
      address,
      weight: weights.get(address) ?? DEFAULT_WEIGHT,
      live: this.isLive(address, node.carriers.get(address)?.owner),
      leadsBack: node.carriers.has(address) || set.has(address),
    }));
    // An agent's registration is news, what an operator set may be old.
    const isAlias = records.cname !== null && members.length === 0;
    return { name, members, records: isAlias ? records : { ...records, cname: null } };
  }

  private isLive(address: IpAddress, carrier: XtrId | undefined): boolean {
    if (!canBeEid(this.overlay, address)) return true;
    const owner = carrier ?? this.owners.ownerOf(address);
    return owner !== undefined && !this.owners.isAway(owner);
  }

  private told(name: string, { members, records }: ZoneEntry): Mapping {
    const told = [...members].sort((a, b) => Number(b.live) - Number(a.live)).slice(0, MAX_TOLD);
    const weights = told.map(({ weight, live }) => (live ? weight : 0));
    const plain = { ...records, addresses: [], weights: [] };
    const isPlain = !hasRecords(plain) && records.ttl === null && weights.every((weight) => weight === DEFAULT_WEIGHT);
    return {
      ...this.bare(name),
      targets: told.map(({ address }) => address),
      ...(isPlain ? {} : { zone: { weights, records: plain, cut: null } }),
    };
  }

  /** With who registered it, if that is live. */
  private bare(name: string): Mapping {
    const { generation, owned } = this.nodes.get(name) ?? emptyNode();
    return {
      eid: zoneNameEid(this.overlay.instance, name),
      ttl: owned?.ttl ?? ENTRY_TTL,
      action: 'no-action',
      generation: generation ?? (0 as Generation),
      ...(owned === undefined ? {} : { owner: owned.owner }),
      ...(owned?.tunnelKey === undefined ? {} : { tunnelKey: owned.tunnelKey }),
      locators: [],
      names: [],
      targets: [],
    };
  }

  private setRecord(before: NameRecord | undefined, after: NameRecord | undefined): void {
    const record = after ?? before;
    if (record === undefined || record.iid !== this.overlay.instance) return;
    const { name } = record;
    this.change(name, (node) => {
      node.record = after;
    });
    for (const target of serviceTargets(before?.records ?? NO_RECORDS)) this.unpoint(name, target);
    for (const target of serviceTargets(after?.records ?? NO_RECORDS)) this.point(name, target);
    this.delegations += Number(delegates(after)) - Number(delegates(before));
    if (delegates(before) || delegates(after)) this.reshaped.add(name);
    if (!name.startsWith('*')) return;
    this.wildcards += Number(after !== undefined) - Number(before !== undefined);
    this.reshaped.add(parentOf(name));
  }

  private setOwnership(before: OwnershipRecord | undefined, after: OwnershipRecord | undefined): void {
    const record = after ?? before;
    if (record === undefined) return;
    const live = after?.state === 'live' ? after : undefined;
    const eid = parseEidKey(record.eid);
    if (eid.iid !== this.overlay.instance) return;
    if (eid.kind === 'name') {
      const { generation } = record;
      const node = this.nodes.get(eid.name);
      if (
        node?.owned !== undefined &&
        live !== undefined &&
        node.generation === generation &&
        sameTargets(node.owned, live)
      )
        node.owned = live;
      else
        this.change(eid.name, (changed) => {
          changed.owned = live;
          changed.generation = generation;
        });
      return;
    }
    if ((before === undefined) !== (live === undefined)) this.noteReferring(eid.prefix);
    if (isHostPrefix(eid.prefix)) this.setCarrier(prefixAddress(eid.prefix), before, live);
  }

  private setCarrier(address: IpAddress, before: OwnershipRecord | undefined, live: OwnershipRecord | undefined): void {
    for (const name of before?.names ?? []) {
      if (live?.names.includes(name) !== true) this.change(name, (node) => node.carriers.delete(address));
    }
    if (live === undefined) return;
    for (const name of live.names) {
      const node = this.nodes.get(name);
      if (node?.carriers.get(address)?.owner === live.owner) node.carriers.set(address, live);
      else this.change(name, (changed) => changed.carriers.set(address, live));
    }
  }

  /** Whether somebody answers for it is part of what these names are answered with. */
  private noteReferring(prefix: IpPrefix): void {
    for (const { value: names } of this.referring.covered(prefix)) for (const name of names) this.note(name);
  }

  private note(name: string): void {
    this.changed.add(name);
    if (name.startsWith('*')) this.reshaped.add(parentOf(name));
  }

  private change(name: string, apply: (node: Node) => void): void {
    const node = this.nodes.get(name) ?? emptyNode();
    this.nodes.set(name, node);
    const [was, wasKnown, referred] = [exists(node), isKnown(node), references(node)];
    apply(node);
    for (const address of referred) this.unrefer(address, name);
    for (const address of references(node)) this.refer(address, name);
    this.changed.add(name);
    if (was !== exists(node)) this.countBelow(name, was ? -1 : 1, wasKnown !== isKnown(node));
    if (isForgotten(node)) this.nodes.delete(name);
  }

  /** It exists from now on, or does not any more; and so may all those above it that are empty otherwise. */
  private countBelow(name: string, by: 1 | -1, flipped: boolean): void {
    this.existing += by;
    let top = flipped ? name : undefined;
    for (let above = parentOf(name); above !== ''; above = parentOf(above)) {
      const node = this.nodes.get(above) ?? emptyNode();
      this.nodes.set(above, node);
      const wasKnown = isKnown(node);
      node.below += by;
      if (wasKnown !== isKnown(node)) {
        this.changed.add(above);
        top = above;
      }
      if (isForgotten(node)) this.nodes.delete(above);
    }
    if (top !== undefined && this.wildcards > 0) this.reshaped.add(top);
  }

  private point(name: string, target: string): void {
    const names = this.pointing.get(target);
    if (names === undefined) this.pointing.set(target, new Set([name]));
    else names.add(name);
  }

  private unpoint(name: string, target: string): void {
    const names = this.pointing.get(target);
    names?.delete(name);
    if (names?.size === 0) this.pointing.delete(target);
  }

  private refer(address: IpAddress, name: string): void {
    const prefix = hostPrefix(address);
    const names = this.referring.get(prefix);
    if (names === undefined) this.referring.set(prefix, new Set([name]));
    else names.add(name);
  }

  private unrefer(address: IpAddress, name: string): void {
    const prefix = hostPrefix(address);
    const names = this.referring.get(prefix);
    names?.delete(name);
    if (names?.size === 0) this.referring.delete(prefix);
  }

  private isKnown(name: string): boolean {
    const node = this.nodes.get(name);
    return node !== undefined && isKnown(node);
  }

  /** The highest delegated name at or above; none is above the first label of the zone. */
  private cutAbove(name: string): string | undefined {
    if (this.delegations === 0) return undefined;
    let cut: string | undefined;
    for (let each = name; each !== ''; each = parentOf(each)) if (delegates(this.nodes.get(each)?.record)) cut = each;
    return cut;
  }
}

interface Node {
  /** Live addresses whose registration carries the name. */
  readonly carriers: Map<IpAddress, OwnershipRecord>;
  /** Its live registration. */
  owned: OwnershipRecord | undefined;
  /** Of its last registration. */
  generation: Generation | undefined;
  record: NameRecord | undefined;
  /** Existing names below it. */
  below: number;
}

function emptyNode(): Node {
  return { carriers: new Map(), owned: undefined, generation: undefined, record: undefined, below: 0 };
}

function exists({ carriers, owned, record }: Node): boolean {
  return carriers.size > 0 || (owned?.targets.length ?? 0) > 0 || (record !== undefined && hasRecords(record.records));
}

function isKnown(node: Node): boolean {
  return node.below > 0 || exists(node);
}

/** A generation has to stay, so that it never falls. */
function isForgotten(node: Node): boolean {
  return !isKnown(node) && node.record === undefined && node.generation === undefined;
}

/** Addresses that need not be registered at all. */
function references({ owned, record }: Node): readonly IpAddress[] {
  return [...(owned?.targets ?? []), ...(record?.records.addresses ?? [])];
}

function delegates(record: NameRecord | undefined): boolean {
  return (record?.records.ns.length ?? 0) > 0;
}

function sameTargets(a: OwnershipRecord, b: OwnershipRecord): boolean {
  return a.targets.length === b.targets.length && a.targets.every((target, i) => target === b.targets[i]);
}

/** The name without its first label; empty: the zone itself. */
export function parentOf(name: string): string {
  const dot = name.indexOf('.');
  return dot < 0 ? '' : name.slice(dot + 1);
}

const NOBODY: ReadonlySet<string> = new Set();
const ENTRY_TTL = minutes(10);
/** Of one name, in a record of at most 255. */
const MAX_TOLD = 128;
