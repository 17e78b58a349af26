/** `stayput bench dataplane` as it is typed; whether it measures, not what. Budget: 40 s. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FIGURE_NAMES } from '../../bench/figures.ts';
import { requireLab } from './require.ts';

requireLab();

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

describe('stayput bench dataplane', () => {
  it('prints exactly one JSON object with every figure of raw veth and Stayput, and leaves nothing behind', () => {
    const dir = mkdtempSync(join(tmpdir(), 'stayput-bench-test-'));
    try {
      const svg = join(dir, 'bench.svg');
      const short = ['--json', '--peers', 'none', '--rounds', '1', '--seconds', '1', '--svg', svg];
      const { stdout, stderr, status, pid } = bench(short);
      assert.equal(status, 0, stderr);
      const { machine, rows } = JSON.parse(stdout) as {
        machine: Record<string, unknown>;
        rows: { system: string; mtu: number; rounds: unknown[]; [figure: string]: unknown }[];
      };
      for (const key of ['kernel', 'cpu', 'cores', 'congestionControl', 'linkMtu', 'innerMtu', 'versions']) {
        assert.ok(machine[key] !== undefined, key);
      }
      assert.deepEqual(
        rows.map(({ system, mtu, rounds }) => [system, mtu, rounds.length]),
        [
          ['raw', 1500, 1],
          ['stayput', 1420, 1],
        ],
      );
      for (const row of rows) {
        for (const name of FIGURE_NAMES) {
          const figure = row[name];
          if (name === 'cpuSecondsPerGB' && row.system === 'raw') assert.equal(figure, null);
          else assert.ok(typeof figure === 'number' && figure > 0, `${row.system}: ${name} is ${figure}`);
        }
      }
      assert.match(readFileSync(svg, 'utf8'), /^<svg [\s\S]*<\/svg>\n$/);
      assert.deepEqual(
        readdirSync('/run/netns').filter((name) => name.startsWith(`sp${pid}-`)),
        [],
      );
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('refuses what it cannot do in one line, with exit code 2, before anything is built', () => {
    for (const [args, message] of [
      [['--rounds', '0'], /^stayput: --rounds 0: must be a whole number from 1 to 50\n$/],
      [['--rounds', '51'], /^stayput: --rounds 51: .*\n$/],
      [['--seconds', '1.5'], /^stayput: --seconds 1.5: .*\n$/],
      [['--peer', 'zerotier=/bin/true'], /^stayput: --peer zerotier=\/bin\/true: there is no peer zerotier.*\n$/],
      [['--peer', 'nebula=/dev/null'], /^stayput: --peer nebula=\/dev\/null: .*not an executable file\n$/],
      [['--peers', 'none', '--svg', '/does/not/exist.svg'], /^stayput: --svg \/does\/not\/exist.svg: ENOENT.*\n$/],
    ] as const) {
      const { stdout, stderr, status } = bench(args);
      assert.equal(status, 2, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    }
  });
});

function bench(args: readonly string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [MAIN, 'bench', 'dataplane', ...args], { encoding: 'utf8', timeout: 120_000 });
}
