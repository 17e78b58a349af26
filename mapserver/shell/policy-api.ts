/** The policy over the admin API: what holds, what a text would be, what is said of two parties, and changes of it. */
import { z } from 'zod';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import { describeFailure, type PolicyChange } from '../core/policy/change.ts';
import type { DocumentRule, Endpoint } from '../core/policy/document.ts';
import type { Decision, Party } from '../core/policy/evaluation.ts';
import { checkPolicy, type Explanation, type PartyView, type PolicyCheck } from '../core/policy/inspection.ts';
import { MAX_POLICY_TEXT, parseEndpoint, parsePort, parseProtocol } from '../core/policy/language.ts';
import type { PolicyRecord } from '../core/records.ts';
import type { Driver } from './driver.ts';
import { apiError } from './enrolment.ts';

export function policyRoutes(driver: Driver): Route[] {
  const change = async (wanted: PolicyChange): Promise<unknown> => {
    const result = await driver.operate(wanted);
    if (!result.ok) throw apiError(result.error);
    if (result.record.kind !== 'policy') throw new Error('a change of the policy must end in a policy');
    return policyView(driver, result.record);
  };
  return [
    {
      method: 'GET',
      path: '/v1/policy',
      handle: () => policyView(driver, driver.core.state.policyInForce()?.record),
    },
    {
      method: 'POST',
      path: '/v1/policy',
      handle: ({ body }) => change({ kind: 'set-policy', ...parseBody(NEW_POLICY, body) }),
    },
    {
      method: 'POST',
      path: '/v1/policy/rollback',
      handle: ({ body }) => change({ kind: 'roll-back-policy', ...parseBody(ROLLBACK, body ?? {}) }),
    },
    {
      method: 'POST',
      path: '/v1/policy/check',
      handle: async ({ body }) => {
        const check = await driver.checkPolicy(parseBody(TEXT, body).text);
        if (check !== undefined) return checkView(check);
        throw new ApiError(503, 'STAYPUT_STORE', 'too many policies are being checked; try again later');
      },
    },
    {
      method: 'GET',
      path: '/v1/policy/explain',
      handle: ({ query }) => {
        const question = parseBody(QUESTION, Object.fromEntries(query));
        const explanation = driver.core.state.explainPolicy(question) ?? withoutPolicy(question);
        return explanationView(explanation, driver.core.state.policyInForce()?.record.version ?? 0);
      },
    },
  ];
}

/** What can be said of a text without a map server. */
export function checkOffline(text: string): CheckView {
  return checkView(checkPolicy(text));
}

export interface CheckView {
  readonly ok: boolean;
  readonly default: string | null;
  readonly rules: number;
  readonly groups: number;
  readonly problems: readonly { readonly line: number; readonly message: string }[];
  readonly warnings: readonly { readonly line: number; readonly message: string }[];
  readonly expectations: readonly {
    readonly line: number;
    readonly text: string;
    readonly expected: string;
    readonly actual: string;
    readonly passed: boolean;
    /** What decides otherwise; null when it passed. */
    readonly problem: string | null;
  }[];
}

function checkView({ ok, document, problems, warnings, expectations }: PolicyCheck): CheckView {
  return {
    ok,
    default: document?.default ?? null,
    rules: document?.rules.length ?? 0,
    groups: document?.groups.size ?? 0,
    problems,
    warnings,
    expectations: expectations.map((result) => {
      const { expectation, actual, passed } = result;
      const { line, text, expected } = expectation;
      return { line, text, expected, actual, passed, problem: passed ? null : describeFailure(result) };
    }),
  };
}

function policyView(driver: Driver, record: PolicyRecord | undefined): unknown {
  const inForce = driver.core.state.policyInForce();
  return {
    version: record?.version ?? 0,
    appliedAt: record?.appliedAt ?? null,
    default: inForce?.document.default ?? 'allow',
    rules: inForce?.document.rules.length ?? 0,
    text: record?.text ?? '',
    previousVersion: record?.previous?.version ?? null,
  };
}

function withoutPolicy({ from, to }: { readonly from: Endpoint; readonly to: Endpoint }): Explanation {
  const view = (endpoint: Endpoint): PartyView => ({ endpoint, addresses: [], groups: [] });
  return { from: view(from), to: view(to), action: 'allow', ways: [] };
}

function explanationView({ from, to, action, ways }: Explanation, version: number): unknown {
  return {
    version,
    action,
    from: partyView(from),
    to: partyView(to),
    ways: ways.map((way) => ({
      from: partyText(way.from),
      to: partyText(way.to),
      decisions: way.decisions.map(decisionView),
    })),
  };
}

function partyView({ endpoint, addresses, groups }: PartyView): unknown {
  return { asked: endpoint.kind === 'name' ? endpoint.name : endpoint.address, addresses, groups };
}

function partyText(party: Party): string {
  return 'address' in party ? party.address : party.name;
}

function decisionView({ action, rule }: Decision): unknown {
  return { action, rule: rule === null ? null : ruleView(rule) };
}

function ruleView({ line, text }: DocumentRule): unknown {
  return { line, text };
}

/** Text that `parse` takes; what it throws becomes an issue. */
function parsedBy<T>(parse: (text: string) => T) {
  return z
    .string()
    .max(300)
    .transform((text, context): T => {
      try {
        return parse(text);
      } catch (error) {
        context.addIssue({ code: 'custom', message: (error as Error).message.replace(/^.*? at offset \d+: /, '') });
        return z.NEVER;
      }
    });
}

const TEXT = z.strictObject({ text: z.string().max(MAX_POLICY_TEXT) });
const ROLLBACK = z.strictObject({ ifVersion: z.int().min(0).nullable().default(null) });
const NEW_POLICY = z.strictObject({ ...TEXT.shape, ...ROLLBACK.shape });
const QUESTION = z
  .strictObject({
    from: parsedBy(parseEndpoint),
    to: parsedBy(parseEndpoint),
    protocol: parsedBy(parseProtocol).nullable().default(null),
    port: parsedBy(parsePort).nullable().default(null),
  })
  .refine(({ protocol, port }) => port === null || protocol !== null, 'a port needs a protocol');
