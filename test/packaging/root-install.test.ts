/**
 * The Debian package on real Debians, from the installation to the purge, with systemd and its confinement of the units
 * at work. Budget of the whole: two minutes.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { VERSION } from '../../runtime/project-root.ts';
import { requireLab } from '../e2e/require.ts';
import { type DebianRoot, FRESH_ROOT, missingDebianRoot } from '../lab/debian-root.ts';
import { startServer, Traffic, type TrafficResult } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { HOSTS, type HostName, NEXT_PACKAGE, NEXT_VERSION, PACKAGE, RootWorld, reaches, status } from './root-world.ts';

requireLab();

describe('the package on a Debian', { skip: missingDebianRoot() ?? false }, () => {
  let world: RootWorld;
  const fresh = new Map<DebianRoot, Machine>();

  before(async () => {
    world = await RootWorld.build('package');
    for (const root of world.roots) fresh.set(root, await machine(root));
  });
  after(() => world?.close());

  it('is installed without network, and starts and enables nothing', async () => {
    await Promise.all(world.roots.map((root) => world.install(root)));
    for (const root of world.roots) {
      const { stdout } = await root.exec(['systemctl', 'list-unit-files', '--output=json', 'stayput*']);
      const units = JSON.parse(stdout) as { unit_file: string; state: string }[];
      assert.ok(units.length >= 6);
      for (const { unit_file, state } of units) {
        assert.equal(state, 'disabled', unit_file);
        assert.equal(await root.isActive(unit_file), false, unit_file);
      }
      assert.equal((await root.exec(['systemctl', 'is-system-running'])).stdout.trim(), 'running');
      assert.equal((await root.exec(['stayput', '--version'])).stdout.trim(), VERSION);
    }
  });

  it('is registered within a minute from there', async (t) => {
    await world.initialise();
    for (const name of NAMES) {
      const token = await world.token(name);
      const started = performance.now();
      await world.join(name, token);
      await world.ready(world[name]);
      const seconds = (performance.now() - started) / 1000;
      t.diagnostic(`${name}: ${seconds.toFixed(1)} s from the token to registered`);
      assert.ok(seconds < 60, `${seconds}`);
    }
    await reaches(world.web, HOSTS.db);
    await world.web.exec(['stayput', 'ping', 'db']);
    const { stdout } = await world.web.exec(['dig', '+short', '@127.0.0.1', 'db.stayput.internal']);
    assert.equal(stdout.trim(), HOSTS.db);
  });

  it('runs each daemon as a user of its own, with the rights that its unit says and no others', async (t) => {
    const resident = new Map<string, number>();
    for (const [root, unit, user, capabilities] of [
      [world.mapServer, 'stayput-mapserver', 'stayput-mapserver', ''],
      [world.db, 'stayput-agent', 'stayput', 'cap_net_bind_service'],
      [world.db, 'stayput-dataplane', 'stayput-dataplane', 'cap_net_admin,cap_net_raw'],
    ] as const) {
      const pid = await root.property(unit, 'MainPID');
      const { stdout } = await root.exec(['cat', `/proc/${pid}/status`]);
      const field = (name: string): string => new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(stdout)?.[1] ?? '';
      const { stdout: uid } = await root.exec(['id', '--user', user]);
      assert.equal(field('Uid'), uid.trim(), unit);
      for (const set of ['CapPrm', 'CapEff', 'CapBnd']) assert.equal(field(set), bits(capabilities), `${unit} ${set}`);
      assert.equal(field('NoNewPrivs'), '1', unit);
      assert.equal(field('Seccomp'), '2', unit);
      resident.set(unit, Math.round(Number(field('VmRSS')) / 1024));
      assert.doesNotMatch(await root.journal(unit), /refused|denied|EPERM|EACCES/i);
    }
    t.diagnostic(`MiB resident: ${[...resident].map(([unit, size]) => `${unit} ${size}`).join(', ')}`);
    const { stdout } = await world.db.exec(['journalctl', '--unit=stayput-dataplane', '--output=cat']);
    assert.match(stdout, /"sandbox":"landlock,seccomp"/);
  });

  it('starts what was killed again, and connections stay open', async () => {
    const result = await underTraffic(world, async () => {
      for (const [root, unit] of [
        [world.db, 'stayput-agent'],
        [world.db, 'stayput-dataplane'],
        [world.mapServer, 'stayput-mapserver'],
      ] as const) {
        const before = await root.property(unit, 'MainPID');
        await root.exec(['systemctl', 'kill', '--signal=KILL', unit]);
        const isAgain = async (): Promise<boolean> => {
          const pid = await root.property(unit, 'MainPID');
          return pid !== '0' && pid !== before && (await root.isActive(unit));
        };
        await waitFor(`${unit} again`, isAgain);
      }
      for (const name of NAMES) await world.ready(world[name]);
    });
    unbroken(result);
  });

  it('starts an agent again that stands still, and connections stay open', async () => {
    const result = await underTraffic(world, async () => {
      const before = await world.db.property('stayput-agent', 'MainPID');
      // What it really is would take the watchdog's half a minute.
      await world.db.exec(`mkdir -p /run/systemd/system/stayput-agent.service.d
                           printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/stayput-agent.service.d/test.conf
                           systemctl daemon-reload && systemctl restart stayput-agent`);
      await world.ready(world.db);
      const pid = await world.db.property('stayput-agent', 'MainPID');
      assert.notEqual(pid, before);
      await world.db.exec(['kill', '-STOP', pid]);
      const isKilled = async (): Promise<boolean> => /watchdog timeout/i.test(await world.db.journal('stayput-agent'));
      await waitFor('the watchdog', isKilled);
      await world.db.exec('rm -r /run/systemd/system/stayput-agent.service.d && systemctl daemon-reload');
      await world.ready(world.db);
    });
    unbroken(result);
  });

  it('has no session while the machine sleeps, which it may, and goes on afterwards', async () => {
    const { db, web } = world;
    assert.equal((await db.exec(['systemctl', 'is-enabled', 'stayput-sleep'])).stdout.trim(), 'enabled');
    await reaches(web, HOSTS.db);
    const sessions = "curl -s 127.0.0.1:9341/metrics | sed -n 's/^stayput_dataplane_sessions //p'";
    assert.equal((await db.exec(sessions)).stdout.trim(), '1');
    // As systemd-suspend.service, which cannot put a container to sleep.
    await db.exec('cat > /run/systemd/system/pretended-sleep.service', {
      input: `[Unit]\nRequires=sleep.target\nAfter=sleep.target\n[Service]\nType=oneshot\nExecStart=sh -c "${sessions} > /run/asleep"\n`,
    });
    await db.exec(['systemctl', 'daemon-reload']);
    const sleepFor = async (): Promise<void> => {
      await db.exec(['systemctl', 'start', 'pretended-sleep']);
      await waitFor('awake', async () => (await db.property('stayput-sleep', 'ActiveState')) === 'inactive');
    };
    await sleepFor();
    assert.equal((await db.exec(['cat', '/run/asleep'])).stdout.trim(), '0');
    const says = (words: RegExp): Promise<unknown> =>
      waitFor(`${words} in the journal`, async () => words.test(await db.journal('stayput-sleep')));
    await says(/Ready to sleep: the keys of 1 session are forgotten/);
    await says(/Awake: active peers are spoken to/);
    await reaches(web, HOSTS.db);
    await db.exec(['systemctl', 'stop', 'stayput-agent']);
    await sleepFor();
    await says(/no answer from the agent/);
    assert.equal(await db.property('stayput-sleep', 'Result'), 'success');
    await db.exec(['systemctl', 'start', 'stayput-agent']);
    await world.ready(db);
  });

  it('reads its configuration again without a restart, and keeps its session', async () => {
    const pid = await world.db.property('stayput-agent', 'MainPID');
    await world.db.exec('cat > /etc/stayput/agent.json', { input: '{ "logLevel": "debug" }' });
    await world.db.exec(['systemctl', 'reload', 'stayput-agent']);
    assert.equal(await world.db.property('stayput-agent', 'MainPID'), pid);
    assert.equal((await status(world.db)).healthy, true);
    await world.db.exec('echo nonsense > /etc/stayput/agent.json');
    const { code, stderr } = await world.db.exec(['stayput', 'agent', 'reload'], { anyExit: true });
    assert.notEqual(code, 0);
    assert.match(stderr, /agent\.json/);
    await world.db.exec(['rm', '/etc/stayput/agent.json']);
    await world.db.exec(['systemctl', 'reload', 'stayput-agent']);
    assert.equal((await status(world.db)).healthy, true);
  });

  it('keeps questions in the DNS socket while the agent is away', async () => {
    const { db } = world;
    await db.exec(`systemctl stop stayput-agent
                   systemctl enable --now stayput-agent-dns.socket
                   systemctl start stayput-agent`);
    await world.ready(db);
    await db.exec(['systemctl', 'kill', '--signal=KILL', 'stayput-agent']);
    const { stdout } = await db.exec([
      'dig',
      '+short',
      '+timeout=20',
      '+tries=1',
      '@127.0.0.1',
      'web.stayput.internal',
    ]);
    assert.equal(stdout.trim(), HOSTS.web);
    await db.exec(['systemctl', 'disable', '--now', 'stayput-agent-dns.socket']);
    await db.exec(['systemctl', 'restart', 'stayput-agent']);
    await world.ready(db);
  });

  it('is there again after a reboot, without anybody', async () => {
    await world.db.stop();
    await world.db.start();
    await world.ready(world.db);
    await reaches(world.web, HOSTS.db);
  });

  for (const [what, deb, version] of [
    ['upgraded to the next version', NEXT_PACKAGE, NEXT_VERSION],
    ['put back to the version before', PACKAGE, VERSION],
  ] as const) {
    it(`is ${what} under traffic, no connection is lost, and the configuration stays`, async (t) => {
      if (deb === NEXT_PACKAGE) world.provideNext();
      const setting = `# ${what}\nOPTIONS=--outer-ttl copy\n`;
      await world.db.exec('cat > /etc/stayput/dataplane.env', { input: setting });
      const result = await underTraffic(world, async () => {
        for (const root of world.roots) await world.install(root, deb);
        for (const name of NAMES) {
          const isThere = async (): Promise<boolean> => (await status(world[name])).version === version;
          await waitFor(`${name} at ${version}`, isThere);
          await world.ready(world[name]);
        }
      });
      unbroken(result);
      t.diagnostic(`longest gap ${result.tcpLongestGapMs} ms, ${result.udpLost} of ${result.udpSent} datagrams lost`);
      assert.equal((await world.db.exec(['cat', '/etc/stayput/dataplane.env'])).stdout, setting);
      assert.equal((await world.mapServer.exec(['stayput', '--version'])).stdout.trim(), version);
    });
  }

  it('leaves nothing behind when it is purged', async () => {
    for (const root of world.roots) {
      await root.exec(['dpkg', '--purge', 'stayput'], { timeoutMs: 60_000 });
      assert.deepEqual(await machine(root), fresh.get(root));
    }
  });
});

interface Machine {
  readonly files: readonly string[];
  readonly accounts: string;
  readonly interfaces: readonly string[];
  readonly routes: string;
  readonly units: string;
}

/** What a package could leave on a machine. */
async function machine(root: DebianRoot): Promise<Machine> {
  const { stdout: links } = await root.exec(['ip', '-json', 'link']);
  const { stdout: routes } = await root.exec(
    'ip route show table all; ip -6 route show table all; ip rule; ip -6 rule',
  );
  const { stdout: units } = await root.exec("systemctl list-units --all --plain --no-legend 'stayput*'");
  return {
    files: [...below(root.layer, '', FRESH_ROOT), ...below(root.path('/run'), 'run')],
    accounts: ['passwd', 'group', 'shadow', 'gshadow'].map((name) => readFileSync(root.path(`/etc/${name}`))).join(''),
    interfaces: (JSON.parse(links) as { ifname: string }[]).map(({ ifname }) => ifname).sort(),
    routes: routes.replaceAll(/ expires \d+sec/g, ''),
    units,
  };
}

/** Paths of what is not as in the folder it is compared with; a folder is, if it is in both. */
function below(folder: string, prefix: string, compared?: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(prefix, entry.name);
      if (OF_THE_SYSTEM.test(path)) return [];
      const here = join(folder, entry.name);
      const there = compared === undefined ? undefined : join(compared, entry.name);
      if (entry.isDirectory()) {
        const known = there !== undefined && existsSync(there);
        return [...(known ? [] : [path]), ...below(here, path, known ? there : undefined)];
      }
      const same = there !== undefined && entry.isFile() && existsSync(there) && sameContent(here, there);
      return same ? [] : [path];
    })
    .sort();
}

function sameContent(one: string, other: string): boolean {
  return readFileSync(one).equals(readFileSync(other));
}

async function underTraffic(world: RootWorld, event: () => Promise<void>): Promise<TrafficResult> {
  const server = await startServer(world.db.host, HOSTS.db);
  try {
    const traffic = await Traffic.start(world.web.host, {
      address: HOSTS.db,
      url: `http://${HOSTS.db}`,
      downloadBytes: 4_000_000,
      downloadRate: 1_000_000,
      datagramsPerSecond: 100,
    });
    await event();
    return await traffic.finish();
  } finally {
    await server.stop();
  }
}

function unbroken(result: TrafficResult): void {
  assert.deepEqual([result.tcpAlive, result.sha256Match, result.tcpResets], [true, true, 0]);
}

function bits(names: string): string {
  const set = names === '' ? [] : names.split(',').map((name) => CAPABILITIES[name] ?? Number.NaN);
  return set
    .reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n)
    .toString(16)
    .padStart(16, '0');
}

/** Three systemds start programs on one machine. */
const NAMES = Object.keys(HOSTS) as HostName[];
/** linux/capability.h */
const CAPABILITIES: Readonly<Record<string, number>> = { cap_net_bind_service: 10, cap_net_admin: 12, cap_net_raw: 13 };
/** What the system writes by itself at any time, and what the test has put there. */
const OF_THE_SYSTEM =
  /^(var\/(log|tmp|cache|lib\/(dpkg|systemd|dbus))|tmp|root|run\/(systemd|log|dbus|credentials|user|sudo|lock|initctl|utmp|host))(\/|$)|^etc\/(hosts|passwd-|group-|shadow-|gshadow-|\.pwd\.lock|ld\.so\.cache|machine-id)$/;
