/** A map server core in virtual time, over a store that commits when the test lets it, with scripted agents. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { Action, OperationResult, ServerEvent } from '../../mapserver/core/actions.ts';
import type { UdpPeer } from '../../mapserver/core/lisp/udp-peer.ts';
import { MapServer } from '../../mapserver/core/map-server.ts';
import type { Operation } from '../../mapserver/core/operations.ts';
import type { EidOrder, OrderResult } from '../../mapserver/core/orders.ts';
import type { PolicyCheck } from '../../mapserver/core/policy/inspection.ts';
import type { SessionId } from '../../mapserver/core/presence.ts';
import { ownershipKey, RESTORATION_KEY, type RecordKey, type StoreRecord } from '../../mapserver/core/records.ts';
import type { Commit, LearnedRecord } from '../../mapserver/core/transactions.ts';
import { decodeRecord, encodeRecord } from '../../mapserver/shell/record-codec.ts';
import { hostPrefix, type IpAddress, type IpPrefix, parseIpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, eidKey, parseEid, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf, parseTunnelKey, xtrIdOf } from '../../proto/identity.ts';
import type { Incarnation } from '../../proto/incarnation.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { lookupRequest, mappingsOf, mapRegister, subscribeRequest } from '../../proto/lisp/native.ts';
import type { Generation, Mapping } from '../../proto/mapping.ts';
import { type AgentPolicy, decodePolicyFrame, encodePolicyFrames, PolicyAssembly } from '../../proto/policy.ts';
import { minutes, seconds } from '../../proto/time.ts';

export const GRACE = seconds(180);
/** Later than all that this world writes. */
const LEARNED_REVISION = 1_000_000;

export const CERTIFICATE = { authority: 'ca', notAfter: 1_800_000_000_000 };

/** What is durable: survives the core. */
export class DurableStore {
  readonly entries = new Map<RecordKey, { readonly text: string; readonly revision: number }>();
  private revision = 0;

  commit({ conditions, writes }: Commit): { readonly revision: number } | { readonly current: LearnedRecord[] } {
    if (conditions.some(({ key, revision }) => (this.entries.get(key)?.revision ?? 0) !== revision)) {
      return { current: conditions.flatMap(({ key }) => (this.entries.has(key) ? [this.learned(key)] : [])) };
    }
    for (const { key, record } of writes) this.write(key, record);
    return { revision: ++this.revision };
  }

  all(): LearnedRecord[] {
    return [...this.entries.keys()].map((key) => this.learned(key));
  }

  /** As a backup restores it. */
  restored(floor: Generation): DurableStore {
    const copy = new DurableStore();
    for (const [key, entry] of this.entries) copy.entries.set(key, entry);
    copy.revision = this.revision + 1;
    copy.write(RESTORATION_KEY, { kind: 'restoration', restoredAt: 0, backedUpAt: 0, floor });
    return copy;
  }

  record(key: RecordKey): StoreRecord | undefined {
    const text = this.entries.get(key)?.text;
    return text === undefined ? undefined : decodeRecord(key, text);
  }

  private learned(key: RecordKey): LearnedRecord {
    return { key, record: this.record(key), revision: this.entries.get(key)?.revision ?? 0 };
  }

  private write(key: RecordKey, record: StoreRecord | undefined): void {
    if (record === undefined) this.entries.delete(key);
    else this.entries.set(key, { text: encodeRecord(record), revision: this.revision + 1 });
  }
}

export class CoreWorld {
  readonly store: DurableStore;
  readonly core: MapServer;
  readonly events: ServerEvent[] = [];
  readonly agents: CoreAgent[] = [];
  /** What was sent over UDP. */
  readonly datagrams: { readonly to: UdpPeer; readonly message: LispMessage; readonly bytes: Uint8Array }[] = [];
  /** False holds commits back until `release`. */
  durable = true;
  now = 1_000;
  private readonly held: Commit[] = [];
  private readonly outcomes = new Map<number, OperationResult>();
  /** Answers to questions what a text would be as the policy. */
  readonly checks: (PolicyCheck | undefined)[] = [];
  /** Outcomes of orders. */
  readonly ordered = new Map<number, OrderResult>();
  private lastRandom = 0x1000_0000_0000n;
  private lastSession = 0;

  constructor(
    options: {
      store?: DurableStore;
      limits?: object;
      lisp?: object;
      agents?: CoreAgent[];
      prefixes?: readonly IpPrefix[];
    } = {},
  ) {
    this.store = options.store ?? new DurableStore();
    this.core = new MapServer({
      overlay: { instance: DEFAULT_INSTANCE, prefixes: options.prefixes ?? OVERLAY },
      grace: GRACE,
      limits: {
        mappingsPerAgent: 16,
        names: 1_000,
        releasedPerAgent: 32,
        mappings: 1_000,
        subscriptionsPerAgent: 16,
        subscriptions: 1_000,
        agents: 100,
        tokens: 100,
        sites: 100,
        mappingsPerSite: 100,
        pending: 100,
        ...options.limits,
      },
      lisp: {
        messagesPerSecond: 1_000,
        gateways: [],
        subscriptions: { ttl: minutes(10), perXtr: 10, total: 100 },
        rtrs: [],
        requests: {
          requesters: ['192.0.2.0/24' as IpPrefix, '2001:db8::/32' as IpPrefix],
          ttl: minutes(1),
          repliesPerSecond: 500,
          remembered: 1_000,
          families: [4, 6],
          addresses: ['198.51.100.1' as IpAddress],
        },
        ...options.lisp,
      },
      randomNonce: () => nonce(++this.lastRandom),
      wallClock: () => 1_700_000_000_000 + this.now,
    });
    this.core.handleRestore(this.store.all(), this.now);
    this.drain();
    for (const agent of options.agents ?? []) this.adopt(agent);
  }

  /** The same store and agents with a new core, all sessions lost. */
  restarted(): CoreWorld {
    return new CoreWorld({ store: this.store, agents: this.agents });
  }

  /** Another map server on the same store and the same agents' identities. */
  enrolled(name: string, grant: { eids?: string[]; names?: string[]; groups?: string[] } = {}): CoreAgent {
    const agent = new CoreAgent(name);
    const eids = (grant.eids ?? []) as IpPrefix[];
    const names = grant.names ?? [];
    const groups = grant.groups ?? [];
    const secretHash = hash(`token of ${name}`);
    this.operate({
      kind: 'create-token',
      secretHash,
      authority: 'ca',
      eids,
      names,
      groups,
      pools: [],
      uses: 1,
      ttl: minutes(60),
    });
    const { tunnelKey } = agent;
    const enrol = {
      secretHash,
      tunnelKey,
      certificateKey: hash(name),
      certificate: CERTIFICATE,
      software: 'test',
      eids: [],
      names: [],
    };
    const result = this.operate({ kind: 'enrol', ...enrol });
    assert.ok(result.ok, 'the agent is enrolled');
    this.adopt(agent);
    return agent;
  }

  /** An enrolled agent with a session. */
  agent(name: string, grant: { eids?: string[]; names?: string[]; groups?: string[] } = {}): CoreAgent {
    const agent = this.enrolled(name, grant);
    agent.connect();
    return agent;
  }

  operate(operation: Operation): OperationResult {
    const id = this.core.handleOperation(operation, this.now);
    this.drain();
    while (!this.outcomes.has(id) && this.core.pollTimeout() === 0) {
      this.core.handleTimeout(this.now);
      this.drain();
    }
    const result = this.outcomes.get(id);
    assert.ok(result, 'the operation has an outcome');
    return result;
  }

  outcome(id: number): OperationResult | undefined {
    return this.outcomes.get(id);
  }

  /** Its outcome is in `ordered` when it is finished. */
  order(order: EidOrder): number {
    const id = this.core.handleOrder(order, this.now);
    this.drain();
    return id;
  }

  open(agent: CoreAgent, incarnation: Incarnation | null = null): SessionId {
    const id = ++this.lastSession as SessionId;
    agent.session = id;
    agent.closed = undefined;
    this.core.handleSessionOpened(id, agent.xtrId, this.now, incarnation);
    this.drain();
    return id;
  }

  close(agent: CoreAgent): void {
    if (agent.session !== undefined) this.core.handleSessionClosed(agent.session, this.now);
    agent.session = undefined;
    this.drain();
  }

  deliver(agent: CoreAgent, message: LispMessage): void {
    if (agent.session === undefined) return;
    this.core.handleMessage(agent.session, decodeLispMessage(encodeLispMessage(message)), this.now);
    this.drain();
  }

  /** Over UDP, as it comes from the wire. */
  receive(from: UdpPeer, bytes: Uint8Array): void {
    this.core.handleDatagram(from, bytes, this.now);
    this.drain();
  }

  /** Advances to each deadline on the way. */
  advance(ms: number): void {
    const end = this.now + ms;
    for (let steps = 0; ; steps++) {
      assert.ok(steps < 10_000, 'time goes on');
      const next = this.core.pollTimeout();
      if (next === undefined || next > end) break;
      this.now = Math.max(this.now, next);
      this.core.handleTimeout(this.now);
      this.drain();
    }
    this.now = end;
  }

  /** Lets held commits be durable (or fail), oldest first. */
  release(how: 'committed' | 'failed' = 'committed'): void {
    for (const commit of this.held.splice(0)) this.settle(commit, how);
    this.drain();
  }

  count(kind: ServerEvent['kind'], fits: (event: ServerEvent) => boolean = () => true): number {
    return this.events.filter((event) => event.kind === kind && fits(event)).length;
  }

  private adopt(agent: CoreAgent): void {
    agent.world = this;
    agent.session = undefined;
    this.agents.push(agent);
  }

  /** Another map server wrote it to the store. */
  learn(key: RecordKey, record: StoreRecord): void {
    this.core.handleStoreChanges([{ key, record, revision: LEARNED_REVISION }], this.now);
    this.drain();
  }

  drain(): void {
    for (let actions = this.core.pollActions(); actions.length > 0; actions = this.core.pollActions()) {
      for (const action of actions) this.perform(action);
    }
  }

  private perform(action: Action): void {
    switch (action.kind) {
      case 'send': {
        const message = decodeLispMessage(encodeLispMessage(action.message));
        this.agents.find(({ session }) => session === action.session)?.inbox.push(message);
        break;
      }
      case 'policy': {
        const agent = this.agents.find(({ session }) => session === action.session);
        agent?.policies.push(throughFrames(action.policy));
        break;
      }
      case 'close': {
        const agent = this.agents.find(({ session }) => session === action.session);
        if (agent !== undefined) {
          agent.closed = action.code;
          agent.session = undefined;
        }
        this.core.handleSessionClosed(action.session, this.now);
        break;
      }
      case 'commit':
        if (this.durable) this.settle(action.commit, 'committed');
        else this.held.push(action.commit);
        break;
      case 'datagram':
        this.datagrams.push({ to: action.to, message: decodeLispMessage(action.bytes), bytes: action.bytes });
        break;
      case 'outcome':
        this.outcomes.set(action.id, action.result);
        break;
      case 'policy-checked':
        this.checks.push(action.check);
        break;
      case 'order-outcome':
        this.ordered.set(action.id, action.result);
        break;
      case 'event':
        this.events.push(action.event);
        break;
      default:
        action satisfies never;
    }
  }

  private settle(commit: Commit, how: 'committed' | 'failed'): void {
    if (how === 'failed') {
      this.core.handleCommitOutcome(commit.id, { kind: 'failed' }, this.now);
      return;
    }
    const result = this.store.commit(commit);
    const outcome =
      'revision' in result
        ? { kind: 'committed' as const, revision: result.revision }
        : { kind: 'refused' as const, current: result.current };
    this.core.handleCommitOutcome(commit.id, outcome, this.now);
  }
}

export class CoreAgent {
  readonly name: string;
  readonly tunnelKey;
  readonly xtrId;
  readonly address;
  readonly inbox: LispMessage[] = [];
  /** All that it was sent. */
  readonly policies: AgentPolicy[] = [];
  world: CoreWorld | undefined;
  session: SessionId | undefined;
  closed: number | undefined;
  private lastNonce = 0n;

  constructor(name: string) {
    this.name = name;
    this.tunnelKey = parseTunnelKey(createHash('sha256').update(name).digest('base64'));
    this.xtrId = xtrIdOf(this.tunnelKey);
    this.address = agentAddressOf(this.tunnelKey);
  }

  connect(): void {
    this.inbox.length = 0;
    this.world?.open(this);
  }

  disconnect(): void {
    this.world?.close(this);
  }

  /** Registers, and returns the answer's mappings; none when there is no answer (yet). */
  register(...mappings: Mapping[]): Mapping[] {
    const used = nonce(++this.lastNonce);
    this.world?.deliver(this, mapRegister({ nonce: used, xtrId: this.xtrId, mappings }));
    return this.answer(used);
  }

  /** `text` at `generation` (0: "I take it over"). */
  claim(text: string, generation = 0, fields: Partial<Mapping> = {}): Mapping[] {
    return this.register(this.mapping(text, { generation: generation as Generation, ...fields }));
  }

  subscribe(text: string, subscribe = true): LispMessage | undefined {
    const used = nonce(++this.lastNonce);
    const { xtrId, address } = this;
    this.world?.deliver(this, subscribeRequest({ nonce: used, xtrId, eid: parseEid(text), itr: address, subscribe }));
    return this.take(used);
  }

  lookup(text: string): LispMessage | undefined {
    const used = nonce(++this.lastNonce);
    this.world?.deliver(this, lookupRequest({ nonce: used, eid: parseEid(text), itr: this.address }));
    return this.take(used);
  }

  answer(used: bigint): Mapping[] {
    const message = this.take(used);
    return message === undefined ? [] : mappingsOf(message);
  }

  /** Mappings of all publications since the last call. */
  pushed(): Mapping[] {
    const publications = this.inbox.filter((message) => message.type === 'map-notify' && message.nonce >= 1n << 63n);
    this.inbox.length = 0;
    return publications.flatMap((message) => mappingsOf(message));
  }

  mapping(text: string, fields: Partial<Mapping> = {}): Mapping {
    const eid = text === 'agent' ? prefixEid(DEFAULT_INSTANCE, hostPrefix(this.address)) : parseEid(text);
    const locator = { address: parseIpAddress('192.0.2.1'), port: 4341, priority: 1, weight: 100 };
    return {
      eid,
      ttl: minutes(3),
      action: 'no-action',
      generation: 0 as Generation,
      owner: this.xtrId,
      tunnelKey: this.tunnelKey,
      locators: eid.kind === 'name' ? [] : [locator],
      names: [],
      targets: eid.kind === 'name' ? [parseIpAddress('10.77.0.5')] : [],
      ...fields,
    };
  }

  private take(used: bigint): LispMessage | undefined {
    const index = this.inbox.findIndex((message) => 'nonce' in message && message.nonce === used);
    return index < 0 ? undefined : this.inbox.splice(index, 1)[0];
  }
}

function throughFrames(policy: AgentPolicy): AgentPolicy {
  const assembly = new PolicyAssembly();
  const assembled = encodePolicyFrames(policy).map((text) => assembly.add(decodePolicyFrame(JSON.parse(text))));
  const whole = assembled.at(-1);
  assert.ok(whole, 'the last part completes it');
  return whole;
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** What the store has of an EID. */
export function stored(world: CoreWorld, text: string) {
  const record = world.store.record(recordKey(text));
  return record?.kind === 'eid' ? record : undefined;
}

/** Of the store. */
export function recordKey(text: string) {
  return ownershipKey(eidKey(parseEid(text)));
}

export function prefixOf(address: string) {
  const eid = parseEid(address);
  assert.ok(eid.kind === 'prefix');
  return eid.prefix;
}

/** Whether an answer has locators. */
export function kindOf(message: LispMessage | undefined): 'positive' | 'negative' | 'none' {
  if (message === undefined) return 'none';
  return (mappingsOf(message)[0]?.locators.length ?? 0) > 0 ? 'positive' : 'negative';
}

const OVERLAY = ['10.77.0.0/16', 'fd00:77::/48'] as IpPrefix[];
