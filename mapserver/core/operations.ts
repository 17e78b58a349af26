/**
 * What people and joining agents ask for: tokens, enrolment, grants, revocation. Each is judged inside a transaction.
 *
 * A token is spent by the commit that records the agent, so it cannot be spent twice, and an agent exists only once its
 * token is paid. Whoever asks again with the same tunnel key, token and certificate key gets the same answer without
 * a further use: the first answer may have been lost, and the certificate is worthless without its private key.
 */
import { type IpPrefix, prefixContains } from '../../proto/address.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import type { TunnelKey, XtrId } from '../../proto/mapping.ts';
import { overlayProblem } from '../../proto/overlay.ts';
import type { Millis, WallClock } from '../../proto/time.ts';
import { addGrant, releaseOwned, removeGrant } from './grant-changes.ts';
import { canBeEid, inOverlay, nameMatches, type Overlay } from './grants.ts';
import type { HeldAddresses } from './held-addresses.ts';
import { changeSite, type SiteChange } from './lisp/site-changes.ts';
import type { MappingDatabase } from './mapping-database.ts';
import { type ChangedNames, changeNames, type NamesChange } from './name-changes.ts';
import { OperationError } from './operation-error.ts';
import { changePolicy, type PolicyChange } from './policy/change.ts';
import type { PolicyDraft } from './policy/draft.ts';
import { assign } from './pools.ts';
import {
  type AgentRecord,
  agentKey,
  type CertificateNote,
  type Grant,
  type PolicyRecord,
  type Registrable,
  type SiteRecord,
  type TokenRecord,
  tokenKey,
} from './records.ts';
import type { Transaction } from './transactions.ts';

export type Operation =
  | ({
      readonly kind: 'create-token';
      readonly secretHash: string;
      readonly authority: string;
      readonly pools: readonly IpPrefix[];
      readonly uses: number;
      readonly ttl: Millis;
    } & Grant)
  | { readonly kind: 'revoke-token'; readonly id: string }
  | ({
      readonly kind: 'enrol';
      readonly secretHash: string;
      readonly tunnelKey: TunnelKey;
      readonly certificateKey: string;
      readonly certificate: CertificateNote;
      readonly software: string;
    } & Registrable)
  | ({ readonly kind: 'add-grant' | 'remove-grant'; readonly xtrId: XtrId } & Grant)
  | {
      readonly kind: 'renew-certificate';
      readonly xtrId: XtrId;
      readonly certificate: CertificateNote;
      /** With which it asks. */
      readonly presented: CertificateNote;
    }
  | { readonly kind: 'certificate-seen'; readonly xtrId: XtrId; readonly authority: string }
  | { readonly kind: 'revoke-agent'; readonly xtrId: XtrId }
  | PolicyChange
  | NamesChange
  | SiteChange;

export interface OperationContext {
  readonly overlay: Overlay;
  readonly limits: { readonly tokens: number; readonly agents: number; readonly names: number; readonly sites: number };
  readonly wallClock: WallClock;
  readonly counts: { readonly tokens: number; readonly agents: number; readonly names: number; readonly sites: number };
  readonly database: MappingDatabase;
  readonly held: HeldAddresses;
  /** Of the policy that is wanted. */
  readonly draft: PolicyDraft | undefined;
  readonly isRegistered: (name: string) => boolean;
  readonly pointingAt: (target: string) => Iterable<string>;
}

/** @throws OperationError */
export function evaluateOperation(
  transaction: Transaction,
  operation: Operation,
  context: OperationContext,
): TokenRecord | AgentRecord | PolicyRecord | SiteRecord | ChangedNames {
  switch (operation.kind) {
    case 'create-token':
      return createToken(transaction, operation, context);
    case 'revoke-token': {
      const token = tokenOf(transaction, operation.id);
      const revoked = token.revokedAt === undefined ? { ...token, revokedAt: context.wallClock } : token;
      transaction.put(revoked);
      return revoked;
    }
    case 'enrol':
      return enrol(transaction, operation, context);
    case 'add-grant':
      demandOverlay(operation.eids, context.overlay);
      return addGrant(transaction, agentOf(transaction, operation.xtrId), operation);
    case 'remove-grant':
      return removeGrant(transaction, agentOf(transaction, operation.xtrId), operation, context);
    case 'renew-certificate': {
      const agent = agentOf(transaction, operation.xtrId);
      if (agent.revokedAt !== undefined) throw new OperationError('STAYPUT_AGENT_REVOKED', 'this agent was revoked');
      const { formerCertificate: _, ...rest } = agent;
      const { certificate, presented } = operation;
      // The answer may be lost, and then this is what the agent still has.
      const former = presented.authority === certificate.authority ? {} : { formerCertificate: presented };
      const renewed: AgentRecord = { ...rest, certificate, ...former };
      transaction.put(renewed);
      return renewed;
    }
    case 'certificate-seen': {
      const agent = agentOf(transaction, operation.xtrId);
      if (!awaitsSight(agent, operation.authority)) return agent;
      const { formerCertificate: _, ...seen } = agent;
      transaction.put(seen);
      return seen;
    }
    case 'revoke-agent':
      return revokeAgent(transaction, operation.xtrId, context);
    case 'set-policy':
    case 'roll-back-policy':
      return changePolicy(transaction, operation, context);
    case 'change-names':
      return changeNames(transaction, operation, context);
    case 'add-site':
    case 'set-site':
    case 'remove-site':
    case 'add-site-key':
    case 'remove-site-key':
      return changeSite(transaction, operation, context);
    default:
      return operation satisfies never;
  }
}

/** Whether it matters that the agent has shown a certificate of this authority. */
export function awaitsSight({ certificate, formerCertificate }: AgentRecord, authority: string): boolean {
  return formerCertificate !== undefined && certificate?.authority === authority;
}

/** The part of a secret's hash that names its token. */
export function tokenIdOf(secretHash: string): string {
  return secretHash.slice(0, 12);
}

/** Of which there are too many when it is refused for that. */
export function limitOf({ kind }: Operation): 'agents' | 'names' | 'sites' | 'tokens' {
  if (kind === 'enrol') return 'agents';
  if (kind === 'add-site') return 'sites';
  return kind === 'change-names' ? 'names' : 'tokens';
}

/** What a line of the log names. */
export function subjectOf(record: TokenRecord | AgentRecord | PolicyRecord | SiteRecord | ChangedNames): string {
  switch (record.kind) {
    case 'token':
      return record.id;
    case 'agent':
      return record.xtrId;
    case 'policy':
      return `policy ${record.version}`;
    case 'site':
      return `site ${record.name}`;
    case 'names':
      return record.names.length === 1 ? (record.names[0]?.name ?? '') : `${record.names.length} names`;
    default:
      return record satisfies never;
  }
}

function createToken(
  transaction: Transaction,
  operation: Operation & { kind: 'create-token' },
  context: OperationContext,
): TokenRecord {
  demandOverlay([...operation.eids, ...operation.pools], context.overlay);
  if (context.counts.tokens >= context.limits.tokens) {
    throw new OperationError('STAYPUT_TOO_MANY', 'there are too many tokens; revoke some that are not needed any more');
  }
  const { secretHash, authority, eids, pools, names, groups, uses, ttl } = operation;
  const token: TokenRecord = {
    kind: 'token',
    id: tokenIdOf(secretHash),
    secretHash,
    authority,
    eids,
    names,
    groups,
    pools,
    uses,
    used: 0,
    createdAt: context.wallClock,
    expiresAt: context.wallClock + ttl,
  };
  transaction.put(token);
  return token;
}

function enrol(
  transaction: Transaction,
  operation: Operation & { kind: 'enrol' },
  context: OperationContext,
): AgentRecord {
  const { secretHash, tunnelKey, certificateKey, certificate, software } = operation;
  const token = transaction.get(tokenKey(tokenIdOf(secretHash)));
  if (token?.kind !== 'token' || !hasSecret(token, secretHash)) {
    throw new OperationError(
      'STAYPUT_TOKEN_UNKNOWN',
      'this join token is not known here; create one with "stayput token create"',
    );
  }
  if (token.revokedAt !== undefined) throw new OperationError('STAYPUT_TOKEN_REVOKED', 'this join token was revoked');
  if (token.expiresAt <= context.wallClock) {
    throw new OperationError(
      'STAYPUT_TOKEN_EXPIRED',
      'this join token has expired; create a new one with "stayput token create"',
    );
  }
  const missing = [
    ...operation.eids.filter(
      (eid) => !canBeEid(context.overlay, eid) || !token.eids.some((granted) => prefixContains(granted, eid)),
    ),
    ...operation.names.filter((name) => !token.names.some((granted) => nameMatches(granted, name))),
  ];
  const known = transaction.get(agentKey(xtrIdOf(tunnelKey)));
  if (known?.kind === 'agent') {
    if (known.revokedAt !== undefined) {
      throw new OperationError(
        'STAYPUT_AGENT_REVOKED',
        'this agent was revoked; it needs a new identity (another state directory)',
      );
    }
    if (known.tokenId !== token.id || known.certificateKey !== certificateKey) {
      throw new OperationError(
        'STAYPUT_ALREADY_ENROLLED',
        'this tunnel key is enrolled already; use a new identity, or revoke the agent',
      );
    }
  } else if (token.used >= token.uses) {
    throw new OperationError(
      'STAYPUT_TOKEN_SPENT',
      'this join token was used already; create a new one with "stayput token create"',
    );
  }
  if (missing.length > 0) {
    throw new OperationError('STAYPUT_NOT_GRANTED', `the join token does not grant ${missing.slice(0, 5).join(', ')}`);
  }
  if (known?.kind === 'agent') {
    const again: AgentRecord = { ...known, certificate };
    transaction.put(again);
    return again;
  }
  if (context.counts.agents >= context.limits.agents) {
    throw new OperationError('STAYPUT_TOO_MANY', 'this map server has as many agents as it may have');
  }
  const xtrId = xtrIdOf(tunnelKey);
  const pools = operation.eids.length === 0 ? (token.pools ?? []) : [];
  const { wallClock } = context;
  const assignee = { xtrId, tunnelKey, wallClock, instance: context.overlay.instance };
  const assigned = pools.map((pool) => assign(transaction, pool, context.held, assignee));
  const agent: AgentRecord = {
    kind: 'agent',
    xtrId,
    tunnelKey,
    certificateKey,
    certificate,
    tokenId: token.id,
    assigned,
    eids: [...new Set([...token.eids, ...assigned])],
    names: token.names,
    groups: token.groups,
    software,
    enrolledAt: context.wallClock,
  };
  transaction.put({ ...token, used: token.used + 1 });
  transaction.put(agent);
  return agent;
}

/** The agent loses its EIDs at once; others may take them over. */
function revokeAgent(transaction: Transaction, xtrId: XtrId, context: OperationContext): AgentRecord {
  const agent = agentOf(transaction, xtrId);
  if (agent.revokedAt !== undefined) return agent;
  const revoked: AgentRecord = { ...agent, revokedAt: context.wallClock };
  transaction.put(revoked);
  releaseOwned(transaction, xtrId, context.database);
  return revoked;
}

function tokenOf(transaction: Transaction, id: string): TokenRecord {
  const token = transaction.get(tokenKey(id));
  if (token?.kind !== 'token') throw new OperationError('STAYPUT_TOKEN_UNKNOWN', `there is no token ${id}`);
  return token;
}

function agentOf(transaction: Transaction, xtrId: XtrId): AgentRecord {
  const agent = transaction.get(agentKey(xtrId));
  if (agent?.kind !== 'agent') throw new OperationError('STAYPUT_AGENT_UNKNOWN', `there is no agent ${xtrId}`);
  return agent;
}

/** @throws OperationError unless each can be granted */
function demandOverlay(eids: readonly IpPrefix[], overlay: Overlay): void {
  for (const eid of eids) {
    if (!inOverlay(overlay, eid)) {
      const prefixes = overlay.prefixes.join(', ');
      throw new OperationError('STAYPUT_OUTSIDE_OVERLAY', `${eid} is not inside the overlay (${prefixes})`);
    }
    const problem = overlayProblem(eid);
    if (problem !== undefined)
      throw new OperationError('STAYPUT_OUTSIDE_OVERLAY', `${eid} cannot be an EID: ${problem}`);
  }
}

/** The same time for every pair of equal length, whatever they have in common. */
export function hasSecret({ secretHash: a }: TokenRecord, b: string): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i);
  return difference === 0;
}
