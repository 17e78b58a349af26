/** What every daemon's registry holds of its process: prom-client's default metrics and which version it is. */
import { collectDefaultMetrics, Gauge, type Registry } from 'prom-client';
import { VERSION } from './project-root.ts';

/** `daemon`: the word after `stayput_`. */
export function collectProcessMetrics(registry: Registry, daemon: 'agent' | 'mapserver'): void {
  collectDefaultMetrics({ register: registry });
  for (const name of MISNAMED) registry.removeSingleMetric(name);
  const info = new Gauge({
    name: `stayput_${daemon}_build_info`,
    help: 'Always 1; the labels say which version runs on which Node',
    labelNames: ['version', 'node'],
    registers: [registry],
  });
  info.set({ version: VERSION, node: process.versions.node }, 1);
}

/** Gauges with the name of a counter, which promtool refuses; the same numbers are in those without `_total`. */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];
