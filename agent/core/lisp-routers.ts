/**
 * What this agent has to do with LISP routers over UDP 4342: it answers those that plain packets are exchanged with
 * (`lisp-responder.ts`) and probes their RLOCs (`rloc-probes.ts`), registers at the Map-Servers of others
 * (`lisp-registrations.ts`) and asks their Map-Resolvers (`lisp-resolutions.ts`). Each datagram goes to the one that it is
 * for, by where it is from and what it is.
 */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import type { DataplaneTable } from './dataplane-table.ts';
import { type LispMapServer, LispRegistrations } from './lisp-registrations.ts';
import { type LispMapResolver, LispResolutions } from './lisp-resolutions.ts';
import { type LispOutcome, type LispPeer, LispResponder, type LispResponderParts } from './lisp-responder.ts';
import type { AgentIdentity, Registrar } from './registrar.ts';
import type { RemoteMappings } from './remote-mappings.ts';
import type { ProbedRloc, RlocProbes } from './rloc-probes.ts';
import { TokenBucket } from './token-bucket.ts';

/** The mapping systems of others, as the operator names them. */
export interface LispElsewhere {
  readonly mapServers: readonly LispMapServer[];
  readonly mapResolvers: readonly LispMapResolver[];
  /** Of Map-Registers: larger than all nonces of processes before this one. */
  readonly firstNonce: Nonce;
  readonly randomNonce: () => Nonce;
}

export interface LispRoutersParts extends Omit<LispResponderParts, 'isMapResolver'> {
  readonly elsewhere: LispElsewhere | null;
  /** Null: RLOCs are not probed. */
  readonly probes: RlocProbes | null;
  readonly identity: AgentIdentity;
  readonly registrar: Registrar;
  readonly remote: RemoteMappings;
  readonly table: DataplaneTable;
}

export class LispRouters {
  readonly resolutions: LispResolutions | null;
  private readonly parts: LispRoutersParts;
  private readonly responder: LispResponder;
  private readonly registrations: LispRegistrations | null;
  private readonly rate: TokenBucket;
  /** Own EIDs of which it is still to be asked who exchanged plain packets with them, and when the next may be. */
  private unasked: readonly IpPrefix[] = [];
  private askAt: Instant = Number.POSITIVE_INFINITY;

  constructor(parts: LispRoutersParts, now: Instant) {
    const { elsewhere, identity, rules, outbox } = parts;
    this.parts = parts;
    this.registrations = null;
    this.resolutions = null;
    if (elsewhere !== null) {
      const { mapServers: servers, mapResolvers: resolvers, firstNonce, randomNonce } = elsewhere;
      const { registrar, locators, overlay, isOwn, remote, table } = parts;
      const { xtrId, instance } = identity;
      this.registrations = new LispRegistrations(
        { servers, firstNonce, xtrId, instance: rules.instance, registrar, locators, outbox },
        now,
      );
      this.resolutions = new LispResolutions(
        {
          resolvers,
          randomNonce,
          plainInstance: rules.instance,
          instance,
          overlay,
          locators,
          isOwn,
          remote,
          table,
          outbox,
        },
        now,
      );
    }
    this.responder = new LispResponder(
      {
        ...parts,
        isMapResolver: (address) => this.resolutions?.isResolver(address) === true,
        askAgain: (eid, at) => this.resolutions?.askAgain(eid, at) === true || parts.askAgain(eid, at),
      },
      now,
    );
    this.rate = new TokenBucket(2 * REPLIES_PER_SECOND, REPLIES_PER_SECOND, now);
  }

  handleDatagram(from: LispPeer, bytes: Uint8Array, now: Instant): LispOutcome {
    const result = this.handleAnswer(from, bytes, now) ?? this.responder.handleDatagram(from, bytes, now);
    this.parts.outbox.note({ type: 'lisp', result });
    return result;
  }

  /** This host has other locators: who exchanges plain packets with it is to be told. */
  handleMoved(now: Instant): void {
    this.parts.probes?.handleMoved();
    const live = this.parts.registrar.addresses().filter(({ state }) => state === 'live');
    this.unasked = [...new Set(live.flatMap(({ eid }) => (eid.kind === 'prefix' ? [eid.prefix] : [])))];
    this.askForCorrespondents(now);
  }

  probedRlocs(): readonly ProbedRloc[] {
    return this.parts.probes?.list() ?? [];
  }

  /** These exchanged plain packets with an EID of ours, whose mapping has changed. */
  solicit(prefix: IpPrefix, rlocs: readonly IpAddress[], now: Instant): void {
    this.responder.solicit(prefix, rlocs, now);
  }

  handleTimeout(now: Instant): void {
    this.registrations?.handleTimeout(now);
    this.resolutions?.handleTimeout(now);
    this.parts.probes?.handleTimeout(now);
    if (now >= this.askAt) this.askForCorrespondents(now);
  }

  pollTimeout(): Instant {
    const { registrations, resolutions } = this;
    const never = Number.POSITIVE_INFINITY;
    return Math.min(
      registrations?.pollTimeout() ?? never,
      resolutions?.pollTimeout() ?? never,
      this.parts.probes?.pollTimeout() ?? never,
      this.askAt,
    );
  }

  /** In portions, so that a host of many EIDs that moves has more urgent things done first. */
  private askForCorrespondents(now: Instant): void {
    for (const prefix of this.unasked.slice(0, ASKED_AT_ONCE)) {
      this.parts.outbox.command({ type: 'correspondents', prefix });
    }
    this.unasked = this.unasked.slice(ASKED_AT_ONCE);
    this.askAt = this.unasked.length > 0 ? now + PAUSE : Number.POSITIVE_INFINITY;
  }

  /** Handles a Map-Notify or a Map-Reply. Undefined: the datagram is neither, or of nobody who was asked. */
  private handleAnswer(from: LispPeer, bytes: Uint8Array, now: Instant): LispOutcome | undefined {
    const type = (bytes[0] ?? 0) >> 4;
    const { registrations, resolutions, responder } = this;
    const isNotify = type === MAP_NOTIFY && registrations?.isServer(from.address) === true;
    const isReply =
      type === MAP_REPLY && (resolutions?.isResolver(from.address) === true || responder.isPeer(from.address));
    if (!isNotify && !isReply) return undefined;
    if (isReply && !this.rate.take(now)) return 'limited';
    try {
      const message = decodeLispMessage(bytes);
      if (message.type === 'map-notify') return registrations?.handleNotify(from, message, bytes, now);
      if (message.type !== 'map-reply') return undefined;
      if (this.parts.probes?.handleReply(from.address, message, now) === true) return 'probed';
      return resolutions?.handleReply(message, now);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return 'malformed';
    }
  }
}

const MAP_REPLY = 2;
const MAP_NOTIFY = 4;
const REPLIES_PER_SECOND = 500;
const ASKED_AT_ONCE = 64;
const PAUSE: Millis = 20;
