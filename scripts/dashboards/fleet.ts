/** All agents and the map server at a glance: is the overlay well, and if not, who is not? */
import type { Board } from './board.ts';
import { lines, number, of, rate, table } from './queries.ts';

const SERVER = '{job="stayput-mapserver"}';

export const FLEET: Board = {
  uid: 'stayput-fleet',
  title: 'Stayput: fleet',
  description: 'All agents and the map server: is the overlay well, and if not, who is not?',
  sections: [
    {
      title: 'At a glance',
      figures: [
        number({
          title: 'Agents that answer',
          about: 'Agents whose metrics Prometheus could read.',
          unit: 'short',
          queries: [{ expr: 'stayput:agents:up', legend: '' }],
        }),
        number({
          title: 'Do not answer',
          about: 'Agents on the list whose metrics could not be read. Their data planes may go on.',
          unit: 'short',
          queries: [{ expr: 'count(up{job="stayput-agent"} == 0) or vector(0)', legend: '' }],
          limits: { warning: 1 },
        }),
        number({
          title: 'Without data plane',
          about: 'Nothing is forwarded on these hosts.',
          unit: 'short',
          queries: [{ expr: 'count(stayput_agent_dataplane_connected == 0) or vector(0)', legend: '' }],
          limits: { critical: 1 },
        }),
        number({
          title: 'Without map server',
          about: 'These go on with what they know, and learn of nothing new.',
          unit: 'short',
          queries: [{ expr: 'count(stayput_agent_map_server_connected == 0) or vector(0)', legend: '' }],
          limits: { warning: 1 },
        }),
        number({
          title: 'Fenced',
          about: 'Copies of other agents, which do nothing until an operator decides.',
          unit: 'short',
          queries: [{ expr: 'sum(stayput_agent_fenced)', legend: '' }],
          limits: { critical: 1 },
        }),
        number({
          title: 'Alerts',
          about: 'Alerts of Stayput that fire. docs/troubleshooting.md has a section for each.',
          unit: 'short',
          queries: [{ expr: 'count(ALERTS{alertname=~"Stayput.*",alertstate="firing"}) or vector(0)', legend: '' }],
          limits: { warning: 1 },
        }),
      ],
    },
    {
      title: 'Agents',
      figures: [
        lines({
          title: 'Agents',
          about: 'Enrolled, and those with a session. The difference are hosts that are away, or gone for good.',
          unit: 'short',
          queries: [
            { expr: 'stayput_mapserver_agents', legend: 'enrolled' },
            { expr: 'stayput_mapserver_sessions', legend: 'connected' },
          ],
        }),
        lines({
          title: 'EIDs by state',
          about:
            'live: owned here. target: awaited. base: not granted. drain: given away a moment ago. lost: taken over.',
          unit: 'short',
          queries: [{ expr: `sum by (state) (${of('stayput_agent_eids')})`, legend: '{{state}}' }],
        }),
        table({
          title: 'Versions',
          about: 'Neighbours may differ by one version.',
          unit: 'short',
          queries: [{ expr: `count by (version, node) (${of('stayput_agent_build_info')})`, legend: '' }],
        }),
        table({
          title: 'Places',
          about: 'Clouds and zones that the agents are in, as far as these say.',
          unit: 'short',
          queries: [{ expr: `count by (platform, region, zone) (${of('stayput_agent_platform_info')})`, legend: '' }],
        }),
        lines({
          title: 'Certificates end in',
          about: 'Of the agents; the soonest is the one that matters. They are renewed at two thirds of their life.',
          unit: 'dtdurations',
          queries: [
            { expr: `min(${of('stayput_agent_certificate_not_after_seconds')}) - time()`, legend: 'soonest agent' },
            {
              expr: 'stayput_mapserver_certificate_not_after_seconds - time()',
              legend: 'map server: {{certificate}}',
            },
          ],
        }),
        lines({
          title: 'Memory',
          about: 'Resident. The data plane has its own process.',
          unit: 'bytes',
          queries: [
            { expr: of('process_resident_memory_bytes', 'job="stayput-agent"'), legend: '{{instance}} agent' },
            { expr: of('stayput_dataplane_rss_bytes'), legend: '{{instance}} data plane' },
          ],
        }),
      ],
    },
    {
      title: 'Map server',
      figures: [
        lines({
          title: 'Registrations',
          about:
            'EID-records of Map-Registers by what became of them. taken: a change of owner, which is written to disk.',
          unit: 'ops',
          queries: [
            { expr: `sum by (result) (${rate('stayput_mapserver_registrations_total')})`, legend: '{{result}}' },
          ],
        }),
        lines({
          title: 'Map-Requests and Map-Notifies',
          about: 'Questions of agents by answer, and what they are told.',
          unit: 'ops',
          queries: [
            { expr: `sum by (result) (${rate('stayput_mapserver_map_requests_total')})`, legend: '{{result}}' },
            { expr: `sum by (kind) (${rate('stayput_mapserver_map_notifies_total')})`, legend: 'notify: {{kind}}' },
          ],
        }),
        lines({
          title: 'Commits of the store',
          about: 'How long a change of owner takes to be on the disk.',
          unit: 's',
          queries: [0.5, 0.99].map((quantile) => ({
            expr: `histogram_quantile(${quantile}, sum by (le) (${rate('stayput_mapserver_store_commit_seconds_bucket')}))`,
            legend: `${quantile * 100} %`,
          })),
          limits: { warning: 0.1 },
        }),
        lines({
          title: 'What it holds',
          about: 'EIDs and names that are answered, and who follows them.',
          unit: 'short',
          queries: [
            { expr: 'stayput_mapserver_mappings', legend: 'EIDs' },
            { expr: 'stayput_mapserver_names', legend: 'names' },
            { expr: 'stayput_mapserver_subscriptions', legend: 'subscriptions' },
          ],
        }),
        lines({
          title: 'Refused',
          about: 'Connections and messages by reason, and limits that were reached.',
          unit: 'ops',
          queries: [
            { expr: `sum by (reason) (${rate('stayput_mapserver_rejected_total')}) > 0`, legend: '{{reason}}' },
            { expr: `sum by (limit) (${rate('stayput_mapserver_limit_hits_total')}) > 0`, legend: 'limit: {{limit}}' },
          ],
          nothing: 'nobody was refused',
        }),
        lines({
          title: 'Load of its process',
          about: 'It uses one CPU. What waits for the store is counted as well.',
          unit: 'short',
          queries: [
            { expr: rate(`process_cpu_seconds_total${SERVER}`), legend: 'CPUs' },
            { expr: `nodejs_eventloop_lag_p99_seconds${SERVER}`, legend: 'event loop lag, 99 %, seconds' },
            { expr: 'stayput_mapserver_pending', legend: 'waits for the store' },
          ],
        }),
      ],
    },
  ],
};
