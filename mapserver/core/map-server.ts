/**
 * The map server: Map-Server and Map-Resolver (RFC 9301), publisher (RFC 9437), enrolment and grants.
 *
 * Sans-IO. In: sessions that open and close, LISP messages, operations, orders, outcomes of the store, changes that
 * other map servers made, time. Out: actions. This file takes the inputs and connects the parts: who gets a session
 * (`admission.ts`, `sessions.ts`), Map-Registers (`registrar.ts`), Map-Requests (`resolver.ts`), prepared moves
 * (`handover.ts`, `orders.ts`), what operators change (`administration.ts`), who is told of changes (`publisher.ts`),
 * and what policy each agent gets (`policy/`). What an input changes goes through `Transactions`, so nothing is
 * acknowledged before it is durable; after every input publisher and policy settle. `state.ts` is what others read of it.
 */
import { hostPrefix } from '../../proto/address.ts';
import { eidKey, prefixEid } from '../../proto/eid.ts';
import type { Incarnation } from '../../proto/incarnation.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { Instant, Millis, WallClock } from '../../proto/time.ts';
import { type Action, CLOSE, type OperationId, type PolicyQuestionId, type ServerEvent } from './actions.ts';
import { Administration } from './administration.ts';
import { Admission, type Verdict } from './admission.ts';
import { Companions } from './companions.ts';
import type { Overlay } from './grants.ts';
import { Handover } from './handover.ts';
import { HeldAddresses } from './held-addresses.ts';
import { Gateways } from './lisp/gateways.ts';
import { LispServer, type LispSettings } from './lisp/lisp-server.ts';
import type { UdpPeer } from './lisp/udp-peer.ts';
import { MappingDatabase } from './mapping-database.ts';
import { Names } from './names.ts';
import type { Operation } from './operations.ts';
import { type EidOrder, type OrderId, Orders } from './orders.ts';
import { PolicyDistribution } from './policy/distribution.ts';
import { PolicyDrafts } from './policy/drafts.ts';
import type { PolicyCheck } from './policy/inspection.ts';
import { surroundingsOf } from './policy/surroundings.ts';
import { Presence, type SessionId } from './presence.ts';
import { Publisher } from './publisher.ts';
import type { AgentRecord, StoreRecord } from './records.ts';
import { Registrar } from './registrar.ts';
import { Replica } from './replica.ts';
import { Resolver } from './resolver.ts';
import { Revocations } from './revocations.ts';
import { Sessions } from './sessions.ts';
import { MapServerState } from './state.ts';
import { Subscriptions } from './subscriptions.ts';
import { Targets } from './targets.ts';
import { type CommitOutcome, type LearnedRecord, Transactions } from './transactions.ts';

export interface MapServerConfig {
  readonly overlay: Overlay;
  /** How long the mappings of an agent stay that is away. */
  readonly grace: Millis;
  readonly limits: MapServerLimits;
  readonly lisp: LispSettings;
  readonly wallClock: () => WallClock;
  /** 64 random bits. */
  readonly randomNonce: () => Nonce;
}

export interface MapServerLimits {
  readonly mappingsPerAgent: number;
  readonly releasedPerAgent: number;
  readonly mappings: number;
  readonly subscriptionsPerAgent: number;
  readonly subscriptions: number;
  readonly agents: number;
  readonly tokens: number;
  /** Names at which something is set. */
  readonly names: number;
  readonly sites: number;
  readonly mappingsPerSite: number;
  /** Works that wait for the store. */
  readonly pending: number;
}

export class MapServer {
  private readonly config: MapServerConfig;
  private readonly database = new MappingDatabase();
  private readonly held = new HeldAddresses();
  /** The zone, to be read. */
  readonly names: Names;
  readonly state: MapServerState;
  private readonly replica: Replica;
  private readonly transactions: Transactions;
  private readonly subscriptions: Subscriptions;
  private readonly presence: Presence;
  private readonly sessions: Sessions;
  private readonly admission: Admission;
  private readonly administration: Administration;
  private readonly targets = new Targets();
  private readonly orders: Orders;
  private readonly handover: Handover;
  private readonly registrar: Registrar;
  private readonly resolver: Resolver;
  private readonly publisher: Publisher;
  private readonly drafts: PolicyDrafts;
  private readonly policy: PolicyDistribution;
  private readonly revocations: Revocations;
  private readonly lisp: LispServer;
  private readonly gateways: Gateways;
  private lastQuestion = 0;
  private actions: Action[] = [];

  constructor(config: MapServerConfig) {
    this.config = config;
    const { overlay, limits } = config;
    const act = (action: Action): void => this.act(action);
    const event = (each: ServerEvent): void => this.event(each);
    const names = new Names(overlay, {
      ownerOf: (address) => this.database.match(prefixEid(overlay.instance, hostPrefix(address)))?.owner,
      isAway: (owner) => this.presence.isAway(owner),
    });
    const replica = new Replica((before, after) => this.follow(before, after));
    const transactions = new Transactions(
      replica,
      limits.pending,
      (commit) => act({ kind: 'commit', commit }),
      () => event({ kind: 'limit', limit: 'pending', source: 'all' }),
    );
    const subscriptions = new Subscriptions({ perAgent: limits.subscriptionsPerAgent, total: limits.subscriptions });
    const presence = new Presence(config.grace);
    const sessions = new Sessions(presence, act);
    const gateways = new Gateways(config.lisp.gateways, overlay.instance, replica, (xtrId) => presence.isAway(xtrId));
    const companions = new Companions(overlay.instance, replica, gateways);
    const { database, targets } = this;
    const orders = new Orders({
      overlay,
      replica,
      targets,
      isConnected: (xtrId) => presence.session(xtrId) !== undefined,
      finish: (id, { kind, eid }, result) => {
        act({ kind: 'order-outcome', id, result });
        event({ kind: 'order', order: kind, result: result.ok ? 'ok' : result.error.code, eid: eidKey(eid) });
      },
    });
    const revocations = new Revocations(overlay.instance, replica, sessions);
    const surroundings = surroundingsOf(overlay, replica, database);
    const drafts = new PolicyDrafts(surroundings);
    const handover = new Handover({ overlay, database, replica, targets, sessions, companions });
    this.drafts = drafts;
    this.names = names;
    this.gateways = gateways;
    this.replica = replica;
    this.transactions = transactions;
    this.subscriptions = subscriptions;
    this.presence = presence;
    this.sessions = sessions;
    this.admission = new Admission(replica, transactions);
    this.administration = new Administration({
      overlay,
      limits,
      wallClock: config.wallClock,
      replica,
      transactions,
      names,
      database,
      held: this.held,
      drafts,
      dismiss: (agent) => this.dismiss(agent),
      act,
      event,
    });
    this.orders = orders;
    this.handover = handover;
    this.registrar = new Registrar({
      overlay,
      limits,
      wallClock: config.wallClock,
      replica,
      database,
      transactions,
      presence,
      sessions,
      orders,
      handover,
      companions,
      event,
    });
    this.resolver = new Resolver({
      instance: overlay.instance,
      database,
      names,
      subscriptions,
      sessions,
      companions,
      revocations,
      event,
    });
    this.revocations = revocations;
    this.publisher = new Publisher({
      instance: overlay.instance,
      sessions,
      subscriptions,
      companions,
      names,
      orders,
      event,
    });
    this.lisp = new LispServer({
      settings: config.lisp,
      overlay,
      limits,
      database,
      replica,
      gateways,
      transactions,
      wallClock: config.wallClock,
      randomNonce: config.randomNonce,
      act,
    });
    this.policy = new PolicyDistribution({
      records: surroundings.records,
      prepared: (text) => drafts.take(text),
      send: (xtrId, policy) => {
        const session = sessions.of(xtrId);
        if (session !== undefined) sessions.policy(session, policy);
      },
      event,
    });
    this.state = new MapServerState({
      wallClock: config.wallClock,
      replica,
      database,
      presence,
      sessions,
      subscriptions,
      transactions,
      policy: this.policy,
      surroundings,
    });
  }

  /** Everything that the store holds, before the first other input. */
  handleRestore(records: readonly LearnedRecord[], now: Instant): void {
    for (const { key, record, revision } of records) {
      this.replica.learned(key, record, revision);
      if (record?.kind === 'agent' && record.revokedAt !== undefined) this.revocations.remember(record);
    }
    this.publisher.discard();
    for (const xtrId of this.database.owners()) if (!this.lisp.isSite(xtrId)) this.presence.missing(xtrId, now);
    this.lisp.restore(now);
  }

  /** `incarnation`: null when the agent does not say. */
  handleSessionOpened(id: SessionId, xtrId: XtrId, now: Instant, incarnation: Incarnation | null = null): void {
    switch (this.admits(xtrId, incarnation)) {
      case 'yes':
        break;
      case 'fenced':
        this.sessions.reject({ xtrId }, 'fenced');
        this.sessions.refuse(id, CLOSE.fenced, 'another start of this agent is newer');
        return;
      default:
        this.sessions.refuse(id, CLOSE.revoked, 'not enrolled, or revoked');
        return;
    }
    if (incarnation !== null) {
      this.admission.accept(xtrId, incarnation, now);
      this.settle(now);
    }
    const older = this.presence.session(xtrId);
    if (older !== undefined) {
      this.sessions.end(older, CLOSE.superseded, 'superseded');
      this.subscriptions.deleteAll(xtrId);
    }
    this.sessions.add(id, xtrId, this.config.wallClock());
    const wasAway = this.presence.opened(xtrId, id, now);
    const session = this.sessions.get(id);
    if (session !== undefined) this.revocations.welcome(session);
    this.policy.opened(xtrId);
    if (!wasAway) return;
    this.notePresence(xtrId);
    this.settle(now);
  }

  handleSessionClosed(id: SessionId, now: Instant): void {
    const session = this.sessions.remove(id);
    if (session === undefined || this.presence.session(session.xtrId) !== id) return;
    this.subscriptions.deleteAll(session.xtrId);
    this.policy.closed(session.xtrId);
    this.presence.closed(session.xtrId, id, now);
  }

  handleMessage(id: SessionId, message: LispMessage, now: Instant): void {
    const session = this.sessions.get(id);
    if (session === undefined || session.ended) return;
    switch (message.type) {
      case 'map-register':
        this.registrar.handleRegister(session, message, now);
        break;
      case 'map-request':
        this.resolver.handleRequest(session, message, now);
        break;
      case 'map-notify-ack':
        break;
      case 'map-reply':
      case 'map-notify':
      case 'encapsulated-control':
      case 'info-request':
      case 'info-reply':
      case 'map-referral':
      case 'shared-extension':
        this.sessions.reject(session, 'message-type');
        break;
      default:
        message satisfies never;
    }
    this.settle(now);
  }

  /** LISP over UDP. */
  handleDatagram(from: UdpPeer, bytes: Uint8Array, now: Instant): void {
    this.lisp.handleDatagram(from, bytes, now);
    this.settle(now);
  }

  /** The outcome follows as an action with the returned id. */
  handleOperation(operation: Operation, now: Instant): OperationId {
    const id = this.administration.begin(operation, now);
    this.settle(now);
    return id;
  }

  /** What the text would be as the policy follows as an action with the returned id. */
  handlePolicyQuestion(text: string, now: Instant): PolicyQuestionId {
    const id = ++this.lastQuestion as PolicyQuestionId;
    const answer = (check: PolicyCheck | undefined): void => this.act({ kind: 'policy-checked', id, check });
    const isTaken = this.drafts.begin(text, (draft) => {
      this.drafts.drop(draft);
      answer(draft.check());
    });
    if (!isTaken) answer(undefined);
    this.settle(now);
    return id;
  }

  /** The outcome follows as an `order-outcome` with the returned id. */
  handleOrder(order: EidOrder, now: Instant): OrderId {
    const { id, agent } = this.orders.begin(order, now);
    const session = agent === null ? undefined : this.sessions.of(agent);
    if (agent === null || session === undefined) return id;
    if (order.kind === 'attach') this.handover.announce(agent, order.eid, now);
    const via = order.kind === 'attach' ? order.interface : null;
    this.sessions.order(session, { what: order.kind, eid: order.eid, interface: via });
    return id;
  }

  handleCommitOutcome(id: number, outcome: CommitOutcome, now: Instant): void {
    this.transactions.handleOutcome(id, outcome, now);
    this.settle(now);
  }

  /** Changes in the store; what is known already may be among them. */
  handleStoreChanges(changes: readonly LearnedRecord[], now: Instant): void {
    for (const { key, record, revision } of changes) {
      const news = this.replica.learned(key, record, revision);
      if (news && record?.kind === 'agent' && record.revokedAt !== undefined) this.dismiss(record);
    }
    this.settle(now);
  }

  handleTimeout(now: Instant): void {
    this.transactions.handleTimeout(now);
    this.subscriptions.handleTimeout(now);
    this.targets.handleTimeout(now);
    this.orders.handleTimeout(now);
    this.lisp.handleTimeout(now);
    for (const xtrId of this.presence.handleLeaving(now)) this.notePresence(xtrId);
    for (const overdue of this.presence.handleTimeout(now)) this.registrar.withdraw(overdue, now);
    this.settle(now);
  }

  pollTimeout(): Instant | undefined {
    const deadlines = [
      this.transactions.pollTimeout(),
      this.subscriptions.pollTimeout(),
      this.targets.pollTimeout(),
      this.orders.pollTimeout(),
      this.presence.pollTimeout(),
      this.drafts.pollTimeout(),
      this.policy.pollTimeout(),
      this.handover.pollTimeout(),
      this.lisp.pollTimeout(),
    ].filter((deadline) => deadline !== undefined);
    return deadlines.length === 0 ? undefined : Math.min(...deadlines);
  }

  /** Everything to do since the last call, in order. */
  pollActions(): readonly Action[] {
    const actions = this.actions;
    if (actions.length > 0) this.actions = [];
    return actions;
  }

  /** May this agent open a session? */
  admits(xtrId: XtrId, incarnation: Incarnation | null): Verdict {
    return this.admission.judge(xtrId, incarnation);
  }

  /** The newest run of the agent that was heard of; 0 when none was. */
  newestRun(xtrId: XtrId): number {
    return this.admission.newestRun(xtrId);
  }

  /** It was revoked. */
  private dismiss(agent: AgentRecord): void {
    this.targets.deleteAll(agent.xtrId);
    const session = this.sessions.of(agent.xtrId);
    if (session !== undefined) this.sessions.end(session.id, CLOSE.revoked, 'revoked');
    this.revocations.add(agent);
  }

  private notePresence(xtrId: XtrId): void {
    this.names.noteOwner(this.database.ownedBy(xtrId));
    this.gateways.notePresence(xtrId);
  }

  private settle(now: Instant): void {
    for (const record of this.gateways.takeToldAnew()) {
      if (record.site === undefined) this.lisp.tellAgain(record);
      else this.publisher.tellAgain(record);
    }
    this.publisher.settle();
    this.handover.settle();
    this.revocations.settle();
    this.lisp.settle(now);
    this.drafts.settle(now);
    this.policy.settle(now);
  }

  private follow(before: StoreRecord | undefined, after: StoreRecord | undefined): void {
    const from = before?.kind === 'eid' ? before : undefined;
    const to = after?.kind === 'eid' ? after : undefined;
    const eid = (to ?? from)?.eid;
    if (eid !== undefined) {
      this.database.update(from, to);
      this.publisher.follow(eid, from, to);
    }
    this.gateways.follow(before, after);
    this.lisp.follow(before, after);
    this.held.follow(before, after);
    this.names.follow(before, after);
    if (before?.kind === 'agent' || after?.kind === 'agent') this.handover.handleGrant(agentOf(before), agentOf(after));
    this.drafts.follow(before, after);
    this.policy.follow(before, after);
  }

  private event(event: ServerEvent): void {
    this.act({ kind: 'event', event });
  }

  private act(action: Action): void {
    this.actions.push(action);
  }
}

function agentOf(record: StoreRecord | undefined): AgentRecord | undefined {
  return record?.kind === 'agent' ? record : undefined;
}
