/**
 * What the selectors of a policy stand for at the moment, in prefixes.
 *
 * A document comes down to _components_: each distinct prefix, name pattern and group by grant that it mentions. A
 * prefix stands for itself; a pattern for the addresses behind the names that it matches: the EIDs that carry such a
 * name, of however many agents, and what the registration of the name points to; a group by grant for the EIDs that the
 * agents in it own. Groups of the document are lists of components. Components follow the records of the map
 * server, each change costing as much as it changes, and say what has changed since they were last asked.
 *
 * A name counts only for addresses that its owner may register itself: otherwise whoever was granted a name could put
 * somebody else's EID under the rules of that name. For the same reason addresses that were set at a name do not count:
 * a dynamic update may have done it. And only for so many addresses of one agent: otherwise one agent could make the
 * policy too large for others. Names beyond that count when others have made place for them; an agent that keeps itself
 * out of the rules of a name so could as well not register it. What an agent owns and names counts also while it is
 * away, so that a rule does not end with a pause of those whom it is about.
 */
import {
  hostPrefix,
  type IpAddress,
  type IpPrefix,
  isHostPrefix,
  prefixAddress,
  prefixContains,
} from '../../../proto/address.ts';
import { type InstanceId, parseEidKey } from '../../../proto/eid.ts';
import { AGENT_PREFIX } from '../../../proto/identity.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import { nameMatches } from '../grants.ts';
import type { AgentRecord, OwnershipRecord, StoreRecord } from '../records.ts';
import type { PolicyDocument, Selector } from './document.ts';

/** The records of the map server, as a policy looks at them. */
export interface PolicyRecords {
  readonly instance: InstanceId;
  agent(xtrId: XtrId): AgentRecord | undefined;
  /** EIDs and names that it has not released. */
  ownedBy(xtrId: XtrId): Iterable<OwnershipRecord>;
  /** Every agent that owns something. */
  owners(): Iterable<XtrId>;
}

export interface Component {
  readonly key: ComponentKey;
  /** With the number of records by which each is in it. */
  readonly prefixes: Map<IpPrefix, number>;
  /** Those of more than one address. */
  readonly wide: Set<IpPrefix>;
}

export type ComponentKey = 'any' | `prefix ${IpPrefix}` | `name ${string}` | `grant ${string}`;

/** The prefixes by which a component has grown or shrunk. */
export interface ComponentChange {
  readonly component: Component;
  readonly prefixes: ReadonlySet<IpPrefix>;
}

export class Selection {
  private readonly records: PolicyRecords;
  private readonly document: PolicyDocument;
  private readonly components = new Map<ComponentKey, Component>();
  private readonly flattened = new Map<string, readonly Component[]>();
  /** What each record puts where, by EID, and for the names that an EID carries by EID and name. */
  private readonly contributions = new Map<string, Contribution>();
  private readonly shares = new Map<XtrId, NameShare>();
  /** Names that do not count for now, with their owners. */
  private readonly waiting = new Map<string, XtrId>();
  private changes = new Map<Component, Set<IpPrefix>>();
  /** Of all names, made when it is asked for; undefined after a change. */
  private addresses: ReadonlyMap<string, ReadonlySet<IpAddress>> | undefined;

  /** Of nobody so far: `gather`. */
  constructor(document: PolicyDocument, records: PolicyRecords) {
    this.document = document;
    this.records = records;
    for (const group of document.groups.keys()) this.group(group);
    for (const { from, to } of document.rules) {
      this.componentsOf(from);
      this.componentsOf(to);
    }
  }

  /** Takes in what there is, in steps, between which changes are followed. Yields how much each was, in records. */
  *gather(): Generator<number, void> {
    for (const xtrId of this.records.owners()) yield this.refresh(xtrId);
    this.changes.clear();
  }

  /** The components of a rule's side, each once. */
  componentsOf(selectors: readonly Selector[]): readonly Component[] {
    const found = new Set<Component>();
    for (const selector of selectors) for (const component of this.reach(selector)) found.add(component);
    return [...found];
  }

  /** Whether the selector means the address now. */
  hasAddress(selector: Selector, address: IpAddress): boolean {
    return this.reach(selector).some(({ prefixes, wide }) => {
      if (prefixes.has(hostPrefix(address))) return true;
      for (const prefix of wide) if (prefixContains(prefix, address)) return true;
      return false;
    });
  }

  isEmpty(selector: Selector): boolean {
    return this.reach(selector).every(({ prefixes }) => prefixes.size === 0);
  }

  /** Addresses behind a name that their owners may give it. */
  addressesOf(name: string): readonly IpAddress[] {
    this.addresses ??= this.allAddresses();
    return [...(this.addresses.get(name) ?? [])];
  }

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    const kind = (after ?? before)?.kind;
    if (kind === 'eid') {
      const [from, to] = [before, after] as (OwnershipRecord | undefined)[];
      this.addresses = undefined;
      this.adopt(from, to);
      this.fill(from?.owner);
      this.fill(to?.owner);
    } else if (kind === 'agent' && !sameGrant(before as AgentRecord | undefined, after as AgentRecord | undefined)) {
      this.addresses = undefined;
      this.refresh(((after ?? before) as AgentRecord).xtrId);
    }
  }

  get hasChanges(): boolean {
    return this.changes.size > 0;
  }

  /** Since the last call. */
  takeChanges(): ComponentChange[] {
    if (this.changes.size === 0) return [];
    const changes = [...this.changes].map(([component, prefixes]) => ({ component, prefixes }));
    this.changes = new Map();
    return changes;
  }

  private reach(selector: Selector): readonly Component[] {
    switch (selector.kind) {
      case 'any':
        return [this.component('any', EVERYTHING)];
      case 'prefix':
        return [this.component(`prefix ${selector.prefix}`, [selector.prefix])];
      case 'name':
        return [this.component(`name ${selector.pattern}`)];
      case 'group':
        return this.group(selector.group);
      default:
        return selector satisfies never;
    }
  }

  private group(name: string): readonly Component[] {
    const known = this.flattened.get(name);
    if (known !== undefined) return known;
    const members = this.document.groups.get(name)?.members ?? [];
    const components = [this.component(`grant ${name}`), ...this.componentsOf(members)];
    this.flattened.set(name, components);
    return components;
  }

  private component(key: ComponentKey, prefixes: readonly IpPrefix[] = []): Component {
    const known = this.components.get(key);
    if (known !== undefined) return known;
    const wide = new Set(prefixes.filter((prefix) => !isHostPrefix(prefix)));
    const made: Component = { key, prefixes: new Map(prefixes.map((prefix) => [prefix, 1])), wide };
    this.components.set(key, made);
    return made;
  }

  private refresh(xtrId: XtrId): number {
    let count = 0;
    for (const record of this.records.ownedBy(xtrId)) {
      this.adopt(record, record);
      count++;
    }
    this.fill(xtrId);
    return count;
  }

  /** First what is new, so that what stays is never seen to go away. */
  private adopt(before: OwnershipRecord | undefined, after: OwnershipRecord | undefined): void {
    const next = after === undefined ? undefined : this.contributionsOf(after);
    if (next !== undefined) for (const [key, contribution] of next) this.put(key, contribution);
    if (before !== undefined) for (const key of keysOf(before)) if (next?.has(key) !== true) this.put(key, undefined);
  }

  private put(key: string, next: Contribution | undefined): void {
    const waitedFor = this.waiting.get(key);
    if (waitedFor !== undefined) this.shares.get(waitedFor)?.waiting.delete(key);
    this.waiting.delete(key);
    const before = this.contributions.get(key);
    if (before !== undefined) this.charge(before, -1);
    const fits = next !== undefined && this.fits(next);
    this.contribute(key, fits ? next : undefined);
    if (next === undefined) return;
    if (fits) {
      this.charge(next, 1);
    } else if (next.named !== null) {
      this.shareOf(next.named.owner).waiting.set(key, next);
      this.waiting.set(key, next.named.owner);
    }
  }

  /** What waits for place among the names of an agent, where there is place again. */
  private fill(owner: XtrId | undefined): void {
    const share = owner === undefined ? undefined : this.shares.get(owner);
    if (owner === undefined || share === undefined) return;
    for (const [key, next] of share.waiting) {
      if (!this.fits(next)) break;
      share.waiting.delete(key);
      this.waiting.delete(key);
      this.charge(next, 1);
      this.contribute(key, next);
    }
    if (share.used.size === 0 && share.waiting.size === 0) this.shares.delete(owner);
  }

  private fits({ named, prefixes }: Contribution): boolean {
    if (named === null) return true;
    const { used } = this.shareOf(named.owner);
    const more = prefixes.filter((prefix) => !used.has(`${named.name} ${prefix}`));
    return used.size + more.length <= MAX_NAMED_ADDRESSES;
  }

  private charge({ named, prefixes }: Contribution, by: 1 | -1): void {
    if (named === null) return;
    const { used } = this.shareOf(named.owner);
    for (const prefix of prefixes) {
      const key = `${named.name} ${prefix}`;
      const count = (used.get(key) ?? 0) + by;
      if (count === 0) used.delete(key);
      else used.set(key, count);
    }
  }

  private shareOf(owner: XtrId): NameShare {
    const share = this.shares.get(owner) ?? { used: new Map(), waiting: new Map() };
    this.shares.set(owner, share);
    return share;
  }

  /** By their keys, those that count anywhere. */
  private contributionsOf(record: OwnershipRecord): ReadonlyMap<string, Contribution> {
    const found = new Map<string, Contribution>();
    const eid = parseEidKey(record.eid);
    if (record.state === 'released' || eid.iid !== this.records.instance) return found;
    const agent = this.records.agent(record.owner);
    const note = (
      key: string,
      name: string | null,
      where: readonly ComponentKey[],
      what: readonly IpPrefix[],
    ): void => {
      const components = this.present(where);
      const named = name === null ? null : { name, owner: record.owner };
      if (components.length > 0 && what.length > 0) found.set(key, { components, prefixes: what, named });
    };
    if (eid.kind === 'name') {
      note(record.eid, eid.name, patternsOf(eid.name), rightfulTargets(record, agent).map(hostPrefix));
      return found;
    }
    if (prefixContains(AGENT_PREFIX, eid.prefix)) return found;
    note(
      record.eid,
      null,
      (agent?.groups ?? []).map((group) => `grant ${group}` as const),
      [eid.prefix],
    );
    for (const name of carriedNames(record)) note(carrierKey(record, name), name, patternsOf(name), [eid.prefix]);
    return found;
  }

  private allAddresses(): ReadonlyMap<string, ReadonlySet<IpAddress>> {
    const all = new Map<string, Set<IpAddress>>();
    const note = (name: string, addresses: readonly IpAddress[]): void => {
      const known = all.get(name) ?? new Set();
      all.set(name, known);
      for (const address of addresses) known.add(address);
    };
    for (const xtrId of this.records.owners()) {
      const agent = this.records.agent(xtrId);
      for (const record of this.records.ownedBy(xtrId)) {
        const eid = parseEidKey(record.eid);
        if (eid.iid !== this.records.instance) continue;
        if (eid.kind === 'name') note(eid.name, rightfulTargets(record, agent));
        else for (const name of carriedNames(record)) note(name, [prefixAddress(eid.prefix)]);
      }
    }
    return all;
  }

  private present(keys: readonly ComponentKey[]): Component[] {
    return keys.flatMap((key) => this.components.get(key) ?? []);
  }

  private contribute(key: string, next: Contribution | undefined): void {
    const before = this.contributions.get(key);
    if (before === undefined && next === undefined) return;
    if (next === undefined) this.contributions.delete(key);
    else this.contributions.set(key, next);
    // Counted up first: what is in both is never seen to go away.
    if (next !== undefined) this.count(next, 1);
    if (before !== undefined) this.count(before, -1);
  }

  private count({ components, prefixes }: Contribution, by: 1 | -1): void {
    for (const component of components) {
      for (const prefix of prefixes) {
        const count = component.prefixes.get(prefix) ?? 0;
        if (count + by === 0) component.prefixes.delete(prefix);
        else component.prefixes.set(prefix, count + by);
        if (count !== 0 && count + by !== 0) continue;
        if (count === 0 && !isHostPrefix(prefix)) component.wide.add(prefix);
        else if (count !== 0) component.wide.delete(prefix);
        const changed = this.changes.get(component) ?? new Set();
        this.changes.set(component, changed.add(prefix));
      }
    }
  }
}

interface Contribution {
  readonly components: readonly Component[];
  readonly prefixes: readonly IpPrefix[];
  /** The name by which they are in it, and its owner; null: they are EIDs. */
  readonly named: { readonly name: string; readonly owner: XtrId } | null;
}

/** Of one agent. */
interface NameShare {
  /** Names with an address each that count, with the number of records that say so. */
  readonly used: Map<string, number>;
  readonly waiting: Map<string, Contribution>;
}

/** Of all that the record may contribute. */
function keysOf(record: OwnershipRecord): string[] {
  return [record.eid, ...carriedNames(record).map((name) => carrierKey(record, name))];
}

function carrierKey({ eid }: OwnershipRecord, name: string): string {
  return `${eid} ${name}`;
}

/** By an EID of one address, as for those who resolve the name. */
function carriedNames({ eid: key, names }: OwnershipRecord): readonly string[] {
  if (names.length === 0) return names;
  const eid = parseEidKey(key);
  return eid.kind === 'prefix' && isHostPrefix(eid.prefix) ? names : [];
}

/** Every pattern that matches a name, and the name itself. */
function patternsOf(name: string): ComponentKey[] {
  const patterns = [name, '*'];
  for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) patterns.push(`*${name.slice(dot)}`);
  return patterns.filter((pattern) => nameMatches(pattern, name)).map((pattern) => `name ${pattern}` as const);
}

function rightfulTargets({ targets }: OwnershipRecord, owner: AgentRecord | undefined): readonly IpAddress[] {
  if (owner === undefined) return [];
  return targets.filter((target) => owner.eids.some((granted) => prefixContains(granted, target)));
}

function sameGrant(a: AgentRecord | undefined, b: AgentRecord | undefined): boolean {
  return a !== undefined && b !== undefined && sameList(a.eids, b.eids) && sameList(a.groups, b.groups);
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** Of one agent: as many as it may own EIDs by default. */
export const MAX_NAMED_ADDRESSES = 1_024;
/** Every address of either family. */
export const EVERYTHING: readonly IpPrefix[] = ['0.0.0.0/0' as IpPrefix, '::/0' as IpPrefix];
