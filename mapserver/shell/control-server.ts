/**
 * The TLS port: LISP over WebSocket on `/lisp` for agents with a certificate, JSON under `/v1` for those that join.
 *
 * What misbehaves is closed and counted, and costs others little: `connections.ts` bounds who may wait for a session and
 * how long, `agent-link.ts` what a session may send and leave unread.
 */
import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { WebSocketServer } from 'ws';
import { CAPABILITY, compatible } from '../../proto/capability.ts';
import { UsageError } from '../../proto/errors.ts';
import { INCARNATION_HEADER, type Incarnation, NEWEST_RUN_HEADER, parseIncarnation } from '../../proto/incarnation.ts';
import type { XtrId } from '../../proto/mapping.ts';
import type { Millis } from '../../proto/time.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import { apiListener, type Route } from '../../runtime/http-api.ts';
import type { MapServerSettings } from '../config.ts';
import { AgentBudgets } from './agent-budgets.ts';
import { AgentLink, type AgentLinkOptions, CLOSING_TIME, type Newcomer } from './agent-link.ts';
import type { AuditLog } from './audit-log.ts';
import { callerOf } from './certificate-authority.ts';
import { Connections } from './connections.ts';
import { describeCaller } from './enrolment.ts';
import type { ShellRejection } from './metrics.ts';
import { remoteAddressOf } from './source-address.ts';
import { Turns } from './turns.ts';

export interface ControlServerOptions extends Omit<AgentLinkOptions, 'turns'> {
  readonly routes: readonly Route[];
  readonly enrolment: MapServerSettings['enrolment'];
  readonly audit: AuditLog;
}

interface Refusal {
  /** Whom the certificate names, also when it has ended. */
  readonly xtrId?: XtrId;
  readonly reason: ShellRejection;
  readonly status: string;
  readonly sentence: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export class ControlServer {
  private readonly options: ControlServerOptions;
  private readonly servers: Server[] = [];
  private readonly webSockets: WebSocketServer;
  private readonly links = new Set<AgentLink>();
  private readonly connections: Connections;
  private readonly budgets: AgentBudgets;
  private readonly turns = new Turns(() => performance.now());
  private readonly shedding: NodeJS.Timeout;

  constructor(options: ControlServerOptions) {
    const { limits, metrics, reports } = options;
    this.options = options;
    this.connections = new Connections(limits, reports);
    this.budgets = new AgentBudgets(limits);
    metrics.observeConnections(() => this.connections.counts);
    this.webSockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      autoPong: false,
      maxPayload: MAX_FRAME,
      maxFragments: MAX_FRAGMENTS,
      handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    });
    this.webSockets.on('headers', (headers) => headers.push(`${CAPABILITY_HEADER}: ${CAPABILITY}`));
    this.webSockets.on('wsClientError', (_error, socket) => {
      this.reject('http');
      socket.destroy();
    });
    this.shedding = setInterval(() => this.shed(), SHED_CHECK);
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
    clearInterval(this.shedding);
    for (const link of this.links) link.close(1001, 'the map server stops');
    const ends = this.servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    setTimeout(() => {
      for (const link of this.links) link.terminate();
      this.connections.destroyAll();
    }, CLOSING_TIME).unref();
    await Promise.all(ends);
  }

  private createServer(): Server {
    const { routes, log } = this.options;
    const server = createServer(
      {
        ...this.tlsOptions(),
        requestCert: true,
        // Those who join have no certificate yet; `/lisp` looks at it.
        rejectUnauthorized: false,
        // `Connections` has deadlines for all of it.
        headersTimeout: 0,
        requestTimeout: 0,
        keepAliveTimeout: 5_000,
      },
      apiListener(routes, (error) => log.error({ err: error }, 'request failed'), MAX_BODY),
    );
    server.on('connection', (socket) => this.admit(socket as Socket));
    server.on('secureConnection', (socket) => this.connections.secured(socket));
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
    if (this.connections.admit(socket, performance.now())) socket.setNoDelay(true);
    else this.reject('connections');
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
      const budget = this.budgets.of(refusal.xtrId, performance.now());
      const options = { ...this.options, turns: this.turns };
      const link = new AgentLink(webSocket, request.socket, refusal, budget, options, () => this.links.delete(link));
      this.connections.authenticated(request.socket);
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
    const { authority } = caller;
    if (core.state.awaitsCertificate(xtrId, authority)) {
      // If it cannot be stored, the next session says so again.
      void this.options.driver.operate({ kind: 'certificate-seen', xtrId, authority });
    }
    return { xtrId, incarnation, capability };
  }

  /** So that many agents that do not read, each within its limit, do not fill the memory together. */
  private shed(): void {
    const { bufferedOctetsOfAll } = this.options.limits;
    let total = 0;
    for (const { bufferedOctets } of this.links) total += bufferedOctets;
    if (total <= bufferedOctetsOfAll) return;
    const waiting = [...this.links].map((link) => ({ link, octets: link.bufferedOctets }));
    waiting.sort((a, b) => b.octets - a.octets);
    for (const { link, octets } of waiting) {
      if (total <= bufferedOctetsOfAll) return;
      total -= octets;
      link.shed();
    }
  }

  private reject(reason: ShellRejection): void {
    this.options.metrics.reject(reason);
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
const SHED_CHECK: Millis = 1_000;
const AUTHENTICATION: ReadonlySet<ShellRejection> = new Set(['certificate', 'revoked', 'fenced']);
const SUBPROTOCOL = 'lisp.stayput';
const CAPABILITY_HEADER = 'stayput-capability';
const MAX_FRAME = 65_536;
const MAX_BODY = 65_536;
const MAX_FRAGMENTS = 64;
