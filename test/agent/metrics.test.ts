import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AgentMetrics } from '../../agent/shell/metrics.ts';
import { NO_GAUGES } from './gauges.ts';

test('counters of what becomes of something are 0 before it first does', async () => {
  const metrics = new AgentMetrics(
    () => NO_GAUGES,
    () => Promise.resolve(null),
  );
  const text = await metrics.registry.metrics();
  const results = (name: string) =>
    [...text.matchAll(new RegExp(`^stayput_agent_${name}_total\\{result="([a-z]+)"\\} 0$`, 'gm'))].map(([, of]) => of);
  assert.deepEqual(results('lisp_messages').sort(), [
    ...['acknowledged', 'answered', 'ignored', 'limited', 'malformed', 'notified', 'probed', 'refused', 'resolved'],
    ...['solicited', 'unauthentic'],
  ]);
  assert.deepEqual(results('lisp_registrations').sort(), ['accepted', 'taken', 'unanswered']);
  assert.deepEqual(results('rloc_probes').sort(), ['answered', 'unanswered']);
});

test('odd names from the data plane are left out and cost the others nothing', async () => {
  const stats = {
    counters: { 'drop.auth': 2, drop: 1, x: 1, 'x.y': 2, 'A B': 1, 'evil"}\n': 1, rekeys: 7 },
    gauges: { x_total: 1, sessions: 3, évil: 1 },
  };
  const metrics = new AgentMetrics(
    () => NO_GAUGES,
    () => Promise.resolve(stats),
  );
  for (let scrape = 0; scrape < 2; scrape++) {
    const text = await metrics.registry.metrics();
    const lines = text.split('\n').filter((line) => line.startsWith('stayput_dataplane_'));
    assert.deepEqual(lines.sort(), [
      'stayput_dataplane_drops_total{reason="auth"} 2',
      'stayput_dataplane_rekeys_total 7',
      'stayput_dataplane_sessions 3',
      'stayput_dataplane_x_total 1',
    ]);
  }
});
