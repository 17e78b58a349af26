/**
 * One agent's WebSocket.
 *
 * Who sends too fast is read more slowly; who cannot be slowed down so (pings, messages that never end, nothing read
 * of what is sent) is disconnected. What is not sent then is not kept: an agent that comes back asks for all anew.
 */
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import type { IpPrefix } from '../../proto/address.ts';
import { POLICY_CAPABILITY } from '../../proto/capability.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Incarnation } from '../../proto/incarnation.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { type AgentPolicy, encodePolicyFrames } from '../../proto/policy.ts';
import type { Instant, Millis } from '../../proto/time.ts';
import type { Log } from '../../runtime/log.ts';
import type { MapServerSettings } from '../config.ts';
import type { AgentBudget } from './agent-budgets.ts';
import type { Driver } from './driver.ts';
import { type Exporters, parseExporterNotice } from './exporters.ts';
import type { LimitReports } from './limit-reports.ts';
import type { LimitName, MapServerMetrics, ShellRejection } from './metrics.ts';
import { remoteAddressOf } from './source-address.ts';
import type { Trust } from './trust.ts';
import type { Turns } from './turns.ts';

export interface AgentLinkOptions {
  readonly trust: Trust;
  readonly overlay: { readonly prefixes: readonly IpPrefix[]; readonly zone: string; readonly instance: number };
  readonly heartbeatMs: Millis;
  readonly limits: MapServerSettings['limits'];
  readonly driver: Driver;
  readonly metrics: MapServerMetrics;
  readonly reports: LimitReports;
  readonly exporters: Exporters;
  /** UDP ports at which it says how a host is seen; none when nobody does. */
  readonly reflectorPorts: () => readonly number[];
  readonly turns: Turns;
  readonly log: Log;
}

/** An agent that was let in. */
export interface Newcomer {
  readonly xtrId: XtrId;
  /** Null for an agent that does not say. */
  readonly incarnation: Incarnation | null;
  readonly capability: number;
}

export class AgentLink {
  private readonly webSocket: WebSocket;
  private readonly socket: Socket;
  readonly xtrId: XtrId;
  readonly address: string;
  private readonly incarnation: Incarnation | null;
  private readonly capability: number;
  private readonly options: AgentLinkOptions;
  private readonly budget: AgentBudget;
  private readonly onEnd: () => void;
  private session: ReturnType<Driver['open']> | undefined;
  /** Heartbeats since something was heard. Counted, so that a pause of this process is one and not as many as it took. */
  private silentBeats = 0;
  /** Octets received that belong to no frame that is complete; nearly, and never too many. */
  private unfinishedOctets = 0;
  private unfinishedSince: Instant = 0;
  /** Of its own, so that those of all agents do not fall into one moment. */
  private heartbeat: NodeJS.Timeout | undefined;
  private lastBeat = performance.now();
  private resume: NodeJS.Timeout | undefined;
  private resumeAt: Instant = 0;
  private ended = false;
  /** Of a policy that the agent has not taken yet, on top of what may wait for it. */
  private policyOctets = 0;

  constructor(
    webSocket: WebSocket,
    socket: Socket,
    newcomer: Newcomer,
    budget: AgentBudget,
    options: AgentLinkOptions,
    onEnd: () => void,
  ) {
    this.webSocket = webSocket;
    this.socket = socket;
    this.xtrId = newcomer.xtrId;
    this.address = remoteAddressOf(socket);
    this.incarnation = newcomer.incarnation;
    this.capability = newcomer.capability;
    this.budget = budget;
    this.options = options;
    this.onEnd = onEnd;
  }

  /** Octets that wait until the agent reads. */
  get bufferedOctets(): number {
    return this.webSocket.bufferedAmount;
  }

  start(): void {
    const { webSocket } = this;
    // Before the WebSocket takes what it can use of them.
    this.socket.prependListener('data', (chunk: Buffer) => this.arrived(chunk.length));
    webSocket.on('message', (data: Buffer, isBinary) => this.receive(data, isBinary));
    webSocket.on('ping', (data: Buffer) => {
      if (this.controlFrame(data.length) && this.isWritable()) webSocket.pong(data);
    });
    webSocket.on('pong', (data: Buffer) => this.controlFrame(data.length));
    webSocket.on('error', () => this.fail('frame'));
    webSocket.on('close', () => this.end());
    webSocket.send(JSON.stringify(this.welcome()));
    this.tellAuthorities(RENEWAL_SPREAD);
    const session = this.options.driver.open(this.xtrId, this.incarnation, this);
    // The core may have closed it already.
    if (this.ended) this.options.driver.gone(session);
    else {
      this.session = session;
      this.heartbeat = setInterval(() => this.beat(), this.options.heartbeatMs);
    }
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
    if (!this.isWritable()) return;
    const { fingerprints } = this.options.trust;
    this.webSocket.send(JSON.stringify({ type: 'authorities', authorities: fingerprints, withinMs }));
  }

  /** Older agents do not enforce any; what they talk to does. */
  sendPolicy(policy: AgentPolicy): void {
    if (this.capability < POLICY_CAPABILITY) return;
    if (!this.isWritable()) return;
    const frames = encodePolicyFrames(policy);
    // One at a time: whoever reads none of them gets no more of what may wait with each.
    const allowance = this.policyOctets > 0 ? 0 : frames.reduce((octets, { length }) => octets + length, 0);
    this.policyOctets += allowance;
    // Whole or not at all: no part of it is of use to the agent.
    for (const [part, frame] of frames.entries()) {
      if (part < frames.length - 1) this.webSocket.send(frame);
      else
        this.webSocket.send(frame, () => {
          this.policyOctets -= allowance;
        });
    }
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

  /** Too much waits for all agents, and the most of it for this one. */
  shed(): void {
    this.exceed('bufferedOctetsOfAll', 'slow-peer');
  }

  private beat(): void {
    const { heartbeatMs, limits } = this.options;
    const now = performance.now();
    const passed = now - this.lastBeat;
    // Beats that come at once leave the agent no time to be heard in.
    if (passed < heartbeatMs / 2) return;
    // After a pause of this process, what the agent sent meanwhile has not been read yet.
    const late = passed > 2 * heartbeatMs;
    this.lastBeat = now;
    // What it sends cannot be heard meanwhile.
    if (this.webSocket.isPaused) return;
    this.silentBeats += 1;
    if (this.silentBeats > SILENT_BEATS) this.fail('silent-peer');
    else if (this.unfinishedOctets > 0 && now - this.unfinishedSince > limits.messageSeconds * 1000 && !late)
      this.exceed('messageSeconds', 'unfinished');
    // A peer that pings, once in the same time, is heard, and hears our pongs.
    else if (this.silentBeats > 1 && this.isWritable()) this.webSocket.ping();
  }

  private isWritable(): boolean {
    if (this.webSocket.readyState !== this.webSocket.OPEN) return false;
    if (this.webSocket.bufferedAmount - this.policyOctets <= this.options.limits.bufferedOctets) return true;
    this.exceed('bufferedOctets', 'slow-peer');
    return false;
  }

  private arrived(octets: number): void {
    const now = performance.now();
    if (this.unfinishedOctets === 0) this.unfinishedSince = now;
    this.unfinishedOctets += octets;
    this.charge('octetsPerSecond', this.budget.octets.take(now, octets), now);
  }

  /** False when it was one too many. */
  private controlFrame(octets: number): boolean {
    const now = performance.now();
    this.silentBeats = 0;
    this.unfinishedOctets = Math.max(0, this.unfinishedOctets - CONTROL_HEADER - octets);
    if (this.budget.controlFrames.tryTake(now)) return true;
    this.exceed('controlFramesPerSecond', 'control-frames');
    return false;
  }

  private receive(data: Buffer, isBinary: boolean): void {
    if (this.session === undefined) return;
    const now = performance.now();
    this.silentBeats = 0;
    this.unfinishedOctets = 0;
    this.charge('messagesPerSecond', this.budget.messages.take(now), now);
    if (!isBinary) {
      this.receiveText(data.toString('utf8'));
      return;
    }
    if (this.options.turns.add(this, data.length, () => this.process(data)) >= MAX_WAITING) this.webSocket.pause();
  }

  private receiveText(text: string): void {
    const notice = parseExporterNotice(text);
    if (notice === undefined) this.refuse('text-frame', 1003, 'text frames are for what the welcome asks for');
    else this.options.exporters.note(this.xtrId, this.address, notice);
  }

  private process(data: Buffer): void {
    if (this.session === undefined) return;
    const now = performance.now();
    try {
      const message = decodeLispMessage(data);
      if (message.type === 'map-register') {
        const early = this.budget.registrations.take(now, message.records.length);
        this.charge('registrationsPerSecond', early, now);
      }
      this.options.driver.receive(this.session, message);
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
    this.readOn();
  }

  /** Unless something else keeps it from reading. */
  private readOn(): void {
    if (this.ended || !this.webSocket.isPaused) return;
    if (this.resume !== undefined || this.options.turns.waiting(this) > 0) return;
    this.silentBeats = 0;
    this.unfinishedSince = performance.now();
    this.webSocket.resume();
  }

  /** What came `early` by that much is followed by nothing for as long. */
  private charge(limit: LimitName, early: Millis, now: Instant): void {
    if (early <= 0 || this.ended) return;
    if (this.resume === undefined) this.options.reports.hit(limit, this.xtrId);
    else if (now + early <= this.resumeAt) return;
    clearTimeout(this.resume);
    this.webSocket.pause();
    this.resumeAt = now + early;
    this.resume = setTimeout(() => {
      this.resume = undefined;
      this.readOn();
    }, early);
  }

  private refuse(reason: ShellRejection, code: number, text: string): void {
    this.options.metrics.reject(reason);
    this.close(code, text);
  }

  private exceed(limit: LimitName, reason: ShellRejection): void {
    if (this.ended) return;
    this.options.reports.hit(limit, this.xtrId);
    this.fail(reason);
  }

  private fail(reason: ShellRejection): void {
    if (this.ended) return;
    this.options.metrics.reject(reason);
    this.options.log.info({ xtrId: this.xtrId, reason }, 'agent disconnected');
    this.terminate();
  }

  private end(): void {
    this.ended = true;
    clearInterval(this.heartbeat);
    clearTimeout(this.resume);
    this.options.turns.drop(this);
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
      apex: true,
      exporters: true,
      reflector: this.options.reflectorPorts(),
      heartbeatMs,
      serverTime: Date.now(),
      observed: { address: this.address, port: this.socket.remotePort ?? 0 },
    };
  }
}

/** In which agents renew that learn of a change when they connect. */
const RENEWAL_SPREAD: Millis = 10_000;
const SILENT_BEATS = 3;
/** Messages that wait for their turn, before no more is read. */
const MAX_WAITING = 32;
export const CLOSING_TIME: Millis = 1_000;
/** Of a short frame from a client: two octets and the mask (RFC 6455, 5.2). */
const CONTROL_HEADER = 6;
