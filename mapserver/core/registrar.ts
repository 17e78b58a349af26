/**
 * The Map-Server (RFC 9301): takes Map-Registers, and withdraws what an agent that stays away had registered.
 *
 * Each registration of a message is judged by `evaluateRegistration` inside one transaction; the Map-Notify that
 * acknowledges them all goes out when what they wrote is durable. It names the owner of what was refused as stale, and
 * the owner before of what was taken over, with their agent address mappings.
 */
import type { IpPrefix } from '../../proto/address.ts';
import { eidKey } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import type { MapRegister } from '../../proto/lisp/map-register.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import type { Mapping, XtrId } from '../../proto/mapping.ts';
import type { Instant, WallClock } from '../../proto/time.ts';
import { CLOSE, type RegistrationResult, type ServerEvent } from './actions.ts';
import type { Companions } from './companions.ts';
import { bounded, fitsFrame } from './framing.ts';
import type { Overlay } from './grants.ts';
import type { Handover } from './handover.ts';
import type { MappingDatabase } from './mapping-database.ts';
import type { Orders } from './orders.ts';
import type { Overdue, Presence } from './presence.ts';
import { agentKey, type OwnershipRecord, ownershipKey } from './records.ts';
import { answerTo, evaluateRegistration, type Registration, type RegistrationLimits } from './registration.ts';
import type { Replica } from './replica.ts';
import type { Session, Sessions } from './sessions.ts';
import type { Transaction, Transactions } from './transactions.ts';

export interface RegistrarParts {
  readonly overlay: Overlay;
  readonly limits: RegistrationLimits;
  readonly wallClock: () => WallClock;
  readonly replica: Replica;
  readonly database: MappingDatabase;
  readonly transactions: Transactions;
  readonly presence: Presence;
  readonly sessions: Sessions;
  readonly orders: Orders;
  readonly handover: Handover;
  readonly companions: Companions;
  readonly event: (event: ServerEvent) => void;
}

export class Registrar {
  private readonly parts: RegistrarParts;

  constructor(parts: RegistrarParts) {
    this.parts = parts;
  }

  handleRegister(session: Session, message: MapRegister, now: Instant): void {
    const { sessions, transactions } = this.parts;
    if (message.xtrId !== session.xtrId) {
      sessions.rejectIdentity(session);
      return;
    }
    if (message.nonce <= session.registerNonce) {
      sessions.reject(session, 'nonce');
      return;
    }
    session.registerNonce = message.nonce;
    const mappings = this.readMappings(session, message);
    if (mappings === undefined) return;
    let registrations: Registration[] = [];
    transactions.add(
      {
        sender: session.xtrId,
        size: mappings.length,
        evaluate: (transaction) => {
          registrations = this.evaluateAll(transaction, session.xtrId, mappings);
        },
        complete: (later) => this.acknowledge(session, message.nonce, registrations, later),
        fail: () => {
          sessions.reject(session, 'overload');
          sessions.end(session.id, CLOSE.overload, 'the map server cannot store registrations now; try again later');
        },
      },
      now,
    );
  }

  /** The grace period of an agent is over. */
  withdraw({ xtrId, confirmed }: Overdue, now: Instant): void {
    const { database, transactions, presence, event } = this.parts;
    const overdue = [...database.ownedBy(xtrId)].filter(({ state, eid }) => state === 'live' && !confirmed.has(eid));
    if (overdue.length === 0) return;
    let count = 0;
    transactions.add(
      {
        sender: xtrId,
        size: overdue.length,
        evaluate: (transaction) => {
          count = 0;
          for (const { eid } of overdue) {
            const record = transaction.get(ownershipKey(eid));
            if (record?.kind !== 'eid' || record.owner !== xtrId || record.state !== 'live') continue;
            transaction.putSoft({ ...record, state: 'withdrawn' });
            count++;
          }
        },
        complete: () => event({ kind: 'withdrawn', xtrId, count }),
        fail: (later) => presence.missing(xtrId, later),
      },
      now,
    );
  }

  private readMappings(session: Session, message: MapRegister): readonly Mapping[] | undefined {
    try {
      return mappingsOf(message);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.parts.sessions.reject(session, 'malformed');
      return undefined;
    }
  }

  private evaluateAll(transaction: Transaction, xtrId: XtrId, mappings: readonly Mapping[]): Registration[] {
    const { overlay, limits, wallClock, database, replica } = this.parts;
    const agent = transaction.get(agentKey(xtrId));
    let taken = 0;
    let released = 0;
    for (const { owner, state } of transaction.written()) {
      if (owner !== xtrId) continue;
      if (state === 'released') released++;
      else taken++;
    }
    const context = {
      overlay,
      limits,
      wallClock: wallClock(),
      counts: {
        own: database.ownedCount(xtrId) + taken,
        released: database.releasedCount(xtrId) + released,
        total: replica.counts.eid + transaction.hard.size,
      },
      vacated: database.vacatedBySites(),
    };
    const known = agent?.kind === 'agent' ? agent : undefined;
    const denied = new Set<IpPrefix>();
    return mappings.map((mapping) => {
      const registration = evaluateRegistration(transaction, known, mapping, context, denied);
      if (registration.kind === 'denied' && mapping.eid.kind === 'prefix') denied.add(mapping.eid.prefix);
      return registration;
    });
  }

  private acknowledge(session: Session, nonce: Nonce, judged: readonly Registration[], now: Instant): void {
    const { sessions, presence, orders, handover, companions, event } = this.parts;
    const registrations = judged.map((each) => handover.register(session, each, now));
    const others: OwnershipRecord[] = [];
    for (const registration of registrations) {
      const { xtrId } = session;
      const eid = eidKey(answerTo(registration).eid);
      const previous = registration.kind === 'accepted' ? registration.previous?.owner : undefined;
      const from = previous === undefined ? {} : { previous };
      event({ kind: 'registration', result: resultOf(registration), xtrId, eid, ...from });
      if (registration.kind === 'denied' && registration.limit !== undefined)
        event({ kind: 'limit', limit: registration.limit, source: xtrId });
      if (registration.kind === 'denied') orders.handleDenied(eid, xtrId, registration.reason);
      if (registration.kind === 'accepted' && presence.confirm(xtrId, session.id, registration.record.eid))
        handover.welcome(registration.record);
      const other = otherOf(registration);
      if (other !== undefined && other.owner !== xtrId) others.push(other);
    }
    const answers = bounded(registrations.map(answerTo));
    const answered = new Set(answers.map(({ eid }) => eidKey(eid)));
    const extra = companions.of(others).filter(({ eid }) => !answered.has(eidKey(eid)));
    // The answer must stay one message, since its nonce ends the request; what does not fit goes ahead of it.
    const fits = fitsFrame([...answers, ...extra]);
    if (!fits) sessions.publish(session, extra);
    sessions.notify(session, nonce, fits ? [...answers, ...extra] : answers, 'registration');
    for (const registration of registrations) {
      if (registration.kind === 'target' || registration.kind === 'accepted') handover.tellOwner(registration.record);
    }
  }
}

function resultOf(registration: Registration): RegistrationResult {
  if (registration.kind === 'accepted') return registration.how;
  return registration.kind === 'denied' ? registration.reason : registration.kind;
}

/** The agent, if another one, whom the answer to this registration concerns as well. */
function otherOf(registration: Registration): OwnershipRecord | undefined {
  if (registration.kind === 'accepted') return registration.previous;
  return registration.kind === 'denied' ? undefined : registration.record;
}
