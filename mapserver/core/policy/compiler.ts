/**
 * A policy in prefixes, as much of it as concerns one agent.
 *
 * An agent is concerned by a rule if it may own EIDs of either side: what counts is its grant, not what it owns at the
 * moment, so that it has the rules for an EID before the EID moves to it. Of such a rule it gets the sources among its
 * own EIDs with all destinations, and all sources with the destinations among its own EIDs; the other pairs never pass
 * it. Taking a whole rule instead is always right too, and done where it reveals nothing more. The rules keep their
 * order, so the first that matches a packet of this agent is made from the first that matches it in the policy.
 *
 * An index from prefixes to components finds the rules of a grant without looking at the others. What a side means is
 * written out once, in as few prefixes as possible, and shared by the extracts of all agents.
 */
import type { IpPrefix } from '../../../proto/address.ts';
import { StayputError } from '../../../proto/errors.ts';
import { MAX_POLICY_PREFIXES, MAX_POLICY_RULES, MAX_RULE_PREFIXES, type PolicyRule } from '../../../proto/policy.ts';
import { PrefixTrie } from '../../../proto/prefix-trie.ts';
import { aggregated } from './aggregation.ts';
import type { DocumentRule, PolicyDocument, Selector } from './document.ts';
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
  private readonly rules: readonly RuleSides[];
  /** By what is written there: rules that mention the same have them in common. */
  private readonly sides = new Map<string, Side>();
  private readonly uses = new Map<Component, Side[]>();
  private readonly index = new PrefixTrie<Set<Component>>();

  /** `selection` has gathered all. Complete after `enterAll`. */
  constructor(document: PolicyDocument, selection: Selection) {
    this.document = document;
    this.rules = document.rules.map(({ from, to }, rule) => ({
      from: this.side(rule, from, selection),
      to: this.side(rule, to, selection),
    }));
  }

  /** Makes the index, in steps, between which components may change if `apply` hears of it afterwards. */
  *enterAll(): Generator<number, void> {
    for (const component of this.uses.keys()) {
      for (const prefix of component.prefixes.keys()) {
        this.enter(component, prefix);
        yield COST_OF_PREFIX;
      }
    }
  }

  /** Writes out what the sides mean, in steps, which is otherwise done when it is asked for. */
  *writeOut(): Generator<number, void> {
    for (const side of this.sides.values()) {
      yield COST_OF_PREFIX * piecesOf(side).reduce((sum, piece) => sum + piece.length, 1);
    }
  }

  /** Rules that a change of components concerns. */
  apply(changes: readonly ComponentChange[]): Set<number> {
    const rules = new Set<number>();
    for (const { component, prefixes } of changes) {
      for (const side of this.uses.get(component) ?? []) {
        side.isStale = true;
        for (const rule of side.rules) rules.add(rule);
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
    const { concerned, pairings } = this.pairings(grant);
    return { rules: pairings.flatMap(inPieces), concerned };
  }

  /** The same without writing it out. @throws PolicyTooLargeError */
  demandEnforceable(grant: readonly IpPrefix[]): void {
    this.pairings(grant);
  }

  /** False when no agent that may own only `hosts` single addresses can have to enforce more than is possible. */
  mayBeTooLarge(hosts: number): boolean {
    // Of a side it has at most these; of everything, which stays whole, two prefixes.
    const own = piecesFor(Math.max(hosts, EVERYTHING.length));
    let rules = 0;
    let prefixes = 0;
    for (const { from, to } of this.rules) {
      const [sources, destinations] = [piecesOf(from).map(lengthOf), piecesOf(to).map(lengthOf)];
      for (const size of [sizeOfPairing(own, destinations), sizeOfPairing(sources, own)]) {
        rules += size.rules;
        prefixes += size.prefixes;
      }
    }
    return prefixes > MAX_POLICY_PREFIXES || rules > MAX_POLICY_RULES;
  }

  private pairings(grant: readonly IpPrefix[]): { concerned: ReadonlySet<number>; pairings: readonly Pairing[] } {
    const own = this.ownParts(grant);
    const concerned = new Set([...own.keys()].flatMap((side) => side.rules).sort((a, b) => a - b));
    const pairings: Pairing[] = [];
    let rules = 0;
    let prefixes = 0;
    for (const index of concerned) {
      const rule = this.document.rules[index];
      const sides = this.rules[index];
      if (rule === undefined || sides === undefined) continue;
      for (const pairing of narrowed(rule, sides, own)) {
        const size = sizeOfPairing(pairing.sources.map(lengthOf), pairing.destinations.map(lengthOf));
        rules += size.rules;
        prefixes += size.prefixes;
        pairings.push(pairing);
      }
      if (rules > MAX_POLICY_RULES || prefixes > MAX_POLICY_PREFIXES) {
        throw new PolicyTooLargeError(rules, prefixes, concerned);
      }
    }
    return { concerned, pairings };
  }

  private side(rule: number, selectors: readonly Selector[], selection: Selection): Side {
    const key = JSON.stringify(selectors);
    const known = this.sides.get(key);
    if (known !== undefined) {
      known.rules.push(rule);
      return known;
    }
    const components = selection.componentsOf(selectors);
    const side: Side = { rules: [rule], components, pieces: [], isStale: true };
    this.sides.set(key, side);
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
  /** That have it as source or as destination. */
  readonly rules: number[];
  readonly components: readonly Component[];
  /** All of its addresses, in parts that are small enough for a rule. */
  pieces: Pieces;
  /** The pieces are those of an earlier state. */
  isStale: boolean;
}

interface RuleSides {
  readonly from: Side;
  readonly to: Side;
}

/** All sources of a rule with all destinations, each in parts that are small enough for a rule. */
interface Pairing {
  readonly rule: DocumentRule;
  readonly sources: Pieces;
  readonly destinations: Pieces;
}

type Pieces = readonly (readonly IpPrefix[])[];

function narrowed(
  rule: DocumentRule,
  { from, to }: RuleSides,
  own: ReadonlyMap<Side, ReadonlySet<IpPrefix>>,
): Pairing[] {
  const sources = piecesOf(from);
  const destinations = piecesOf(to);
  const ownSources = own.get(from);
  const ownDestinations = own.get(to);
  if (isWhole(ownSources, from) || isWhole(ownDestinations, to)) return [{ rule, sources, destinations }];
  return [
    ...(ownSources === undefined ? [] : [{ rule, sources: ownPieces(ownSources), destinations }]),
    ...(ownDestinations === undefined ? [] : [{ rule, sources, destinations: ownPieces(ownDestinations) }]),
  ];
}

function ownPieces(own: ReadonlySet<IpPrefix>): Pieces {
  return own.size === 1 ? [[...own]] : pieces(aggregated(own));
}

/** Everything counts as a whole: what others there are never passes this agent. */
function isWhole(own: ReadonlySet<IpPrefix> | undefined, side: Side): boolean {
  if (own === undefined) return false;
  if (isEverything(side)) return true;
  for (const { prefixes } of side.components) for (const prefix of prefixes.keys()) if (!own.has(prefix)) return false;
  return true;
}

function isEverything(side: Side): boolean {
  return side.components.some(({ key }) => key === 'any');
}

function piecesOf(side: Side): Pieces {
  if (!side.isStale) return side.pieces;
  side.isStale = false;
  const before = side.pieces;
  const list = isEverything(side) ? EVERYTHING : aggregated(prefixesOf(side));
  // What is the same stays the same object, so that comparing it and writing it down again cost nothing.
  side.pieces = pieces(list).map((piece, i) => (sameList(piece, before[i]) ? (before[i] ?? piece) : piece));
  return side.pieces;
}

function* prefixesOf({ components }: Side): IterableIterator<IpPrefix> {
  for (const { prefixes } of components) yield* prefixes.keys();
}

function lengthOf({ length }: readonly IpPrefix[]): number {
  return length;
}

function sameList(a: readonly IpPrefix[], b: readonly IpPrefix[] | undefined): boolean {
  return b !== undefined && a.length === b.length && a.every((prefix, i) => prefix === b[i]);
}

/** Rules that together mean all pairs. */
function inPieces({ rule: { action, protocol, ports }, sources, destinations }: Pairing): PolicyRule[] {
  return sources.flatMap((source) =>
    destinations.map((destination) => ({ action, source, destination, protocol, ports })),
  );
}

/** Of the rules that `inPieces` makes. `sources`, `destinations`: the prefixes in each piece. */
function sizeOfPairing(
  sources: readonly number[],
  destinations: readonly number[],
): { readonly rules: number; readonly prefixes: number } {
  const sum = (lengths: readonly number[]): number => lengths.reduce((total, length) => total + length, 0);
  const prefixes = destinations.length * sum(sources) + sources.length * sum(destinations);
  return { rules: sources.length * destinations.length, prefixes };
}

/** Each small enough for a rule, and so for a frame. */
function pieces(list: readonly IpPrefix[]): (readonly IpPrefix[])[] {
  if (list.length <= MAX_RULE_PREFIXES) return list.length === 0 ? [] : [list];
  const parts: (readonly IpPrefix[])[] = [];
  for (let at = 0; at < list.length; at += MAX_RULE_PREFIXES) parts.push(list.slice(at, at + MAX_RULE_PREFIXES));
  return parts;
}

/** How `pieces` divides so many. */
function piecesFor(count: number): number[] {
  const whole = Array.from({ length: Math.floor(count / MAX_RULE_PREFIXES) }, () => MAX_RULE_PREFIXES);
  const rest = count % MAX_RULE_PREFIXES;
  return rest === 0 ? whole : [...whole, rest];
}

/** Of a step, in records that are gathered meanwhile. */
const COST_OF_PREFIX = 0.1;
