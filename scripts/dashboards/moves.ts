/** Roams and moves: how many, how fast, and what was done so that nobody noticed. */
import type { Board } from './board.ts';
import { lines, number, of, quantiles, rateBy } from './queries.ts';

const HANDOVERS = of('stayput_agent_handover_seconds_bucket');

export const MOVES: Board = {
  uid: 'stayput-moves',
  title: 'Stayput: moves',
  description: 'Roams (an agent gets other addresses) and moves (an EID goes to another agent): how many, how fast.',
  sections: [
    {
      title: 'In the chosen time',
      figures: [
        number({
          title: 'Moves',
          about: 'EIDs and names that another agent took over.',
          unit: 'short',
          queries: [{ expr: 'round(sum(increase(stayput_mapserver_moves_total[$__range])))', legend: '' }],
        }),
        number({
          title: 'Handovers',
          about: 'Peers that were heard again after a change of this host’s locators.',
          unit: 'short',
          queries: [
            { expr: `round(sum(increase(${of('stayput_agent_handover_seconds_count')}[$__range])))`, legend: '' },
          ],
        }),
        number({
          title: 'Handover, median',
          about: 'From a change of locators until a peer was heard through the new one.',
          unit: 's',
          queries: [{ expr: `histogram_quantile(0.5, sum by (le) (increase(${HANDOVERS}[$__range])))`, legend: '' }],
          nothing: 'none',
        }),
        number({
          title: 'Handover, 99 %',
          about: 'Below 0.2 s TCP does not notice.',
          unit: 's',
          queries: [{ expr: `histogram_quantile(0.99, sum by (le) (increase(${HANDOVERS}[$__range])))`, legend: '' }],
          limits: { warning: 0.25, critical: 1 },
          nothing: 'none',
        }),
        number({
          title: 'Denied',
          about: 'Workloads that came to a host which may not have their EID.',
          unit: 'short',
          queries: [
            {
              expr: `round(sum(increase(${of('stayput_agent_moves_total', 'role="new-owner",result="denied"')}[$__range])))`,
              legend: '',
            },
          ],
          limits: { warning: 1 },
        }),
        number({
          title: 'Paths that failed',
          about: 'Silent paths that were left for another one.',
          unit: 'short',
          queries: [
            { expr: `round(sum(increase(${of('stayput_dataplane_path_failovers_total')}[$__range])))`, legend: '' },
          ],
          limits: { warning: 10 },
        }),
      ],
    },
    {
      title: 'Over time',
      figures: [
        lines({
          title: 'Handover',
          about:
            'Quantiles over the chosen agents, from a change of locators until a peer was heard through the new one.',
          unit: 's',
          queries: quantiles(HANDOVERS),
          limits: { warning: 0.25 },
        }),
        lines({
          title: 'Roams',
          about: 'Peers that were heard from another locator, by the host that heard them.',
          unit: 'ops',
          queries: [{ expr: rateBy('instance', 'stayput_dataplane_roams_total'), legend: '{{instance}}' }],
        }),
        lines({
          title: 'Moves',
          about: 'EIDs that came (new-owner) and went (old-owner), by outcome.',
          unit: 'ops',
          queries: [
            { expr: `${rateBy('role, result', 'stayput_agent_moves_total')} > 0`, legend: '{{role}}: {{result}}' },
            { expr: 'sum(rate(stayput_mapserver_moves_total[$__rate_interval]))', legend: 'at the map server' },
          ],
        }),
        lines({
          title: 'EIDs that are not at rest',
          about:
            'target: awaited here. drain: given away, late packets are sent on. base: not granted. lost: taken over.',
          unit: 'short',
          queries: [{ expr: `sum by (state) (${of('stayput_agent_eids', 'state!="live"')})`, legend: '{{state}}' }],
        }),
        lines({
          title: 'What agents say to one another',
          about:
            'claim, notice, handover and so on, by what became of them. unanswered: the other end is older, or gone.',
          unit: 'ops',
          queries: [
            {
              expr: `${rateBy('kind, result', 'stayput_agent_peer_messages_total')} > 0`,
              legend: '{{kind}}: {{result}}',
            },
          ],
        }),
        lines({
          title: 'Packets that were saved',
          about: 'Held until they could go, redirected to the new owner, sent again because a roam had lost them.',
          unit: 'pps',
          queries: [
            { expr: rateBy('', 'stayput_dataplane_held_packets_total'), legend: 'held' },
            { expr: rateBy('', 'stayput_dataplane_redirected_packets_total'), legend: 'redirected' },
            { expr: rateBy('', 'stayput_dataplane_retransmit_resent_total'), legend: 'sent again after a roam' },
            { expr: rateBy('', 'stayput_dataplane_resent_datagrams_total'), legend: 'could not leave at first' },
            { expr: rateBy('', 'stayput_dataplane_retransmit_duplicates_total'), legend: 'came twice, dropped' },
          ],
        }),
        lines({
          title: 'Handshakes',
          about: 'Each peer costs one at first and one in two minutes; many more mean that sessions break.',
          unit: 'ops',
          queries: [
            { expr: rateBy('', 'stayput_dataplane_handshakes_initiated_total'), legend: 'begun' },
            { expr: rateBy('', 'stayput_dataplane_handshakes_completed_total'), legend: 'completed' },
            { expr: rateBy('', 'stayput_dataplane_handshakes_rejected_total'), legend: 'rejected' },
          ],
        }),
        lines({
          title: 'Paths and uplinks',
          about: 'Of hosts with several addresses: paths left and taken back, uplinks found dead.',
          unit: 'ops',
          queries: [
            { expr: rateBy('', 'stayput_dataplane_path_failovers_total'), legend: 'path left' },
            { expr: rateBy('', 'stayput_dataplane_path_returns_total'), legend: 'path taken back' },
            { expr: rateBy('', 'stayput_dataplane_uplink_failures_total'), legend: 'uplink dead' },
          ],
        }),
      ],
    },
  ],
};
