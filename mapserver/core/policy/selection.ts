/**
 * What the selectors of a policy stand for at the moment, in prefixes.
 *
 * A document comes down to _components_: each distinct prefix, name pattern and group by grant that it mentions. A
 * prefix stands for itself; a pattern for the addresses behind the names that it matches; a group by grant for the EIDs
 * that the agents in it own. Groups of the document are lists of components. Components follow the records of the map
 * server, each change costing as much as it changes, and say what has changed since they were last asked.
 *
 * A name counts only for addresses that its owner may register itself: otherwise whoever was granted a name could put
 * somebody else's EID under the rules of that name. And only for so many addresses of one agent: otherwise one agent
 * could make the policy too large for others. Names beyond that count when others have made place for them; an agent
 * that keeps itself out of the rules of a name so could as well not register it. What an agent owns and names counts also while it is away, so that
 * a rule does not end with a pause of those whom it is about.
 */
import { hostPrefix, type IpAddress, type IpPrefix, isHostPrefix, prefixContains } from '../../../proto/address.ts';
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
  named(name: string): OwnershipRecord | undefined;
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
  /** What each record puts where. */
  private readonly contributions = new Map<string, Contribution>();
  private readonly shares = new Map<XtrId, NameShare>();
  /** Names that do not count for now, with their owners. */
  private readonly waiting = new Map<string, XtrId>();
  private changes = new Map<Component, Set<IpPrefix>>();

  constructor(document: PolicyDocument, records: PolicyRecords) {
    this.document = document;
    this.records = records;
    for (const group of document.groups.keys()) this.group(group);
    for (const { from, to } of document.rules) {
      this.componentsOf(from);
      this.componentsOf(to);
    }
    for (const xtrId of records.owners()) this.refresh(xtrId);
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

  /** Addresses behind a name that its owner may give it. */
  addressesOf(name: string): readonly IpAddress[] {
    const record = this.records.named(name);
    return record === undefined ? [] : rightfulTargets(record, this.records.agent(record.owner));
  }

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    const kind = (after ?? before)?.kind;
    if (kind === 'eid') {
      const record = (after ?? before) as OwnershipRecord;
      this.adopt(record.eid, after as OwnershipRecord | undefined);
      this.fill((before as OwnershipRecord | undefined)?.owner);
      this.fill((after as OwnershipRecord | undefined)?.owner);
    } else if (kind === 'agent' && !sameGrant(before as AgentRecord | undefined, after as AgentRecord | undefined)) {
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

  private refresh(xtrId: XtrId): void {
    for (const record of this.records.ownedBy(xtrId)) this.adopt(record.eid, record);
    this.fill(xtrId);
  }

  private adopt(key: string, record: OwnershipRecord | undefined): void {
    const waitedFor = this.waiting.get(key);
    if (waitedFor !== undefined) this.shares.get(waitedFor)?.waiting.delete(key);
    this.waiting.delete(key);
    const before = this.contributions.get(key);
    if (before?.namedBy != null) this.shareOf(before.namedBy).used -= before.prefixes.length;
    const next = record === undefined ? undefined : this.contributionOf(record);
    this.contribute(key, next !== undefined && this.fits(next) ? next : undefined);
    if (next?.namedBy == null) return;
    const share = this.shareOf(next.namedBy);
    if (this.fits(next)) {
      share.used += next.prefixes.length;
    } else {
      share.waiting.set(key, next);
      this.waiting.set(key, next.namedBy);
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
      share.used += next.prefixes.length;
      this.contribute(key, next);
    }
    if (share.used === 0 && share.waiting.size === 0) this.shares.delete(owner);
  }

  private fits({ namedBy, prefixes }: Contribution): boolean {
    return namedBy === null || this.shareOf(namedBy).used + prefixes.length <= MAX_NAMED_ADDRESSES;
  }

  private shareOf(owner: XtrId): NameShare {
    const share = this.shares.get(owner) ?? { used: 0, waiting: new Map() };
    this.shares.set(owner, share);
    return share;
  }

  private contributionOf(record: OwnershipRecord): Contribution | undefined {
    if (record.state === 'released') return undefined;
    const eid = parseEidKey(record.eid);
    if (eid.iid !== this.records.instance) return undefined;
    const agent = this.records.agent(record.owner);
    const components = this.present(
      eid.kind === 'prefix'
        ? (agent?.groups ?? []).map((group) => `grant ${group}` as const)
        : patternsOf(eid.name).map((pattern) => `name ${pattern}` as const),
    );
    if (components.length === 0) return undefined;
    const prefixes =
      eid.kind === 'name'
        ? rightfulTargets(record, agent).map(hostPrefix)
        : [eid.prefix].filter((prefix) => !prefixContains(AGENT_PREFIX, prefix));
    const namedBy = eid.kind === 'name' ? record.owner : null;
    return prefixes.length === 0 ? undefined : { components, prefixes, namedBy };
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
  /** The owner of the name by which they are in it; null: they are EIDs. */
  readonly namedBy: XtrId | null;
}

/** Of one agent. */
interface NameShare {
  /** Addresses that count, once for each name. */
  used: number;
  readonly waiting: Map<string, Contribution>;
}

/** Every pattern that matches a name, and the name itself. */
function patternsOf(name: string): string[] {
  const patterns = [name, '*'];
  for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) patterns.push(`*${name.slice(dot)}`);
  return patterns.filter((pattern) => nameMatches(pattern, name));
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
