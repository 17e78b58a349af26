/** The agents' DNS: how many questions, how fast, and how the resolvers of the place do. */
import type { Board } from './board.ts';
import { lines, number, of, quantiles, rate, rateBy } from './queries.ts';

export const DNS: Board = {
  uid: 'stayput-dns',
  title: 'Stayput: DNS',
  description: 'DNS of the chosen agents: names of the overlay, and what is forwarded to the resolvers of the place.',
  sections: [
    {
      title: 'Now',
      figures: [
        number({
          title: 'Questions',
          about: 'Per second, of all chosen hosts.',
          unit: 'ops',
          queries: [{ expr: `sum(${rate(of('stayput_agent_dns_queries_total'))})`, legend: '' }],
          width: 6,
        }),
        number({
          title: 'SERVFAIL',
          about: 'Share of answers that are none.',
          unit: 'percentunit',
          queries: [
            {
              expr: `(sum(${rate(of('stayput_agent_dns_queries_total', 'rcode="SERVFAIL"'))}) or vector(0)) / sum(${rate(of('stayput_agent_dns_queries_total'))})`,
              legend: '',
            },
          ],
          limits: { warning: 0.05, critical: 0.2 },
          width: 6,
        }),
        number({
          title: 'From the cache',
          about: 'Share of forwarded questions.',
          unit: 'percentunit',
          queries: [
            {
              expr: `sum(${rate(of('stayput_agent_dns_cache_total', 'result="hit"'))}) / sum(${rate(of('stayput_agent_dns_cache_total'))})`,
              legend: '',
            },
          ],
          width: 6,
        }),
        number({
          title: 'Hosts without resolver',
          about: 'All resolvers of these hosts left the last questions unanswered.',
          unit: 'short',
          queries: [
            {
              expr: `count(min by (instance, xtr_id) (${of('stayput_agent_dns_upstream_failures')}) > 3) or vector(0)`,
              legend: '',
            },
          ],
          limits: { critical: 1 },
          width: 6,
        }),
      ],
    },
    {
      title: 'Questions and answers',
      figures: [
        lines({
          title: 'Questions by zone and answer',
          about: 'overlay: answered by the agent itself. forward: asked of the resolvers of the place.',
          unit: 'ops',
          queries: [{ expr: rateBy('zone, rcode', 'stayput_agent_dns_queries_total'), legend: '{{zone}} {{rcode}}' }],
        }),
        lines({
          title: 'Questions by type',
          about: 'Rare ones are “other”.',
          unit: 'ops',
          queries: [{ expr: rateBy('type', 'stayput_agent_dns_queries_total'), legend: '{{type}}' }],
        }),
        lines({
          title: 'Time to an answer, overlay',
          about: 'Known names take microseconds; new ones a round trip to the map server.',
          unit: 's',
          queries: quantiles(of('stayput_agent_dns_query_seconds_bucket', 'zone="overlay"')),
          limits: { warning: 0.1 },
        }),
        lines({
          title: 'Time to an answer, forwarded',
          about: 'Mostly the time of the resolvers.',
          unit: 's',
          queries: quantiles(of('stayput_agent_dns_query_seconds_bucket', 'zone="forward"')),
        }),
      ],
    },
    {
      title: 'Cache and resolvers',
      figures: [
        lines({
          title: 'What the cache had',
          about: 'stale: an expired answer was given since no resolver answered.',
          unit: 'ops',
          queries: [{ expr: rateBy('result', 'stayput_agent_dns_cache_total'), legend: '{{result}}' }],
        }),
        lines({
          title: 'Cached answers',
          about: 'Of other resolvers, by host.',
          unit: 'short',
          queries: [{ expr: of('stayput_agent_dns_cache_entries'), legend: '{{instance}}' }],
        }),
        lines({
          title: 'Resolvers: time to answer',
          about: 'Smoothed. The fastest that works is asked.',
          unit: 's',
          queries: [{ expr: of('stayput_agent_dns_upstream_rtt_seconds'), legend: '{{instance}}: {{upstream}}' }],
        }),
        lines({
          title: 'Resolvers: unanswered in a row',
          about: 'Zero for those that work.',
          unit: 'short',
          queries: [{ expr: of('stayput_agent_dns_upstream_failures'), legend: '{{instance}}: {{upstream}}' }],
          limits: { warning: 4 },
        }),
      ],
    },
  ],
};
