/** What the map server holds at the moment, to be read: by its APIs, by enrolment, by its metrics. */
import type { Eid } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { WallClock } from '../../proto/time.ts';
import type { MappingDatabase } from './mapping-database.ts';
import { awaitsSight, hasSecret, tokenIdOf } from './operations.ts';
import type { PolicyDistribution, PolicyInForce } from './policy/distribution.ts';
import type { Endpoint } from './policy/document.ts';
import { type Explanation, explainPolicy, type PolicySurroundings } from './policy/inspection.ts';
import type { Presence } from './presence.ts';
import {
  type AgentRecord,
  agentKey,
  type NameRecord,
  nameKey,
  RESTORATION_KEY,
  type RecordKey,
  type RestorationRecord,
  type StoreRecord,
  type TokenRecord,
  tokenKey,
  tokenState,
} from './records.ts';
import type { Replica } from './replica.ts';
import type { Sessions } from './sessions.ts';
import type { Subscriptions } from './subscriptions.ts';
import type { Transactions } from './transactions.ts';

export interface MapServerStateParts {
  readonly wallClock: () => WallClock;
  readonly replica: Replica;
  readonly database: MappingDatabase;
  readonly presence: Presence;
  readonly sessions: Sessions;
  readonly subscriptions: Subscriptions;
  readonly transactions: Transactions;
  readonly policy: PolicyDistribution;
  readonly surroundings: PolicySurroundings;
}

export class MapServerState {
  private readonly parts: MapServerStateParts;

  constructor(parts: MapServerStateParts) {
    this.parts = parts;
  }

  /** A token that an agent could join with now. */
  isTokenValid(secretHash: string): boolean {
    const token = this.parts.replica.get(tokenKey(tokenIdOf(secretHash)));
    if (token?.kind !== 'token' || !hasSecret(token, secretHash)) return false;
    return tokenState(token, this.parts.wallClock()) === 'valid';
  }

  /** Every record, for listings. */
  *records(): IterableIterator<StoreRecord> {
    for (const { record } of this.parts.replica.values()) yield record;
  }

  /** Whether the record as it is here is of this revision of the store, or of a later one. */
  isKnown(key: RecordKey, revision: number): boolean {
    return this.parts.replica.revision(key) >= revision;
  }

  agent(xtrId: XtrId): AgentRecord | undefined {
    const agent = this.parts.replica.get(agentKey(xtrId));
    return agent?.kind === 'agent' ? agent : undefined;
  }

  token(id: string): TokenRecord | undefined {
    const token = this.parts.replica.get(tokenKey(id));
    return token?.kind === 'token' ? token : undefined;
  }

  /** Whether it should be told by `certificate-seen` that the agent has shown a certificate of this authority. */
  awaitsCertificate(xtrId: XtrId, authority: string): boolean {
    const agent = this.parts.replica.get(agentKey(xtrId));
    return agent?.kind === 'agent' && awaitsSight(agent, authority);
  }

  /** What was set at the name. */
  nameRecord(name: string): NameRecord | undefined {
    const record = this.parts.replica.get(nameKey(this.parts.surroundings.overlay.instance, name));
    return record?.kind === 'name' ? record : undefined;
  }

  /** Undefined: it has never been. */
  restoration(): RestorationRecord | undefined {
    const record = this.parts.replica.get(RESTORATION_KEY);
    return record?.kind === 'restoration' ? record : undefined;
  }

  /** Undefined: none was ever set. */
  policyInForce(): PolicyInForce | undefined {
    return this.parts.policy.inForce;
  }

  /** What the policy says; undefined when there is none. `protocol`, `port` null: any. */
  explainPolicy(question: {
    readonly from: Endpoint;
    readonly to: Endpoint;
    readonly protocol: number | null;
    readonly port: number | null;
  }): Explanation | undefined {
    const policy = this.parts.policy.inForce;
    return policy === undefined ? undefined : explainPolicy(policy.document, policy.selection, question);
  }

  /** Enrolled, and not revoked. */
  isEnrolled(xtrId: XtrId): boolean {
    const agent = this.parts.replica.get(agentKey(xtrId));
    return agent?.kind === 'agent' && agent.revokedAt === undefined;
  }

  /** Of the live mapping that answers for the EID. */
  ownerOf(eid: Eid): XtrId | undefined {
    return this.parts.database.match(eid)?.owner;
  }

  agentState(xtrId: XtrId): {
    readonly connectedSince: WallClock | undefined;
    readonly subscriptions: number;
    readonly mappings: number;
  } {
    return {
      connectedSince: this.parts.sessions.of(xtrId)?.openedAt,
      subscriptions: this.parts.subscriptions.of(xtrId),
      mappings: this.parts.database.ownedCount(xtrId),
    };
  }

  statistics(): {
    readonly sessions: number;
    readonly agents: number;
    readonly tokens: number;
    readonly mappings: number;
    readonly names: number;
    readonly subscriptions: number;
    readonly pending: number;
    readonly policyVersion: number;
  } {
    const { prefixes, names } = this.parts.database.counts;
    return {
      sessions: this.parts.presence.size,
      agents: this.parts.replica.counts.agent,
      tokens: this.parts.replica.counts.token,
      mappings: prefixes,
      names,
      subscriptions: this.parts.subscriptions.size,
      pending: this.parts.transactions.waiting,
      policyVersion: this.parts.policy.inForce?.record.version ?? 0,
    };
  }
}
