/**
 * The map server: Map-Server and Map-Resolver (RFC 9301), publisher (RFC 9437), enrolment and grants.
 *
 * Sans-IO. In: sessions that open and close, LISP messages, operations, outcomes of the store, changes that other map
 * servers made, time. Out: actions. What a message changes goes through `Transactions`, so nothing is acknowledged
 * before it is durable. Whatever changes a record, by whatever way, ends in `changed`; after every input, each session
 * concerned gets one publication with all of it: the subscribers, and the owner before. The owner itself gets the
 * acknowledgement of its registration, first.
 */
import type { IpPrefix } from '../../proto/address.ts';
import { type Eid, type EidKey, eidKey, parseEidKey } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Incarnation } from '../../proto/incarnation.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { MapRegister } from '../../proto/lisp/map-register.ts';
import type { MapRequest } from '../../proto/lisp/map-request.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import {
  type MappingQuery,
  mapNotify,
  mappingsOf,
  mapReply,
  negativeReply,
  queriesOf,
} from '../../proto/lisp/native.ts';
import { orderRequest } from '../../proto/lisp/order.ts';
import { asTarget, type Mapping, type XtrId } from '../../proto/mapping.ts';
import { type Instant, type Millis, minutes, type WallClock } from '../../proto/time.ts';
import {
  type Action,
  CLOSE,
  type OperationId,
  type OperationResult,
  type RejectionReason,
  type RequestResult,
  type ServerEvent,
} from './actions.ts';
import { bounded, chunked, fitsFrame } from './framing.ts';
import type { Overlay } from './grants.ts';
import { Incarnations } from './incarnations.ts';
import { MappingDatabase } from './mapping-database.ts';
import { evaluateOperation, type Operation, OperationError } from './operations.ts';
import { type EidOrder, type OrderId, Orders } from './orders.ts';
import { Presence, type SessionId } from './presence.ts';
import {
  type AgentRecord,
  agentEidKey,
  agentKey,
  mappingOf,
  type OwnershipRecord,
  ownershipKey,
  type StoreRecord,
  type TokenRecord,
} from './records.ts';
import { answerTo, denied, evaluateRegistration, type Registration } from './registration.ts';
import { Replica } from './replica.ts';
import { Subscriptions } from './subscriptions.ts';
import { TARGET_TTL, Targets } from './targets.ts';
import { type CommitOutcome, type LearnedRecord, type Transaction, Transactions } from './transactions.ts';

export interface MapServerConfig {
  readonly overlay: Overlay;
  /** How long the mappings of an agent stay that is away. */
  readonly grace: Millis;
  readonly limits: MapServerLimits;
  readonly wallClock: () => WallClock;
}

export interface MapServerLimits {
  readonly mappingsPerAgent: number;
  readonly mappings: number;
  readonly subscriptionsPerAgent: number;
  readonly subscriptions: number;
  readonly agents: number;
  readonly tokens: number;
  /** Works that wait for the store. */
  readonly pending: number;
}

interface Session {
  readonly id: SessionId;
  readonly xtrId: XtrId;
  readonly openedAt: WallClock;
  registerNonce: bigint;
  pushNonce: bigint;
  /** Closed from here; the shell has not said yet that it is gone. */
  ended: boolean;
}

export class MapServer {
  private readonly config: MapServerConfig;
  private readonly database = new MappingDatabase();
  private readonly replica: Replica;
  private readonly transactions: Transactions;
  private readonly subscriptions: Subscriptions;
  private readonly presence: Presence;
  private readonly targets = new Targets();
  private readonly orders: Orders;
  private readonly incarnations = new Incarnations();
  private readonly sessions = new Map<SessionId, Session>();
  private readonly changed = new Map<
    EidKey,
    { readonly before: OwnershipRecord | undefined; after: OwnershipRecord | undefined }
  >();
  private readonly counts = { eid: 0, agent: 0, token: 0 };
  private actions: Action[] = [];
  private lastOperation = 0;

  constructor(config: MapServerConfig) {
    this.config = config;
    this.replica = new Replica((before, after) => this.follow(before, after));
    this.transactions = new Transactions(this.replica, config.limits.pending, (commit) =>
      this.act({ kind: 'commit', commit }),
    );
    this.subscriptions = new Subscriptions({
      perAgent: config.limits.subscriptionsPerAgent,
      total: config.limits.subscriptions,
    });
    this.presence = new Presence(config.grace);
    this.orders = new Orders({
      overlay: config.overlay,
      replica: this.replica,
      targets: this.targets,
      isConnected: (xtrId) => this.presence.session(xtrId) !== undefined,
      finish: (id, { kind, eid }, result) => {
        this.act({ kind: 'order-outcome', id, result });
        this.event({ kind: 'order', order: kind, result: result.ok ? 'ok' : result.error.code, eid: eidKey(eid) });
      },
    });
  }

  /** Everything that the store holds, before the first other input. */
  handleRestore(records: readonly LearnedRecord[], now: Instant): void {
    for (const { key, record, revision } of records) this.replica.learned(key, record, revision);
    this.changed.clear();
    for (const xtrId of this.database.owners()) this.presence.missing(xtrId, now);
  }

  /** `incarnation`: null when the agent does not say. */
  handleSessionOpened(id: SessionId, xtrId: XtrId, now: Instant, incarnation: Incarnation | null = null): void {
    switch (this.admits(xtrId, incarnation)) {
      case 'yes':
        break;
      case 'fenced':
        this.event({ kind: 'rejected', reason: 'fenced', xtrId });
        this.act({ kind: 'close', session: id, code: CLOSE.fenced, reason: 'another start of this agent is newer' });
        return;
      default:
        this.act({ kind: 'close', session: id, code: CLOSE.revoked, reason: 'not enrolled, or revoked' });
        return;
    }
    if (incarnation !== null) this.noteIncarnation(xtrId, incarnation, now);
    const older = this.presence.session(xtrId);
    if (older !== undefined) {
      this.end(older, CLOSE.superseded, 'superseded');
      this.subscriptions.deleteAll(xtrId);
    }
    this.sessions.set(id, {
      id,
      xtrId,
      openedAt: this.config.wallClock(),
      registerNonce: -1n,
      pushNonce: FIRST_PUSH_NONCE,
      ended: false,
    });
    this.presence.opened(xtrId, id, now);
  }

  handleSessionClosed(id: SessionId, now: Instant): void {
    const session = this.sessions.get(id);
    if (session === undefined) return;
    this.sessions.delete(id);
    if (this.presence.session(session.xtrId) !== id) return;
    this.subscriptions.deleteAll(session.xtrId);
    this.presence.closed(session.xtrId, id, now);
  }

  handleMessage(id: SessionId, message: LispMessage, now: Instant): void {
    const session = this.sessions.get(id);
    if (session === undefined || session.ended) return;
    switch (message.type) {
      case 'map-register':
        this.handleRegister(session, message, now);
        break;
      case 'map-request':
        this.handleRequest(session, message, now);
        break;
      case 'map-notify-ack':
        break;
      case 'map-reply':
      case 'map-notify':
      case 'encapsulated-control':
      case 'info-request':
      case 'info-reply':
        this.reject(session, 'message-type');
        break;
      default:
        message satisfies never;
    }
    this.settle();
  }

  /** The outcome follows as an action with the returned id. */
  handleOperation(operation: Operation, now: Instant): OperationId {
    const id = ++this.lastOperation as OperationId;
    let result: OperationResult = unavailable;
    const finish = (outcome: OperationResult): void => {
      this.act({ kind: 'outcome', id, result: outcome });
      const subject = outcome.ok ? subjectOf(outcome.record) : undefined;
      this.event({
        kind: 'operation',
        operation: operation.kind,
        result: outcome.ok ? 'ok' : outcome.error.code,
        ...(subject === undefined ? {} : { subject }),
      });
    };
    this.transactions.add(
      {
        evaluate: (transaction) => {
          result = this.evaluate(transaction, operation);
        },
        complete: () => {
          if (result.ok && operation.kind === 'revoke-agent') this.dismiss(operation.xtrId);
          finish(result);
        },
        fail: () => finish(unavailable),
      },
      now,
    );
    this.settle();
    return id;
  }

  /** The outcome follows as an `order-outcome` with the returned id. */
  handleOrder(order: EidOrder, now: Instant): OrderId {
    const { id, agent } = this.orders.begin(order, now);
    const session = this.sessions.get(this.presence.session(agent ?? ('' as XtrId)) ?? (0 as SessionId));
    if (agent === null || session === undefined) return id;
    if (order.kind === 'attach') this.announceTarget(agent, order.eid, now);
    const via = order.kind === 'attach' ? order.interface : null;
    const message = orderRequest(nonce(session.pushNonce++), { what: order.kind, eid: order.eid, interface: via });
    this.send(session, message);
    return id;
  }

  handleCommitOutcome(id: number, outcome: CommitOutcome, now: Instant): void {
    this.transactions.handleOutcome(id, outcome, now);
    this.settle();
  }

  /** Changes in the store, also those made by this server. */
  handleStoreChanges(changes: readonly LearnedRecord[]): void {
    for (const { key, record, revision } of changes) {
      const news = this.replica.learned(key, record, revision);
      if (news && record?.kind === 'agent' && record.revokedAt !== undefined) this.dismiss(record.xtrId);
    }
    this.settle();
  }

  handleTimeout(now: Instant): void {
    this.transactions.handleTimeout(now);
    this.subscriptions.handleTimeout(now);
    this.targets.handleTimeout(now);
    this.orders.handleTimeout(now);
    for (const { xtrId, confirmed } of this.presence.handleTimeout(now)) this.withdraw(xtrId, confirmed, now);
    this.settle();
  }

  pollTimeout(): Instant | undefined {
    const deadlines = [
      this.transactions.pollTimeout(),
      this.subscriptions.pollTimeout(),
      this.targets.pollTimeout(),
      this.orders.pollTimeout(),
      this.presence.pollTimeout(),
    ].filter((deadline) => deadline !== undefined);
    return deadlines.length === 0 ? undefined : Math.min(...deadlines);
  }

  /** Everything to do since the last call, in order. */
  pollActions(): readonly Action[] {
    const actions = this.actions;
    if (actions.length > 0) this.actions = [];
    return actions;
  }

  /** May this agent open a session? `fenced`: another start of the same identity is the one that counts. */
  admits(xtrId: XtrId, incarnation: Incarnation | null): 'yes' | 'unknown' | 'revoked' | 'fenced' {
    const agent = this.replica.get(agentKey(xtrId));
    if (agent?.kind !== 'agent') return 'unknown';
    if (agent.revokedAt !== undefined) return 'revoked';
    const verdict = this.incarnations.judge(xtrId, agent.incarnation, incarnation);
    return verdict === 'older' || verdict === 'copy' ? 'fenced' : 'yes';
  }

  /** The newest run of the agent that was heard of; 0 when none was. */
  newestRun(xtrId: XtrId): number {
    const agent = this.replica.get(agentKey(xtrId));
    return this.incarnations.newestOf(xtrId, agent?.kind === 'agent' ? agent.incarnation : undefined)?.run ?? 0;
  }

  /** Every record, for listings. */
  *records(): IterableIterator<StoreRecord> {
    for (const { record } of this.replica.values()) yield record;
  }

  agentState(xtrId: XtrId): {
    readonly connectedSince: WallClock | undefined;
    readonly subscriptions: number;
    readonly mappings: number;
  } {
    const session = this.sessions.get(this.presence.session(xtrId) ?? (0 as SessionId));
    return {
      connectedSince: session?.openedAt,
      subscriptions: this.subscriptions.of(xtrId),
      mappings: this.database.ownedCount(xtrId),
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
  } {
    const { prefixes, names } = this.database.counts;
    return {
      sessions: this.presence.size,
      agents: this.counts.agent,
      tokens: this.counts.token,
      mappings: prefixes,
      names,
      subscriptions: this.subscriptions.size,
      pending: this.transactions.waiting,
    };
  }

  /** Kept durably, so that a restart of this server lets no older start in. */
  private noteIncarnation(xtrId: XtrId, { run, process, connection }: Incarnation, now: Instant): void {
    this.incarnations.accepted(xtrId, { run, process, connection });
    this.transactions.add(
      {
        evaluate: (transaction) => {
          const agent = transaction.get(agentKey(xtrId));
          if (agent?.kind !== 'agent' || (agent.incarnation?.run ?? -1) >= run) return;
          transaction.put({ ...agent, incarnation: { run, process } });
        },
        complete: () => undefined,
        // Still known in memory, and written at the next start of the agent.
        fail: () => undefined,
      },
      now,
    );
    this.settle();
  }

  private handleRegister(session: Session, message: MapRegister, now: Instant): void {
    if (message.xtrId !== session.xtrId) {
      this.rejectIdentity(session);
      return;
    }
    if (message.nonce <= session.registerNonce) {
      this.reject(session, 'nonce');
      return;
    }
    session.registerNonce = message.nonce;
    const mappings = this.readMappings(session, message);
    if (mappings === undefined) return;
    let registrations: Registration[] = [];
    this.transactions.add(
      {
        evaluate: (transaction) => {
          registrations = this.evaluateAll(transaction, session.xtrId, mappings);
        },
        complete: (later) => this.acknowledge(session, message.nonce, registrations, later),
        fail: () => {
          this.reject(session, 'overload');
          this.end(session.id, CLOSE.overload, 'the map server cannot store registrations now; try again later');
        },
      },
      now,
    );
  }

  private readMappings(session: Session, message: MapRegister): readonly Mapping[] | undefined {
    try {
      return mappingsOf(message);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.reject(session, 'malformed');
      return undefined;
    }
  }

  private evaluateAll(transaction: Transaction, xtrId: XtrId, mappings: readonly Mapping[]): Registration[] {
    const agent = transaction.get(agentKey(xtrId));
    let taken = 0;
    for (const record of transaction.written()) if (record.owner === xtrId) taken++;
    const context = {
      overlay: this.config.overlay,
      limits: this.config.limits,
      wallClock: this.config.wallClock(),
      counts: { own: this.database.ownedCount(xtrId) + taken, total: this.counts.eid + transaction.hard.size },
    };
    const known = agent?.kind === 'agent' ? agent : undefined;
    const denied = new Set<IpPrefix>();
    return mappings.map((mapping) => {
      const registration = evaluateRegistration(transaction, known, mapping, context, denied);
      if (registration.kind === 'denied' && mapping.eid.kind === 'prefix') denied.add(mapping.eid.prefix);
      return registration;
    });
  }

  private acknowledge(session: Session, nonceOfRequest: Nonce, judged: readonly Registration[], now: Instant): void {
    const registrations = judged.map((each) => this.registerTarget(session, each, now));
    const companions = new Map<EidKey, Mapping>();
    for (const registration of registrations) {
      const result =
        registration.kind === 'accepted'
          ? registration.how
          : registration.kind === 'denied'
            ? registration.reason
            : registration.kind;
      const answer = answerTo(registration);
      this.event({ kind: 'registration', result, xtrId: session.xtrId, eid: eidKey(answer.eid) });
      if (registration.kind === 'denied') {
        this.orders.handleDenied(eidKey(answer.eid), session.xtrId, registration.reason);
      }
      if (registration.kind === 'accepted') this.presence.confirm(session.xtrId, session.id, registration.record.eid);
      const other =
        registration.kind === 'accepted'
          ? registration.previous
          : registration.kind === 'stale' || registration.kind === 'target'
            ? registration.record
            : undefined;
      if (other !== undefined && other.owner !== session.xtrId) this.addAgentMapping(companions, other);
    }
    const answers = bounded(registrations.map(answerTo));
    const extra = [...companions.values()].filter(
      ({ eid }) => !answers.some((answer) => eidKey(answer.eid) === eidKey(eid)),
    );
    // The answer must stay one message, since its nonce ends the request; what does not fit goes ahead of it.
    const fits = fitsFrame([...answers, ...extra]);
    if (!fits) this.publish(session, extra);
    this.notify(session, nonceOfRequest, fits ? [...answers, ...extra] : answers, 'registration');
    for (const registration of registrations) {
      if (registration.kind === 'target' || registration.kind === 'accepted') this.tellTargets(registration.record);
    }
  }

  /** Notes a target of a move, or that it is none any more: whoever owns the EID is not waiting for it. */
  private registerTarget(session: Session, registration: Registration, now: Instant): Registration {
    if (registration.kind !== 'target') {
      if (registration.kind === 'accepted') this.targets.delete(registration.record.eid, session.xtrId);
      return registration;
    }
    const { eid, ttl, locators } = registration.mapping;
    const agent = this.replica.get(agentKey(session.xtrId));
    if (ttl === 0) {
      this.targets.delete(eidKey(eid), session.xtrId);
      return registration;
    }
    if (agent?.kind !== 'agent') return denied(eid, registration.record, 'revoked');
    const { xtrId, tunnelKey } = agent;
    const added = this.targets.add({ eid: eidKey(eid), xtrId, tunnelKey, locators }, now);
    return added ? registration : denied(eid, registration.record, 'too-many');
  }

  /** By order it is going to take the EID over: its owner has to know before its claim comes. */
  private announceTarget(xtrId: XtrId, eid: Eid, now: Instant): void {
    const agent = this.replica.get(agentKey(xtrId));
    const owned = this.replica.get(ownershipKey(eidKey(eid)));
    if (agent?.kind !== 'agent' || owned?.kind !== 'eid') return;
    const address = this.replica.get(ownershipKey(agentEidKey(this.config.overlay.instance, agent.tunnelKey)));
    const locators = address?.kind === 'eid' ? asTarget(mappingOf(address)).locators : [];
    if (locators.length === 0) return;
    this.targets.add({ eid: owned.eid, xtrId, tunnelKey: agent.tunnelKey, locators }, now);
    this.tellTargets(owned);
  }

  /** Tells the owner who is authorised to take its EID over, with their agent address mappings. */
  private tellTargets(record: OwnershipRecord | undefined): void {
    if (record?.state !== 'live') return;
    const session = this.sessions.get(this.presence.session(record.owner) ?? (0 as SessionId));
    if (session === undefined) return;
    const targets = this.targets.untold(record.eid, record.owner, session.id);
    if (targets.length === 0) return;
    const companions = new Map<EidKey, Mapping>();
    for (const target of targets) this.addAgentMapping(companions, target);
    const told = targets.map(({ xtrId: owner, tunnelKey, locators }): Mapping => {
      return { ...mappingOf(record), ttl: TARGET_TTL, owner, tunnelKey, locators, names: [] };
    });
    this.publish(session, [...told, ...companions.values()]);
  }

  private handleRequest(session: Session, message: MapRequest, now: Instant): void {
    if (message.xtrId !== undefined && message.xtrId !== session.xtrId) {
      this.rejectIdentity(session);
      return;
    }
    const query = this.readQuery(session, message);
    if (query !== undefined) this.event({ kind: 'request', result: this.answer(session, message.nonce, query, now) });
  }

  private answer(session: Session, withNonce: Nonce, { eid, intent }: MappingQuery, now: Instant): RequestResult {
    if (intent === 'unsubscribe') {
      this.subscriptions.delete(session.xtrId, eid);
      return 'unsubscribed';
    }
    if (eid.iid !== this.config.overlay.instance) {
      this.send(session, negativeReply({ nonce: withNonce, eid, action: 'policy-denied', ttl: NEGATIVE_TTL }));
      return 'denied';
    }
    const record = this.database.match(eid);
    if (record === undefined) {
      if (intent === 'subscribe') this.subscriptions.add(session.xtrId, eid, true, now);
      this.send(session, negativeReply({ nonce: withNonce, eid, action: 'drop', ttl: NEGATIVE_TTL }));
      return 'negative';
    }
    const answer = this.withCompanions([record, ...this.database.inside(record, MAX_INSIDE)]);
    if (intent === 'subscribe' && this.subscriptions.add(session.xtrId, parseEidKey(record.eid), false, now)) {
      const [first = [], ...later] = chunked(answer);
      for (const mappings of later) this.publish(session, mappings);
      this.notify(session, withNonce, first, 'resolution');
      return 'subscribed';
    }
    // A subscription that there is no room for: the answer must not live long in the map-cache.
    const mappings = intent === 'subscribe' ? answer.map((mapping) => ({ ...mapping, ttl: NEGATIVE_TTL })) : answer;
    this.send(session, mapReply({ nonce: withNonce, mappings: chunked(mappings)[0] ?? [] }));
    return 'answered';
  }

  private readQuery(session: Session, message: MapRequest): MappingQuery | undefined {
    try {
      const [query, ...more] = queriesOf(message);
      if (query !== undefined && more.length === 0 && !message.smr && !message.probe) return query;
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
    }
    this.reject(session, 'malformed');
    return undefined;
  }

  private evaluate(transaction: Transaction, operation: Operation): OperationResult {
    try {
      const record = evaluateOperation(transaction, operation, {
        overlay: this.config.overlay,
        limits: this.config.limits,
        wallClock: this.config.wallClock(),
        counts: { tokens: this.counts.token, agents: this.counts.agent },
        database: this.database,
      });
      return { ok: true, record };
    } catch (error) {
      if (error instanceof OperationError) return { ok: false, error };
      throw error;
    }
  }

  private withdraw(xtrId: XtrId, confirmed: ReadonlySet<EidKey>, now: Instant): void {
    const overdue = [...this.database.ownedBy(xtrId)].filter(
      ({ state, eid }) => state === 'live' && !confirmed.has(eid),
    );
    if (overdue.length === 0) return;
    let count = 0;
    this.transactions.add(
      {
        evaluate: (transaction) => {
          count = 0;
          for (const { eid } of overdue) {
            const record = transaction.get(ownershipKey(eid));
            if (record?.kind !== 'eid' || record.owner !== xtrId || record.state !== 'live') continue;
            transaction.putSoft({ ...record, state: 'withdrawn' });
            count++;
          }
        },
        complete: () => this.event({ kind: 'withdrawn', xtrId, count }),
        fail: (later) => this.presence.missing(xtrId, later),
      },
      now,
    );
  }

  private dismiss(xtrId: XtrId): void {
    this.targets.deleteAll(xtrId);
    const session = this.presence.session(xtrId);
    if (session !== undefined) this.end(session, CLOSE.revoked, 'revoked');
  }

  private end(id: SessionId, code: number, reason: string): void {
    const session = this.sessions.get(id);
    if (session === undefined || session.ended) return;
    session.ended = true;
    this.act({ kind: 'close', session: id, code, reason });
  }

  private follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    if (before === undefined && after !== undefined) this.counts[after.kind]++;
    if (before !== undefined && after === undefined) this.counts[before.kind]--;
    const from = before?.kind === 'eid' ? before : undefined;
    const to = after?.kind === 'eid' ? after : undefined;
    const eid = (to ?? from)?.eid;
    if (eid === undefined) return;
    this.database.update(from, to);
    const known = this.changed.get(eid);
    if (known === undefined) this.changed.set(eid, { before: from, after: to });
    else known.after = to;
  }

  /** Tells everybody whom the changes since the last call concern. */
  private settle(): void {
    if (this.changed.size === 0) return;
    const letters = new Map<XtrId, OwnershipRecord[]>();
    for (const { before, after } of this.changed.values()) {
      if (after === undefined || (after.state !== 'live' && before?.state !== 'live')) continue;
      const moved = before !== undefined && before.state !== 'released' && before.owner !== after.owner;
      if (moved) {
        this.event({
          kind: 'moved',
          eid: after.eid,
          from: before.owner,
          to: after.owner,
          generation: after.generation,
        });
      }
      this.orders.handleRecord(after);
      const eid = parseEidKey(after.eid);
      const concerned = this.subscriptions.concerned(eid);
      if (after.state === 'live') this.subscriptions.settle(eid, concerned);
      if (moved) concerned.add(before.owner);
      if (after.state === 'live') concerned.delete(after.owner);
      for (const xtrId of concerned) {
        const letter = letters.get(xtrId);
        if (letter === undefined) letters.set(xtrId, [after]);
        else letter.push(after);
      }
    }
    this.changed.clear();
    for (const [xtrId, records] of letters) {
      const session = this.sessions.get(this.presence.session(xtrId) ?? (0 as SessionId));
      if (session !== undefined) this.publish(session, this.withCompanions(records));
    }
  }

  /** The mappings of `records`, then the agent address mappings of their owners. */
  private withCompanions(records: readonly OwnershipRecord[]): Mapping[] {
    const companions = new Map<EidKey, Mapping>();
    for (const record of records) this.addAgentMapping(companions, record);
    for (const { eid } of records) companions.delete(eid);
    return [...records.map(mappingOf), ...companions.values()];
  }

  private addAgentMapping(companions: Map<EidKey, Mapping>, { tunnelKey }: Pick<OwnershipRecord, 'tunnelKey'>): void {
    const eid = agentEidKey(this.config.overlay.instance, tunnelKey);
    if (companions.has(eid)) return;
    const record = this.replica.get(ownershipKey(eid));
    if (record?.kind === 'eid') companions.set(eid, mappingOf(record));
  }

  private publish(session: Session, mappings: readonly Mapping[]): void {
    for (const part of chunked(mappings)) this.notify(session, nonce(session.pushNonce++), part, 'publication');
  }

  private notify(
    session: Session,
    withNonce: Nonce,
    mappings: readonly Mapping[],
    why: 'registration' | 'resolution' | 'publication',
  ): void {
    this.send(session, mapNotify({ nonce: withNonce, xtrId: session.xtrId, mappings }));
    this.event({ kind: 'notify', why });
  }

  private send(session: Session, message: LispMessage): void {
    if (!session.ended) this.act({ kind: 'send', session: session.id, message });
  }

  private rejectIdentity(session: Session): void {
    this.reject(session, 'foreign-xtr-id');
    this.end(session.id, CLOSE.foreignXtrId, 'a message carried another xTR-ID than the certificate');
  }

  private reject(session: Session, reason: RejectionReason): void {
    this.event({ kind: 'rejected', reason, xtrId: session.xtrId });
  }

  private event(event: ServerEvent): void {
    this.act({ kind: 'event', event });
  }

  private act(action: Action): void {
    this.actions.push(action);
  }
}

const unavailable: OperationResult = {
  ok: false,
  error: new OperationError('STAYPUT_STORE', 'the map server cannot store changes now; try again later'),
};

function subjectOf(record: TokenRecord | AgentRecord): string {
  return record.kind === 'token' ? record.id : record.xtrId;
}

/** More specific mappings that are told together with a prefix. */
const MAX_INSIDE = 64;
const NEGATIVE_TTL = minutes(1);
const FIRST_PUSH_NONCE = 1n << 63n;
