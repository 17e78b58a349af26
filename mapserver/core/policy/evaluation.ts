/**
 * What a policy says of one conversation: the reference of what the agents enforce, and what people are told.
 *
 * Rules are gone through in their order. If protocol or port are left open, a rule for some of them decides for some,
 * and the next ones for the rest; so the answer is a list, which ends with what decides for all that is left. A name
 * that nobody has registered has no address yet, and is judged by the rules that mean it by name.
 */
import { type IpAddress, ipFamily, prefixContains } from '../../../proto/address.ts';
import { type PolicyAction, sameProtocol } from '../../../proto/policy.ts';
import { nameMatches } from '../grants.ts';
import type { DocumentRule, Endpoint, Expectation, PolicyDocument, Selector, Service } from './document.ts';
import type { Selection } from './selection.ts';

/** Who is at one end: by its address, or by its name as long as it has none. */
export type Party = { readonly address: IpAddress } | { readonly name: string };

export interface Conversation {
  readonly from: Party;
  readonly to: Party;
  /** Null: any. */
  readonly protocol: number | null;
  readonly port: number | null;
}

export interface Decision {
  readonly action: PolicyAction;
  /** Null: the default. */
  readonly rule: DocumentRule | null;
}

/** `selection`: null when nothing is known of who is registered. */
export function decide(
  document: PolicyDocument,
  selection: Selection | null,
  { from, to, protocol, port }: Conversation,
): Decision[] {
  const decisions: Decision[] = [];
  const partial: Service[] = [];
  for (const rule of document.rules) {
    const how = fits(rule, protocol, port);
    if (how === 'no' || partial.some((earlier) => includes(earlier, rule))) continue;
    if (!means(rule.from, from, document, selection) || !means(rule.to, to, document, selection)) continue;
    decisions.push({ action: rule.action, rule });
    if (how === 'wholly') return decisions;
    partial.push(rule);
  }
  decisions.push({ action: document.default, rule: null });
  return decisions;
}

/** What becomes of it in every case; `depends` on protocol or port. */
export function outcomeOf(decisions: readonly Decision[]): PolicyAction | 'depends' {
  const [first] = decisions;
  return first !== undefined && decisions.every(({ action }) => action === first.action) ? first.action : 'depends';
}

/** The parties that an endpoint stands for: one for each address, or the name alone. */
export function partiesOf(endpoint: Endpoint, selection: Selection | null): readonly Party[] {
  if (endpoint.kind === 'address') return [{ address: endpoint.address }];
  const addresses = selection?.addressesOf(endpoint.name) ?? [];
  return addresses.length === 0 ? [{ name: endpoint.name }] : addresses.map((address) => ({ address }));
}

/** Each way in which two endpoints can talk. Addresses of different families cannot. */
export function conversations(
  from: readonly Party[],
  to: readonly Party[],
  protocol: number | null,
  port: number | null,
): Conversation[] {
  return from.flatMap((source) =>
    to.filter((other) => sameFamily(source, other)).map((other) => ({ from: source, to: other, protocol, port })),
  );
}

export interface ExpectationResult {
  readonly expectation: Expectation;
  /** `none`: there is no way to talk, since they have no addresses of one family. */
  readonly actual: PolicyAction | 'depends' | 'none';
  readonly passed: boolean;
  /** The first that is not as expected. */
  readonly decision: Decision | null;
}

export function testExpectation(
  document: PolicyDocument,
  selection: Selection | null,
  expectation: Expectation,
): ExpectationResult {
  const { from, to, protocol, port, expected } = expectation;
  const ways = conversations(partiesOf(from, selection), partiesOf(to, selection), protocol, port);
  const decisions = ways.flatMap((way) => decide(document, selection, way));
  const actual = decisions.length === 0 ? 'none' : outcomeOf(decisions);
  const decision = decisions.find(({ action }) => action !== expected) ?? null;
  return { expectation, actual, passed: actual === expected, decision };
}

/** Names of the groups of the document that a party is in. */
export function groupsOf(document: PolicyDocument, selection: Selection | null, party: Party): string[] {
  return [...document.groups.keys()].filter((group) => means([{ kind: 'group', group }], party, document, selection));
}

function means(
  selectors: readonly Selector[],
  party: Party,
  document: PolicyDocument,
  selection: Selection | null,
): boolean {
  return selectors.some((selector) => {
    switch (selector.kind) {
      case 'any':
        return true;
      case 'prefix':
        return 'address' in party && prefixContains(selector.prefix, party.address);
      case 'name':
        return 'address' in party
          ? selection?.hasAddress(selector, party.address) === true
          : nameMatches(selector.pattern, party.name);
      case 'group':
        if ('address' in party && selection !== null) return selection.hasAddress(selector, party.address);
        return means(document.groups.get(selector.group)?.members ?? [], party, document, selection);
      default:
        return selector satisfies never;
    }
  });
}

function fits(rule: Service, protocol: number | null, port: number | null): 'wholly' | 'partly' | 'no' {
  if (rule.protocol === null) return 'wholly';
  if (protocol === null) return 'partly';
  if (!sameProtocol(rule.protocol, protocol)) return 'no';
  if (rule.ports.length === 0) return 'wholly';
  if (port === null) return 'partly';
  return rule.ports.some(([first, last]) => first <= port && port <= last) ? 'wholly' : 'no';
}

/** True when each conversation that `inner` means is one of `outer`. */
function includes(outer: Service, inner: Service): boolean {
  if (outer.protocol === null) return true;
  if (inner.protocol === null || !sameProtocol(outer.protocol, inner.protocol)) return false;
  if (outer.ports.length === 0) return true;
  if (inner.ports.length === 0) return false;
  return inner.ports.every(([first, last]) => outer.ports.some((range) => range[0] <= first && last <= range[1]));
}

function sameFamily(a: Party, b: Party): boolean {
  return !('address' in a && 'address' in b) || ipFamily(a.address) === ipFamily(b.address);
}
