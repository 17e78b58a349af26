/** Who may open a conversation with this host, as the policy that is enforced has it. */
import { type IpPrefix, prefixContains } from '../../proto/address.ts';
import type { AgentPolicy, PolicyAction, PolicyRule } from '../../proto/policy.ts';

export interface InboundRule {
  readonly action: PolicyAction;
  /** At most SOURCES; `more` are left out. */
  readonly from: readonly IpPrefix[];
  readonly more: number;
  /** `any`, `tcp 443`, `udp 53, 5000-5010`, `icmp`. */
  readonly service: string;
}

export interface Inbound {
  /** In their order: the first that fits decides. At most RULES; `more` are left out. */
  readonly rules: readonly InboundRule[];
  readonly more: number;
  readonly otherwise: PolicyAction;
}

/** `own`: the EIDs of this host. */
export function inboundOf(policy: AgentPolicy, own: readonly IpPrefix[]): Inbound {
  const rules = policy.rules.filter(({ destination }) => destination.some((to) => own.some((eid) => meet(to, eid))));
  return {
    rules: rules.slice(0, RULES).map((rule) => ({
      action: rule.action,
      from: rule.source.slice(0, SOURCES),
      more: Math.max(0, rule.source.length - SOURCES),
      service: serviceOf(rule),
    })),
    more: Math.max(0, rules.length - RULES),
    otherwise: policy.default,
  };
}

function meet(a: IpPrefix, b: IpPrefix): boolean {
  return prefixContains(a, b) || prefixContains(b, a);
}

function serviceOf({ protocol, ports }: PolicyRule): string {
  if (protocol === null) return 'any';
  const name = PROTOCOLS.get(protocol) ?? `protocol ${protocol}`;
  const ranges = ports.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
  return [name, ranges.join(', ')].join(' ').trimEnd();
}

const PROTOCOLS: ReadonlyMap<number, string> = new Map([
  [1, 'icmp'],
  [58, 'icmp'],
  [6, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
]);
/** What an answer for people names. */
const RULES = 20;
const SOURCES = 16;
