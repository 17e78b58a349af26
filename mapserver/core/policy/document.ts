/** A policy as it was written: groups, rules in their order, and what is expected of them. `language.ts` reads it. */
import type { IpAddress, IpPrefix } from '../../../proto/address.ts';
import { StayputError } from '../../../proto/errors.ts';
import type { PolicyAction, PortRange } from '../../../proto/policy.ts';

export interface PolicyDocument {
  /** What holds when no rule matches. */
  readonly default: PolicyAction;
  readonly groups: ReadonlyMap<string, DocumentGroup>;
  readonly rules: readonly DocumentRule[];
  readonly expectations: readonly Expectation[];
}

/** Whom a rule or a group means. `name`: a name or pattern, and by it the EIDs behind it. */
export type Selector =
  | { readonly kind: 'any' }
  | { readonly kind: 'group'; readonly group: string }
  | { readonly kind: 'name'; readonly pattern: string }
  | { readonly kind: 'prefix'; readonly prefix: IpPrefix };

/** Also the EIDs of the agents that are granted the group are in it. */
export interface DocumentGroup {
  readonly line: number;
  readonly members: readonly Selector[];
}

/** Which conversations: `protocol` null: all. `ports` empty: all. */
export interface Service {
  readonly protocol: number | null;
  readonly ports: readonly PortRange[];
}

export interface DocumentRule extends Service {
  /** From 1. */
  readonly line: number;
  readonly text: string;
  readonly action: PolicyAction;
  readonly from: readonly Selector[];
  readonly to: readonly Selector[];
}

export type Endpoint =
  | { readonly kind: 'address'; readonly address: IpAddress }
  | { readonly kind: 'name'; readonly name: string };

/** A conversation, and what has to become of it. Without protocol or port: of all of them. */
export interface Expectation {
  readonly line: number;
  readonly text: string;
  readonly expected: PolicyAction;
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly protocol: number | null;
  readonly port: number | null;
}

export interface PolicyProblem {
  readonly line: number;
  /** What is wrong, and what to do about it. */
  readonly message: string;
}

/** A text is no policy. */
export class PolicyTextError extends StayputError {
  readonly problems: readonly PolicyProblem[];

  constructor(problems: readonly PolicyProblem[]) {
    super('STAYPUT_POLICY_TEXT', problems.map(({ line, message }) => `line ${line}: ${message}`).join('; '));
    this.problems = problems;
  }
}
