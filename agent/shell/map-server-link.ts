/**
 * The session with the map server: one WebSocket over mutually authenticated TLS, kept up for ever.
 *
 * After a roam the TCP connection is bound to an address that is gone, and nothing tells so but silence. Therefore a
 * change of this host's addresses opens a second connection at once, in parallel, when the address of the first is no
 * longer ours; when it still is, a ping with a short deadline decides. The first connection that reads its welcome is
 * the session from then on; the map server closes the other one as superseded.
 */
import { type LookupAddress, lookup } from 'node:dns';
import type { LookupFunction } from 'node:net';
import type { IpAddress } from '../../proto/address.ts';
import type { ExporterNotice } from '../../proto/exporter.ts';
import { encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { Backoff } from '../../runtime/backoff.ts';
import type { Log } from '../../runtime/log.ts';
import type { Session } from '../core/agent.ts';
import {
  Connection,
  type EndReason,
  type MapServerTarget,
  observedAddress,
  type Welcome,
} from './map-server-connection.ts';

export interface MapServerListener {
  /**
   * A session began; it may take the place of one that was not lost. `apex`: what is at the zone's own name can be
   * asked for; `reflector`: where it says how this host is seen over UDP.
   */
  onSession(
    session: Session & {
      readonly zone: string;
      readonly apex: boolean;
      readonly reflector: { readonly address: IpAddress | null; readonly ports: readonly number[] };
    },
  ): void;
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
  /** What the session was told, or will be when it asks. */
  private notice: string | null = null;
  private asksForNotice = false;
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

  /** From where the session goes; null without one. */
  get localAddress(): IpAddress | null {
    return this.session?.localAddress() ?? null;
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

  /** For this session and those to come, if the map server asks for it. */
  announce(notice: ExporterNotice): void {
    const text = JSON.stringify(notice);
    if (text === this.notice) return;
    this.notice = text;
    if (this.asksForNotice) this.session?.send(text);
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
    this.asksForNotice = welcome.exporters;
    if (welcome.exporters && this.notice !== null) connection.send(this.notice);
    this.listener.onSession({
      overlay: welcome.overlay,
      zone: welcome.zone,
      apex: welcome.apex,
      reflector: { address: connection.remoteAddress(), ports: welcome.reflector },
      observed: welcome.observed === undefined ? null : observedAddress(welcome.observed.address),
    });
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

function isLoopback(address: IpAddress): boolean {
  return address.startsWith('127.') || address === '::1';
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

const PROOF_MS = 300;
const SLOW_RETRY_MS = 10_000;
const LOOKUP_MS = 1000;
/** What certificates tolerate, either way. */
const CLOCK_SKEW_MS = 5 * 60_000;
