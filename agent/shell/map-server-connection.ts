/** One WebSocket to the map server, over mutually authenticated TLS, from its first packet to its end. */
import type { IncomingMessage } from 'node:http';
import { isIP, type LookupFunction, type Socket } from 'node:net';
import WebSocket from 'ws';
import { z } from 'zod';
import { type IpAddress, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { CAPABILITY, compatible } from '../../proto/capability.ts';
import { DecodeError, type StayputError } from '../../proto/errors.ts';
import { INCARNATION_HEADER, NEWEST_RUN_HEADER } from '../../proto/incarnation.ts';
import { decodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import { firstIssue } from '../../runtime/json-file.ts';
import { overlayPrefixes } from './parsed.ts';

export interface MapServerTarget {
  readonly host: string;
  readonly port: number;
  readonly ca: string;
  readonly certificate: string;
  readonly privateKey: string;
}

export interface EndReason {
  readonly text: string;
  /** Trying again soon would not help. */
  readonly slow: boolean;
  /** Refused because of a newer run of this identity. */
  readonly newestRun?: number;
}

export interface ConnectionListener {
  onWelcome(welcome: Welcome): void;
  onMessage(message: LispMessage): void;
  onPolicy(frame: unknown): void;
  onNotice(notice: Notice): void;
  onGarbage(error: StayputError): void;
  /** Exactly once, unless it was abandoned. */
  onEnd(reason: EndReason): void;
}

export class Connection {
  private readonly socket: WebSocket;
  private readonly listener: ConnectionListener;
  private tcp: Socket | null = null;
  private heardAt = performance.now();
  private heartbeat: NodeJS.Timeout;
  private proof: NodeJS.Timeout | null = null;
  private welcomed = false;
  private ended = false;

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
    this.socket.on('error', (error) => this.end({ text: describe(error), slow: false }));
    this.socket.on('close', (code, reason) => this.end(closeReason(code, reason.toString('utf8'))));
  }

  localAddress(): IpAddress | null {
    const text = this.tcp?.localAddress;
    return text === undefined ? null : observedAddress(text);
  }

  remoteAddress(): IpAddress | null {
    const text = this.tcp?.remoteAddress;
    return text === undefined ? null : observedAddress(text);
  }

  /** Text or a message. */
  send(bytes: Uint8Array | string): void {
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
    this.listener.onEnd(reason);
  }

  private release(): void {
    clearTimeout(this.heartbeat);
    if (this.proof !== null) clearTimeout(this.proof);
    // `terminate` before the connection is up raises an error event that nobody waits for.
    this.socket.on('error', () => undefined);
  }
}

export type Welcome = z.output<typeof WELCOME>;

const POLICY_FRAME = z.object({ type: z.literal('policy') });

const WELCOME = z.object({
  type: z.literal('welcome'),
  overlay: overlayPrefixes,
  zone: z.string().min(1).max(253),
  instance: z.int(),
  /** Map servers that know nothing of the zone's own name would take the question for garbage. */
  apex: z.boolean().default(false),
  /** It lists agents for those who watch the overlay; others would take the notice for garbage. */
  exporters: z.boolean().default(false),
  /** UDP ports at which it says how a host is seen. */
  reflector: z.array(z.int().min(1).max(65_535)).max(8).default([]),
  heartbeatMs: z.int().min(100).max(60_000).default(1000),
  /** Milliseconds since 1970. */
  serverTime: z.number().optional(),
  observed: z.object({ address: z.string().max(64), port: z.int() }).optional(),
});

export type Notice = z.output<typeof NOTICE>;

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
export function observedAddress(text: string): IpAddress | null {
  const bare = text.replace(/^::ffff:(?=\d+\.)/i, '').split('%', 1)[0] ?? '';
  return isIpAddress(bare) ? parseIpAddress(bare) : null;
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

const MAX_MESSAGE = 64 * 1024;
const MAX_BUFFERED = 8 * 1024 * 1024;
const HANDSHAKE_MS = 3000;
const HEARTBEATS = 3;
const UNTRUSTED: ReadonlySet<string> = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);
