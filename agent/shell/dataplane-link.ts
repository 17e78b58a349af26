/**
 * The connection to the data plane: frames, requests with their replies, and a loop that reconnects.
 *
 * The data plane is a process of our own, on the same host, but not trusted to be well-formed: what comes in is
 * validated, and a frame that cannot be understood ends the connection.
 */
import { type FSWatcher, watch } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { z } from 'zod';
import { type IpPrefix, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { CAPABILITY, compatible } from '../../proto/capability.ts';
import {
  type CorrespondentsReply,
  type DataplaneCommand,
  type DataplaneEvent,
  type ForwardingReply,
  type HelloReply,
  MAX_CORRESPONDENTS,
  MAX_FORWARDING,
  MAX_FRAME,
  MAX_HANDOVERS,
  MAX_PEER_MESSAGE,
  type PeersReply,
  type SleepReply,
  type StatsReply,
  type WakeReply,
} from '../../proto/dataplane/messages.ts';
import { StayputError } from '../../proto/errors.ts';
import { parseTunnelKey } from '../../proto/identity.ts';
import type { Generation } from '../../proto/mapping.ts';
import type { Millis } from '../../proto/time.ts';
import { Backoff } from '../../runtime/backoff.ts';
import { firstIssue } from '../../runtime/json-file.ts';
import type { Log } from '../../runtime/log.ts';
import { parsed } from './parsed.ts';

export class DataplaneError extends StayputError {}

export interface DataplaneListener {
  /** Connected, and versions fit. Commands may be sent from now on. `forwarding`: null of one that forwards nothing yet. */
  onHello(hello: HelloReply, forwarding: ForwardingReply | null): void;
  onEvent(event: DataplaneEvent): void;
  onLost(): void;
}

interface Waiting {
  readonly command: DataplaneCommand['type'];
  /** Undefined of what has no deadline. */
  readonly deadline: NodeJS.Timeout | undefined;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class DataplaneLink {
  private readonly path: string;
  private readonly software: string;
  private readonly listener: DataplaneListener;
  private readonly log: Log;
  private readonly backoff = new Backoff(5, 1000, Math.random);
  private readonly waiting = new Map<number, Waiting>();
  private socket: Socket | null = null;
  private ready = false;
  private lastId = 0;
  private retry: NodeJS.Timeout | null = null;
  private watcher: FSWatcher | null = null;
  private closed = false;
  private complained = false;
  private superseded = false;
  private problem: string | null = null;

  constructor(path: string, software: string, listener: DataplaneListener, log: Log) {
    this.path = path;
    this.software = software;
    this.listener = listener;
    this.log = log;
  }

  get connected(): boolean {
    return this.ready;
  }

  /** Why it is of no use now, in a line. */
  get lastProblem(): string | null {
    return this.problem;
  }

  /** True after another agent took the data plane over. */
  get wasSuperseded(): boolean {
    return this.superseded;
  }

  start(): void {
    const socket = connect(this.path);
    const frames = new FrameReader();
    this.socket = socket;
    socket.on('connect', () => void this.greet(socket));
    socket.on('data', (chunk) => {
      try {
        for (const frame of frames.push(chunk)) this.handleFrame(frame);
      } catch (err) {
        this.log.error({ err }, 'data plane sent something that cannot be understood');
        socket.destroy();
      }
    });
    socket.on('error', (err) => {
      this.problem = `${this.path}: ${err.message}`;
      if (!this.complained) this.log.warn({ err, path: this.path }, 'data plane cannot be reached, trying on');
      this.complained = true;
    });
    socket.on('close', () => this.handleClose());
    this.watch();
  }

  /** Sends a command whose failure only needs to be logged. Dropped while there is no connection. */
  send(command: DataplaneCommand): void {
    if (!this.ready) return;
    this.request(command).then(
      () => {
        if (command.type === 'configure') this.problem = null;
      },
      (err: unknown) => {
        if (!this.ready) return;
        if (command.type === 'configure') this.problem = (err as Error).message;
        this.log.warn({ err, command: command.type }, 'data plane refused a command');
      },
    );
  }

  /** @throws DataplaneError, also when it does not answer within half a second */
  async stats(): Promise<StatsReply> {
    return parseReply(STATS_REPLY, await this.ask({ type: 'stats' }, STATS_MS), 'stats');
  }

  /** @throws DataplaneError, also when it does not answer in time */
  async peers(): Promise<PeersReply> {
    return parseReply(PEERS_REPLY, await this.ask({ type: 'peers' }, LIST_MS), 'peers');
  }

  /** @throws DataplaneError, also when it does not answer in time */
  async correspondents(prefix: IpPrefix): Promise<CorrespondentsReply> {
    const reply = await this.ask({ type: 'correspondents', prefix }, WORK_MS);
    return parseReply(CORRESPONDENTS_REPLY, reply, 'correspondents');
  }

  async sleep(): Promise<SleepReply> {
    return parseReply(SLEEP_REPLY, await this.ask({ type: 'sleep' }), 'sleep');
  }

  async wake(): Promise<WakeReply> {
    return parseReply(WAKE_REPLY, await this.ask({ type: 'wake' }), 'wake');
  }

  /** Null of a data plane that is older than this command. @throws DataplaneError when it does not answer in time */
  private async forwarding(): Promise<ForwardingReply | null> {
    try {
      return parseReply(FORWARDING_REPLY, await this.request({ type: 'forwarding' }, WORK_MS), 'forwarding');
    } catch (err) {
      if (err instanceof DataplaneError && err.code === LATE) throw err;
      this.log.debug({ err }, 'the data plane does not say what it forwards');
      return null;
    }
  }

  close(): void {
    this.closed = true;
    this.watcher?.close();
    if (this.retry !== null) clearTimeout(this.retry);
    this.socket?.end();
    this.socket?.destroySoon();
  }

  /** What only one that has accepted this agent is asked. */
  private ask(command: DataplaneCommand, patience?: Millis): Promise<unknown> {
    if (this.ready) return this.request(command, patience);
    return Promise.reject(new DataplaneError('STAYPUT_DATAPLANE_AWAY', 'the data plane is not attached'));
  }

  /** With `patience` it fails when there is no answer after so long. */
  private request(command: DataplaneCommand, patience?: Millis): Promise<unknown> {
    const { socket } = this;
    if (socket === null || socket.writableLength > MAX_FRAME || this.waiting.size >= MAX_WAITING) {
      if (socket !== null) socket.destroy();
      return Promise.reject(new DataplaneError('STAYPUT_DATAPLANE_AWAY', 'the data plane does not answer'));
    }
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        this.waiting.delete(id);
        reject(new DataplaneError(LATE, `no answer to ${command.type} within ${patience} ms`));
      };
      const deadline = patience === undefined ? undefined : setTimeout(giveUp, patience);
      this.waiting.set(id, { command: command.type, deadline, resolve, reject });
      // Many commands at once are one system call, here and at the data plane.
      if (socket.writableCorked === 0) {
        socket.cork();
        process.nextTick(() => socket.uncork());
      }
      socket.write(encodeFrame({ id, ...command }));
    });
  }

  private async greet(socket: Socket): Promise<void> {
    try {
      const said = { type: 'hello', capability: CAPABILITY, software: this.software } as const;
      const answer = await this.request(said, WORK_MS);
      const hello = parseReply(HELLO_REPLY, answer, 'hello');
      if (!compatible(hello.capability)) {
        throw new DataplaneError(
          'STAYPUT_INCOMPATIBLE',
          `the data plane speaks version ${hello.capability}, the agent ${CAPABILITY}: upgrade the ${hello.capability < CAPABILITY ? 'data plane' : 'agent'}`,
        );
      }
      const forwarding = hello.configured ? await this.forwarding() : null;
      if (this.socket !== socket) return;
      this.ready = true;
      this.complained = false;
      this.superseded = false;
      this.problem = null;
      this.backoff.reset();
      this.log.info({ software: hello.software, cipher: hello.cipher, process: hello.process }, 'data plane connected');
      this.listener.onHello(hello, forwarding);
    } catch (err) {
      this.problem = (err as Error).message;
      if (!this.closed && !this.complained) this.log.error({ err }, 'data plane does not accept this agent');
      this.complained = true;
      socket.destroy();
    }
  }

  private handleFrame(text: string): void {
    const message = parseIncoming(text);
    if (message === undefined) return;
    if (message.type !== 'reply') {
      if (message.type === 'superseded') this.superseded = true;
      this.listener.onEvent(message);
      return;
    }
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (waiting === undefined) return;
    clearTimeout(waiting.deadline);
    if (message.ok) waiting.resolve(message.result);
    else waiting.reject(refusal(waiting.command, message));
  }

  private handleClose(): void {
    const wasReady = this.ready;
    this.ready = false;
    this.socket = null;
    for (const { deadline, reject } of this.waiting.values()) {
      clearTimeout(deadline);
      reject(new DataplaneError('STAYPUT_DATAPLANE_AWAY', 'the data plane went away'));
    }
    this.waiting.clear();
    if (this.closed) return;
    if (wasReady) this.listener.onLost();
    if (wasReady) this.log.warn({ path: this.path }, 'data plane connection lost');
    // Two agents on one data plane must not take it from each other in a fast loop.
    this.startLater(this.superseded ? SUPERSEDED_RETRY_MS : this.backoff.next());
  }

  private startLater(ms: number): void {
    if (this.retry !== null) clearTimeout(this.retry);
    this.retry = setTimeout(() => {
      this.retry = null;
      this.start();
    }, ms);
  }

  /** A data plane that is started makes its socket: packets wait for us from that moment on. */
  private watch(): void {
    if (this.watcher !== null || this.closed) return;
    try {
      const watcher = watch(dirname(this.path), (_event, file) => {
        if (file !== basename(this.path) || this.retry === null || this.superseded) return;
        this.backoff.reset();
        this.startLater(0);
      });
      this.watcher = watcher;
      watcher.on('error', () => {
        watcher.close();
        if (this.watcher === watcher) this.watcher = null;
      });
    } catch {
      // The folder is not there yet: the next attempt tries again.
    }
  }
}

function refusal(
  command: DataplaneCommand['type'],
  { code, message }: { readonly code: string; readonly message: string },
): DataplaneError {
  return code === 'unknown-command'
    ? new DataplaneError('STAYPUT_DATAPLANE_OLD', `the data plane is older than the command ${command}: upgrade it`)
    : new DataplaneError('STAYPUT_DATAPLANE', `${command}: ${message} (${code})`);
}

export function encodeFrame(message: unknown): Buffer {
  const body = Buffer.from(JSON.stringify(message));
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  body.copy(frame, 4);
  return frame;
}

/** Cuts a byte stream into frames. */
export class FrameReader {
  private chunks: Buffer[] = [];
  private size = 0;

  /** @throws DataplaneError when a frame is larger than MAX_FRAME */
  push(chunk: Buffer): readonly string[] {
    this.chunks.push(chunk);
    this.size += chunk.length;
    const frames: string[] = [];
    while (this.size >= 4) {
      const head = this.merge();
      const length = head.readUInt32BE(0);
      if (length > MAX_FRAME) throw new DataplaneError('STAYPUT_DATAPLANE_FRAME', `a frame of ${length} octets`);
      if (this.size < 4 + length) break;
      frames.push(head.toString('utf8', 4, 4 + length));
      this.chunks = [head.subarray(4 + length)];
      this.size -= 4 + length;
    }
    return frames;
  }

  private merge(): Buffer {
    const [first] = this.chunks;
    if (first !== undefined && this.chunks.length === 1) return first;
    const all = Buffer.concat(this.chunks);
    this.chunks = [all];
    return all;
  }
}

/** Undefined for an event of a newer data plane, which is not for us. @throws DataplaneError */
export function parseIncoming(text: string): z.output<typeof INCOMING> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new DataplaneError('STAYPUT_DATAPLANE_FRAME', 'a frame that is not JSON', { cause });
  }
  const incoming = INCOMING.safeParse(value);
  if (incoming.success) return incoming.data;
  const isUnknown = incoming.error.issues.some(({ path: [field] }) => field === 'type');
  if (isUnknown && UNKNOWN_EVENT.safeParse(value).success) return undefined;
  throw new DataplaneError('STAYPUT_DATAPLANE_FRAME', firstIssue(incoming.error));
}

/** @throws DataplaneError */
export function parseReply<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const reply = schema.safeParse(value);
  if (reply.success) return reply.data;
  throw new DataplaneError('STAYPUT_DATAPLANE_FRAME', `reply to ${what}: ${firstIssue(reply.error)}`);
}

const LATE = 'STAYPUT_DATAPLANE_LATE';
/** A scrape, or a probe of readiness, must not hang with the data plane. */
const STATS_MS: Millis = 500;
/** Less than any command waits for the agent. */
const LIST_MS: Millis = 1500;
/** Nobody waits for it at a terminal, and it is needed: long enough for a slow machine. */
const WORK_MS: Millis = 10_000;
const MAX_WAITING = 20_000;
const SUPERSEDED_RETRY_MS = 30_000;

const MAX_PEER_MESSAGE_TEXT = Math.ceil(MAX_PEER_MESSAGE / 3) * 4;

const ip = parsed(parseIpAddress);
const prefix = parsed(parseIpPrefix);
const key = parsed(parseTunnelKey);
const count = z.number().nonnegative();

export const HELLO_REPLY = z.object({
  capability: z.int(),
  software: z.string().max(100),
  process: z.string().min(1).max(64),
  configured: z.boolean(),
  cipher: z.enum(['aes-256-gcm', 'chacha20-poly1305']),
  offloads: z.array(z.string().max(32)).max(32),
  sandbox: z.array(z.string().max(32)).max(32).optional(),
  plain: z.boolean().optional(),
});

export const STATS_REPLY = z.object({
  counters: z.record(z.string().max(64), count),
  gauges: z.record(z.string().max(64), count),
});

export const PEERS_REPLY = z.object({
  peers: z.array(
    z.object({
      publicKey: key,
      endpoint: z.object({ address: ip, port: z.int() }).nullable(),
      session: z.enum(['none', 'handshake', 'up']),
      sessionAgeMs: count.nullable(),
      lastReceivedMs: count.nullable(),
      rttUs: count.nullable(),
      pathMtu: count,
      txBytes: count,
      rxBytes: count,
    }),
  ),
});

export const FORWARDING_REPLY = z.object({
  peers: z
    .array(
      z.object({
        publicKey: key,
        locators: z.array(
          z.object({
            address: ip,
            port: z.int().min(0).max(65535),
            priority: z.int().min(0).max(255),
            weight: z.int().min(0).max(255),
          }),
        ),
      }),
    )
    .max(MAX_FORWARDING),
  mappings: z
    .array(
      z.object({
        prefix,
        generation: z
          .int()
          .min(0)
          .transform((value) => value as Generation),
        publicKey: key,
      }),
    )
    .max(MAX_FORWARDING),
});

export const SLEEP_REPLY = z.object({ sessions: z.int().nonnegative() });

export const WAKE_REPLY = z.object({ resumed: z.boolean() });

export const CORRESPONDENTS_REPLY = z.object({
  peers: z.array(key).max(MAX_CORRESPONDENTS),
  rlocs: z.array(ip).max(MAX_CORRESPONDENTS).optional(),
});

const INCOMING = z.discriminatedUnion('type', [
  z.discriminatedUnion('ok', [
    z.object({ type: z.literal('reply'), id: z.int(), ok: z.literal(true), result: z.unknown().optional() }),
    z.object({ type: z.literal('reply'), id: z.int(), ok: z.literal(false), code: z.string(), message: z.string() }),
  ]),
  z.object({
    type: z.literal('locators'),
    addresses: z
      .array(
        z.object({
          address: ip,
          interface: z.string().max(64),
          defaultRoute: z.boolean(),
          silent: z.boolean().optional(),
        }),
      )
      .max(4096),
  }),
  z.object({ type: z.literal('interface'), name: z.string().max(64), up: z.boolean() }),
  z.object({ type: z.literal('miss'), eid: ip, reason: z.enum(['destination', 'source']) }),
  z.object({ type: z.literal('conflict'), eid: ip, publicKey: key }),
  z.object({ type: z.literal('unknown-peer'), publicKey: key }),
  z.object({ type: z.literal('peer-moved'), publicKey: key, address: ip, port: z.int() }),
  z.object({ type: z.literal('handovers'), micros: z.array(count).min(1).max(MAX_HANDOVERS) }),
  // Of a data plane before, which said each by itself.
  z
    .object({ type: z.literal('handover'), micros: count })
    .transform(({ micros }) => ({ type: 'handovers' as const, micros: [micros] })),
  z.object({ type: z.literal('probe-result'), token: z.int(), rttUs: count.nullable() }),
  z.object({ type: z.literal('peer-message'), publicKey: key, payload: z.base64().max(MAX_PEER_MESSAGE_TEXT) }),
  z.object({
    type: z.literal('workload-seen'),
    prefix,
    interface: z.string().max(64),
    by: z.enum(['arp', 'nd', 'packet']),
  }),
  z.object({
    type: z.literal('resumed'),
    from: z.enum(['suspend', 'snapshot']),
    epoch: z.int().nonnegative().optional(),
  }),
  z.object({ type: z.literal('superseded') }),
]);
const UNKNOWN_EVENT = z.object({ type: z.string().max(64) });
