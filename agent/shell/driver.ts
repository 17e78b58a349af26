/**
 * Drives the core with the real world: the clock, both links and the state folder. Every input is followed at once by
 * carrying out all outputs in their order, so nothing waits for a timer that need not.
 */
import type { IpPrefix } from '../../proto/address.ts';
import type { CorrespondentsReply, PlainRules, SleepReply, WakeReply } from '../../proto/dataplane/messages.ts';
import { type Eid, type InstanceId, instanceId, parseEid } from '../../proto/eid.ts';
import { StayputError } from '../../proto/errors.ts';
import type { Place } from '../../proto/exporter.ts';
import type { TunnelKey } from '../../proto/mapping.ts';
import type { Millis } from '../../proto/time.ts';
import { Faults } from '../../runtime/faults.ts';
import { type Log, moduleLog } from '../../runtime/log.ts';
import type { AgentConfig } from '../config.ts';
import { Agent } from '../core/agent.ts';
import { describeFence, type Machine } from '../core/incarnation.ts';
import type { LispPeer } from '../core/lisp-responder.ts';
import type { Ticket } from '../core/map-requests.ts';
import type { AttachRequest } from '../core/mover.ts';
import type { AgentOutput, Answer, Resolution } from '../core/output.ts';
import { type AnswerOf, Callers, FencedError, LimitError } from './callers.ts';
import { CertificateRenewal, type Renewed } from './certificate-renewal.ts';
import { DataplaneLink } from './dataplane-link.ts';
import { exporterNotice } from './exporter-notice.ts';
import { agentIdentity, type Identity, mapServerTarget, type StateFolder } from './identity.ts';
import { OwnIncarnation } from './incarnation.ts';
import { LispListener } from './lisp-listener.ts';
import { lispElsewhere, rlocProbing } from './lisp-map-servers.ts';
import { readMachine } from './machine.ts';
import { MaintenanceHook } from './maintenance-hook.ts';
import { MapServerLink } from './map-server-link.ts';
import type { AgentMetrics } from './metrics.ts';
import { logNote } from './note-log.ts';
import { type PlatformState, PlatformWatch } from './platform-watch.ts';
import { ReflectionWatch } from './reflection-watch.ts';
import { StateWriter } from './state-writer.ts';
import { Tolerance } from './tolerance.ts';

export class AgentDriver {
  readonly agent: Agent;
  readonly mapServer: MapServerLink;
  readonly dataplane: DataplaneLink;
  readonly certificate: CertificateRenewal;
  readonly reflection: ReflectionWatch;
  private readonly config: AgentConfig;
  private readonly log: Log;
  private readonly incarnation: OwnIncarnation;
  private identity: Identity;
  private zone: string;
  private metrics: AgentMetrics | null = null;
  private readonly tolerance: Tolerance;
  private readonly callers = new Callers();
  private readonly state: StateWriter;
  private lisp: LispListener | null = null;
  private platform: PlatformWatch | null = null;
  private place: Place | null = null;
  private maintenanceHook: MaintenanceHook | null = null;
  private timer: NodeJS.Timeout | null = null;
  private busy = false;
  private changes = 0;
  /** Whether the map server can be asked for what is at the zone's own name; null before it has said so. */
  knowsApex: boolean | null = null;
  private closed = false;

  constructor(
    config: AgentConfig,
    identity: Identity,
    folder: StateFolder,
    software: string,
    log: Log,
    machine: () => Machine = readMachine,
  ) {
    this.config = config;
    this.identity = identity;
    this.zone = identity.zone;
    this.log = log;
    this.tolerance = new Tolerance(
      new Faults(log, 'an error of the agent at an input', () => this.metrics?.countFault()),
    );
    this.certificate = new CertificateRenewal(
      () => this.identity,
      (renewed) => this.handleRenewed(renewed),
      moduleLog(log, 'map-server'),
    );
    this.incarnation = new OwnIncarnation(folder, machine, config.identity.onMachineChange, log);
    this.agent = new Agent(
      {
        identity: agentIdentity(identity),
        privateKey: identity.tunnelPrivateKey,
        presharedKey: identity.presharedKey,
        overlay: identity.overlay,
        listenPort: config.listenPort,
        mtu: config.mtu,
        locators: config.locators,
        plain: plainRules(config, agentIdentity(identity).instance),
        elsewhere: lispElsewhere(config),
        probing: rlocProbing(config),
        saved: {
          ...folder.eids(),
          cache: folder.cache(Date.now(), log),
          dataplane: folder.dataplane(),
          policy: folder.policy(),
        },
      },
      this.now(),
    );
    this.state = new StateWriter(folder, () => ({ ...this.agent.save(this.now()), identity: this.identity }), log);
    this.reflection = new ReflectionWatch(
      ({ address }) => this.receive((now) => this.agent.handleReflection(address, now)),
      moduleLog(log, 'map-server'),
    );
    this.dataplane = new DataplaneLink(
      config.dataplaneSocket,
      software,
      {
        onHello: (hello, forwarding) => {
          this.receive((now) => this.agent.handleDataplaneHello(hello, forwarding, Date.now() / 1000, now));
          // One that was never told anything forwards nothing.
          if (this.incarnation.fence !== null && hello.configured) this.silenceDataplane();
        },
        onEvent: (event) => {
          this.receive((now) => this.agent.handleDataplaneEvent(event, now));
          if (event.type === 'resumed') this.handleResumed(event.from);
        },
        onLost: () => this.receive(() => this.agent.handleDataplaneLost()),
      },
      moduleLog(log, 'dataplane'),
    );
    this.mapServer = new MapServerLink(
      mapServerTarget(identity),
      software,
      {
        onSession: (session) =>
          this.receive((now) => {
            this.zone = session.zone;
            this.knowsApex = session.apex;
            this.agent.handleSession(session, now);
            void this.reflection.handleSession(session.reflector.address, session.reflector.ports);
          }),
        onMessage: (message) => this.receive((now) => this.agent.handleMessage(message, now)),
        onPolicy: (frame) => this.receive(() => this.agent.handlePolicyFrame(frame)),
        onLost: () => this.receive(() => this.agent.handleSessionLost()),
        incarnation: () => this.incarnation.connection(),
        onAuthorities: (authorities, withinMs) => this.certificate.handleAuthorities(authorities, withinMs),
        onFenced: (newestRun) => this.handleFenced(newestRun),
      },
      moduleLog(log, 'map-server'),
    );
  }

  /** Why this agent does nothing, and what to do, in a line; null when it works. */
  get fence(): string | null {
    const { fence } = this.incarnation;
    return fence === null ? null : describeFence(fence);
  }

  /** Why state is not on disk, a line per file. */
  get unwrittenState(): readonly string[] {
    const { unwritten } = this.incarnation;
    return [...this.state.unwritten, ...(unwritten === null ? [] : [unwritten])];
  }

  /** What is below this host; null before that is known, or when nobody asks. */
  get platformState(): PlatformState | null {
    return this.platform?.state ?? null;
  }

  /** How often something has reached the agent that may have changed what it knows. */
  get version(): number {
    return this.changes;
  }

  get overlayZone(): string {
    return this.zone;
  }

  start(metrics: AgentMetrics): void {
    this.metrics = metrics;
    this.incarnation.begin();
    this.dataplane.start();
    this.announce();
    if (this.incarnation.fence !== null) return;
    this.mapServer.start();
    this.certificate.start();
    this.input(() => undefined);
  }

  /** The operator says otherwise from now on. */
  useLocators(configured: AgentConfig['locators']): void {
    this.receive((now) => this.agent.handleConfiguredLocators(configured, now));
  }

  /** LISP routers are heard from now on. */
  async serveLisp(): Promise<void> {
    this.lisp = await LispListener.start((from, bytes) => this.receiveLisp(from, bytes));
  }

  /** From a LISP router, or from anybody. */
  receiveLisp(from: LispPeer, bytes: Uint8Array): void {
    this.receive((now) => {
      const outcome = this.agent.handleLispDatagram(from, bytes, now);
      // What makes us ask changes nothing by itself: the answer does.
      return outcome === 'resolved' ? undefined : UNCHANGED;
    });
  }

  /** From now on the platform below is asked for public addresses. */
  followPlatform({ platform, maintenanceHook, socket }: AgentConfig, metrics: AgentMetrics): void {
    const log = moduleLog(this.log, 'platform');
    if (maintenanceHook !== null) this.maintenanceHook = new MaintenanceHook(maintenanceHook, socket, log);
    this.platform = new PlatformWatch(
      platform,
      {
        onAddresses: (addresses) => this.receive((now) => this.agent.handlePlatformAddresses(addresses, now)),
        onRead: (result) => metrics.countPlatformReading(result),
        onPlace: (place) => this.handlePlace(place, metrics),
        onChanged: () => metrics.countPlatformChange(),
        onAnnounced: () => metrics.countMaintenance(),
        onPrepare: () => this.receive((now) => this.agent.handleMaintenance(now)),
        onStanding: (name, events) => {
          metrics.setMaintenance(events.length);
          this.maintenanceHook?.handle(name, events);
        },
        onFault: (error) => this.tolerance.note(error, this.now()),
      },
      log,
    );
    this.platform.start();
  }

  close(): void {
    this.closed = true;
    this.lisp?.close();
    this.reflection.close();
    this.platform?.close();
    this.maintenanceHook?.close();
    this.stopTimers();
    this.mapServer.close();
    this.dataplane.close();
    // What is on disk may already be that of a new identity.
    if (this.incarnation.fence !== null) return;
    this.state.close();
  }

  now(): number {
    return performance.now();
  }

  async resolve(eid: Eid): Promise<Resolution> {
    const answer = await this.ask('resolution', (ticket, now) => {
      this.agent.resolve(eid, ticket, now);
      // A question changes no answer; what comes in because of it does.
      return UNCHANGED;
    });
    return answer.resolution;
  }

  attach(request: AttachRequest): Promise<AnswerOf<'attachment'>> {
    return this.ask('attachment', (ticket, now) => {
      if (!this.agent.attach(request, ticket, now)) {
        throw new LimitError(
          'STAYPUT_TOO_MANY_EIDS',
          'this agent has as many EIDs or names as it can hold; detach some first',
        );
      }
    });
  }

  detach(request: AttachRequest['prefix']): boolean {
    let known = false;
    this.input((now) => {
      known = this.agent.detach(request, now);
    });
    if (known) this.state.writeChangedEids();
    return known;
  }

  leave(prefix: AttachRequest['prefix'], from: string, patience: Millis): boolean {
    let known = false;
    this.input((now) => {
      known = this.agent.leave(prefix, from, patience, now);
    });
    if (known) this.state.writeChangedEids();
    return known;
  }

  async probe(publicKey: TunnelKey): Promise<number | null> {
    return (await this.ask('probe', (ticket, now) => this.agent.probe(publicKey, ticket, now))).rttUs;
  }

  /** This machine is about to sleep. @throws DataplaneError */
  sleep(): Promise<SleepReply> {
    if (this.fence === null) this.state.writeRest();
    return this.dataplane.sleep();
  }

  /** This machine is awake; whoever notices that first has all done that is to be done. @throws DataplaneError */
  async wake(): Promise<WakeReply> {
    try {
      return await this.dataplane.wake();
    } catch (error) {
      this.receive((now) => this.agent.handleDataplaneEvent({ type: 'resumed', from: 'suspend' }, now));
      throw error;
    }
  }

  /** What people type, in this agent's instance. @throws DecodeError */
  parseEid(text: string): Eid {
    const suffix = `.${this.zone}`;
    const relative = text.toLowerCase().endsWith(suffix) ? text.slice(0, -suffix.length) : text;
    return parseEid(relative, agentIdentity(this.identity).instance);
  }

  private ask<K extends Answer['kind']>(kind: K, act: (ticket: Ticket, now: number) => unknown): Promise<AnswerOf<K>> {
    const { fence } = this;
    if (fence !== null) return Promise.reject(new FencedError('STAYPUT_FENCED', fence));
    return this.callers.ask(kind, (ticket) => this.input((now) => act(ticket, now)));
  }

  private handleRenewed(renewed: Renewed): void {
    const { ca } = this.identity;
    this.identity = { ...this.identity, ...renewed };
    const written = this.state.write('overlay');
    this.mapServer.useCredentials(renewed);
    // The map server retires the former authority only after it has seen this agent with a certificate of the new one.
    if (written && renewed.ca !== ca) this.mapServer.renew();
    this.log.info('certificate renewed');
  }

  /** A copy of a running machine is a new start: its original may be running on. */
  private handleResumed(from: 'suspend' | 'snapshot'): void {
    this.log.warn({ reason: from }, 'this machine was interrupted');
    if (from === 'suspend' || this.closed || this.incarnation.fence !== null) return;
    this.incarnation.begin();
    if (this.incarnation.fence === null) this.mapServer.renew();
    else this.stopWorking();
  }

  private handleFenced(newestRun: number): void {
    this.incarnation.refused(newestRun);
    this.stopWorking();
  }

  private stopWorking(): void {
    this.changes += 1;
    this.mapServer.close();
    this.stopTimers();
    this.callers.refuse(this.fence ?? '');
    this.silenceDataplane();
  }

  /** A whole truth without a peer, a mapping or an EID: nothing is forwarded, and the EIDs' addresses go. */
  private silenceDataplane(): void {
    this.dataplane.send({ type: 'sync-begin' });
    this.dataplane.send({ type: 'sync-end' });
  }

  private stopTimers(): void {
    this.certificate.stop();
    this.state.stop();
    if (this.timer !== null) clearTimeout(this.timer);
  }

  /** From outside, or from the clock: nobody is there who could be told of an error. */
  private receive(act: (now: number) => unknown): void {
    try {
      this.input(act);
    } catch (error) {
      try {
        this.tolerance.note(error, this.now());
      } catch (last) {
        // On its own, or a link takes it for garbage from the other side and connects again.
        setImmediate(() => {
          throw last;
        });
        return;
      }
      // What was decided before the error is carried out, and the clock goes on.
      if (!this.busy) this.receive(() => undefined);
    }
  }

  /** `act` returns UNCHANGED when what is known is the same after it. */
  private input(act: (now: number) => unknown): void {
    if (this.closed || this.incarnation.fence !== null) return;
    const nested = this.busy;
    this.busy = true;
    try {
      if (act(this.now()) !== UNCHANGED) this.changes += 1;
      if (!nested) this.drain();
    } catch (error) {
      this.changes += 1;
      if (!(error instanceof StayputError)) throw error;
      if (error instanceof LimitError) throw error;
      this.log.warn({ err: error }, 'an input was not understood');
      if (!nested) this.drain();
    } finally {
      this.busy = nested;
    }
    if (!nested) this.schedule();
  }

  private drain(): void {
    for (let output = this.agent.pollOutput(); output !== undefined; output = this.agent.pollOutput()) {
      this.carryOut(output);
    }
  }

  private schedule(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    const delay = Math.max(0, Math.ceil(this.agent.pollTimeout() - this.now()));
    this.timer = setTimeout(() => this.receive((now) => this.agent.handleTimeout(now)), delay);
  }

  private carryOut(output: AgentOutput): void {
    switch (output.to) {
      case 'dataplane':
        if (output.command.type === 'correspondents') void this.askCorrespondents(output.command.prefix);
        else this.dataplane.send(output.command);
        return;
      case 'map-server':
        this.mapServer.send(output.message);
        return;
      case 'lisp-router':
        this.lisp?.send(output.peer, output.bytes);
        return;
      case 'caller':
        // What is said to be attached stays attached, whatever happens to this process.
        if (output.answer.kind === 'attachment') this.state.afterEids(() => this.callers.answer(output));
        else this.callers.answer(output);
        return;
      case 'disk':
        if (output.what === 'overlay') {
          this.identity = { ...this.identity, overlay: this.agent.snapshot(this.now()).overlay, zone: this.zone };
        }
        this.state.handleChanged(output.what);
        return;
      case 'link':
        this.mapServer.handleAddresses(output.addresses);
        this.platform?.handleMoved();
        return;
      case 'operator':
        this.metrics?.count(output.note);
        logNote(this.log, output.note);
        if (output.note.type === 'eid-state' && this.config.metricsAddress === 'eid') this.announce();
        return;
      default:
        output satisfies never;
        return;
    }
  }

  private handlePlace(place: Place, metrics: AgentMetrics): void {
    this.place = place;
    metrics.setPlace(place);
    this.announce();
  }

  private announce(): void {
    this.mapServer.announce(exporterNotice(this.config, this.agent.ownEids(), this.place));
  }

  private async askCorrespondents(prefix: IpPrefix): Promise<void> {
    let reply: CorrespondentsReply;
    try {
      reply = await this.dataplane.correspondents(prefix);
    } catch (err) {
      // Asked again soon; one that is older than this agent does not know them.
      this.log.debug({ err }, 'the data plane does not say who talks to an EID');
      return;
    }
    const { peers, rlocs = [] } = reply;
    this.receive((now) => {
      this.agent.handleCorrespondents(prefix, peers, now);
      this.agent.handlePlainCorrespondents(prefix, rlocs, now);
    });
  }
}

function plainRules({ lisp }: AgentConfig, overlay: InstanceId): PlainRules | null {
  if (lisp.plain.length === 0) return null;
  const instance = lisp.instance === null ? overlay : instanceId(lisp.instance);
  return { instance, gateway: lisp.gateway, sites: lisp.plain };
}

/** What is known is the same after it. */
const UNCHANGED = Symbol('unchanged');
