/** The map server's process: the real core over a store that outlives it, which may be slow, fail or forget nothing. */
import { createHash } from 'node:crypto';
import { type Action, CLOSE } from '../../mapserver/core/actions.ts';
import type { MapServer, MapServerConfig } from '../../mapserver/core/map-server.ts';
import type { SessionId } from '../../mapserver/core/presence.ts';
import { type AgentRecord, type Grant, recordKey, type StoreRecord } from '../../mapserver/core/records.ts';
import type { Commit } from '../../mapserver/core/transactions.ts';
import type { IpAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE } from '../../proto/eid.ts';
import type { Incarnation } from '../../proto/incarnation.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import type { TunnelKey, XtrId } from '../../proto/mapping.ts';
import { type Millis, seconds } from '../../proto/time.ts';
import { DurableStore } from '../mapserver/core-world.ts';
import { type Contract, checkQueued, wakeNeedlessly } from './contract.ts';
import type { Stream } from './network.ts';
import { OVERLAY } from './overlay.ts';
import type { World } from './world.ts';

export interface Welcome {
  readonly observed: IpAddress;
}

/** What an agent hears on its stream. */
export type FromMapServer = Welcome | Uint8Array;
export type ControlStream = Stream<FromMapServer, Uint8Array>;

/** How the core is made; another class is a mutant. */
export type MakeMapServer = (config: MapServerConfig) => MapServer;

export const MAP_SERVER = 'ms';

export class MapServerProcess {
  readonly store = new DurableStore();
  core: MapServer | null = null;
  /** Commits fail while true: the disk is full. */
  broken = false;
  /** What the wall clock of this machine is wrong by. */
  clockError: Millis = 0;
  private readonly world: World;
  private readonly make: MakeMapServer;
  private readonly streams = new Map<SessionId, { readonly stream: ControlStream; readonly xtrId: XtrId }>();
  private life = 0;
  private lastSession = 0;
  private acting = false;

  constructor(world: World, make: MakeMapServer) {
    this.world = world;
    this.make = make;
  }

  enrol(tunnelKey: TunnelKey, xtrId: XtrId, grant: Grant): void {
    const record: AgentRecord = {
      kind: 'agent',
      xtrId,
      tunnelKey,
      certificateKey: createHash('sha256').update(tunnelKey).digest('hex'),
      tokenId: 'token',
      software: 'model',
      enrolledAt: 0,
      ...grant,
    };
    this.store.commit({ id: 0, conditions: [], writes: [{ key: recordKey(record), record }] });
  }

  start(): void {
    if (this.core !== null) return;
    this.life++;
    this.broken = false;
    this.core = this.make({
      overlay: { instance: DEFAULT_INSTANCE, prefixes: OVERLAY },
      grace: GRACE,
      limits: LIMITS,
      lisp: {
        messagesPerSecond: 1_000,
        subscriptions: { ttl: 600_000, perXtr: 10, total: 100 },
        rtrs: [],
        gateways: [],
        requests: {
          requesters: [],
          ttl: 60_000,
          repliesPerSecond: 1_000,
          remembered: 1_000,
          families: [],
          addresses: [],
        },
      },
      randomNonce: () => nonce(0n),
      wallClock: () => this.world.wallClock() + this.clockError,
    });
    this.core.handleRestore(this.store.all(), this.world.clock.now);
    this.act();
    this.world.note('ms', 'the map server starts');
  }

  crash(): void {
    if (this.core === null) return;
    this.core = null;
    for (const { stream } of this.streams.values()) stream.closeByServer(null);
    this.streams.clear();
    this.world.note('ms', 'the map server crashes');
  }

  /** A client whose handshake is done. Refused while there is no process. */
  accept(stream: ControlStream, xtrId: XtrId, observed: IpAddress, incarnation: Incarnation): void {
    const { core } = this;
    const admitted = core?.admits(xtrId, incarnation) ?? 'unknown';
    if (core === null || admitted !== 'yes') {
      stream.closeByServer(admitted === 'fenced' ? CLOSE.fenced : null);
      return;
    }
    const id = ++this.lastSession as SessionId;
    this.streams.set(id, { stream, xtrId });
    this.input((now) => core.handleSessionOpened(id, xtrId, now, incarnation));
    stream.sendToClient({ observed });
    const onEnd = () => {
      if (this.streams.delete(id)) this.input((now) => core.handleSessionClosed(id, now));
    };
    stream.listenAsServer({
      onMessage: (bytes) => {
        const message = decodeLispMessage(bytes);
        this.world.note(this.world.nameOf(xtrId), message, 'ms');
        this.input((now) => core.handleMessage(id, message, now));
      },
      onEnd,
    });
    // It gave up while its request was on the way.
    if (stream.isOver) this.world.clock.after(this.world.network.delay(), onEnd);
  }

  records(): StoreRecord[] {
    return this.store.all().flatMap(({ record }) => record ?? []);
  }

  wakeAt(): number {
    return this.core?.pollTimeout() ?? Number.POSITIVE_INFINITY;
  }

  wake(): void {
    this.input((now) => this.core?.handleTimeout(now));
  }

  private get contract(): Contract | null {
    const { core } = this;
    if (core === null) return null;
    return {
      name: 'the map server',
      pollTimeout: () => core.pollTimeout() ?? Number.POSITIVE_INFINITY,
      handleTimeout: (now) => core.handleTimeout(now),
      takeOutputs: () => core.pollActions().length,
    };
  }

  private input(feed: (now: number) => void): void {
    if (this.core === null) return;
    if (!this.acting) wakeNeedlessly(this.contract, this.world.clock.now, this.world.chance);
    feed(this.world.clock.now);
    this.act();
  }

  /** What an action brings about is fed at once, and acted on after the actions before it. */
  private act(): void {
    if (this.acting) return;
    this.acting = true;
    for (let actions = this.core?.pollActions() ?? []; actions.length > 0; actions = this.core?.pollActions() ?? []) {
      for (const action of actions) this.perform(action);
    }
    this.acting = false;
    checkQueued(this.contract);
  }

  private perform(action: Action): void {
    switch (action.kind) {
      case 'send':
        this.send(action.session, action.message);
        return;
      case 'close':
        this.streams.get(action.session)?.stream.closeByServer(action.code);
        this.streams.delete(action.session);
        this.core?.handleSessionClosed(action.session, this.world.clock.now);
        return;
      case 'commit':
        this.commit(action.commit);
        return;
      case 'outcome':
      // The model has no policy, and no peers over UDP.
      case 'policy':
      case 'datagram':
      case 'order-outcome':
      case 'policy-checked':
      case 'event':
        return;
      default:
        action satisfies never;
    }
  }

  private send(session: SessionId, message: LispMessage): void {
    const bytes = encodeLispMessage(message);
    this.streams.get(session)?.stream.sendToClient(bytes);
  }

  /** Durable a moment before the core hears of it; a crash may come between. */
  private commit(commit: Commit): void {
    const { clock, chance } = this.world;
    const { life } = this;
    const outcome = (delay: Millis, feed: (core: MapServer, now: number) => void): void => {
      clock.after(delay, () => {
        const { core } = this;
        if (core !== null && this.life === life) this.input((now) => feed(core, now));
      });
    };
    clock.after(chance.between(0.1, 2), () => {
      if (this.core === null || this.life !== life) return;
      if (this.broken) {
        outcome(1, (core, now) => core.handleCommitOutcome(commit.id, { kind: 'failed' }, now));
        return;
      }
      const result = this.store.commit(commit);
      if (!('revision' in result)) {
        outcome(1, (core, now) =>
          core.handleCommitOutcome(commit.id, { kind: 'refused', current: result.current }, now),
        );
        return;
      }
      const { revision } = result;
      for (const { record } of commit.writes) if (record !== undefined) this.world.observer.committed(record);
      const changes = commit.writes.map(({ key, record }) => ({ key, record, revision }));
      outcome(chance.between(0.1, 2), (core, now) => {
        core.handleCommitOutcome(commit.id, { kind: 'committed', revision }, now);
      });
      outcome(chance.between(0.1, 2), (core, now) => core.handleStoreChanges(changes, now));
    });
  }
}

const GRACE = seconds(30);
const LIMITS = {
  mappingsPerAgent: 64,
  names: 1_000,
  releasedPerAgent: 1_000,
  mappings: 1000,
  subscriptionsPerAgent: 64,
  subscriptions: 1000,
  agents: 100,
  tokens: 100,
  sites: 100,
  mappingsPerSite: 100,
  pending: 100,
};
