/** Metrics as the world of Prometheus wants them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
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
