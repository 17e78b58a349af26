/** Packets: how many, how well batched, and which were dropped why. */
import type { Board } from './board.ts';
import { lines, number, of, rate, rateBy, table } from './queries.ts';

function ratio(above: string, below: string): string {
  return `sum by (instance) (${rate(of(above))}) / sum by (instance) (${rate(of(below))})`;
}

export const DATAPLANE: Board = {
  uid: 'stayput-dataplane',
  title: 'Stayput: data plane',
  description: 'Packets of the chosen agents: how many, how well batched, and which were dropped why.',
  sections: [
    {
      title: 'Now',
      figures: [
        number({
          title: 'From applications',
          about: 'Of all chosen hosts.',
          unit: 'bps',
          queries: [{ expr: `8 * sum(${rate(of('stayput_dataplane_tun_rx_bytes_total'))})`, legend: '' }],
        }),
        number({
          title: 'To applications',
          about: 'Of all chosen hosts.',
          unit: 'bps',
          queries: [{ expr: `8 * sum(${rate(of('stayput_dataplane_tun_tx_bytes_total'))})`, legend: '' }],
        }),
        number({
          title: 'Sessions',
          about: 'Encrypted sessions with peers that are up.',
          unit: 'short',
          queries: [{ expr: `sum(${of('stayput_dataplane_sessions')})`, legend: '' }],
        }),
        number({
          title: 'Packets that wait',
          about: 'For a mapping, a session or an interface. Not zero for long only when something is away.',
          unit: 'short',
          queries: [{ expr: `sum(${of('stayput_dataplane_held_packets')})`, legend: '' }],
          limits: { warning: 1000 },
        }),
        number({
          title: 'Dropped',
          about: 'All reasons together.',
          unit: 'pps',
          queries: [{ expr: `sum(${rate(of('stayput_dataplane_drops_total'))})`, legend: '' }],
          limits: { warning: 10 },
        }),
        number({
          title: 'Refused system calls',
          about: 'By the sandbox. Never anything but zero.',
          unit: 'short',
          queries: [{ expr: `sum(${of('stayput_dataplane_refused_system_calls_total')})`, legend: '' }],
          limits: { critical: 1 },
        }),
      ],
    },
    {
      title: 'Traffic',
      figures: [
        lines({
          title: 'From applications',
          about: 'Into the tunnels, by host.',
          unit: 'bps',
          queries: [
            { expr: `8 * ${rateBy('instance', 'stayput_dataplane_tun_rx_bytes_total')}`, legend: '{{instance}}' },
          ],
        }),
        lines({
          title: 'To applications',
          about: 'Out of the tunnels, by host.',
          unit: 'bps',
          queries: [
            { expr: `8 * ${rateBy('instance', 'stayput_dataplane_tun_tx_bytes_total')}`, legend: '{{instance}}' },
          ],
        }),
        lines({
          title: 'Packets',
          about: 'Of applications, and datagrams in the underlay, over all chosen hosts.',
          unit: 'pps',
          queries: [
            { expr: rateBy('', 'stayput_dataplane_tun_rx_packets_total'), legend: 'from applications' },
            { expr: rateBy('', 'stayput_dataplane_tun_tx_packets_total'), legend: 'to applications' },
            { expr: rateBy('', 'stayput_dataplane_udp_tx_datagrams_total'), legend: 'datagrams sent' },
            { expr: rateBy('', 'stayput_dataplane_udp_rx_datagrams_total'), legend: 'datagrams received' },
          ],
        }),
        lines({
          title: 'Datagrams per message',
          about: 'How well the kernel’s offloads work (GSO, GRO): 1 is none. Low under load means a fallback.',
          unit: 'short',
          queries: [
            {
              expr: ratio('stayput_dataplane_udp_tx_datagrams_total', 'stayput_dataplane_udp_tx_messages_total'),
              legend: '{{instance}} sent',
            },
            {
              expr: ratio('stayput_dataplane_udp_rx_datagrams_total', 'stayput_dataplane_udp_rx_messages_total'),
              legend: '{{instance}} received',
            },
          ],
        }),
      ],
    },
    {
      title: 'Losses',
      figures: [
        lines({
          title: 'Drops by reason',
          about:
            'docs/metrics.md says what each means. auth, replay, source_check: from others. policy: as it should be.',
          unit: 'pps',
          queries: [{ expr: `${rateBy('reason', 'stayput_dataplane_drops_total')} > 0`, legend: '{{reason}}' }],
          nothing: 'nothing was dropped',
        }),
        lines({
          title: 'Drops by host',
          about: 'Where to look.',
          unit: 'pps',
          queries: [{ expr: rateBy('instance', 'stayput_dataplane_drops_total'), legend: '{{instance}}' }],
        }),
        lines({
          title: 'What waits',
          about: 'Octets of packets that wait for a mapping, a session or an interface.',
          unit: 'bytes',
          queries: [{ expr: `sum by (instance) (${of('stayput_dataplane_held_bytes')})`, legend: '{{instance}}' }],
        }),
        lines({
          title: 'Path MTU and ICMP',
          about: 'Black holes: packets of the size in use began to vanish. ICMP from the underlay is only a hint.',
          unit: 'ops',
          queries: [
            { expr: rateBy('', 'stayput_dataplane_path_mtu_raised_total'), legend: 'larger size found' },
            { expr: rateBy('', 'stayput_dataplane_path_mtu_black_holes_total'), legend: 'black hole' },
            { expr: rateBy('', 'stayput_dataplane_icmp_sent_total'), legend: 'ICMP to applications' },
            {
              expr: rateBy('', 'stayput_dataplane_outer_icmp_unreachable_total'),
              legend: 'unreachable in the underlay',
            },
          ],
        }),
      ],
    },
    {
      title: 'State',
      figures: [
        lines({
          title: 'Peers, sessions, mappings',
          about: 'Over all chosen hosts.',
          unit: 'short',
          queries: [
            { expr: `sum(${of('stayput_dataplane_peers')})`, legend: 'peers' },
            { expr: `sum(${of('stayput_dataplane_sessions')})`, legend: 'sessions' },
            { expr: `sum(${of('stayput_dataplane_mappings')})`, legend: 'mappings' },
          ],
        }),
        table({
          title: 'Kernel features that were refused',
          about: 'Another way is taken, which is slower. docs/metrics.md says what each means.',
          unit: 'short',
          queries: [{ expr: `sum by (instance, reason) (${of('stayput_dataplane_fallbacks_total')}) > 0`, legend: '' }],
          nothing: 'none',
        }),
      ],
    },
  ],
};
