/**
 * The language of policies: one statement a line, `#` begins a comment, a line that ends in a comma goes on in the next.
 *
 *     default deny
 *     group web = *.web, 10.77.1.0/24, @partners
 *     group ops
 *     allow from @web to db tcp 5432
 *     deny  from any to 10.77.9.0/24
 *     expect allow from web1.web to db tcp 5432
 *
 * A rule is `allow|deny from WHOM to WHOM [PROTOCOL [PORTS]]`, WHOM a list of `any`, `@GROUP`, addresses, prefixes, names
 * and patterns of names. The same words with one address or name on each side, after `expect`, are a test. All that is
 * wrong is told at once, each with its line.
 */
import { isIpAddress, parseIpAddress, parseIpPrefix } from '../../../proto/address.ts';
import { DEFAULT_INSTANCE, nameEid } from '../../../proto/eid.ts';
import { DecodeError } from '../../../proto/errors.ts';
import { MAX_POLICY_PORTS, type PolicyAction, type PortRange, PROTOCOLS_WITH_PORTS } from '../../../proto/policy.ts';
import { parseGroupName, parseNamePattern } from '../grants.ts';
import {
  type DocumentGroup,
  type DocumentRule,
  type Endpoint,
  type Expectation,
  type PolicyDocument,
  type PolicyProblem,
  PolicyTextError,
  type Selector,
  type Service,
} from './document.ts';

/** Characters. */
export const MAX_POLICY_TEXT = 262_144;
export const MAX_DOCUMENT_RULES = 2_000;
export const MAX_DOCUMENT_GROUPS = 1_000;
export const MAX_EXPECTATIONS = 1_000;
/** Over all groups and rules. */
export const MAX_SELECTORS = 20_000;

/** @throws PolicyTextError */
export function parsePolicy(text: string): PolicyDocument {
  if (text.length > MAX_POLICY_TEXT) {
    throw new PolicyTextError([{ line: 1, message: `the policy has more than ${MAX_POLICY_TEXT} characters` }]);
  }
  const reader = new PolicyReader();
  for (const statement of statements(text)) reader.read(statement);
  return reader.finish();
}

/** 6 for `tcp`. @throws DecodeError */
export function parseProtocol(text: string): number {
  const known = PROTOCOLS[text.toLowerCase()];
  if (known !== undefined) return known;
  if (/^\d{1,3}$/.test(text) && Number(text) <= 255) return Number(text);
  throw new DecodeError('protocol', 0, `"${text}" is not tcp, udp, sctp, icmp or a protocol number from 0 to 255`);
}

/** `tcp`, `47`. */
export function formatProtocol(protocol: number): string {
  return Object.entries(PROTOCOLS).find(([, number]) => number === protocol)?.[0] ?? String(protocol);
}

/** @throws DecodeError */
export function parsePort(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return Number(text);
  throw new DecodeError('port', 0, `"${text}" is not a port from 0 to 65535`);
}

/** An address, or a name of one. @throws DecodeError */
export function parseEndpoint(text: string): Endpoint {
  if (isIpAddress(text)) return { kind: 'address', address: parseIpAddress(text) };
  if (text.includes('/')) throw new DecodeError('endpoint', 0, `"${text}" is a prefix; give one address or name`);
  if (text.startsWith('@')) throw new DecodeError('endpoint', 0, `"${text}" is a group; give one address or name`);
  if (text.includes('*')) throw new DecodeError('endpoint', 0, `"${text}" is a pattern; give one address or name`);
  return { kind: 'name', name: nameEid(DEFAULT_INSTANCE, text).name };
}

interface Statement {
  readonly line: number;
  /** In its words, lists without blanks. */
  readonly words: readonly string[];
  readonly text: string;
}

class PolicyReader {
  private readonly problems: PolicyProblem[] = [];
  private readonly groups = new Map<string, DocumentGroup>();
  private readonly rules: DocumentRule[] = [];
  private readonly expectations: Expectation[] = [];
  private readonly references: { readonly line: number; readonly selector: Selector }[] = [];
  private default: PolicyAction | undefined;
  private selectors = 0;

  read(statement: Statement): void {
    try {
      this.take(statement);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.problem(statement.line, plain(error));
    }
  }

  finish(): PolicyDocument {
    for (const { line, selector } of this.references) this.checkReference(line, selector);
    for (const [name, { line }] of this.groups) {
      if (this.leadsTo(name, name, new Set())) this.problem(line, `the group "${name}" contains itself`);
    }
    if (this.problems.length > 0) {
      throw new PolicyTextError(this.problems.sort((a, b) => a.line - b.line).slice(0, MAX_PROBLEMS));
    }
    return {
      default: this.default ?? 'allow',
      groups: this.groups,
      rules: this.rules,
      expectations: this.expectations,
    };
  }

  private take({ line, words, text }: Statement): void {
    const [verb = '', ...rest] = words;
    switch (verb) {
      case 'default':
        this.takeDefault(rest);
        break;
      case 'group':
        this.takeGroup(line, rest);
        break;
      case 'allow':
      case 'deny':
        this.bound(this.rules.length, MAX_DOCUMENT_RULES, 'rules');
        this.rules.push({ line, text, action: verb, ...this.conversation(line, rest) });
        break;
      case 'expect':
        this.bound(this.expectations.length, MAX_EXPECTATIONS, 'expectations');
        this.expectations.push({ line, text, ...expectation(rest) });
        break;
      default:
        throw wrong(`"${verb}" begins no statement; there are default, group, allow, deny and expect`);
    }
  }

  private takeDefault(rest: readonly string[]): void {
    if (this.default !== undefined) throw wrong('there is a default already; leave one');
    if (rest.length !== 1) throw wrong('write "default allow" or "default deny"');
    this.default = actionOf(rest[0] ?? '');
  }

  private takeGroup(line: number, [nameText = '', equals, list, ...rest]: readonly string[]): void {
    const name = parseGroupName(nameText);
    const other = this.groups.get(name);
    if (other !== undefined) throw wrong(`the group "${name}" is in line ${other.line} already; join the two`);
    this.bound(this.groups.size, MAX_DOCUMENT_GROUPS, 'groups');
    if (equals !== undefined && (equals !== '=' || list === undefined || rest.length > 0)) {
      throw wrong(`write "group ${name} = MEMBER, MEMBER", or "group ${name}" alone for members by grant only`);
    }
    // Known from here on, so that a wrong member is not followed by complaints about the group.
    this.groups.set(name, { line, members: [] });
    this.groups.set(name, { line, members: list === undefined ? [] : this.selectorsOf(line, list) });
  }

  private conversation(line: number, words: readonly string[]): Pick<DocumentRule, 'from' | 'to'> & Service {
    const { from, to, rest } = direction(words, 'ACTION from WHOM to WHOM [PROTOCOL [PORTS]]');
    return { from: this.selectorsOf(line, from), to: this.selectorsOf(line, to), ...service(rest) };
  }

  private selectorsOf(line: number, list: string): Selector[] {
    const selectors = list.split(',').map(selectorOf);
    this.selectors += selectors.length;
    if (this.selectors > MAX_SELECTORS) throw wrong(`there are more than ${MAX_SELECTORS} members; use prefixes`);
    for (const selector of selectors) this.references.push({ line, selector });
    return selectors;
  }

  private checkReference(line: number, selector: Selector): void {
    if (selector.kind === 'group' && !this.groups.has(selector.group)) {
      const message = `there is no group "${selector.group}"; define it with "group ${selector.group} = …"`;
      this.problem(line, `${message}, or "group ${selector.group}" if its members come from grants`);
    }
    if (selector.kind === 'name' && this.groups.has(selector.pattern)) {
      this.problem(line, `"${selector.pattern}" means a name here; write "@${selector.pattern}" for the group`);
    }
  }

  private leadsTo(from: string, target: string, seen: Set<string>): boolean {
    for (const member of this.groups.get(from)?.members ?? []) {
      if (member.kind !== 'group') continue;
      if (member.group === target) return true;
      if (seen.has(member.group)) continue;
      seen.add(member.group);
      if (this.leadsTo(member.group, target, seen)) return true;
    }
    return false;
  }

  private bound(count: number, limit: number, what: string): void {
    if (count >= limit) throw wrong(`there are more than ${limit} ${what}`);
  }

  private problem(line: number, message: string): void {
    this.problems.push({ line, message });
  }
}

function expectation(words: readonly string[]): Omit<Expectation, 'line' | 'text'> {
  const form = 'expect allow|deny from ADDRESS|NAME to ADDRESS|NAME [PROTOCOL [PORT]]';
  const [verb = '', ...conversation] = words;
  const expected = actionOf(verb);
  const { from, to, rest } = direction(conversation, form);
  const { protocol, ports } = service(rest);
  const [range] = ports;
  if (ports.length > 1 || (range !== undefined && range[0] !== range[1])) throw wrong('expect one port at a time');
  return { expected, from: parseEndpoint(from), to: parseEndpoint(to), protocol, port: range?.[0] ?? null };
}

function direction(
  [fromWord, from, toWord, to, ...rest]: readonly string[],
  form: string,
): { readonly from: string; readonly to: string; readonly rest: readonly string[] } {
  if (fromWord !== 'from' || from === undefined || toWord !== 'to' || to === undefined || rest.length > 2) {
    throw wrong(`write "${form}"`);
  }
  return { from, to, rest };
}

function service([protocolText, portsText]: readonly string[]): Service {
  if (protocolText === undefined || (protocolText === 'any' && portsText === undefined)) {
    return { protocol: null, ports: [] };
  }
  const protocol = parseProtocol(protocolText);
  const ports = portsText === undefined ? [] : portsText.split(',').map(portRangeOf);
  if (ports.length > 0 && !PROTOCOLS_WITH_PORTS.has(protocol)) throw wrong(`${protocolText} has no ports`);
  if (ports.length > MAX_POLICY_PORTS) throw wrong(`there are more than ${MAX_POLICY_PORTS} ports; use ranges`);
  return { protocol, ports };
}

function portRangeOf(text: string): PortRange {
  const [first = '', last = first, more] = text.split('-');
  const range = [parsePort(first), parsePort(last)] as const;
  if (more !== undefined || range[1] < range[0]) throw wrong(`"${text}" is not a range such as 8000-8100`);
  return range;
}

function selectorOf(text: string): Selector {
  if (text === '') throw wrong('there is nothing between two commas');
  if (text === 'any') return { kind: 'any' };
  if (text.startsWith('@')) return { kind: 'group', group: parseGroupName(text.slice(1)) };
  if (text.includes('/') || text.includes(':') || isIpAddress(text)) {
    return { kind: 'prefix', prefix: parseIpPrefix(text) };
  }
  return { kind: 'name', pattern: parseNamePattern(text) };
}

function actionOf(text: string): PolicyAction {
  if (text === 'allow' || text === 'deny') return text;
  throw wrong(`"${text}" is neither "allow" nor "deny"`);
}

function* statements(text: string): IterableIterator<Statement> {
  let begun: { readonly line: number; text: string } | undefined;
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.replace(/#.*$/, '').trim();
    if (line === '') continue;
    begun = begun === undefined ? { line: index + 1, text: line } : { ...begun, text: `${begun.text} ${line}` };
    if (line.endsWith(',')) continue;
    yield statement(begun);
    begun = undefined;
  }
  if (begun !== undefined) yield statement(begun);
}

function statement({ line, text }: { readonly line: number; readonly text: string }): Statement {
  const plainText = text.replace(/\s+/g, ' ');
  return {
    line,
    text: plainText,
    words: plainText
      .replace(/\s*,\s*/g, ',')
      .replace(/\s*=\s*/, ' = ')
      .split(' '),
  };
}

function wrong(message: string): DecodeError {
  return new DecodeError('policy', 0, message);
}

/** Without the offset, which means nothing in a text of lines. */
function plain(error: DecodeError): string {
  return error.message.replace(/^.*? at offset \d+: /, '').replace(/\p{Cc}/gu, ' ');
}

const PROTOCOLS: Readonly<Record<string, number>> = { icmp: 1, tcp: 6, udp: 17, sctp: 132 };
const MAX_PROBLEMS = 20;
