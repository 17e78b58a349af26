/**
 * The TLS port: LISP over WebSocket on `/lisp` for agents with a certificate, JSON under `/v1` for those that join.
 *
 * What misbehaves is closed and counted, and costs others nothing: bounded connections, handshake time, frame size,
 * message rate (by reading more slowly) and outgoing buffer.
 */
import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { type WebSocket, WebSocketServer } from 'ws';
import type { IpPrefix } from '../../proto/address.ts';
import { CAPABILITY, compatible, POLICY_CAPABILITY } from '../../proto/capability.ts';
import { DecodeError, UsageError } from '../../proto/errors.ts';
import { INCARNATION_HEADER, type Incarnation, NEWEST_RUN_HEADER, parseIncarnation } from '../../proto/incarnation.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { type AgentPolicy, encodePolicyFrames } from '../../proto/policy.ts';
import type { Millis } from '../../proto/time.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import { apiListener, type Route } from '../../runtime/http-api.ts';
import type { Log } from '../../runtime/log.ts';
import type { MapServerSettings } from '../config.ts';
import type { AuditLog } from './audit-log.ts';
import { callerOf } from './certificate-authority.ts';
import type { Driver } from './driver.ts';
import { describeCaller } from './enrolment.ts';
import type { MapServerMetrics, ShellRejection } from './metrics.ts';
import { remoteAddressOf } from './rate-table.ts';
import { TokenBucket } from './token-bucket.ts';
import type { Trust } from './trust.ts';

export interface ControlServerOptions {
  readonly trust: Trust;
  readonly overlay: { readonly prefixes: readonly IpPrefix[]; readonly zone: string; readonly instance: number };
  readonly routes: readonly Route[];
  readonly heartbeatMs: Millis;
  readonly limits: MapServerSettings['limits'];
  readonly enrolment: MapServerSettings['enrolment'];
  readonly driver: Driver;
  readonly metrics: MapServerMetrics;
  readonly audit: AuditLog;
  readonly log: Log;
}

interface Refusal {
  /** Whom the certificate names, also when it has ended. */
  readonly xtrId?: XtrId;
  readonly reason: ShellRejection;
  readonly status: string;
  readonly sentence: string;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Newcomer {
  readonly xtrId: XtrId;
  /** Null for an agent that does not say. */
  readonly incarnation: Incarnation | null;
  readonly capability: number;
}

export class ControlServer {
  private readonly options: ControlServerOptions;
  private readonly servers: Server[] = [];
  private readonly webSockets: WebSocketServer;
  private readonly links = new Set<AgentLink>();
  private readonly perAddress = new Map<string, number>();
  private readonly sockets = new Set<Socket>();
  private readonly heartbeat: NodeJS.Timeout;
  private lastBeat = performance.now();

  constructor(options: ControlServerOptions) {
    this.options = options;
    this.webSockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: MAX_FRAME,
      handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    });
    this.webSockets.on('headers', (headers) => headers.push(`${CAPABILITY_HEADER}: ${CAPABILITY}`));
    this.webSockets.on('wsClientError', (_error, socket) => {
      this.reject('http');
      socket.destroy();
    });
    this.heartbeat = setInterval(() => this.beat(), options.heartbeatMs);
  }

  /** Addresses it listens on. */
  get addresses(): string[] {
    return this.servers.flatMap((server) => {
      const address = server.address();
      return typeof address === 'object' && address !== null ? [formatHostPort(address.address, address.port)] : [];
    });
  }

  /** @throws UsageError */
  async listen(listen: string): Promise<void> {
    const { host, port } = parseHostPort(listen);
    const server = this.createServer();
    await new Promise<void>((resolve, reject) => {
      const failed = (cause: NodeJS.ErrnoException): void =>
        reject(new UsageError(`cannot listen on ${listen} (${cause.code ?? cause.message})`, { cause }));
      server.once('error', failed);
      server.listen({ host, port, ipv6Only: true, backlog: 1024 }, () => {
        server.off('error', failed);
        resolve();
      });
    });
    server.on('error', (error) => this.options.log.error({ err: error }, 'control server failed'));
    this.servers.push(server);
  }

  /** Certificates changed: new connections get the present ones, and agents learn whom to trust. */
  handleTrust(): void {
    for (const https of this.servers) https.setSecureContext(this.tlsOptions());
    for (const link of this.links) link.tellAuthorities(this.links.size * RENEWAL_SPACING);
  }

  async close(): Promise<void> {
    clearInterval(this.heartbeat);
    for (const link of this.links) link.close(1001, 'the map server stops');
    const ends = this.servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    setTimeout(() => {
      for (const link of this.links) link.terminate();
      for (const socket of this.sockets) socket.destroy();
    }, CLOSING_TIME).unref();
    await Promise.all(ends);
  }

  private createServer(): Server {
    const { limits, routes, log } = this.options;
    const server = createServer(
      {
        ...this.tlsOptions(),
        requestCert: true,
        // Those who join have no certificate yet; `/lisp` looks at it.
        rejectUnauthorized: false,
        handshakeTimeout: 5_000,
        headersTimeout: 10_000,
        requestTimeout: 15_000,
        // How late the two above may strike; Node's 30 s would be most of it.
        connectionsCheckingInterval: 2_000,
        keepAliveTimeout: 5_000,
      },
      apiListener(routes, (error) => log.error({ err: error }, 'request failed'), MAX_BODY),
    );
    server.maxConnections = limits.connections;
    server.on('connection', (socket) => this.admit(socket as Socket));
    server.on('drop', () => this.reject('connections'));
    server.on('tlsClientError', (_error, socket) => {
      this.reject('tls');
      socket.destroy();
    });
    server.on('clientError', (_error, socket) => {
      this.reject('http');
      socket.destroy();
    });
    server.on('upgrade', (request, socket, head) => this.upgrade(request, socket, head));
    return server;
  }

  private tlsOptions(): { key: string; cert: string; ca: string; minVersion: 'TLSv1.3' } {
    const { server, anchors } = this.options.trust;
    return { key: server.key, cert: server.certificate, ca: anchors, minVersion: 'TLSv1.3' };
  }

  private admit(socket: Socket): void {
    const address = socket.remoteAddress ?? '';
    const count = (this.perAddress.get(address) ?? 0) + 1;
    if (count > this.options.limits.connectionsPerAddress) {
      this.reject('connections');
      socket.destroy();
      return;
    }
    this.perAddress.set(address, count);
    socket.setNoDelay(true);
    this.sockets.add(socket);
    socket.once('close', () => {
      this.sockets.delete(socket);
      const left = (this.perAddress.get(address) ?? 1) - 1;
      if (left > 0) this.perAddress.set(address, left);
      else this.perAddress.delete(address);
    });
  }

  private upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    const refusal = this.refusal(request);
    if ('reason' in refusal) {
      this.reject(refusal.reason);
      if (AUTHENTICATION.has(refusal.reason)) {
        this.options.audit.writeLimited({
          event: 'authentication-failed',
          who: refusal.xtrId === undefined ? 'unknown' : `agent ${refusal.xtrId}`,
          from: remoteAddressOf(request.socket),
          what: { why: refusal.sentence },
          result: refusal.reason,
        });
      }
      refuse(socket, refusal.status, refusal.sentence, refusal.headers);
      return;
    }
    this.webSockets.handleUpgrade(request, request.socket, head, (webSocket) => {
      const link = new AgentLink(webSocket, request.socket, refusal, this.options, () => this.links.delete(link));
      this.links.add(link);
      link.start();
    });
  }

  private refusal(request: IncomingMessage): Refusal | Newcomer {
    const tls = request.socket as TLSSocket;
    if ((request.url ?? '').split('?', 1)[0] !== '/lisp') {
      return { reason: 'http', status: '404 Not Found', sentence: 'There are no WebSockets here but /lisp.' };
    }
    const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((text) => text.trim());
    if (!offered.includes(SUBPROTOCOL)) {
      return {
        reason: 'http',
        status: '400 Bad Request',
        sentence: `The WebSocket subprotocol must be ${SUBPROTOCOL}.`,
      };
    }
    const capability = Number(request.headers[CAPABILITY_HEADER]);
    if (!compatible(capability)) {
      const older = capability > CAPABILITY ? 'the map server' : 'the agent';
      return {
        reason: 'capability',
        status: '426 Upgrade Required',
        sentence: `The map server has capability ${CAPABILITY}, the agent ${capability}: upgrade ${older}.`,
      };
    }
    const { trust, enrolment } = this.options;
    const caller = callerOf(tls, trust.certificates, Date.now());
    if (caller.kind !== 'agent') {
      const sentence = describeCaller(caller, enrolment);
      const named = caller.kind === 'expired' ? { xtrId: caller.xtrId } : {};
      return { reason: 'certificate', status: '401 Unauthorized', sentence, ...named };
    }
    const { xtrId } = caller;
    let incarnation: Incarnation | null = null;
    const said = request.headers[INCARNATION_HEADER];
    try {
      if (typeof said === 'string') incarnation = parseIncarnation(said);
    } catch (error) {
      return { reason: 'http', status: '400 Bad Request', sentence: `${(error as Error).message}.` };
    }
    const { core } = this.options.driver;
    const admitted = core.admits(xtrId, incarnation);
    if (admitted === 'fenced') {
      const newest = core.newestRun(xtrId);
      this.options.driver.fenced(xtrId, incarnation?.run ?? 0, newest);
      return {
        reason: 'fenced',
        xtrId,
        status: '409 Conflict',
        sentence: `Another agent has this identity: it was started as run ${newest}, this one as ${incarnation?.run}.`,
        headers: { [NEWEST_RUN_HEADER]: String(newest) },
      };
    }
    if (admitted !== 'yes') {
      const sentence =
        admitted === 'revoked'
          ? 'This agent was revoked.'
          : 'This agent is not enrolled here; let it join again (stayput agent join --force).';
      return { reason: 'revoked', status: '403 Forbidden', sentence, xtrId };
    }
    return { xtrId, incarnation, capability };
  }

  private beat(): void {
    const now = performance.now();
    const late = now - this.lastBeat > 2 * this.options.heartbeatMs;
    this.lastBeat = now;
    // After a pause of this process, what the peers sent meanwhile has not been read yet.
    for (const link of this.links) link.beat(now, late);
  }

  private reject(reason: ShellRejection): void {
    this.options.metrics.reject(reason);
  }
}

/** One agent's WebSocket. */
class AgentLink {
  private readonly webSocket: WebSocket;
  private readonly socket: Socket;
  readonly xtrId: XtrId;
  readonly address: string;
  private readonly incarnation: Incarnation | null;
  private readonly capability: number;
  private readonly options: ControlServerOptions;
  private readonly onEnd: () => void;
  private readonly rate: TokenBucket;
  private session: ReturnType<Driver['open']> | undefined;
  private heardAt = performance.now();
  private resume: NodeJS.Timeout | undefined;
  private ended = false;

  constructor(
    webSocket: WebSocket,
    socket: Socket,
    newcomer: Newcomer,
    options: ControlServerOptions,
    onEnd: () => void,
  ) {
    this.webSocket = webSocket;
    this.socket = socket;
    this.xtrId = newcomer.xtrId;
    this.address = remoteAddressOf(socket);
    this.incarnation = newcomer.incarnation;
    this.capability = newcomer.capability;
    this.options = options;
    this.onEnd = onEnd;
    this.rate = new TokenBucket(options.limits.messagesPerSecond, this.heardAt);
  }

  start(): void {
    const { webSocket } = this;
    webSocket.on('message', (data: Buffer, isBinary) => this.receive(data, isBinary));
    const heard = (): void => {
      this.heardAt = performance.now();
    };
    webSocket.on('ping', heard);
    webSocket.on('pong', heard);
    webSocket.on('error', () => this.fail('frame'));
    webSocket.on('close', () => this.end());
    webSocket.send(JSON.stringify(this.welcome()));
    this.tellAuthorities(RENEWAL_SPREAD);
    const session = this.options.driver.open(this.xtrId, this.incarnation, this);
    // The core may have closed it already.
    if (this.ended) this.options.driver.gone(session);
    else this.session = session;
  }

  send(message: LispMessage): void {
    if (!this.isWritable()) return;
    try {
      this.webSocket.send(encodeLispMessage(message));
    } catch (error) {
      this.options.log.error({ err: error, xtrId: this.xtrId, type: message.type }, 'message cannot be encoded');
    }
  }

  /** The agent renews its certificate within that time if it does not have what is current. */
  tellAuthorities(withinMs: Millis): void {
    if (this.webSocket.readyState !== this.webSocket.OPEN) return;
    const { fingerprints } = this.options.trust;
    this.webSocket.send(JSON.stringify({ type: 'authorities', authorities: fingerprints, withinMs }));
  }

  /** Older agents do not enforce any; what they talk to does. */
  sendPolicy(policy: AgentPolicy): void {
    if (this.capability < POLICY_CAPABILITY) return;
    for (const frame of encodePolicyFrames(policy)) if (this.isWritable()) this.webSocket.send(frame);
  }

  close(code: number, reason: string): void {
    this.webSocket.close(code, reason);
    setTimeout(() => this.webSocket.terminate(), CLOSING_TIME).unref();
    this.end();
  }

  terminate(): void {
    this.webSocket.terminate();
    this.end();
  }

  beat(now: number, late: boolean): void {
    const silent = now - this.heardAt;
    if (silent > SILENT_BEATS * this.options.heartbeatMs && !late) this.fail('silent-peer');
    // A peer that pings is heard, and hears our pongs.
    else if (silent > this.options.heartbeatMs / 2 && this.webSocket.readyState === this.webSocket.OPEN)
      this.webSocket.ping();
  }

  private isWritable(): boolean {
    if (this.webSocket.readyState !== this.webSocket.OPEN) return false;
    if (this.webSocket.bufferedAmount <= this.options.limits.bufferedOctets) return true;
    this.fail('slow-peer');
    return false;
  }

  private receive(data: Buffer, isBinary: boolean): void {
    if (this.session === undefined) return;
    const now = performance.now();
    this.heardAt = now;
    if (!isBinary) {
      this.refuse('text-frame', 1003, 'only binary frames');
      return;
    }
    const early = this.rate.take(now);
    if (early > 0 && this.resume === undefined) this.slowDown(early);
    try {
      this.options.driver.receive(this.session, decodeLispMessage(data));
    } catch (error) {
      if (error instanceof DecodeError) {
        this.options.log.info({ xtrId: this.xtrId, problem: error.message }, 'frame is not a LISP message');
        this.refuse('message', 1007, 'not a LISP message');
        return;
      }
      // A mistake of ours in one agent's message must not end the sessions of the others.
      this.options.log.error({ err: error, xtrId: this.xtrId }, 'message failed');
      this.refuse('internal', 1011, 'internal error');
    }
  }

  private slowDown(ms: Millis): void {
    this.options.metrics.throttle();
    this.webSocket.pause();
    this.resume = setTimeout(() => {
      this.resume = undefined;
      this.webSocket.resume();
    }, ms);
  }

  private refuse(reason: ShellRejection, code: number, text: string): void {
    this.options.metrics.reject(reason);
    this.close(code, text);
  }

  private fail(reason: ShellRejection): void {
    if (this.session === undefined) return;
    this.options.metrics.reject(reason);
    this.options.log.info({ xtrId: this.xtrId, reason }, 'agent disconnected');
    this.terminate();
  }

  private end(): void {
    this.ended = true;
    clearTimeout(this.resume);
    this.onEnd();
    const { session } = this;
    this.session = undefined;
    if (session !== undefined) this.options.driver.gone(session);
  }

  private welcome(): unknown {
    const { overlay, heartbeatMs } = this.options;
    return {
      type: 'welcome',
      overlay: overlay.prefixes,
      zone: overlay.zone,
      instance: overlay.instance,
      heartbeatMs,
      serverTime: Date.now(),
      observed: { address: this.address, port: this.socket.remotePort ?? 0 },
    };
  }
}

function refuse(
  socket: Duplex,
  status: string,
  sentence: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  const body = `${sentence}\n`;
  const more = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: text/plain\r\n${CAPABILITY_HEADER}: ${CAPABILITY}\r\n${more.join('')}` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  setTimeout(() => socket.destroy(), CLOSING_TIME).unref();
}

/** So that renewals of all agents together come at 100 per second. */
const RENEWAL_SPACING: Millis = 10;
/** In which agents renew that learn of a change when they connect. */
const RENEWAL_SPREAD: Millis = 10_000;
const AUTHENTICATION: ReadonlySet<ShellRejection> = new Set(['certificate', 'revoked', 'fenced']);
const SUBPROTOCOL = 'lisp.stayput';
const CAPABILITY_HEADER = 'stayput-capability';
const MAX_FRAME = 65_536;
const MAX_BODY = 65_536;
const SILENT_BEATS = 3;
const CLOSING_TIME: Millis = 1_000;
