/**
 * Brings each connected agent what the policy is for it: when its session opens, and when that changes.
 *
 * Agents with the same grant share a _profile_, for which the policy is extracted once. A change of a grant, a name or
 * an owner makes stale the profiles that it concerns, found by the rules that they had and by their grants. Such changes
 * are taken in _rounds_: the first begins one at once, and what changes meanwhile is taken together by the next, COOLING
 * later, or LONG_COOLING if this one was much work. So a storm of registrations costs as much as a few. Revocations and
 * a new policy wait for no round. In one go only so much is done that other inputs are not kept waiting. Agents for
 * which nothing has changed hear nothing. An agent for which the policy is too large keeps the one it has, also one
 * from an earlier session; one that has none yet is told to forward nothing.
 */
import type { IpPrefix } from '../../../proto/address.ts';
import type { XtrId } from '../../../proto/mapping.ts';
import {
  type AgentPolicy,
  NO_POLICY,
  type PolicyRule,
  prefixCount,
  STAND_IN_VERSION,
  VERSION_STEP,
} from '../../../proto/policy.ts';
import { PrefixTrie } from '../../../proto/prefix-trie.ts';
import type { Instant, Millis } from '../../../proto/time.ts';
import type { ServerEvent } from '../actions.ts';
import type { PolicyRecord, StoreRecord } from '../records.ts';
import { PolicyTooLargeError } from './compiler.ts';
import type { PolicyDocument } from './document.ts';
import { type CompiledPolicy, compilePolicy } from './draft.ts';
import type { PolicyRecords, Selection } from './selection.ts';

export interface DistributionParts {
  readonly records: PolicyRecords;
  /** A policy that was prepared before it came into force. */
  readonly prepared: (text: string) => CompiledPolicy | undefined;
  /** To the agent's session, if it has one. */
  readonly send: (xtrId: XtrId, policy: AgentPolicy) => void;
  readonly event: (event: ServerEvent) => void;
}

export interface PolicyInForce {
  readonly record: PolicyRecord;
  readonly document: PolicyDocument;
  readonly selection: Selection;
}

export class PolicyDistribution {
  private readonly parts: DistributionParts;
  private policy: (PolicyInForce & CompiledPolicy) | undefined;
  private readonly recipients = new Map<XtrId, Recipient>();
  private readonly profiles = new Map<string, Profile>();
  private readonly byGrant = new PrefixTrie<Set<Profile>>();
  private readonly byRule = new Map<number, Set<Profile>>();
  private readonly stale = new Set<Profile>();
  private roundBegan: Instant = Number.NEGATIVE_INFINITY;
  private nextRound: Instant = Number.NEGATIVE_INFINITY;
  /** Does not wait for it. */
  private isUrgent = false;

  constructor(parts: DistributionParts) {
    this.parts = parts;
  }

  get inForce(): PolicyInForce | undefined {
    return this.policy;
  }

  follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    const record = after ?? before;
    if (record?.kind === 'policy') this.replace(after as PolicyRecord | undefined);
    else this.policy?.selection.follow(before, after);
    if (record?.kind !== 'agent') return;
    if (record.revokedAt !== undefined) this.isUrgent = true;
    const recipient = this.recipients.get(record.xtrId);
    if (recipient === undefined || recipient.profile.key === keyOf(record.eids)) return;
    this.leave(recipient);
    const profile = this.join(recipient, record.eids);
    if (!this.stale.has(profile)) this.tell(recipient);
  }

  /** It is told at once. */
  opened(xtrId: XtrId): void {
    this.closed(xtrId);
    const grant = this.parts.records.agent(xtrId)?.eids ?? [];
    const recipient: Recipient = { xtrId, profile: newProfile(grant), sent: undefined };
    this.recipients.set(xtrId, recipient);
    const profile = this.join(recipient, grant);
    if (this.stale.has(profile)) this.renew(profile);
    else this.tell(recipient);
  }

  closed(xtrId: XtrId): void {
    const recipient = this.recipients.get(xtrId);
    if (recipient === undefined) return;
    this.recipients.delete(xtrId);
    this.leave(recipient);
  }

  /** After each input. */
  settle(now: Instant): void {
    this.beginRound(now);
    let budget = BUDGET;
    for (const profile of this.stale) {
      if (budget <= 0) {
        this.nextRound = this.roundBegan + LONG_COOLING;
        break;
      }
      budget -= this.renew(profile);
    }
  }

  pollTimeout(): Instant | undefined {
    if (this.stale.size > 0) return 0;
    return this.policy?.selection.hasChanges === true ? this.nextRound : undefined;
  }

  private replace(record: PolicyRecord | undefined): void {
    this.byRule.clear();
    this.policy = undefined;
    if (record !== undefined) {
      const { prepared, records } = this.parts;
      this.policy = { record, ...(prepared(record.text) ?? compilePolicy(record.text, records)) };
    }
    for (const profile of this.profiles.values()) {
      profile.rules = undefined;
      profile.concerned = NONE;
      this.stale.add(profile);
    }
  }

  private beginRound(now: Instant): void {
    if (this.policy?.selection.hasChanges !== true) return;
    if (!this.isUrgent && (this.stale.size > 0 || now < this.nextRound)) return;
    this.isUrgent = false;
    this.roundBegan = now;
    this.nextRound = now + COOLING;
    const { compiler, selection } = this.policy;
    const changes = selection.takeChanges();
    for (const rule of compiler.apply(changes)) {
      for (const profile of this.byRule.get(rule) ?? []) this.stale.add(profile);
    }
    for (const { prefixes } of changes) {
      for (const prefix of prefixes) {
        for (const { value } of this.byGrant.covering(prefix)) for (const profile of value) this.stale.add(profile);
        for (const { value } of this.byGrant.covered(prefix)) for (const profile of value) this.stale.add(profile);
      }
    }
  }

  /** Returns how much work it was, roughly in prefixes. */
  private renew(profile: Profile): number {
    this.stale.delete(profile);
    this.forget(profile);
    this.extract(profile);
    for (const rule of profile.concerned) {
      const profiles = this.byRule.get(rule);
      if (profiles === undefined) this.byRule.set(rule, new Set([profile]));
      else profiles.add(profile);
    }
    for (const recipient of profile.recipients) this.tell(recipient);
    return WORK_PER_PROFILE + prefixCount(profile.rules ?? []) * (1 + profile.recipients.size);
  }

  private extract(profile: Profile): void {
    profile.rules = undefined;
    profile.concerned = NONE;
    if (this.policy === undefined) return;
    try {
      ({ rules: profile.rules, concerned: profile.concerned } = this.policy.compiler.extract(profile.grant));
    } catch (error) {
      if (!(error instanceof PolicyTooLargeError)) throw error;
      this.parts.event({ kind: 'policy-too-large', agents: profile.recipients.size, problem: error.message });
      profile.concerned = error.concerned;
    }
  }

  private tell(recipient: Recipient): void {
    const { sent, profile } = recipient;
    const next = this.next(profile, sent);
    if (next === undefined) return;
    recipient.sent = next;
    this.parts.send(recipient.xtrId, next);
    this.parts.event({ kind: 'policy-sent' });
  }

  /** Undefined: what it has is right, or the best there is. */
  private next({ rules }: Profile, sent: AgentPolicy | undefined): AgentPolicy | undefined {
    if (this.policy === undefined) return sent?.version === 0 ? undefined : NO_POLICY;
    const { record, document } = this.policy;
    const first = record.version * VERSION_STEP;
    const version = sent === undefined ? first : Math.max(first, sent.version + 1);
    if (rules === undefined) return sent === undefined ? STAND_IN : undefined;
    const same =
      sent !== undefined && sent.version >= first && sent.default === document.default && sameRules(sent.rules, rules);
    return same ? undefined : { version, default: document.default, rules };
  }

  private join(recipient: Recipient, grant: readonly IpPrefix[]): Profile {
    const key = keyOf(grant);
    const known = this.profiles.get(key);
    const profile = known ?? newProfile(grant);
    recipient.profile = profile;
    profile.recipients.add(recipient);
    if (known === undefined) {
      this.profiles.set(key, profile);
      this.stale.add(profile);
      for (const prefix of grant) {
        const there = this.byGrant.get(prefix);
        if (there === undefined) this.byGrant.set(prefix, new Set([profile]));
        else there.add(profile);
      }
    }
    return profile;
  }

  private leave(recipient: Recipient): void {
    const { profile } = recipient;
    profile.recipients.delete(recipient);
    if (profile.recipients.size > 0) return;
    this.profiles.delete(profile.key);
    this.stale.delete(profile);
    this.forget(profile);
    for (const prefix of profile.grant) {
      const there = this.byGrant.get(prefix);
      there?.delete(profile);
      if (there?.size === 0) this.byGrant.delete(prefix);
    }
  }

  private forget(profile: Profile): void {
    for (const rule of profile.concerned) {
      const profiles = this.byRule.get(rule);
      profiles?.delete(profile);
      if (profiles?.size === 0) this.byRule.delete(rule);
    }
  }
}

interface Recipient {
  readonly xtrId: XtrId;
  profile: Profile;
  sent: AgentPolicy | undefined;
}

interface Profile {
  readonly key: string;
  readonly grant: readonly IpPrefix[];
  readonly recipients: Set<Recipient>;
  /** Undefined also when the policy is too large for it. */
  rules: readonly PolicyRule[] | undefined;
  /** Rules of the document by whose changes it gets stale. */
  concerned: ReadonlySet<number>;
}

function newProfile(grant: readonly IpPrefix[]): Profile {
  return {
    key: keyOf(grant),
    grant: [...new Set(grant)],
    recipients: new Set(),
    rules: undefined,
    concerned: NONE,
  };
}

function keyOf(grant: readonly IpPrefix[]): string {
  return [...new Set(grant)].sort().join(' ');
}

function sameRules(a: readonly PolicyRule[], b: readonly PolicyRule[]): boolean {
  return a === b || (a.length === b.length && a.every((rule, i) => sameRule(rule, b[i])));
}

function sameRule(a: PolicyRule, b: PolicyRule | undefined): boolean {
  return (
    b !== undefined &&
    a.action === b.action &&
    a.protocol === b.protocol &&
    sameList(a.source, b.source) &&
    sameList(a.destination, b.destination) &&
    a.ports.length === b.ports.length &&
    a.ports.every(([first, last], i) => b.ports[i]?.[0] === first && b.ports[i]?.[1] === last)
  );
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((value, i) => value === b[i]));
}

const NONE: ReadonlySet<number> = new Set();
const STAND_IN: AgentPolicy = { version: STAND_IN_VERSION, default: 'deny', rules: [] };
const COOLING: Millis = 100;
const LONG_COOLING: Millis = 1_000;
/** Work in one go: some milliseconds. */
const BUDGET = 5_000;
const WORK_PER_PROFILE = 100;
