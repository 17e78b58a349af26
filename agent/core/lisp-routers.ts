/**
 * What this agent has to do with LISP routers over UDP 4342: it answers those that plain packets are exchanged with
 * (`lisp-responder.ts`), and registers at the Map-Servers of others (`lisp-registrations.ts`). Each datagram goes to the one
 * that it is for, by where it is from and what it is.
 */
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';
import type { Instant } from '../../proto/time.ts';
import { type LispMapServer, LispRegistrations } from './lisp-registrations.ts';
import { type LispOutcome, type LispPeer, LispResponder, type LispResponderParts } from './lisp-responder.ts';
import type { AgentIdentity, Registrar } from './registrar.ts';

export interface LispRoutersParts extends LispResponderParts {
  readonly identity: AgentIdentity;
  readonly registrar: Registrar;
  readonly mapServers: readonly LispMapServer[];
  /** Of Map-Registers: larger than all nonces of processes before this one. */
  readonly firstNonce: Nonce;
}

export class LispRouters {
  private readonly parts: LispRoutersParts;
  private readonly responder: LispResponder;
  private readonly registrations: LispRegistrations;

  constructor(parts: LispRoutersParts, now: Instant) {
    const { identity, registrar, mapServers: servers, firstNonce, rules, locators, outbox } = parts;
    const { xtrId } = identity;
    const { instance } = rules;
    this.parts = parts;
    this.responder = new LispResponder(parts, now);
    const registering = { servers, firstNonce, xtrId, instance, registrar, locators, outbox };
    this.registrations = new LispRegistrations(registering, now);
  }

  handleDatagram(from: LispPeer, bytes: Uint8Array, now: Instant): LispOutcome {
    const result = this.handleFromServer(from, bytes, now) ?? this.responder.handleDatagram(from, bytes, now);
    this.parts.outbox.note({ type: 'lisp', result });
    return result;
  }

  /** These exchanged plain packets with an EID of ours, whose mapping has changed. */
  solicit(prefix: IpPrefix, rlocs: readonly IpAddress[], now: Instant): void {
    this.responder.solicit(prefix, rlocs, now);
  }

  handleTimeout(now: Instant): void {
    this.registrations.handleTimeout(now);
  }

  pollTimeout(): Instant {
    return this.registrations.pollTimeout();
  }

  /** Undefined: it is nothing that a Map-Server answers with. */
  private handleFromServer(from: LispPeer, bytes: Uint8Array, now: Instant): LispOutcome | undefined {
    if (!this.registrations.isServer(from.address)) return undefined;
    try {
      const message = decodeLispMessage(bytes);
      if (message.type !== 'map-notify') return undefined;
      return this.registrations.handleNotify(from, message, bytes, now);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return 'malformed';
    }
  }
}
