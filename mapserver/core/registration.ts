/**
 * What becomes of one mapping in a Map-Register.
 *
 * Generation 0 says "I take it over": if the grant covers the EID, the registrant becomes its owner at the next
 * generation (or stays it at the same). A generation g > 0 says "I still own it at g", and holds only if the store has
 * exactly this owner and generation; otherwise the registrant is told who owns it, and has to stop. TTL 0 gives the EID
 * up. Only after a restore may a generation be news to the store (`generations.ts`). Locators that must not be used say
 * "I am prepared to take it over": that changes no record. A change of owner is written hard (durable before anybody
 * hears of it), everything else soft. Invariants: an EID has at most one owner; its generation grows with every change
 * of owner and never falls.
 */
import { hostPrefix, type IpPrefix } from '../../proto/address.ts';
import { type Eid, eidKey } from '../../proto/eid.ts';
import { negativeMapping } from '../../proto/lisp/native.ts';
import { type Generation, isTarget, type Mapping } from '../../proto/mapping.ts';
import { isPlausibleLocator } from '../../proto/overlay.ts';
import { minutes, type WallClock } from '../../proto/time.ts';
import { forgetFirst, isFromBackup, isUnknownToBackup, nextGeneration } from './generations.ts';
import { canBeEid, covers, coversName, type Overlay } from './grants.ts';
import {
  type AgentRecord,
  agentEidKey,
  mappingOf,
  type OwnershipRecord,
  ownershipKey,
  type SiteContent,
} from './records.ts';
import type { Transaction } from './transactions.ts';

export type Registration =
  | {
      readonly kind: 'accepted';
      readonly how: 'taken' | 'refreshed' | 'released' | 'recovered';
      readonly record: OwnershipRecord;
      /** The record of the owner before, if that was another agent. */
      readonly previous?: OwnershipRecord;
    }
  /** Prepared to take it over, or (TTL 0) not any more. `record`: of the EID as it is. */
  | { readonly kind: 'target'; readonly mapping: Mapping; readonly record: OwnershipRecord | undefined }
  /** Another agent, or the same one at another generation, owns it. */
  | { readonly kind: 'stale'; readonly record: OwnershipRecord }
  | {
      readonly kind: 'denied';
      readonly reason: DenialReason;
      readonly limit?: keyof RegistrationLimits;
      readonly mapping: Mapping;
    };

type Denial = Extract<Registration, { kind: 'denied' }>;

export type DenialReason =
  | 'not-granted'
  | 'revoked'
  | 'instance'
  | 'foreign-identity'
  | 'too-many'
  | 'locators'
  | 'targets';

export interface RegistrationLimits {
  readonly mappingsPerAgent: number;
  /** EIDs that it was the last to own: their records stay, since their generations must not start again. */
  readonly releasedPerAgent: number;
  readonly mappings: number;
}

/** What the evaluation needs to know besides the records. */
export interface RegistrationContext {
  readonly overlay: Overlay;
  readonly limits: RegistrationLimits;
  readonly wallClock: WallClock;
  /** EIDs that the agent owns or has released, and EIDs in all, counted on as the registrations of one message are judged. */
  readonly counts: { own: number; released: number; total: number };
  /** What nobody owns and may be forgotten at the limit of all EIDs. */
  readonly vacated: Iterator<OwnershipRecord>;
}

/** `deniedEids`: of the same message, so far. */
export function evaluateRegistration(
  transaction: Transaction,
  agent: AgentRecord | undefined,
  mapping: Mapping,
  context: RegistrationContext,
  deniedEids: ReadonlySet<IpPrefix>,
): Registration {
  const stored = storedRecord(transaction, mapping.eid);
  const denial = agent === undefined ? 'revoked' : denialOf(agent, mapping, context, deniedEids);
  if (agent === undefined || denial !== undefined) return denied(mapping.eid, stored, denial ?? 'revoked');
  if (isTarget(mapping)) return { kind: 'target', mapping, record: stored };
  const owned = stored !== undefined && stored.state !== 'released' && stored.owner === agent.xtrId;
  const current = owned && stored.generation === mapping.generation;
  const recovers = isUnknownToBackup(transaction, stored, mapping.generation);
  const claims = mapping.generation === 0 && mapping.ttl !== 0;
  if (!claims && !current && !recovers) {
    return stored === undefined ? denied(mapping.eid, stored, 'not-granted') : { kind: 'stale', record: stored };
  }
  const limit = limitReached(transaction, stored, owned, mapping.ttl === 0, context);
  if (limit !== undefined) return { ...denied(mapping.eid, stored, 'too-many'), limit };
  const taken: OwnershipRecord = {
    kind: 'eid',
    eid: eidKey(mapping.eid),
    generation: recovers ? mapping.generation : nextGeneration(transaction, stored),
    owner: agent.xtrId,
    tunnelKey: agent.tunnelKey,
    ownerSince: context.wallClock,
    state: 'live',
    ttl: mapping.ttl,
    locators: mapping.locators,
    names: mapping.names.filter((name) => coversName(agent, name)).slice(0, MAX_NAMES),
    targets: mapping.targets,
  };
  if (mapping.ttl === 0) {
    const { ttl } = stored ?? mapping;
    const ownership = current ? stored : taken;
    const record: OwnershipRecord = { ...ownership, state: 'released', ttl, locators: [], names: [], targets: [] };
    transaction.put(record);
    if (owned) context.counts.own--;
    if (stored === undefined) context.counts.total++;
    context.counts.released++;
    return { kind: 'accepted', how: 'released', record };
  }
  // Claimed anew after a restore, an EID must be newer than what others were given that the backup does not know.
  if (owned && !recovers && !(claims && isFromBackup(transaction, stored))) {
    const { state, ttl, locators, names, targets } = taken;
    const record: OwnershipRecord = { ...stored, state, ttl, locators, names, targets };
    if (!sameMapping(stored, record)) transaction.putSoft(record);
    return { kind: 'accepted', how: 'refreshed', record };
  }
  if (!owned) context.counts.own++;
  if (stored === undefined) context.counts.total++;
  transaction.put(taken);
  const previous =
    stored !== undefined && stored.owner !== agent.xtrId && stored.state !== 'released' ? stored : undefined;
  const how = recovers ? 'recovered' : 'taken';
  return { kind: 'accepted', how, record: taken, ...(previous === undefined ? {} : { previous }) };
}

/** Also for what is given up: after a restore, that may be an EID that the store does not have. */
function limitReached(
  transaction: Transaction,
  stored: OwnershipRecord | undefined,
  owned: boolean,
  givenUp: boolean,
  { counts, limits, vacated }: RegistrationContext,
): keyof RegistrationLimits | undefined {
  if (!owned && !givenUp && counts.own >= limits.mappingsPerAgent) return 'mappingsPerAgent';
  if (stored !== undefined) return undefined;
  if (counts.released >= limits.releasedPerAgent) return 'releasedPerAgent';
  if (counts.total < limits.mappings) return undefined;
  if (!forgetFirst(transaction, vacated)) return 'mappings';
  counts.total--;
  return undefined;
}

/** The record that answers a registration in the Map-Notify. */
export function answerTo(registration: Registration): Mapping {
  switch (registration.kind) {
    case 'accepted':
      return mappingOf(registration.record);
    case 'stale':
      return registration.record.state === 'released' ? ownerless(registration.record) : mappingOf(registration.record);
    case 'target': {
      const { record, mapping } = registration;
      if (record === undefined) return negativeMapping({ eid: mapping.eid, action: 'drop', ttl: NEGATIVE_TTL });
      return record.state === 'released' ? ownerless(record) : mappingOf(record);
    }
    case 'denied':
      return registration.mapping;
    default:
      return registration satisfies never;
  }
}

function denialOf(
  agent: AgentRecord,
  mapping: Mapping,
  context: RegistrationContext,
  deniedEids: ReadonlySet<IpPrefix>,
): DenialReason | undefined {
  const { eid, targets } = mapping;
  // A name must not be taken to an EID that is not.
  if (eid.kind === 'name' && targets.length > 0 && targets.every((target) => deniedEids.has(hostPrefix(target))))
    return 'not-granted';
  if (agent.revokedAt !== undefined) return 'revoked';
  if (eid.iid !== context.overlay.instance) return 'instance';
  if (mapping.owner !== undefined && mapping.owner !== agent.xtrId) return 'foreign-identity';
  if (mapping.tunnelKey !== undefined && mapping.tunnelKey !== agent.tunnelKey) return 'foreign-identity';
  const granted = covers(agent, context.overlay, eid);
  if (!granted && eidKey(eid) !== agentEidKey(context.overlay.instance, agent.tunnelKey)) return 'not-granted';
  if (
    mapping.locators.length > MAX_LOCATORS ||
    !mapping.locators.every(({ address }) => isPlausibleLocator(address, context.overlay.prefixes))
  )
    return 'locators';
  if (mapping.targets.length > MAX_TARGETS || mapping.targets.some((target) => !canBeEid(context.overlay, target)))
    return 'targets';
  return undefined;
}

function storedRecord(transaction: Transaction, eid: Eid): OwnershipRecord | undefined {
  const record = transaction.get(ownershipKey(eidKey(eid)));
  return record?.kind === 'eid' ? record : undefined;
}

export function denied(eid: Eid, stored: OwnershipRecord | undefined, reason: DenialReason): Denial {
  const generation = stored?.generation ?? (0 as Generation);
  const mapping: Mapping = {
    eid,
    ttl: DENIAL_TTL,
    action: 'policy-denied',
    generation,
    locators: [],
    names: [],
    targets: [],
  };
  return { kind: 'denied', reason, mapping };
}

/** A released EID: whoever believed to own it does not, and nobody else does either. */
function ownerless(record: OwnershipRecord): Mapping {
  const { owner: _owner, tunnelKey: _key, ...mapping } = mappingOf(record);
  return mapping;
}

/** Whether both tell the same of an EID. */
export function sameMapping(a: OwnershipRecord, b: OwnershipRecord): boolean {
  return (
    a.state === b.state &&
    a.ttl === b.ttl &&
    sameList(a.names, b.names) &&
    sameList(a.targets, b.targets) &&
    sameSite(a.site, b.site) &&
    a.locators.length === b.locators.length &&
    a.locators.every((locator, i) => {
      const other = b.locators[i];
      return (
        other !== undefined &&
        other.address === locator.address &&
        other.port === locator.port &&
        other.priority === locator.priority &&
        other.weight === locator.weight
      );
    })
  );
}

function sameSite(a: SiteContent | undefined, b: SiteContent | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.rlocs === b.rlocs && a.proxyReply === b.proxyReply && a.mapVersion === b.mapVersion && a.name === b.name;
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

const DENIAL_TTL = minutes(1);
const NEGATIVE_TTL = minutes(1);
const MAX_LOCATORS = 16;
const MAX_NAMES = 16;
const MAX_TARGETS = 32;
