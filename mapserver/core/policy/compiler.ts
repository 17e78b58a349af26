/**
 * A policy in prefixes, as much of it as concerns one agent.
 *
 * An agent is concerned by a rule if it may own EIDs of either side: what counts is its grant, not what it owns at the
 * moment, so that it has the rules for an EID before the EID moves to it. Of such a rule it gets the sources among its
 * own EIDs with all destinations, and all sources with the destinations among its own EIDs; the other pairs never pass
 * it. Taking a whole rule instead is always right too, and done where it reveals nothing more. The rules keep their
 * order, so the first that matches a packet of this agent is made from the first that matches it in the policy.
 *
 * An index from prefixes to components finds the rules of a grant without looking at the others.
 */
import type { IpPrefix } from '../../../proto/address.ts';
import { StayputError } from '../../../proto/errors.ts';
import {
  MAX_POLICY_PREFIXES,
  MAX_POLICY_RULES,
  MAX_RULE_PREFIXES,
  type PolicyRule,
  prefixCount,
} from '../../../proto/policy.ts';
import { PrefixTrie } from '../../../proto/prefix-trie.ts';
import type { DocumentRule, PolicyDocument } from './document.ts';
import { type Component, type ComponentChange, EVERYTHING, type Selection } from './selection.ts';

/** What a policy is for an agent with a certain grant. */
export interface Extract {
  readonly rules: readonly PolicyRule[];
  /** Indices of the rules of the document that these come from, or would if the other side stood for anybody. */
  readonly concerned: ReadonlySet<number>;
}

/** An agent would have to enforce more than it can. */
export class PolicyTooLargeError extends StayputError {
  /** As in `Extract`. */
  readonly concerned: ReadonlySet<number>;

  constructor(rules: number, prefixes: number, concerned: ReadonlySet<number>) {
    super(
      'STAYPUT_POLICY_TOO_LARGE',
      `one agent would have to enforce ${rules} rules with ${prefixes} prefixes, and ${MAX_POLICY_RULES} and ` +
        `${MAX_POLICY_PREFIXES} are possible; write prefixes in place of names and groups, or join rules`,
    );
    this.concerned = concerned;
  }
}

export class PolicyCompiler {
  private readonly document: PolicyDocument;
  private readonly sides: readonly RuleSides[];
  private readonly uses = new Map<Component, Side[]>();
  private readonly index = new PrefixTrie<Set<Component>>();

  constructor(document: PolicyDocument, selection: Selection) {
    this.document = document;
    this.sides = document.rules.map(({ from, to }, rule) => ({
      from: this.side(rule, selection.componentsOf(from)),
      to: this.side(rule, selection.componentsOf(to)),
    }));
    for (const component of this.uses.keys()) {
      for (const prefix of component.prefixes.keys()) this.enter(component, prefix);
    }
  }

  /** Rules that a change of components concerns. */
  apply(changes: readonly ComponentChange[]): Set<number> {
    const rules = new Set<number>();
    for (const { component, prefixes } of changes) {
      for (const side of this.uses.get(component) ?? []) {
        side.list = undefined;
        rules.add(side.rule);
      }
      if (!this.uses.has(component)) continue;
      for (const prefix of prefixes) {
        if (component.prefixes.has(prefix)) this.enter(component, prefix);
        else this.remove(component, prefix);
      }
    }
    return rules;
  }

  /** `grant`: what the agent may own. @throws PolicyTooLargeError */
  extract(grant: readonly IpPrefix[]): Extract {
    const own = this.ownParts(grant);
    const concerned = new Set([...own.keys()].map(({ rule }) => rule).sort((a, b) => a - b));
    const rules: PolicyRule[] = [];
    let prefixes = 0;
    for (const index of concerned) {
      const rule = this.document.rules[index];
      const sides = this.sides[index];
      if (rule === undefined || sides === undefined) continue;
      const parts = narrowed(rule, sides, own);
      prefixes += prefixCount(parts);
      for (const part of parts) rules.push(part);
      if (rules.length > MAX_POLICY_RULES || prefixes > MAX_POLICY_PREFIXES) {
        throw new PolicyTooLargeError(rules.length, prefixes, concerned);
      }
    }
    return { rules, concerned };
  }

  /** False when no agent, whatever its grant, can have to enforce more than is possible. */
  mayBeTooLarge(): boolean {
    let prefixes = 0;
    for (const { from, to } of this.sides) {
      const [sources, destinations] = [listOf(from).length, listOf(to).length];
      if (sources > MAX_RULE_PREFIXES || destinations > MAX_RULE_PREFIXES) return true;
      prefixes += 2 * (sources + destinations);
    }
    return prefixes > MAX_POLICY_PREFIXES || 2 * this.sides.length > MAX_POLICY_RULES;
  }

  private side(rule: number, components: readonly Component[]): Side {
    const side: Side = { rule, components, list: undefined };
    for (const component of components) {
      const uses = this.uses.get(component);
      if (uses === undefined) this.uses.set(component, [side]);
      else uses.push(side);
    }
    return side;
  }

  private enter(component: Component, prefix: IpPrefix): void {
    const there = this.index.get(prefix);
    if (there === undefined) this.index.set(prefix, new Set([component]));
    else there.add(component);
  }

  private remove(component: Component, prefix: IpPrefix): void {
    const there = this.index.get(prefix);
    there?.delete(component);
    if (there?.size === 0) this.index.delete(prefix);
  }

  /** What each side has in common with the grant. */
  private ownParts(grant: readonly IpPrefix[]): Map<Side, Set<IpPrefix>> {
    const common = new Map<Component, Set<IpPrefix>>();
    const note = (components: ReadonlySet<Component>, prefix: IpPrefix): void => {
      for (const component of components) {
        const prefixes = common.get(component);
        if (prefixes === undefined) common.set(component, new Set([prefix]));
        else prefixes.add(prefix);
      }
    };
    for (const granted of grant) {
      for (const { value } of this.index.covering(granted)) note(value, granted);
      for (const { prefix, value } of this.index.covered(granted)) note(value, prefix);
    }
    const own = new Map<Side, Set<IpPrefix>>();
    for (const [component, prefixes] of common) {
      for (const side of this.uses.get(component) ?? []) {
        const known = own.get(side);
        if (known === undefined) own.set(side, new Set(prefixes));
        else for (const prefix of prefixes) known.add(prefix);
      }
    }
    return own;
  }
}

interface Side {
  readonly rule: number;
  readonly components: readonly Component[];
  /** All of its prefixes; undefined: to be made. */
  list: readonly IpPrefix[] | undefined;
}

interface RuleSides {
  readonly from: Side;
  readonly to: Side;
}

function narrowed(
  rule: DocumentRule,
  { from, to }: RuleSides,
  own: ReadonlyMap<Side, ReadonlySet<IpPrefix>>,
): PolicyRule[] {
  const sources = listOf(from);
  const destinations = listOf(to);
  const ownSources = own.get(from);
  const ownDestinations = own.get(to);
  if (isWhole(ownSources, sources) || isWhole(ownDestinations, destinations)) {
    return inPieces(rule, sources, destinations);
  }
  return [
    ...(ownSources === undefined ? [] : inPieces(rule, [...ownSources], destinations)),
    ...(ownDestinations === undefined ? [] : inPieces(rule, sources, [...ownDestinations])),
  ];
}

/** Everything counts as a whole: what others there are never passes this agent. */
function isWhole(own: ReadonlySet<IpPrefix> | undefined, all: readonly IpPrefix[]): boolean {
  if (own === undefined) return false;
  return all === EVERYTHING || all.every((prefix) => own.has(prefix));
}

function listOf(side: Side): readonly IpPrefix[] {
  if (side.list !== undefined) return side.list;
  const lists = side.components.map(({ prefixes }) => prefixes);
  const any = side.components.some(({ key }) => key === 'any');
  side.list = any ? EVERYTHING : [...new Set(lists.flatMap((prefixes) => [...prefixes.keys()]))];
  return side.list;
}

/** Rules that together mean all pairs, each small enough for a frame. */
function inPieces(rule: DocumentRule, sources: readonly IpPrefix[], destinations: readonly IpPrefix[]): PolicyRule[] {
  const { action, protocol, ports } = rule;
  return pieces(sources).flatMap((source) =>
    pieces(destinations).map((destination) => ({ action, source, destination, protocol, ports })),
  );
}

function pieces(list: readonly IpPrefix[]): (readonly IpPrefix[])[] {
  if (list.length <= MAX_RULE_PREFIXES) return list.length === 0 ? [] : [list];
  const parts: (readonly IpPrefix[])[] = [];
  for (let at = 0; at < list.length; at += MAX_RULE_PREFIXES) parts.push(list.slice(at, at + MAX_RULE_PREFIXES));
  return parts;
}
