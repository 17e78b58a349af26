/** `stayput_mapserver_*`. No label has a value per agent, EID or name. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { collectProcessMetrics } from '../../runtime/process-metrics.ts';
import { CONFIG, type MapServerSettings } from '../config.ts';
import type { ServerEvent } from '../core/actions.ts';
import type { MapServer } from '../core/map-server.ts';
import type { ReflectorResult } from '../core/reflector.ts';
import type { MapServerState } from '../core/state.ts';
import type { ZoneRequestKind } from '../core/zone-primary.ts';
import type { AuditCount } from './audit-log.ts';
import type { Trust } from './trust.ts';

/** Why the shell closed a connection or refused something. */
export type ShellRejection = (typeof SHELL_REJECTIONS)[number];

/** A setting below `limits`. */
export type LimitName = keyof MapServerSettings['limits'];

export class MapServerMetrics {
  readonly registry = new Registry();
  private readonly registrations: Counter<'result'>;
  private readonly requests: Counter<'result'>;
  private readonly notifies: Counter<'kind'>;
  private readonly moves: Counter;
  private readonly ordered: Counter<'order' | 'result'>;
  private readonly enrolments: Counter<'result'>;
  private readonly rejected: Counter<'reason'>;
  private readonly policies: Counter<'result'>;
  private readonly limitHits: Counter<'limit'>;
  private readonly auditLines: Counter<'result'>;
  private readonly commits: Histogram;
  private readonly zoneRequests: Counter<'request' | 'result'>;
  private readonly zoneNotifies: Counter<'result'>;
  private readonly lispReceived: Counter<'message' | 'result'>;
  private readonly lispSent: Counter<'message'>;
  private readonly lispNotifies: Counter<'result'>;
  private readonly reflections: Counter<'result'>;

  constructor() {
    const registers = [this.registry];
    collectProcessMetrics(this.registry, 'mapserver');
    const counter = <L extends string>(name: string, help: string, labelNames: L[] = []): Counter<L> =>
      new Counter({ name: `stayput_mapserver_${name}`, help, labelNames, registers });
    this.registrations = counter('registrations_total', 'EID-records of Map-Registers, by what became of them', [
      'result',
    ]);
    this.requests = counter('map_requests_total', 'Map-Requests, by answer', ['result']);
    this.notifies = counter('map_notifies_total', 'Map-Notifies sent, by occasion', ['kind']);
    this.moves = counter('moves_total', 'EIDs that another agent took over');
    this.ordered = counter('orders_total', 'What administrators wanted done with EIDs', ['order', 'result']);
    this.enrolments = counter('enrolments_total', 'Enrolments, by result', ['result']);
    this.rejected = counter('rejected_total', 'Connections and messages refused, by reason', ['reason']);
    this.policies = counter('policy_updates_total', 'Policies sent to agents, and those that were too large', [
      'result',
    ]);
    this.limitHits = counter('limit_hits_total', 'Times that a limit was reached, by its setting', ['limit']);
    this.auditLines = counter('audit_lines_total', 'Lines of the audit log, by what became of them', ['result']);
    this.zoneRequests = counter('zone_requests_total', 'Requests to the name server of the zone', [
      'request',
      'result',
    ]);
    this.zoneNotifies = counter('zone_notifies_total', 'New serials told to secondaries, by outcome', ['result']);
    this.lispReceived = counter('lisp_received_total', 'LISP messages over UDP, by what became of them', [
      'message',
      'result',
    ]);
    this.lispSent = counter('lisp_sent_total', 'LISP messages sent over UDP', ['message']);
    this.lispNotifies = counter('lisp_notifies_total', 'Map-Notifies over UDP that nobody asked for, by outcome', [
      'result',
    ]);
    this.reflections = counter('reflector_requests_total', 'Datagrams to the reflector, by what became of them', [
      'result',
    ]);
    this.commits = new Histogram({
      name: 'stayput_mapserver_store_commit_seconds',
      help: 'Durable commits of the store',
      buckets: [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5],
      registers,
    });
    this.begin();
  }

  /** A counter that appears with its first event has no increase then, and no alert sees it. */
  private begin(): void {
    for (const reason of REJECTIONS) this.rejected.inc({ reason }, 0);
    for (const limit of Object.keys(CONFIG.parse({}).limits)) this.limitHits.inc({ limit }, 0);
    for (const result of ['sent', 'too_large']) this.policies.inc({ result }, 0);
    for (const result of ['written', 'lost', 'suppressed']) this.auditLines.inc({ result }, 0);
    for (const result of ['answered', 'unanswered']) this.zoneNotifies.inc({ result }, 0);
    for (const result of ['acknowledged', 'unacknowledged', 'overflow']) this.lispNotifies.inc({ result }, 0);
    for (const result of ['answered', 'limited', 'short', 'unexpected']) this.reflections.inc({ result }, 0);
    for (const result of ['taken', 'refreshed', 'released', 'target', 'stale', 'not-granted']) {
      this.registrations.inc({ result }, 0);
    }
    for (const result of ['subscribed', 'answered', 'negative']) this.requests.inc({ result }, 0);
    for (const kind of ['registration', 'resolution', 'publication']) this.notifies.inc({ kind }, 0);
  }

  /** Values that are read from the core when they are asked for. */
  observe(core: MapServer): void {
    const gauge = (name: keyof ReturnType<MapServerState['statistics']>, help: string, title: string = name): void => {
      const instrument: Gauge = new Gauge({
        name: `stayput_mapserver_${title}`,
        help,
        registers: [this.registry],
        collect: () => instrument.set(core.state.statistics()[name]),
      });
    };
    gauge('sessions', 'Agents connected');
    gauge('agents', 'Agents enrolled');
    gauge('mappings', 'Address EIDs that are answered');
    gauge('names', 'Names that are answered');
    gauge('subscriptions', 'Subscriptions of connected agents');
    gauge('pending', 'Registrations and operations that wait for the store');
    gauge('policyVersion', 'Version of the policy; 0 without one', 'policy_version');
  }

  observeConnections(connections: () => { readonly sessions: number; readonly waiting: number }): void {
    const gauge = new Gauge({
      name: 'stayput_mapserver_connections',
      help: 'TCP connections, by state: session of an agent, or waiting to become one',
      labelNames: ['state'],
      registers: [this.registry],
      collect: () => {
        const { sessions, waiting } = connections();
        gauge.set({ state: 'session' }, sessions);
        gauge.set({ state: 'waiting' }, waiting);
      },
    });
  }

  observeZone(
    zones: () => readonly { readonly zone: string; readonly serial: number; readonly records: number }[],
  ): void {
    const gauge = (name: 'serial' | 'records', help: string): void => {
      const instrument: Gauge<'zone'> = new Gauge({
        name: `stayput_mapserver_zone_${name}`,
        help,
        labelNames: ['zone'],
        registers: [this.registry],
        collect: () => {
          for (const each of zones()) instrument.set({ zone: each.zone }, each[name]);
        },
      });
    };
    gauge('serial', 'Serial of each zone that is served');
    gauge('records', 'Records of each zone that is served');
  }

  /** When what the map server lives on ends. */
  observeTrust(trust: Pick<Trust, 'ends'>): void {
    const gauge = new Gauge({
      name: 'stayput_mapserver_certificate_not_after_seconds',
      help: 'When the certificate of the authority or of the server ends, in seconds since 1970',
      labelNames: ['certificate'],
      registers: [this.registry],
      collect: () => {
        const { authority, server } = trust.ends();
        gauge.set({ certificate: 'authority' }, authority / 1000);
        gauge.set({ certificate: 'server' }, server / 1000);
      },
    });
  }

  count(event: ServerEvent): void {
    switch (event.kind) {
      case 'registration':
        this.registrations.inc({ result: event.result });
        break;
      case 'request':
        this.requests.inc({ result: event.result });
        break;
      case 'notify':
        this.notifies.inc({ kind: event.why });
        break;
      case 'moved':
        this.moves.inc();
        break;
      case 'rejected':
        this.rejected.inc({ reason: event.reason });
        break;
      case 'operation':
        if (event.operation === 'enrol') this.enrolled(event.result);
        break;
      case 'order':
        this.ordered.inc({ order: event.order, result: event.result.replace(/^STAYPUT_/, '').toLowerCase() });
        break;
      case 'policy-sent':
        this.policies.inc({ result: 'sent' });
        break;
      case 'policy-too-large':
        this.policies.inc({ result: 'too_large' }, event.agents);
        break;
      case 'lisp-received':
        this.lispReceived.inc({ message: event.message, result: event.result });
        break;
      case 'lisp-notify':
        this.lispNotifies.inc({ result: event.result });
        break;
      case 'lisp-sent':
        this.lispSent.inc({ message: event.message });
        break;
      case 'withdrawn':
      case 'names-changed':
      case 'limit':
        break;
      default:
        event satisfies never;
    }
  }

  reflected(result: ReflectorResult): void {
    this.reflections.inc({ result });
  }

  /** `ok`, or the code of the error. */
  enrolled(result: string): void {
    this.enrolments.inc({ result: result.replace(/^STAYPUT_/, '').toLowerCase() });
  }

  reject(reason: ShellRejection): void {
    this.rejected.inc({ reason });
  }

  audited(result: AuditCount, lines: number): void {
    this.auditLines.inc({ result }, lines);
  }

  limitHit(limit: LimitName): void {
    this.limitHits.inc({ limit });
  }

  /** `result`: the RCODE, or `limited`. */
  zoneRequest(request: ZoneRequestKind, result: string): void {
    this.zoneRequests.inc({ request, result });
  }

  zoneNotified(result: 'answered' | 'unanswered'): void {
    this.zoneNotifies.inc({ result });
  }

  committed(seconds: number): void {
    this.commits.observe(seconds);
  }
}

const SHELL_REJECTIONS = [
  'tls',
  'http',
  'certificate',
  'revoked',
  'fenced',
  'capability',
  'connections',
  'text-frame',
  'frame',
  'message',
  'control-frames',
  'unfinished',
  'slow-peer',
  'silent-peer',
  'discovery-token',
  'internal',
] as const;

/** With those of the core. */
const REJECTIONS = [...SHELL_REJECTIONS, 'foreign-xtr-id', 'nonce', 'message-type', 'malformed', 'overload'];
