/** `stayput demo` as it is typed. Budget: one scene within 60 s. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { requireLab } from './require.ts';

requireLab();

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

describe('stayput demo', () => {
  it('prints exactly one JSON object on stdout with --json, leaves nothing behind and exits with 0', () => {
    const { stdout, stderr, status, pid } = stayputDemo(['--json', '--scene', 'roam']);
    assert.equal(status, 0, stderr);
    const report = JSON.parse(stdout) as { scenes: Record<string, unknown>[]; ok: boolean };
    assert.equal(report.ok, true);
    assert.equal(report.scenes.length, 1);
    const [scene] = report.scenes;
    assert.equal(scene?.name, 'roam');
    for (const key of ['tcpLongestGapMs', 'tcpResets', 'udpSent', 'udpLost', 'udpDuplicated']) {
      assert.equal(typeof scene?.[key], 'number', key);
    }
    assert.equal(scene?.sha256Match, true);
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(`sp${pid}-`)),
      [],
    );
  });

  it('names the scenes there are when it is asked for another: one line, exit code 2', () => {
    const { stdout, stderr, status } = stayputDemo(['--scene', 'teleport']);
    assert.equal(status, 2);
    assert.equal(stdout, '');
    assert.match(stderr, /^stayput: there is no scene teleport: try roam, move, crash or all\n$/);
  });
});

function stayputDemo(args: readonly string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [MAIN, 'demo', ...args], { encoding: 'utf8', timeout: 120_000 });
}
