/** Metrics as the world of Prometheus wants them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { agentExport, mapServerExport } from './exports.ts';
import { PROMTOOL_MISSING, promtool } from './promtool.ts';

for (const [daemon, exported] of [
  ['agent, with the data plane', agentExport],
  ['map server', mapServerExport],
] as const) {
  test(`promtool is content with all metrics of the ${daemon}`, { skip: PROMTOOL_MISSING }, async () => {
    assert.equal(promtool(['check', 'metrics'], await exported()), '');
  });

  test(`every metric of the ${daemon} has a help text of its own`, async () => {
    const seen = new Map<string, string>();
    for (const [, name = '', help = ''] of (await exported()).matchAll(/^# HELP (stayput_\S+) (.*)$/gm)) {
      assert.ok(help.length >= 8, `${name}: ${help}`);
      assert.doesNotMatch(help, /newer data plane/, name);
      if (!name.startsWith('stayput_dataplane_')) continue;
      assert.equal(seen.get(help), undefined, `${name} and ${seen.get(help)} say the same`);
      seen.set(help, name);
    }
  });
}

test('promtool would complain of a counter without a unit', { skip: PROMTOOL_MISSING }, () => {
  const text = '# HELP stayput_moves EIDs\n# TYPE stayput_moves counter\nstayput_moves 1\n';
  assert.match(promtool(['check', 'metrics'], text), /counter metrics should have "_total" suffix/);
});

test('what alerts wait for is there from the start: a counter that appears with its first event has no increase', async () => {
  const exported = (await agentExport()) + (await mapServerExport());
  const rules = readFileSync(join(PROJECT_ROOT, 'deploy/prometheus/stayput-alerts.rules.yml'), 'utf8');
  const waited = [...rules.matchAll(/increase\((stayput_\w+)(?:\{([^}]*)\})?\[/g)];
  assert.ok(waited.length > 10);
  for (const [, name = '', matchers = ''] of waited) {
    if (name === 'stayput_mapserver_enrolments_total') continue;
    for (const [, label = '', operator, values = ''] of matchers.matchAll(/(\w+)(=~|=)"([^"]*)"/g)) {
      for (const value of operator === '=~' ? values.split('|') : [values]) {
        const series = exported.split('\n').filter((line) => line.startsWith(`${name}{`));
        assert.ok(
          series.some((line) => line.includes(`${label}="${value}"`)),
          `${name}{${label}="${value}"}`,
        );
      }
    }
  }
});
