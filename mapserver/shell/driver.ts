/** Drives the core: feeds it sessions, messages, store outcomes and time, and does what it asks for, in order. */
import type { Incarnation } from '../../proto/incarnation.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { AgentPolicy } from '../../proto/policy.ts';
import type { Log } from '../../runtime/log.ts';
import type { Action, OperationId, OperationResult, PolicyQuestionId } from '../core/actions.ts';
import type { UdpPeer } from '../core/lisp/udp-peer.ts';
import type { MapServer } from '../core/map-server.ts';
import type { Operation } from '../core/operations.ts';
import type { EidOrder, OrderId, OrderResult } from '../core/orders.ts';
import type { PolicyCheck } from '../core/policy/inspection.ts';
import type { SessionId } from '../core/presence.ts';
import type { Commit, CommitOutcome, LearnedRecord } from '../core/transactions.ts';
import {
  CompactedError,
  type Entry,
  RESTORE,
  type Store,
  type StoreChange,
  StoreError,
  type Watch,
} from '../store/store.ts';
import type { AuditLog } from './audit-log.ts';
import { auditEvent } from './audited.ts';
import type { LimitReports } from './limit-reports.ts';
import type { MapServerMetrics } from './metrics.ts';
import { decodeRecord, encodeRecord, isRecordKey, RecordError } from './record-codec.ts';
import { TokenBucket } from './token-bucket.ts';

/** The other end of a session, as the core's actions reach it. */
export interface Peer {
  readonly xtrId: XtrId;
  /** Where it is connected from. */
  readonly address: string;
  send(message: LispMessage): void;
  sendPolicy(policy: AgentPolicy): void;
  close(code: number, reason: string): void;
}

export interface DriverOptions {
  readonly core: MapServer;
  readonly store: Store;
  readonly metrics: MapServerMetrics;
  readonly reports: LimitReports;
  readonly audit: AuditLog;
  readonly log: Log;
}

export class Driver {
  readonly core: MapServer;
  private readonly store: Store;
  private readonly metrics: MapServerMetrics;
  private readonly reports: LimitReports;
  private readonly log: Log;
  private readonly audit: AuditLog;
  private readonly peers = new Map<SessionId, Peer>();
  private readonly newest = new Map<string, Peer>();
  private readonly orders = new Map<OrderId, (result: OrderResult) => void>();
  private readonly operations = new Map<OperationId, (result: OperationResult) => void>();
  private readonly questions = new Map<PolicyQuestionId, (check: PolicyCheck | undefined) => void>();
  /** What others can cause at will is logged at a bounded rate; the metrics count it all. */
  private readonly complaints = new TokenBucket(COMPLAINTS_PER_SECOND, performance.now());
  private sendDatagram: (to: UdpPeer, bytes: Uint8Array) => void = () => {};
  private timer: NodeJS.Timeout | undefined;
  private watch: Watch | undefined;
  private readonly namesListeners: ((names: ReadonlySet<string>) => void)[] = [];
  private lastSession = 0;
  private acting = false;
  private closed = false;

  constructor(options: DriverOptions) {
    this.core = options.core;
    this.store = options.store;
    this.metrics = options.metrics;
    this.reports = options.reports;
    this.audit = options.audit;
    this.log = options.log;
  }

  /** Reads the whole store. @throws StoreError */
  async start(): Promise<void> {
    const { entries, revision } = await this.store.list('');
    const records = restored(entries);
    this.input((now) => this.core.handleRestore(records, now));
    this.watch = this.store.watch('', revision, (changes) => this.follow(changes));
  }

  open(xtrId: XtrId, incarnation: Incarnation | null, peer: Peer): SessionId {
    const id = ++this.lastSession as SessionId;
    this.peers.set(id, peer);
    this.newest.set(xtrId, peer);
    this.input((now) => this.core.handleSessionOpened(id, xtrId, now, incarnation));
    return id;
  }

  receive(id: SessionId, message: LispMessage): void {
    this.input((now) => this.core.handleMessage(id, message, now));
  }

  gone(id: SessionId): void {
    const peer = this.peers.get(id);
    if (peer === undefined) return;
    this.peers.delete(id);
    this.input((now) => this.core.handleSessionClosed(id, now));
    if (this.newest.get(peer.xtrId) === peer) this.newest.delete(peer.xtrId);
  }

  /** `send`: takes what goes to peers that speak LISP over UDP. */
  serveLisp(send: (to: UdpPeer, bytes: Uint8Array) => void): void {
    this.sendDatagram = send;
  }

  receiveDatagram(from: UdpPeer, bytes: Uint8Array): void {
    this.input((now) => this.core.handleDatagram(from, bytes, now));
  }

  operate(operation: Operation): Promise<OperationResult> {
    return new Promise((resolve) => {
      this.input((now) => this.operations.set(this.core.handleOperation(operation, now), resolve));
    });
  }

  /** What the text would be as the policy; undefined when too many are asked about at once. */
  checkPolicy(text: string): Promise<PolicyCheck | undefined> {
    return new Promise((resolve) => {
      this.input((now) => this.questions.set(this.core.handlePolicyQuestion(text, now), resolve));
    });
  }

  /** Ends with the order's patience at the latest. */
  order(order: EidOrder): Promise<OrderResult> {
    return new Promise((resolve) => {
      this.input((now) => this.orders.set(this.core.handleOrder(order, now), resolve));
    });
  }

  /** Names of the zone that may be answered otherwise than before. */
  onNames(listener: (names: ReadonlySet<string>) => void): void {
    this.namesListeners.push(listener);
  }

  /** The store is closed by whoever opened it. */
  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.watch?.close();
  }

  private input(feed: (now: number) => void): void {
    if (this.closed) return;
    feed(performance.now());
    // What an action brings about (a peer that is gone) is fed at once, and acted on after the actions before it.
    if (this.acting) return;
    this.acting = true;
    try {
      for (let actions = this.core.pollActions(); actions.length > 0; actions = this.core.pollActions()) {
        for (const action of actions) this.perform(action);
      }
    } finally {
      this.acting = false;
      this.schedule();
    }
  }

  private schedule(): void {
    clearTimeout(this.timer);
    const deadline = this.core.pollTimeout();
    if (deadline === undefined) return;
    const delay = Math.min(Math.max(0, Math.ceil(deadline - performance.now())), LONGEST_TIMER);
    this.timer = setTimeout(() => this.input((now) => this.core.handleTimeout(now)), delay);
  }

  private perform(action: Action): void {
    switch (action.kind) {
      case 'send':
        this.peers.get(action.session)?.send(action.message);
        break;
      case 'policy':
        this.peers.get(action.session)?.sendPolicy(action.policy);
        break;
      case 'close':
        this.peers.get(action.session)?.close(action.code, action.reason);
        break;
      case 'datagram':
        this.sendDatagram(action.to, action.bytes);
        break;
      case 'commit':
        void this.commit(action.commit);
        break;
      case 'outcome':
        this.operations.get(action.id)?.(action.result);
        this.operations.delete(action.id);
        break;
      case 'policy-checked':
        this.questions.get(action.id)?.(action.check);
        this.questions.delete(action.id);
        break;
      case 'order-outcome':
        this.orders.get(action.id)?.(action.result);
        this.orders.delete(action.id);
        break;
      case 'event':
        this.metrics.count(action.event);
        auditEvent(this.audit, action.event, (xtrId) => this.newest.get(xtrId)?.address);
        this.report(action.event);
        if (action.event.kind === 'names-changed') for (const tell of this.namesListeners) tell(action.event.names);
        break;
      default:
        action satisfies never;
    }
  }

  private async commit(commit: Commit): Promise<void> {
    let outcome: CommitOutcome;
    try {
      const result = await this.store.compareAndSet(
        commit.conditions,
        commit.writes.map(({ key, record }) => ({
          key,
          value: record === undefined ? undefined : encodeRecord(record),
        })),
      );
      outcome = result.ok
        ? { kind: 'committed', revision: result.revision }
        : { kind: 'refused', current: [...learnedFrom(result.current), ...missing(commit, result.current)] };
    } catch (error) {
      this.log.error({ err: error }, 'the store failed');
      outcome = { kind: 'failed' };
    }
    this.input((now) => this.core.handleCommitOutcome(commit.id, outcome, now));
  }

  private follow(changes: readonly StoreChange[]): void {
    try {
      // What is known already, like all that this server wrote, is not worth to be read; removals are to be heard of.
      const news = changes.filter(({ key, value, revision }) => {
        return value === undefined || !isRecordKey(key) || !this.core.state.isKnown(key, revision);
      });
      const learned = learnedFrom(news);
      if (learned.length > 0) this.input((now) => this.core.handleStoreChanges(learned, now));
    } catch (error) {
      if (error instanceof CompactedError) throw error;
      this.log.error({ err: error }, 'a change in the store was not understood');
    }
  }

  /** Refused before it had a session. */
  fenced(xtrId: XtrId, run: number, newestRun: number): void {
    if (!this.complaints.tryTake(performance.now())) return;
    this.log.warn({ xtrId, run, newestRun }, 'agent refused: another one with its identity was started later or first');
  }

  private report(event: Extract<Action, { kind: 'event' }>['event']): void {
    switch (event.kind) {
      case 'moved':
        this.log.info({ eid: event.eid, from: event.from, to: event.to, generation: event.generation }, 'EID moved');
        break;
      case 'withdrawn':
        this.log.info({ xtrId: event.xtrId, count: event.count }, 'grace period over, mappings withdrawn');
        break;
      case 'operation':
        if (event.result !== 'ok' && !this.complaints.tryTake(performance.now())) break;
        this.log.info({ operation: event.operation, result: event.result, subject: event.subject }, 'operation');
        break;
      case 'order':
        this.log.info({ operation: event.order, result: event.result, eid: event.eid }, 'order');
        break;
      case 'rejected':
        if (this.complaints.take(performance.now()) === 0)
          this.log.warn({ xtrId: event.xtrId, reason: event.reason }, 'message rejected');
        break;
      case 'registration':
        this.log.debug({ xtrId: event.xtrId, eid: event.eid, result: event.result }, 'registration');
        break;
      case 'policy-too-large':
        if (this.complaints.tryTake(performance.now()))
          this.log.error({ count: event.agents, problem: event.problem }, 'the policy is too large for agents');
        break;
      case 'limit':
        this.reports.hit(event.limit, event.source);
        break;
      case 'lisp-received':
        if (event.result !== 'accepted' && this.complaints.tryTake(performance.now())) {
          const { from, message: type, result: reason } = event;
          this.log.warn({ address: from, type, reason }, 'LISP message not taken');
        }
        break;
      case 'request':
      case 'notify':
      case 'lisp-sent':
      case 'lisp-notify':
      case 'names-changed':
      case 'policy-sent':
        break;
      default:
        event satisfies never;
    }
  }
}

/** @throws StoreError that says what to do */
function restored(entries: readonly Entry[]): LearnedRecord[] {
  try {
    return learnedFrom(entries);
  } catch (cause) {
    if (!(cause instanceof RecordError)) throw cause;
    throw new StoreError(`${cause.message}: ${RESTORE}`, { cause });
  }
}

function learnedFrom(
  entries: readonly { readonly key: string; readonly value: string | undefined; readonly revision: number }[],
): LearnedRecord[] {
  return entries.flatMap(({ key, value, revision }) => {
    if (!isRecordKey(key)) return [];
    return [{ key, record: value === undefined ? undefined : decodeRecord(key, value), revision }];
  });
}

/** Keys that a refused commit compared and that do not exist any more. */
function missing(commit: Commit, current: readonly { readonly key: string }[]): LearnedRecord[] {
  const present = new Set(current.map(({ key }) => key));
  return commit.conditions
    .filter(({ key, revision }) => revision !== 0 && !present.has(key))
    .map(({ key }) => ({ key, record: undefined, revision: Number.MAX_SAFE_INTEGER }));
}

const COMPLAINTS_PER_SECOND = 10;
/** setTimeout takes 31 bits. */
const LONGEST_TIMER = 2_000_000_000;
