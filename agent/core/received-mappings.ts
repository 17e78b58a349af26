/**
 * What the map server says of EIDs, in an answer or unasked: of ours it changes what we own, of others what we know.
 */
import type { Eid } from '../../proto/eid.ts';
import { isRevocation, isTarget, type Mapping, type TunnelKey } from '../../proto/mapping.ts';
import { type Instant, seconds } from '../../proto/time.ts';
import { isNegative } from './map-cache.ts';
import type { MapRegisters } from './map-registers.ts';
import type { Mover } from './mover.ts';
import type { Outbox } from './outbox.ts';
import type { AgentIdentity, Registrar } from './registrar.ts';
import { isAgentEid, type RemoteMappings } from './remote-mappings.ts';
import type { Resolver } from './resolver.ts';

export interface ReceivedMappingsParts {
  readonly identity: AgentIdentity;
  readonly registrar: Registrar;
  readonly registers: MapRegisters;
  readonly remote: RemoteMappings;
  readonly resolver: Resolver;
  readonly mover: Mover;
  readonly outbox: Outbox;
  /** Everything is registered again at this time at the latest. */
  readonly registerBy: (at: Instant) => void;
}

export class ReceivedMappings {
  private readonly parts: ReceivedMappingsParts;

  constructor(parts: ReceivedMappingsParts) {
    this.parts = parts;
  }

  /**
   * Agent addresses first, so that the peers are known when the mappings that need them come. `registered`: it is the
   * answer to a Map-Register. `asked`: what the Map-Request was for that it answers; null when it answers none.
   */
  apply(mappings: readonly Mapping[], registered: boolean, asked: Eid | null, now: Instant): void {
    const { identity, resolver, outbox } = this.parts;
    const agents = mappings.filter(({ eid }) => isAgentEid(eid));
    const others = agents.flatMap(({ tunnelKey }) => tunnelKey ?? []).filter((key) => key !== identity.tunnelKey);
    for (const mapping of [...agents, ...mappings.filter(({ eid }) => !isAgentEid(eid))]) {
      this.applyRecord(mapping, registered, asked, others[0], now);
    }
    resolver.evict(now);
    outbox.persist('map-cache');
  }

  private applyRecord(
    mapping: Mapping,
    registered: boolean,
    asked: Eid | null,
    previousOwner: TunnelKey | undefined,
    now: Instant,
  ): void {
    const { registrar, registers, remote, resolver, mover, outbox, registerBy } = this.parts;
    if (isRevocation(mapping)) {
      mover.handleRevoked(mapping, now);
      return;
    }
    if (isTarget(mapping)) {
      mover.handleTarget(mapping, now);
      return;
    }
    const outcome = registrar.handleRecord(mapping, registered, now);
    // There may be more at a name of ours than we know; the answer to a registration has only that.
    if (mapping.eid.kind === 'name' && !registered && outcome.kind !== 'not-ours') remote.apply(mapping, asked, now);
    switch (outcome.kind) {
      case 'not-ours':
        mover.handleElsewhere(mapping, now);
        // What we asked to own and do not any more is not followed: nobody would tell us of its next owner.
        if (registered && !isAgentEid(mapping.eid)) return;
        remote.apply(mapping, asked, now);
        if (isAgentEid(mapping.eid) && isNegative(mapping)) mover.handleAgentGone(mapping.eid);
        // Told as the owner before, and detached meanwhile.
        if (asked === null && !isAgentEid(mapping.eid) && !remote.isFollowed(mapping.eid))
          resolver.followBounded(mapping.eid, now);
        return;
      case 'unchanged':
        return;
      case 'unwanted':
        registers.withdraw([{ ...mapping, ttl: 0, locators: [], names: [], targets: [] }], now);
        return;
      case 'accepted': {
        const { owned, took, entered } = outcome;
        mover.handleAccepted(owned, took ? previousOwner : undefined, took || entered, now);
        return;
      }
      case 'lost':
        mover.handleLost(outcome.owned, outcome.to, now);
        return;
      case 'denied':
        mover.handleDenied(outcome.owned, now);
        return;
      case 'forgotten':
        registerBy(now + FORGOTTEN_RETRY);
        outbox.note({ type: 'registration', result: 'forgotten', eid: outcome.owned.key });
        return;
      default:
        outcome satisfies never;
    }
  }
}

const FORGOTTEN_RETRY = seconds(1);
