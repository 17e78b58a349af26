/** `stayput bench` as it is typed; whether it measures, not what. Budget: 40 s for each bench. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DNS_FIGURES } from '../../bench/dns.ts';
import { FIGURE_NAMES } from '../../bench/figures.ts';
import type { MapServerRow } from '../../bench/mapserver.ts';
import { requireLab } from './require.ts';

requireLab();

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

describe('stayput bench dataplane', () => {
  it('prints exactly one JSON object with every figure of raw veth and Stayput, and leaves nothing behind', () => {
    const dir = mkdtempSync(join(tmpdir(), 'stayput-bench-test-'));
    try {
      const svg = join(dir, 'bench.svg');
      const short = ['--json', '--peers', 'none', '--rounds', '1', '--seconds', '1', '--svg', svg];
      const { stdout, stderr, status, pid } = bench('dataplane', short);
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
      [['--rounds', '0'], /^stayput: --rounds: "0" is not a whole number from 1 to 50\n$/],
      [['--rounds', '51'], /^stayput: --rounds: "51" .*\n$/],
      [['--seconds', '1.5'], /^stayput: --seconds: "1.5" .*\n$/],
      [['--peer', 'zerotier=/bin/true'], /^stayput: --peer zerotier=\/bin\/true: there is no peer zerotier.*\n$/],
      [['--peer', 'nebula=/dev/null'], /^stayput: --peer nebula=\/dev\/null: .*not an executable file\n$/],
      [['--peers', 'none', '--svg', '/does/not/exist.svg'], /^stayput: --svg \/does\/not\/exist.svg: ENOENT.*\n$/],
    ] as const) {
      const { stdout, stderr, status } = bench('dataplane', args);
      assert.equal(status, 2, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    }
  });
});

describe('stayput bench dns', () => {
  it('prints exactly one JSON object with every figure, and leaves nothing behind', () => {
    const { stdout, stderr, status, pid } = bench('dns', ['--json', '--only', '--seconds', '1', '--names', '1000']);
    assert.equal(status, 0, stderr);
    const { machine, rows } = JSON.parse(stdout) as {
      machine: Record<string, unknown>;
      rows: { system: string; rounds: unknown[]; [figure: string]: unknown }[];
    };
    assert.deepEqual([machine.seconds, machine.names], [1, 1000]);
    assert.deepEqual(
      rows.map(({ system, rounds }) => [system, rounds.length]),
      [['stayput', 1]],
    );
    for (const name of DNS_FIGURES) assert.equal(typeof rows[0]?.[name], 'number', name);
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(`sp${pid}-`)),
      [],
    );
  });
});

describe('stayput bench handover', () => {
  it('prints exactly one JSON object with a row for each event and probe, and leaves nothing behind', () => {
    const lossy = ['--rtt', '2', '--loss', '1'];
    const short = ['--json', '--peers', 'none', '--repetitions', '1', '--events', 'roam,move', ...lossy];
    const { stdout, stderr, status, pid } = bench('handover', [...short, '--probes', 'udp-echo,tcp-bulk']);
    assert.equal(status, 0, stderr);
    const { machine, rows } = JSON.parse(stdout) as {
      machine: Record<string, unknown>;
      rows: { system: string; event: string; probe: string; n: number; [figure: string]: unknown }[];
    };
    for (const key of ['kernel', 'cpu', 'cores', 'rttMs', 'lossPct', 'delayAndLossBy', 'probesTogether', 'versions']) {
      assert.ok(machine[key] !== undefined, key);
    }
    assert.deepEqual(
      rows.map(({ system, event, probe, n }) => [system, event, probe, n]),
      ['roam', 'move'].flatMap((event) => ['udp-echo', 'tcp-bulk'].map((probe) => ['stayput', event, probe, 1])),
    );
    for (const row of rows) {
      for (const figure of ['gapMsP50', 'gapMsP99', 'gapMsMax', 'outageMsMax']) {
        assert.ok(typeof row[figure] === 'number' && row[figure] > 0, `${row.event} ${row.probe}: ${figure}`);
      }
      assert.deepEqual([row.cutOff, row.reset, row.duplicated], [0, 0, 0], `${row.event} ${row.probe}`);
      assert.equal(row.sha256Match, row.probe === 'tcp-bulk' ? 1 : null);
      assert.equal(typeof row.stallMs, row.probe === 'tcp-bulk' ? 'number' : 'object');
      assert.ok(Number(row.sent) > 500);
    }
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(`sp${pid}-`)),
      [],
    );
  });

  it('refuses what it cannot do in one line, with exit code 2, before anything is built', () => {
    for (const [args, message] of [
      [['--events', 'roam,fly'], /^stayput: --events: there is no fly; try roam, move, .*\n$/],
      [['--probes', ''], /^stayput: --probes: there is no empty name; try udp-echo, .*\n$/],
      [['--repetitions', '0'], /^stayput: --repetitions: "0" .*\n$/],
      [['--peer-repetitions', 'x'], /^stayput: --peer-repetitions: "x" .*\n$/],
      [['--rtt', '1001'], /^stayput: --rtt 1001: must be a number from 0 to 1000\n$/],
      [['--loss', '-1'], /^stayput: --loss -1: must be a number from 0 to 50\n$/],
      [
        ['--peers', 'openvpn'],
        /^stayput: --peers: there is no peer "openvpn"; known are wireguard-go, nebula, or none\n$/,
      ],
    ] as const) {
      const { stdout, stderr, status } = bench('handover', args);
      assert.equal(status, 2, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    }
  });
});

describe('stayput bench mappings', () => {
  it('prints one JSON object with a row for each number of mappings', () => {
    const dir = mkdtempSync(join(tmpdir(), 'stayput-bench-test-'));
    try {
      const svg = join(dir, 'mappings.svg');
      const short = ['--mappings', '1,2000', '--peers', '300', '--rounds', '1', '--seconds', '1'];
      const { stdout, stderr, status } = bench('mappings', ['--json', ...short, '--svg', svg]);
      assert.equal(status, 0, stderr);
      const { rows } = JSON.parse(stdout) as { rows: { rounds: unknown[]; [figure: string]: unknown }[] };
      assert.deepEqual(
        rows.map(({ mappings, rounds }) => [mappings, rounds.length]),
        [
          [1, 1],
          [2000, 1],
        ],
      );
      for (const row of rows) {
        for (const name of ['deliveredKpps', 'senderNs', 'receiverNs', 'senderMB']) {
          assert.ok(typeof row[name] === 'number' && row[name] > 0, `${name} is ${row[name]}`);
        }
      }
      assert.match(readFileSync(svg, 'utf8'), /^<svg [\s\S]*<\/svg>\n$/);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('refuses what it cannot do in one line, with exit code 2, before anything is built', () => {
    for (const [args, message] of [
      [['--mappings', '10,x'], /^stayput: --mappings x: must be whole numbers from 1 to 1000000, .*\n$/],
      [['--mappings', '0'], /^stayput: --mappings 0: .*\n$/],
      [['--peers', '10000'], /^stayput: --peers: "10000" .*\n$/],
    ] as const) {
      const { stdout, stderr, status } = bench('mappings', args);
      assert.equal(status, 2, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    }
  });
});

describe('stayput bench mapserver', () => {
  it('prints one JSON object with a row for each transport', () => {
    const { stdout, stderr, status } = bench('mapserver', ['--json', '--prefixes', '200', '--seconds', '1']);
    assert.equal(status, 0, stderr);
    const { rows } = JSON.parse(stdout) as { rows: MapServerRow[] };
    assert.deepEqual(
      rows.map(({ transport, register }) => [transport, register.answered]),
      [
        ['udp', 200],
        ['native', 200],
      ],
    );
    for (const { register, refresh, request } of rows) {
      for (const { perSecond, cpuUs } of [register, refresh, request]) assert.ok(perSecond > 0 && cpuUs >= 0);
    }
  });

  it('refuses what it cannot do in one line, with exit code 2', () => {
    const { stderr, status } = bench('mapserver', ['--prefixes', '0']);
    assert.equal(status, 2);
    assert.match(stderr, /^stayput: --prefixes: "0" is not a whole number from 1 to 1000000\n$/);
  });
});

function bench(name: string, args: readonly string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [MAIN, 'bench', name, ...args], { encoding: 'utf8', timeout: 120_000 });
}
