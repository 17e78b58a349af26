/**
 * `stayput_dataplane_*`: read from the data plane at each scrape, under the names that it gives. Names of a newer data
 * plane are taken as they are, as far as they are names; their number is bounded.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import type { StatsReply } from '../../proto/dataplane/messages.ts';

/** Asks the data plane for its counters first, then renders everything. */
export class ScrapedRegistry extends Registry {
  private readonly stats: () => Promise<StatsReply | null>;
  private readonly scraped = new Map<
    string,
    { readonly metric: Gauge<'reason'> | Counter<'reason'>; readonly labelled: boolean }
  >();

  constructor(stats: () => Promise<StatsReply | null>) {
    super();
    this.stats = stats;
  }

  override async metrics(): Promise<string> {
    this.update(await this.stats());
    return super.metrics();
  }

  private update(stats: StatsReply | null): void {
    for (const { metric } of this.scraped.values()) metric.reset();
    if (stats === null) return;
    for (const [name, value] of Object.entries(stats.counters)) {
      const [, family = '', reason] = /^([a-z][a-z0-9_]{0,40})(?:\.([a-z0-9_-]{1,40}))?$/.exec(name) ?? [];
      if (family === '') continue;
      const metric = this.metric(
        `stayput_dataplane_${(DOTTED[family] ?? family).replace(/_total$/, '')}_total`,
        Counter,
        reason !== undefined,
      );
      if (reason === undefined) metric?.inc(value);
      else metric?.inc({ reason }, value);
    }
    for (const [name, value] of Object.entries(stats.gauges)) {
      if (!/^[a-z][a-z0-9_]{0,40}$/.test(name) || name.endsWith('_total')) continue;
      this.metric(`stayput_dataplane_${name}`, Gauge, false)?.inc(value);
    }
  }

  /** Undefined for what does not go together with what was there before: one bad name must not cost the others. */
  private metric(name: string, kind: typeof Counter | typeof Gauge, labelled: boolean) {
    const known = this.scraped.get(name);
    if (known !== undefined) return known.labelled === labelled ? known.metric : undefined;
    if (this.scraped.size >= MAX_SCRAPED) return undefined;
    const labelNames = labelled ? (['reason'] as const) : [];
    const help = DATAPLANE_HELP[name.replace('stayput_dataplane_', '')] ?? 'Of a newer data plane';
    const metric = new kind({ name, help, labelNames, registers: [this] });
    this.scraped.set(name, { metric, labelled });
    return metric;
  }
}

const DOTTED: Readonly<Record<string, string>> = { drop: 'drops', fallback: 'fallbacks' };
const MAX_SCRAPED = 200;

/** Without `stayput_dataplane_`. */
export const DATAPLANE_HELP: Readonly<Record<string, string>> = {
  tun_rx_packets_total: 'Packets from applications',
  tun_rx_bytes_total: 'Octets of packets from applications',
  tun_tx_packets_total: 'Packets to applications',
  tun_tx_bytes_total: 'Octets of packets to applications',
  tun_read_calls_total: 'System calls that read from the TUN',
  tun_write_calls_total: 'System calls that wrote to the TUN',
  tun_write_calls_handed_over_total: 'System calls that wrote to the TUN, by the second thread',
  udp_rx_datagrams_total: 'Datagrams from the underlay',
  udp_tx_datagrams_total: 'Datagrams to the underlay',
  udp_rx_messages_total: 'Messages of one or, joined by the kernel (GRO), many datagrams',
  udp_tx_messages_total: 'Messages of one or, to be cut by the kernel (GSO), many datagrams',
  udp_receive_calls_total: 'System calls that received',
  udp_send_calls_total: 'System calls that sent',
  handshakes_initiated_total: 'Handshakes begun here',
  handshakes_completed_total: 'Sessions that came up',
  handshakes_rejected_total:
    'Initiations and responses that were wrong, replayed or too many, came while this machine was about to sleep, or had no room in the kernel',
  handshakes_copied_total: 'Initiations that had come already: they are sent to all locators of a peer at once',
  handshakes_parked_total: 'Initiations from keys that the agent was asked about',
  cookies_sent_total: 'Initiations answered with a cookie, under load',
  rekeys_total: 'Sessions replaced by newer ones',
  sleeps_total: 'Times that all session keys were forgotten as this machine was about to sleep',
  roams_total: 'Peers that were heard from another locator',
  size_probes_sent_total: 'Probes for the path MTU',
  path_mtu_raised_total: 'Times that a larger size was found to reach a peer',
  path_mtu_black_holes_total: 'Times that packets of the size in use began to vanish on the way to a peer',
  probes_sent_total: 'Probes and questions about paths',
  path_failovers_total: 'Silent paths to a peer that were left for another',
  path_returns_total: 'Returns to a better path that had answered for a while',
  uplink_failures_total: 'Times an uplink of this host was found dead although its link was up',
  plain_rx_packets_total: 'Packets from plain LISP sites, before their checks',
  plain_tx_packets_total: 'Packets to plain LISP sites',
  redirected_packets_total: 'Packets for EIDs that had moved on, sent to the new owner',
  agent_messages_sent_total: 'Messages to agents of other hosts, through the tunnel',
  agent_messages_received_total: 'Messages from agents of other hosts, through the tunnel',
  neighbour_answers_total: 'Neighbour solicitations of workloads answered for EIDs that are elsewhere',
  held_packets_total: 'Packets that had to wait for a mapping, a session or an interface',
  resent_datagrams_total: 'Datagrams that could not leave at first and were sent after a change of locators',
  retransmit_kept_total: 'Sent datagrams that were kept, to be sent again if a roam loses them',
  retransmit_resent_total:
    'Datagrams that were sent again because the peer lacked them after a roam, or its data plane was started again',
  retransmit_duplicates_total: 'Datagrams that came twice within 2 s of a roam and were dropped',
  retransmit_overflowed_total:
    'Datagrams not kept, or no longer, as the bounds of octets were reached or traffic to the peer was above 1 Gbit/s',
  fragmented_packets_total: 'Inner packets that were fragmented',
  congestion_marks_total: 'Packets that met congestion in the underlay and say so now (ECN)',
  icmp_sent_total: 'ICMP errors to applications: too big, unreachable',
  outer_icmp_too_big_total:
    'ICMP errors about packets to peers: too big; a hint that is verified, or of plain packets believed',
  outer_icmp_unreachable_total: 'ICMP errors about packets to peers: host, port or network unreachable',
  outer_icmp_time_exceeded_total: 'ICMP errors about packets to peers: TTL used up on the way',
  outer_icmp_ignored_total: 'ICMP errors that quote no packet sent lately, or are more than 200 a second',
  events_dropped_total: 'Events for an agent that was away or too slow',
  refused_system_calls_total: 'System calls that its own sandbox did not let it make',
  drops_total: 'Packets that were dropped, by reason',
  fallbacks_total: 'Times a kernel feature was refused and another way taken, by reason',
  peers: 'Peers known',
  sessions: 'Sessions that are up',
  mappings: 'Mappings in the table',
  local_eids: 'EIDs of this host',
  held_packets: 'Packets that wait',
  held_bytes: 'Octets of packets that wait',
  policy_version: 'Version of the policy that is enforced; 0: none',
  policy_rules: 'Rules of the policy that is enforced',
  rss_bytes: 'Resident memory',
};
