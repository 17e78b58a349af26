/**
 * The session with the map server: one WebSocket over mutually authenticated TLS, kept up for ever.
 *
 * After a roam the TCP connection is bound to an address that is gone, and nothing tells so but silence. Therefore a
 * change of this host's addresses opens a second connection at once, in parallel, when the address of the first is no
 * longer ours; when it still is, a ping with a short deadline decides. The first connection that reads its welcome is
 * the session from then on; the map server closes the other one as superseded.
 */
import { type LookupAddress, lookup } from 'node:dns';
import type { IncomingMessage } from 'node:http';
import { isIP, type LookupFunction, type Socket } from 'node:net';
import WebSocket from 'ws';
import { z } from 'zod';
import { type IpAddress, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { CAPABILITY, compatible } from '../../proto/capability.ts';
import { DecodeError, type StayputError } from '../../proto/errors.ts';
import { INCARNATION_HEADER, NEWEST_RUN_HEADER } from '../../proto/incarnation.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { Backoff } from '../../runtime/backoff.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import { firstIssue } from '../../runtime/json-file.ts';
import type { Log } from '../../runtime/log.ts';
import type { Session } from '../core/agent.ts';
import { overlayPrefixes } from './parsed.ts';

export interface MapServerTarget {
  readonly host: string;
  readonly port: number;
  readonly ca: string;
  readonly certificate: string;
  readonly privateKey: string;
}

export interface MapServerListener {
  /** A session began; it may take the place of one that was not lost. */
  /** `apex`: what is at the zone's own name can be asked for. */
  onSession(session: Session & { readonly zone: string; readonly apex: boolean }): void;
  onMessage(message: LispMessage): void;
  /** A part of a policy, parsed from JSON. */
  onPolicy(frame: unknown): void;
  onLost(): void;
  /** The incarnation to say for one more connection; null: none is said. */
  incarnation(): string | null;
  /** Whom the map server trusts (SHA-256 in hex, the one that issues first), and how soon to renew if that is news. */
  onAuthorities(authorities: readonly string[], withinMs: number): void;
  /** Another agent with this identity is the newer one. Nothing is tried any more. */
  onFenced(newestRun: number): void;
}

export class MapServerLink {
  private target: MapServerTarget;
  private readonly software: string;
  private readonly listener: MapServerListener;
  private readonly log: Log;
  private readonly backoff = new Backoff(100, 5000, Math.random);
  private readonly lookup: LookupFunction;
  private session: Connection | null = null;
  private candidate: Connection | null = null;
  private retry: NodeJS.Timeout | null = null;
  private closed = false;
  private problem: string | null = null;
  private aheadMs = 0;

  constructor(target: MapServerTarget, software: string, listener: MapServerListener, log: Log) {
    this.target = target;
    this.software = software;
    this.listener = listener;
    this.log = log;
    this.lookup = rememberingLookup();
  }

  get connected(): boolean {
    return this.session !== null;
  }

  /** Why there is no session, in a line. */
  get lastProblem(): string | null {
    return this.session === null ? this.problem : null;
  }

  /** That this host's clock is not the map server's, in a line; null while that does not matter. */
  get clockProblem(): string | null {
    if (Math.abs(this.aheadMs) <= CLOCK_SKEW_MS) return null;
    const minutes = Math.round(Math.abs(this.aheadMs) / 60_000);
    const how = this.aheadMs > 0 ? 'ahead of' : 'behind';
    return `the clock of this host is ${minutes} minutes ${how} that of the map server: set it, or certificates seem ended or not valid yet`;
  }

  start(): void {
    this.open();
  }

  /** Dropped when there is no session: what matters is said again when the next one begins. */
  send(message: LispMessage): void {
    this.session?.send(encodeLispMessage(message));
  }

  /** This host's addresses changed. */
  handleAddresses(addresses: readonly IpAddress[]): void {
    if (this.closed) return;
    this.backoff.reset();
    if (this.session === null) {
      // An attempt from the old network would only find out by its timeout.
      this.candidate?.abandon();
      this.candidate = null;
      this.open();
      return;
    }
    const { session } = this;
    const local = session.localAddress();
    if (local !== null && (addresses.includes(local) || isLoopback(local))) {
      session.prove(PROOF_MS, () => {
        if (this.session === session && this.candidate === null) this.open();
      });
      return;
    }
    this.candidate?.abandon();
    this.candidate = null;
    this.open();
  }

  /** For the sessions to come; at once if there is none. */
  useCredentials({ certificate, ca }: Pick<MapServerTarget, 'certificate' | 'ca'>): void {
    this.target = { ...this.target, certificate, ca };
    if (this.session === null) this.renew();
  }

  /** Opens another session beside the present one, which it takes the place of. */
  renew(): void {
    this.backoff.reset();
    this.candidate?.abandon();
    this.candidate = null;
    this.open();
  }

  close(): void {
    this.closed = true;
    if (this.retry !== null) clearTimeout(this.retry);
    this.candidate?.abandon();
    this.session?.close();
    this.session = null;
  }

  private open(): void {
    if (this.closed || this.candidate !== null) return;
    if (this.retry !== null) clearTimeout(this.retry);
    this.retry = null;
    const incarnation = this.listener.incarnation();
    const connection: Connection = new Connection(this.target, this.software, incarnation, this.lookup, {
      onWelcome: (welcome) => this.handleWelcome(connection, welcome),
      onMessage: (message) => {
        if (this.session !== connection) return;
        // A map server that greets and then fails is not come back to at once each time.
        if (message.type === 'map-notify') this.backoff.reset();
        this.listener.onMessage(message);
      },
      onPolicy: (frame) => {
        if (this.session === connection) this.listener.onPolicy(frame);
      },
      onNotice: ({ authorities, withinMs }) => {
        if (this.session === connection) this.listener.onAuthorities(authorities, withinMs);
      },
      onGarbage: (err) => this.log.warn({ err }, 'map server sent something that cannot be understood'),
      onEnd: (reason) => this.handleEnd(connection, reason),
    });
    this.candidate = connection;
  }

  private handleWelcome(connection: Connection, welcome: Welcome): void {
    if (this.candidate !== connection) {
      connection.abandon();
      return;
    }
    const previous = this.session;
    this.candidate = null;
    this.session = connection;
    this.problem = null;
    previous?.abandon();
    if (welcome.serverTime !== undefined) this.aheadMs = Date.now() - welcome.serverTime;
    if (this.clockProblem !== null) this.log.warn({ problem: this.clockProblem }, 'clocks differ');
    this.log.info(
      { host: this.target.host, port: this.target.port, parallel: previous !== null },
      'map server connected',
    );
    this.listener.onSession({
      overlay: welcome.overlay,
      zone: welcome.zone,
      apex: welcome.apex,
      observed: welcome.observed === undefined ? null : observedAddress(welcome.observed.address),
    });
    return;
  }

  private handleEnd(connection: Connection, reason: EndReason): void {
    if (this.candidate === connection) this.candidate = null;
    const wasSession = this.session === connection;
    if (wasSession) this.session = null;
    if (this.closed) return;
    const { host, port } = this.target;
    const replacing = wasSession && this.candidate !== null;
    if (!replacing && (reason.text !== this.problem || wasSession)) {
      this.log.warn(
        { host, port, reason: reason.text },
        wasSession ? 'map server lost' : 'map server cannot be reached',
      );
    }
    this.problem = reason.text;
    if (reason.newestRun !== undefined) {
      this.close();
      if (wasSession) this.listener.onLost();
      this.listener.onFenced(reason.newestRun);
      return;
    }
    if (wasSession) this.listener.onLost();
    if (this.candidate !== null || this.retry !== null) return;
    const delay = reason.slow ? SLOW_RETRY_MS : wasSession ? this.backoff.next() / 2 : this.backoff.next();
    this.retry = setTimeout(() => {
      this.retry = null;
      this.open();
    }, delay);
  }
}

interface EndReason {
  readonly text: string;
  /** Trying again soon would not help. */
  readonly slow: boolean;
  /** Refused because of a newer run of this identity. */
  readonly newestRun?: number;
}

interface ConnectionListener {
  onWelcome(welcome: Welcome): void;
  onMessage(message: LispMessage): void;
  onPolicy(frame: unknown): void;
  onNotice(notice: Notice): void;
  onGarbage(error: StayputError): void;
  /** Exactly once, unless it was abandoned. */
  onEnd(reason: EndReason): void;
}

/** One WebSocket from its first packet to its end. */
class Connection {
  private readonly socket: WebSocket;
  private readonly listener: ConnectionListener;
  private tcp: Socket | null = null;
  private heardAt = performance.now();
  private heartbeat: NodeJS.Timeout;
  private proof: NodeJS.Timeout | null = null;
  private welcomed = false;
  private ended = false;
  private refusal: EndReason | null = null;

  constructor(
    target: MapServerTarget,
    software: string,
    incarnation: string | null,
    lookupHost: LookupFunction,
    listener: ConnectionListener,
  ) {
    this.listener = listener;
    this.socket = new WebSocket(`wss://${formatHostPort(target.host, target.port)}/lisp`, 'lisp.stayput', {
      ca: target.ca,
      // An operator's authority is trusted itself, without those above it.
      allowPartialTrustChain: true,
      cert: target.certificate,
      key: target.privateKey,
      minVersion: 'TLSv1.3',
      perMessageDeflate: false,
      maxPayload: MAX_MESSAGE,
      handshakeTimeout: HANDSHAKE_MS,
      headers: {
        'stayput-capability': String(CAPABILITY),
        'user-agent': software,
        ...(incarnation === null ? {} : { [INCARNATION_HEADER]: incarnation }),
      },
      lookup: lookupHost,
      ...(isIP(target.host) === 0 ? { servername: target.host } : {}),
    } as WebSocket.ClientOptions);
    this.heartbeat = setTimeout(() => this.end({ text: 'no welcome in time', slow: false }), HANDSHAKE_MS + 1000);
    this.socket.on('upgrade', (response) => this.handleUpgrade(response));
    this.socket.on('unexpected-response', (_request, response) => this.handleRefusal(response));
    this.socket.on('message', (data, isBinary) => this.handleData(data as Buffer, isBinary));
    this.socket.on('ping', () => this.heard());
    this.socket.on('pong', () => this.heard());
    this.socket.on('error', (error) => this.end(this.refusal ?? { text: describe(error), slow: false }));
    this.socket.on('close', (code, reason) => this.end(closeReason(code, reason.toString('utf8'))));
  }

  localAddress(): IpAddress | null {
    const text = this.tcp?.localAddress;
    return text === undefined ? null : observedAddress(text);
  }

  send(bytes: Uint8Array): void {
    if (this.socket.bufferedAmount > MAX_BUFFERED) {
      this.end({ text: 'the map server does not read', slow: false });
      return;
    }
    this.socket.send(bytes);
  }

  /** Calls `failed` unless the server is heard within `ms`. */
  prove(ms: number, failed: () => void): void {
    const before = this.heardAt;
    if (this.socket.readyState === WebSocket.OPEN) this.socket.ping();
    if (this.proof !== null) clearTimeout(this.proof);
    this.proof = setTimeout(() => {
      if (this.heardAt === before && !this.ended) failed();
    }, ms);
  }

  /** Ends it without a word to the listener. */
  abandon(): void {
    this.ended = true;
    this.release();
    this.socket.terminate();
  }

  /** Ends it politely. */
  close(): void {
    this.ended = true;
    this.release();
    this.socket.close(1000);
    setTimeout(() => this.socket.terminate(), 500).unref();
  }

  private handleUpgrade(response: IncomingMessage): void {
    this.tcp = response.socket;
    response.socket.setNoDelay(true);
    const capability = Number(response.headers['stayput-capability']);
    if (!compatible(capability)) {
      this.end({ text: `the map server speaks version ${capability}, this agent ${CAPABILITY}`, slow: true });
    }
  }

  private handleRefusal(response: IncomingMessage): void {
    const chunks: Buffer[] = [];
    response.on('data', (chunk: Buffer) => {
      if (chunks.length < 4) chunks.push(chunk);
    });
    response.on('end', () => {
      const text = Buffer.concat(chunks).toString('utf8').slice(0, 300).replaceAll(/\s+/g, ' ').trim();
      const refused = `the map server refuses this agent (HTTP ${response.statusCode}${text === '' ? '' : `: ${text}`})`;
      const newestRun = Number(response.headers[NEWEST_RUN_HEADER]);
      const fenced = response.statusCode === 409 && Number.isSafeInteger(newestRun);
      this.end({ text: refused, slow: (response.statusCode ?? 0) < 500, ...(fenced ? { newestRun } : {}) });
    });
    response.on('error', (error) => this.end({ text: describe(error), slow: false }));
  }

  private handleData(data: Buffer, isBinary: boolean): void {
    this.heard();
    if (this.ended) return;
    if (!this.welcomed) {
      const welcome = isBinary ? null : parseWelcome(data.toString('utf8'));
      if (welcome === null || typeof welcome === 'string') {
        this.end({ text: `the map server's welcome is wrong: ${welcome ?? 'not text'}`, slow: true });
        return;
      }
      this.welcomed = true;
      this.startHeartbeat(welcome.heartbeatMs);
      this.listener.onWelcome(welcome);
      return;
    }
    if (!isBinary) {
      this.handleText(data.toString('utf8'));
      return;
    }
    let message: LispMessage;
    try {
      message = decodeLispMessage(data);
    } catch (error) {
      this.listener.onGarbage(error as StayputError);
      return;
    }
    this.listener.onMessage(message);
  }

  /** Other frames are of a newer map server and not for us. */
  private handleText(text: string): void {
    let frame: unknown;
    try {
      frame = JSON.parse(text);
    } catch (cause) {
      this.listener.onGarbage(new DecodeError('text frame', 0, 'not JSON', { cause }));
      return;
    }
    if (POLICY_FRAME.safeParse(frame).success) this.listener.onPolicy(frame);
    const notice = NOTICE.safeParse(frame).data;
    if (notice !== undefined) this.listener.onNotice(notice);
  }

  private startHeartbeat(everyMs: number): void {
    clearTimeout(this.heartbeat);
    let lastTick = performance.now();
    this.heartbeat = setInterval(() => {
      const now = performance.now();
      // When this process itself stood still, the silence says nothing about the server.
      if (now - lastTick > everyMs * 2) this.heardAt = Math.max(this.heardAt, now - everyMs);
      lastTick = now;
      if (now - this.heardAt > everyMs * HEARTBEATS)
        this.end({ text: 'no heartbeat from the map server', slow: false });
      else if (this.socket.readyState === WebSocket.OPEN) this.socket.ping();
    }, everyMs);
  }

  private heard(): void {
    this.heardAt = performance.now();
  }

  private end(reason: EndReason): void {
    if (this.ended) return;
    this.abandon();
    this.listener.onEnd(this.refusal ?? reason);
  }

  private release(): void {
    clearTimeout(this.heartbeat);
    if (this.proof !== null) clearTimeout(this.proof);
    // `terminate` before the connection is up raises an error event that nobody waits for.
    this.socket.on('error', () => undefined);
  }
}

type Welcome = z.output<typeof WELCOME>;

const POLICY_FRAME = z.object({ type: z.literal('policy') });

const WELCOME = z.object({
  type: z.literal('welcome'),
  overlay: overlayPrefixes,
  zone: z.string().min(1).max(253),
  instance: z.int(),
  /** Map servers that know nothing of the zone's own name would take the question for garbage. */
  apex: z.boolean().default(false),
  heartbeatMs: z.int().min(100).max(60_000).default(1000),
  /** Milliseconds since 1970. */
  serverTime: z.number().optional(),
  observed: z.object({ address: z.string().max(64), port: z.int() }).optional(),
});

type Notice = z.output<typeof NOTICE>;

const NOTICE = z.object({
  type: z.literal('authorities'),
  authorities: z
    .array(z.string().regex(/^[0-9a-f]{64}$/))
    .min(1)
    .max(4),
  withinMs: z.number().min(0).max(86_400_000),
});

/** The reason in words when it is none. */
export function parseWelcome(text: string): Welcome | string {
  try {
    const welcome = WELCOME.safeParse(JSON.parse(text));
    return welcome.success ? welcome.data : firstIssue(welcome.error);
  } catch (error) {
    return (error as Error).message;
  }
}

/** IPv4-mapped addresses as IPv4, without a zone. */
function observedAddress(text: string): IpAddress | null {
  const bare = text.replace(/^::ffff:(?=\d+\.)/i, '').split('%', 1)[0] ?? '';
  return isIpAddress(bare) ? parseIpAddress(bare) : null;
}

function isLoopback(address: IpAddress): boolean {
  return address.startsWith('127.') || address === '::1';
}

function closeReason(code: number, text: string): EndReason {
  // By another connection with this identity. Whose it was is found out by connecting again.
  if (code === 4001 || code === 4004) return { text: `closed by the map server (${code} ${text})`, slow: false };
  return { text: `closed by the map server (${code}${text === '' ? '' : ` ${text}`})`, slow: code >= 4000 };
}

function describe(error: Error & { code?: string }): string {
  const code = error.code ?? '';
  if (code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED') {
    const what = code === 'CERT_HAS_EXPIRED' ? 'has ended' : 'is not valid yet';
    return `the certificate of the map server ${what} by the clock of this host, which says ${new Date().toISOString()}: set the clock, if that is wrong`;
  }
  if (UNTRUSTED.has(code)) {
    return 'the certificate of the map server is of an authority that this agent does not trust: it is another map server, or its authority was rolled over while this agent was away; join again with a new token and --force';
  }
  if (code.startsWith('ERR_TLS') || /certificate|alert|self.signed/i.test(`${code} ${error.message}`)) {
    return `TLS with the map server failed: ${error.message}`;
  }
  return error.message;
}

/** The host's resolver, but for at most a second; after that, or when it fails, what it said last time. */
function rememberingLookup(): LookupFunction {
  let known: LookupAddress[] = [];
  return (hostname, options, callback) => {
    let done = false;
    const finish = (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]): void => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      const usable = error === null && addresses.length > 0 ? addresses : known;
      const [first] = usable;
      if (first === undefined) callback(error ?? new Error(`${hostname} has no address`), '', 4);
      else if (options.all === true) callback(null, usable);
      else callback(null, first.address, first.family);
    };
    const timer = setTimeout(() => {
      if (known.length > 0) finish(null, known);
    }, LOOKUP_MS);
    lookup(hostname, { all: true }, (error, addresses) => {
      if (error === null && addresses.length > 0) known = addresses;
      finish(error, addresses ?? []);
    });
  };
}

const MAX_MESSAGE = 64 * 1024;
const MAX_BUFFERED = 8 * 1024 * 1024;
const HANDSHAKE_MS = 3000;
const HEARTBEATS = 3;
const PROOF_MS = 300;
const SLOW_RETRY_MS = 10_000;
const LOOKUP_MS = 1000;
const UNTRUSTED: ReadonlySet<string> = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);
/** What certificates tolerate, either way. */
const CLOCK_SKEW_MS = 5 * 60_000;
