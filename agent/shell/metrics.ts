/** `stayput_agent_*`. Label sets are bounded. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { StatsReply } from '../../proto/dataplane/messages.ts';
import type { Place } from '../../proto/exporter.ts';
import { collectProcessMetrics } from '../../runtime/process-metrics.ts';
import { LISP_OUTCOMES } from '../core/lisp-responder.ts';
import type { Note } from '../core/output.ts';
import type { EidState } from '../core/registrar.ts';
import type { Reachability } from '../core/rloc-probes.ts';
import { ScrapedRegistry } from './dataplane-metrics.ts';

/** What the gauges show. */
export interface AgentGauges {
  readonly fenced: boolean;
  /** Milliseconds since 1970. */
  readonly certificateNotAfter: number;
  readonly mapServerConnected: boolean;
  readonly dataplaneConnected: boolean;
  readonly cache: {
    readonly positive: number;
    readonly negative: number;
    readonly stale: number;
    readonly oldestMs: number;
  };
  readonly eids: Readonly<Record<EidState, number>>;
  /** EIDs of this host itself, and not of workloads, that another agent has. */
  readonly takenOver: number;
  readonly peers: number;
  /** Of sites that plain packets may go to. */
  readonly rlocs: Readonly<Record<Reachability, number>>;
  readonly policy: { readonly version: number; readonly rules: number };
}

export class AgentMetrics {
  readonly registry: Registry;
  private readonly registrations: Counter<'result'>;
  private readonly resolutions: Counter<'result'>;
  private readonly pushes: Counter;
  private readonly handovers: Histogram;
  private readonly refused: Counter<'what'>;
  private readonly moves: Counter<'role' | 'result'>;
  private readonly peerMessages: Counter<'kind' | 'result'>;
  private readonly correspondents: Counter;
  private readonly faults: Counter;
  private readonly platformReadings: Counter<'result'>;
  private readonly maintenance: Counter;
  private readonly place: Gauge<'platform' | 'region' | 'zone'>;
  private readonly platformChanges: Counter;
  private readonly maintenanceStanding: Gauge;
  private readonly lisp: Counter<'result'>;
  private readonly lispRegistrations: Counter<'result'>;
  private readonly rlocProbes: Counter<'result'>;

  constructor(gauges: () => AgentGauges, stats: () => Promise<StatsReply | null>) {
    const registry = new ScrapedRegistry(stats);
    this.registry = registry;
    const registers = [registry];
    collectProcessMetrics(registry, 'agent');
    gauge(registry, 'fenced', 'Another agent has this identity, or another machine had it; nothing is done here', () =>
      Number(gauges().fenced),
    );
    gauge(
      registry,
      'certificate_not_after_seconds',
      'When the certificate ends, in seconds since 1970',
      () => gauges().certificateNotAfter / 1000,
    );
    gauge(registry, 'map_server_connected', 'A session with the map server is up', () =>
      Number(gauges().mapServerConnected),
    );
    gauge(registry, 'dataplane_connected', 'The data plane is attached', () => Number(gauges().dataplaneConnected));
    gauge(
      registry,
      'map_cache_oldest_age_seconds',
      'Age of the oldest map-cache entry',
      () => gauges().cache.oldestMs / 1000,
    );
    gauge(
      registry,
      'eids_taken_over',
      'EIDs of the host itself, not of its workloads, that another agent took over',
      () => gauges().takenOver,
    );
    gauge(registry, 'peers', 'Agents that the data plane may talk to', () => gauges().peers);
    gauge(registry, 'policy_version', 'Of the policy that is enforced; 0: none', () => gauges().policy.version);
    gauge(registry, 'policy_rules', 'Its rules', () => gauges().policy.rules);
    new Gauge({
      name: 'stayput_agent_map_cache_entries',
      help: 'Map-cache entries',
      labelNames: ['state'],
      registers,
      collect() {
        const { positive, negative, stale } = gauges().cache;
        this.set({ state: 'positive' }, positive);
        this.set({ state: 'negative' }, negative);
        this.set({ state: 'stale' }, stale);
      },
    });
    new Gauge({
      name: 'stayput_agent_eids',
      help: 'EIDs and names attached here',
      labelNames: ['state'],
      registers,
      collect() {
        for (const [state, count] of Object.entries(gauges().eids)) this.set({ state }, count);
      },
    });
    new Gauge({
      name: 'stayput_agent_plain_rlocs',
      help: 'RLOCs of sites that are probed',
      labelNames: ['state'],
      registers,
      collect() {
        for (const [state, count] of Object.entries(gauges().rlocs)) this.set({ state }, count);
      },
    });
    this.faults = new Counter({
      name: 'stayput_agent_faults_total',
      help: 'Inputs that failed by an error of the agent',
      registers,
    });
    this.platformReadings = new Counter({
      name: 'stayput_agent_platform_readings_total',
      help: 'Times that the platform below this host was asked',
      labelNames: ['result'],
      registers,
    });
    this.maintenance = new Counter({
      name: 'stayput_agent_platform_maintenance_total',
      help: 'Maintenance or migrations of this instance that the platform announced',
      registers,
    });
    this.place = new Gauge({
      name: 'stayput_agent_platform_info',
      help: 'Always 1; the labels say where this host is, as far as its platform says',
      labelNames: ['platform', 'region', 'zone'],
      registers,
    });
    this.platformChanges = new Counter({
      name: 'stayput_agent_platform_changes_total',
      help: 'Times that this host was found on another platform than before',
      registers,
    });
    this.maintenanceStanding = new Gauge({
      name: 'stayput_agent_platform_maintenance_announced',
      help: 'Announcements of maintenance of this instance that stand',
      registers,
    });
    this.registrations = new Counter({
      name: 'stayput_agent_registrations_total',
      help: 'Outcomes of Map-Registers that changed something',
      labelNames: ['result'],
      registers,
    });
    this.resolutions = new Counter({
      name: 'stayput_agent_resolutions_total',
      help: 'Map-Requests that ended',
      labelNames: ['result'],
      registers,
    });
    this.pushes = new Counter({
      name: 'stayput_agent_pushes_total',
      help: 'Unsolicited Map-Notifies',
      registers,
    });
    this.refused = new Counter({
      name: 'stayput_agent_refused_total',
      help: 'What was not believed, or not done because of a limit',
      labelNames: ['what'],
      registers,
    });
    this.moves = new Counter({
      name: 'stayput_agent_moves_total',
      help: 'EIDs that came from or went to another agent',
      labelNames: ['role', 'result'],
      registers,
    });
    this.peerMessages = new Counter({
      name: 'stayput_agent_peer_messages_total',
      help: 'What agents say to one another of moves',
      labelNames: ['kind', 'result'],
      registers,
    });
    this.lisp = new Counter({
      name: 'stayput_agent_lisp_messages_total',
      help: 'Messages of LISP routers, by what became of them',
      labelNames: ['result'],
      registers,
    });
    this.rlocProbes = new Counter({
      name: 'stayput_agent_rloc_probes_total',
      help: 'RLOC-probes of sites, by whether one of their tries was answered',
      labelNames: ['result'],
      registers,
    });
    this.lispRegistrations = new Counter({
      name: 'stayput_agent_lisp_registrations_total',
      help: 'EIDs at Map-Servers of others, by what became of their registrations',
      labelNames: ['result'],
      registers,
    });
    this.correspondents = new Counter({
      name: 'stayput_agent_correspondents_total',
      help: 'Peers that were told where an EID of ours went, and introduced to its new owner',
      registers,
    });
    this.handovers = new Histogram({
      name: 'stayput_agent_handover_seconds',
      help: 'From a change of this host’s locators until a peer was heard through the new one',
      buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
      registers,
    });
    // A counter that appears with its first event has no increase then, and no alert sees it.
    for (const [role, results] of Object.entries(MOVES)) {
      for (const result of results) this.moves.inc({ role, result }, 0);
    }
    for (const kind of PEER_MESSAGES) {
      for (const result of PEER_MESSAGE_RESULTS) this.peerMessages.inc({ kind, result }, 0);
    }
    for (const result of ['read', 'failed']) this.platformReadings.inc({ result }, 0);
    for (const result of ['accepted', 'lost', 'denied', 'forgotten']) this.registrations.inc({ result }, 0);
    for (const result of ['found', 'absent', 'unavailable']) this.resolutions.inc({ result }, 0);
    for (const what of REFUSED) this.refused.inc({ what }, 0);
    for (const result of LISP_OUTCOMES) this.lisp.inc({ result }, 0);
    for (const result of ['accepted', 'unanswered', 'taken']) this.lispRegistrations.inc({ result }, 0);
    for (const result of ['answered', 'unanswered']) this.rlocProbes.inc({ result }, 0);
  }

  countPlatformReading(result: 'read' | 'failed'): void {
    this.platformReadings.inc({ result });
  }

  setPlace({ platform, region, zone }: Place): void {
    this.place.reset();
    this.place.set({ platform, region: region ?? '', zone: zone ?? '' }, 1);
  }

  countPlatformChange(): void {
    this.platformChanges.inc();
  }

  /** How many announcements stand. */
  setMaintenance(count: number): void {
    this.maintenanceStanding.set(count);
  }

  countMaintenance(): void {
    this.maintenance.inc();
  }

  countFault(): void {
    this.faults.inc();
  }

  count(note: Note): void {
    switch (note.type) {
      case 'registration':
        this.registrations.inc({ result: note.result });
        return;
      case 'resolution':
        this.resolutions.inc({ result: note.result });
        return;
      case 'push':
        this.pushes.inc();
        return;
      case 'handovers':
        for (const micros of note.micros) this.handovers.observe(micros / 1e6);
        return;
      case 'move':
        this.moves.inc({ role: note.role, result: note.result });
        return;
      case 'peer-message':
        this.peerMessages.inc({ kind: note.kind, result: note.result });
        return;
      case 'correspondents':
        this.correspondents.inc(note.count);
        return;
      case 'lisp':
        this.lisp.inc({ result: note.result });
        return;
      case 'lisp-registration':
        this.lispRegistrations.inc({ result: note.result }, note.eids);
        return;
      case 'rloc-probe':
        this.rlocProbes.inc({ result: note.result });
        return;
      case 'peer-refused':
        this.refused.inc({ what: 'peer' });
        return;
      case 'peer-revoked':
        this.refused.inc({ what: 'revoked-peer' });
        return;
      case 'mapping-refused':
        this.refused.inc({ what: 'mapping' });
        return;
      case 'policy-refused':
        this.refused.inc({ what: 'policy' });
        return;
      case 'limit':
        this.refused.inc({ what: note.what });
        return;
      case 'eid-state':
      case 'rloc':
      case 'locators':
      case 'overlay':
      case 'policy':
      case 'order':
      case 'dataplane-superseded':
        return;
      default:
        note satisfies never;
        return;
    }
  }
}

function gauge(registry: Registry, name: string, help: string, value: () => number): void {
  new Gauge({
    name: `stayput_agent_${name}`,
    help,
    registers: [registry],
    collect() {
      this.set(value());
    },
  });
}

const MOVES = {
  'new-owner': ['live', 'denied'],
  'old-owner': ['yielded', 'lost', 'given-back', 'abandoned'],
} as const;
const PEER_MESSAGES = ['claim', 'notice', 'prepare', 'handover', 'give-back', 'solicit'] as const;
const PEER_MESSAGE_RESULTS = ['sent', 'unanswered', 'accepted', 'refused', 'ignored', 'malformed'] as const;
const REFUSED = [
  'peer',
  'revoked-peer',
  'mapping',
  'policy',
  'eids',
  'introductions',
  'map-requests',
  'registrations',
  'rloc-probes',
  'unknown-peers',
  'withdrawals',
] as const;
