/** What a text would be as a policy, and what a policy says of two parties: for people, before and after it holds. */
import { type IpAddress, type IpPrefix, prefixContains } from '../../../proto/address.ts';
import type { PolicyAction } from '../../../proto/policy.ts';
import type { Overlay } from '../grants.ts';
import { type Endpoint, type PolicyDocument, type PolicyProblem, PolicyTextError, type Selector } from './document.ts';
import {
  conversations,
  type Decision,
  decide,
  type ExpectationResult,
  groupsOf,
  outcomeOf,
  type Party,
  partiesOf,
  testExpectation,
} from './evaluation.ts';
import { parsePolicy } from './language.ts';
import type { PolicyRecords, Selection } from './selection.ts';

export interface PolicyCheck {
  /** Nothing is wrong, and all expectations are met. */
  readonly ok: boolean;
  /** Undefined when the text is no policy. */
  readonly document: PolicyDocument | undefined;
  readonly problems: readonly PolicyProblem[];
  readonly warnings: readonly PolicyProblem[];
  readonly expectations: readonly ExpectationResult[];
}

/** What a policy is checked against besides itself. */
export interface PolicySurroundings {
  readonly overlay: Overlay;
  readonly records: PolicyRecords;
  /** What each agent may own. */
  readonly grants: () => Iterable<readonly IpPrefix[]>;
}

/** Where no map server is known: nobody is registered. `PolicyDraft` checks among those who are. */
export function checkPolicy(text: string): PolicyCheck {
  const document = documentOf(text);
  return 'problems' in document ? document : judge({ document, selection: null }, null);
}

/** Whether a policy that can be enforced does what it expects. `selection`: null when nobody is known. */
export function judge(
  { document, selection }: { readonly document: PolicyDocument; readonly selection: Selection | null },
  overlay: Overlay | null,
): PolicyCheck {
  const expectations = document.expectations.map((each) => testExpectation(document, selection, each));
  const warnings = overlay === null || selection === null ? [] : warningsOf(document, selection, overlay);
  return { ok: expectations.every(({ passed }) => passed), document, problems: [], warnings, expectations };
}

/** What the text says, or what is wrong with it. */
export function documentOf(text: string): PolicyDocument | PolicyCheck {
  try {
    return parsePolicy(text);
  } catch (error) {
    if (!(error instanceof PolicyTextError)) throw error;
    return unjudged(undefined, error.problems);
  }
}

/** Nobody asks what a policy does that cannot be one. */
export function unjudged(document: PolicyDocument | undefined, problems: readonly PolicyProblem[]): PolicyCheck {
  return { ok: false, document, problems, warnings: [], expectations: [] };
}

export interface Explanation {
  readonly from: PartyView;
  readonly to: PartyView;
  /** `none`: they have no addresses of one family. */
  readonly action: PolicyAction | 'depends' | 'none';
  readonly ways: readonly {
    readonly from: Party;
    readonly to: Party;
    readonly decisions: readonly Decision[];
  }[];
}

export interface PartyView {
  readonly endpoint: Endpoint;
  readonly addresses: readonly IpAddress[];
  readonly groups: readonly string[];
}

export function explainPolicy(
  document: PolicyDocument,
  selection: Selection,
  question: {
    readonly from: Endpoint;
    readonly to: Endpoint;
    readonly protocol: number | null;
    readonly port: number | null;
  },
): Explanation {
  const [from, to] = [partiesOf(question.from, selection), partiesOf(question.to, selection)];
  const ways = conversations(from, to, question.protocol, question.port)
    .slice(0, MAX_WAYS)
    .map((way) => ({ from: way.from, to: way.to, decisions: decide(document, selection, way) }));
  const view = (endpoint: Endpoint, parties: readonly Party[]): PartyView => ({
    endpoint,
    addresses: parties.flatMap((party) => ('address' in party ? [party.address] : [])),
    groups: [...new Set(parties.flatMap((party) => groupsOf(document, selection, party)))],
  });
  return {
    from: view(question.from, from),
    to: view(question.to, to),
    action: ways.length === 0 ? 'none' : outcomeOf(ways.flatMap(({ decisions }) => decisions)),
    ways,
  };
}

function warningsOf(document: PolicyDocument, selection: Selection, overlay: Overlay): readonly PolicyProblem[] {
  const warnings: PolicyProblem[] = [];
  const told = new Set<string>();
  const look = (line: number, selectors: readonly Selector[]): void => {
    for (const selector of selectors) {
      const message = warningOf(selector, selection, overlay);
      if (message === undefined || told.has(message) || warnings.length >= MAX_WARNINGS) continue;
      told.add(message);
      warnings.push({ line, message });
    }
  };
  for (const { line, members } of document.groups.values()) look(line, members);
  for (const { line, from, to } of document.rules) look(line, [...from, ...to]);
  return warnings.sort((a, b) => a.line - b.line);
}

function warningOf(selector: Selector, selection: Selection, overlay: Overlay): string | undefined {
  switch (selector.kind) {
    case 'prefix': {
      const { prefix } = selector;
      const near = overlay.prefixes.some((each) => prefixContains(each, prefix) || prefixContains(prefix, each));
      return near ? undefined : `${prefix} is not in the overlay (${overlay.prefixes.join(', ')})`;
    }
    case 'name':
      return selection.isEmpty(selector) ? `nobody has registered ${selector.pattern} so far` : undefined;
    case 'group':
      return selection.isEmpty(selector) ? `the group "${selector.group}" has no members so far` : undefined;
    case 'any':
      return undefined;
    default:
      return selector satisfies never;
  }
}

const MAX_WARNINGS = 100;
const MAX_WAYS = 64;
