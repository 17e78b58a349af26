/** Who may open a conversation with this host, as the policy that is enforced has it. */
import { type IpPrefix, ipPrefix, prefixAddress, prefixLength } from '../../proto/address.ts';
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
  const meetsOwn = overlapWith(own);
  const rules = policy.rules.filter(({ destination }) => destination.some(meetsOwn));
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

/** Whether a prefix has addresses in common with one of these. There may be thousands of both, so each is looked up. */
export function overlapWith(prefixes: readonly IpPrefix[]): (prefix: IpPrefix) => boolean {
  const whole = new Set(prefixes);
  const lengths = new Set(prefixes.map(prefixLength));
  const cut = new Map<number, ReadonlySet<IpPrefix>>();
  const cutTo = (length: number): ReadonlySet<IpPrefix> => {
    const known = cut.get(length);
    if (known !== undefined) return known;
    const longer = prefixes.filter((prefix) => prefixLength(prefix) >= length);
    const made = new Set(longer.map((prefix) => ipPrefix(prefixAddress(prefix), length)));
    cut.set(length, made);
    return made;
  };
  return (prefix) => {
    const length = prefixLength(prefix);
    const shorter = [...lengths].filter((each) => each < length);
    return cutTo(length).has(prefix) || shorter.some((each) => whole.has(ipPrefix(prefixAddress(prefix), each)));
  };
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
