import type { AgentGauges } from '../../agent/shell/metrics.ts';

/** Of an agent that has nothing. */
export const NO_GAUGES: AgentGauges = {
  fenced: false,
  certificateNotAfter: 0,
  mapServerConnected: true,
  dataplaneConnected: true,
  cache: { positive: 0, negative: 0, stale: 0, oldestMs: 0 },
  eids: { base: 0, target: 0, live: 0, drain: 0, lost: 0 },
  takenOver: 0,
  peers: 0,
  rlocs: { up: 0, down: 0, unknown: 0 },
  policy: { version: 0, rules: 0 },
};
