/**
 * Policy as one agent enforces it: who may open a conversation with whom, in prefixes and ports.
 *
 * The map server compiles it for each agent and sends it as text frames of JSON on the agent's WebSocket, in parts that
 * fit a frame each. What is decoded here is bounded and complete, or a DecodeError. `verdictOf` is what the rules mean;
 * answers to a conversation that was opened are the business of whoever enforces them.
 */
import { type IpAddress, type IpPrefix, parseIpPrefix, prefixContains } from './address.ts';
import { DecodeError } from './errors.ts';

/** What one agent enforces for traffic from and to its EIDs. The first rule that matches decides, otherwise `default`. */
export interface AgentPolicy {
  /** Grows with each change of the policy or of what it means for this agent; 0: no policy was ever set (all is allowed). */
  readonly version: number;
  readonly default: PolicyAction;
  readonly rules: readonly PolicyRule[];
}

export type PolicyAction = 'allow' | 'deny';

export interface PolicyRule {
  readonly action: PolicyAction;
  /** Who opens the conversation. Never empty. */
  readonly source: readonly IpPrefix[];
  /** Never empty. */
  readonly destination: readonly IpPrefix[];
  /** IP protocol number (ICMP and ICMPv6 are both meant by 1 and by 58); null: any. */
  readonly protocol: number | null;
  /** Destination ports, inclusive; empty: any. Only with protocol 6, 17, 132. */
  readonly ports: readonly PortRange[];
}

export type PortRange = readonly [first: number, last: number];

/** How a conversation is opened. `port`: of the destination, with the protocols that have ports. */
export interface Opening {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly protocol: number;
  readonly port?: number | undefined;
}

/** One text frame. A policy is its parts in order, of one version; a `part` 0 starts anew. */
export interface PolicyFrame extends AgentPolicy {
  readonly type: 'policy';
  readonly part: number;
  readonly parts: number;
}

export const MAX_POLICY_RULES = 4096;
/** Over all rules. */
export const MAX_POLICY_PREFIXES = 65_536;
/** Of one rule. */
export const MAX_POLICY_PORTS = 64;
/** Sources or destinations of one rule, so that each rule fits into a frame. */
export const MAX_RULE_PREFIXES = 512;
/** Octets. */
export const MAX_POLICY_FRAME = 65_536;
export const MAX_POLICY_PARTS = 256;

export const NO_POLICY: AgentPolicy = { version: 0, default: 'allow', rules: [] };

export const PROTOCOLS_WITH_PORTS: ReadonlySet<number> = new Set([6, 17, 132]);

/**
 * Of a policy that stands in for one that is too large for the agent: who has a policy keeps it, others deny all. An
 * agent that does not know it denies all.
 */
export const STAND_IN_VERSION = 1;

/** The version is `policy * VERSION_STEP + change`: which policy of the map server, and which change of its meaning. */
export const VERSION_STEP = 1_000_000;

/** `7.12`: policy 7, changed 12 times in what it means for the agent; `none` for 0. */
export function formatPolicyVersion(version: number): string {
  return version === 0 ? 'none' : `${Math.floor(version / VERSION_STEP)}.${version % VERSION_STEP}`;
}

/** The rule that decides, by its index; null: none, so the default. */
export function verdictOf(
  policy: AgentPolicy,
  opening: Opening,
): { readonly action: PolicyAction; readonly rule: number | null } {
  const rule = policy.rules.findIndex((candidate) => matches(candidate, opening));
  return { action: policy.rules[rule]?.action ?? policy.default, rule: rule < 0 ? null : rule };
}

/** In parts that fit a frame. The policy must be within the limits. */
export function encodePolicyFrames(policy: AgentPolicy): string[] {
  const parts: string[][] = [[]];
  let size = 0;
  for (const rule of policy.rules) {
    const text = ruleText(rule);
    size += text.length + 1;
    if (size > MAX_POLICY_FRAME - FRAME_HEAD && parts.at(-1)?.length !== 0) {
      parts.push([]);
      size = text.length + 1;
    }
    parts.at(-1)?.push(text);
  }
  return parts.map(
    (rules, part) =>
      `{"type":"policy","version":${policy.version},"default":"${policy.default}","part":${part},"parts":${parts.length},"rules":[${rules.join(',')}]}`,
  );
}

function ruleText({ action, source, destination, protocol, ports }: PolicyRule): string {
  const service = `"protocol":${protocol},"ports":${JSON.stringify(ports)}`;
  return `{"action":"${action}","source":${listText(source)},"destination":${listText(destination)},${service}}`;
}

/** The lists of a group are those of all agents that the rules for it concern: each is written once. */
function listText(list: readonly IpPrefix[]): string {
  if (list.length < LIST_OF_GROUP) return JSON.stringify(list);
  const known = texts.get(list);
  if (known !== undefined) return known;
  const text = JSON.stringify(list);
  texts.set(list, text);
  return text;
}

/** One frame, parsed from JSON. @throws DecodeError */
export function decodePolicyFrame(value: unknown): PolicyFrame {
  const fields = object(value, 'policy frame', ['type', 'version', 'default', 'part', 'parts', 'rules']);
  if (fields.type !== 'policy') throw new DecodeError('policy frame', 0, 'its type is not "policy"');
  const parts = whole(fields.parts, 1, MAX_POLICY_PARTS, 'parts');
  return { type: 'policy', ...policyOf(fields), part: whole(fields.part, 0, parts - 1, 'part'), parts };
}

/** A whole policy, parsed from JSON, as it is kept on disk. @throws DecodeError */
export function decodeAgentPolicy(value: unknown): AgentPolicy {
  return policyOf(object(value, 'policy', ['version', 'default', 'rules']));
}

/** Puts the parts of a policy together, for one session. */
export class PolicyAssembly {
  private head: PolicyFrame | undefined;
  private rules: PolicyRule[] = [];
  private prefixes = 0;
  private next = 0;

  /** The policy when `frame` was its last part. What was begun is forgotten after an error. @throws DecodeError */
  add(frame: PolicyFrame): AgentPolicy | undefined {
    if (frame.part === 0) this.begin(frame);
    const { head } = this;
    const fits =
      head !== undefined &&
      frame.part === this.next &&
      frame.parts === head.parts &&
      frame.version === head.version &&
      frame.default === head.default;
    this.rules.push(...frame.rules);
    this.prefixes += prefixCount(frame.rules);
    if (!fits || this.rules.length > MAX_POLICY_RULES || this.prefixes > MAX_POLICY_PREFIXES) {
      this.begin(undefined);
      throw new DecodeError('policy frame', 0, fits ? 'the parts together are too large' : 'a part is out of order');
    }
    this.next++;
    if (this.next < frame.parts) return undefined;
    const policy: AgentPolicy = { version: head.version, default: head.default, rules: this.rules };
    this.begin(undefined);
    return policy;
  }

  private begin(head: PolicyFrame | undefined): void {
    this.head = head;
    this.rules = [];
    this.prefixes = 0;
    this.next = 0;
  }
}

export function prefixCount(rules: readonly PolicyRule[]): number {
  return rules.reduce((sum, { source, destination }) => sum + source.length + destination.length, 0);
}

/** ICMP means that of either address family. */
export function sameProtocol(a: number, b: number): boolean {
  return a === b || (ICMP.has(a) && ICMP.has(b));
}

function matches(rule: PolicyRule, { source, destination, protocol, port }: Opening): boolean {
  if (rule.protocol !== null && !sameProtocol(rule.protocol, protocol)) return false;
  if (rule.ports.length > 0) {
    if (port === undefined || !rule.ports.some(([first, last]) => first <= port && port <= last)) return false;
  }
  return (
    rule.source.some((prefix) => prefixContains(prefix, source)) &&
    rule.destination.some((prefix) => prefixContains(prefix, destination))
  );
}

function policyOf(fields: Readonly<Record<string, unknown>>): AgentPolicy {
  const rules = list(fields.rules, 0, MAX_POLICY_RULES, 'rules').map(ruleOf);
  if (prefixCount(rules) > MAX_POLICY_PREFIXES) {
    throw new DecodeError('rules', 0, `there are more than ${MAX_POLICY_PREFIXES} prefixes`);
  }
  return {
    version: whole(fields.version, 0, Number.MAX_SAFE_INTEGER, 'version'),
    default: action(fields.default, 'default'),
    rules,
  };
}

function ruleOf(value: unknown): PolicyRule {
  const fields = object(value, 'rule', ['action', 'source', 'destination', 'protocol', 'ports']);
  const protocol = fields.protocol === null ? null : whole(fields.protocol, 0, 255, 'protocol');
  const ports = list(fields.ports, 0, MAX_POLICY_PORTS, 'ports').map(portRangeOf);
  if (ports.length > 0 && (protocol === null || !PROTOCOLS_WITH_PORTS.has(protocol))) {
    throw new DecodeError('ports', 0, `protocol ${protocol} has no ports`);
  }
  return {
    action: action(fields.action, 'action'),
    source: list(fields.source, 1, MAX_RULE_PREFIXES, 'source').map((text) => prefix(text, 'source')),
    destination: list(fields.destination, 1, MAX_RULE_PREFIXES, 'destination').map((text) =>
      prefix(text, 'destination'),
    ),
    protocol,
    ports,
  };
}

function portRangeOf(value: unknown): PortRange {
  const [first, last] = list(value, 2, 2, 'port range');
  const from = whole(first, 0, 65_535, 'port');
  return [from, whole(last, from, 65_535, 'port')];
}

function prefix(value: unknown, field: string): IpPrefix {
  if (typeof value !== 'string' || value.length > MAX_PREFIX_TEXT) throw new DecodeError(field, 0, 'not a prefix');
  return parseIpPrefix(value);
}

function action(value: unknown, field: string): PolicyAction {
  if (value === 'allow' || value === 'deny') return value;
  throw new DecodeError(field, 0, 'neither "allow" nor "deny"');
}

function whole(value: unknown, min: number, max: number, field: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) {
    // JSON has a -0, which is written as 0.
    return value + 0;
  }
  throw new DecodeError(field, 0, `not a whole number from ${min} to ${max}`);
}

function list(value: unknown, min: number, max: number, field: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new DecodeError(field, 0, 'not a list');
  if (value.length < min || value.length > max) {
    throw new DecodeError(field, 0, `${value.length} items where ${min} to ${max} may be`);
  }
  return value;
}

/** Exactly these keys. */
function object(value: unknown, field: string, keys: readonly string[]): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new DecodeError(field, 0, 'not an object');
  }
  const unknown = Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw new DecodeError(field, 0, `unknown key "${unknown.slice(0, 40)}"`);
  const missing = keys.find((key) => !Object.hasOwn(value, key));
  if (missing !== undefined) throw new DecodeError(field, 0, `"${missing}" is missing`);
  return value as Readonly<Record<string, unknown>>;
}

const LIST_OF_GROUP = 16;
const texts = new WeakMap<readonly IpPrefix[], string>();
const ICMP: ReadonlySet<number> = new Set([1, 58]);
/** Of an IPv6 prefix with an IPv4 tail. */
const MAX_PREFIX_TEXT = 49;
/** Octets of a frame around its rules, at most. */
const FRAME_HEAD = 128;
