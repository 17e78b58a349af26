/** The Ansible role with the real Ansible over real SSH, on hosts that have sshd and Python. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { DisposableRoot } from '../lab/disposable-root.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { smallPackage } from '../lab/small-package.ts';
import { sshLogin, startSshd } from '../lab/sshd.ts';
import { requireLab } from './require.ts';

requireLab();

const ROLE = join(PROJECT_ROOT, 'deploy/ansible');

describe('Ansible', () => {
  let lab: Lab;
  let operator: Attachment;
  let hosts: readonly [Attachment, Attachment];
  let mapServer: DisposableRoot;
  let db: DisposableRoot;
  let inventory: string;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'ansible' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    operator = await internet.attach('operator', 'a');
    hosts = [await internet.attach('mapserver', 'a'), await internet.attach('db', 'a')];
    [mapServer, db] = [await DisposableRoot.mount(hosts[0].host), await DisposableRoot.mount(hosts[1].host)];
    for (const [i, root] of [mapServer, db].entries()) {
      await startSshd(root.host, hosts[i]!.address4, operator.host, root);
    }
    inventory = join(lab.dir, 'inventory.json');
    mkdirSync(join(lab.dir, 'home'));
    writeInventory(smallPackage(lab.dir, dataplane));
  });
  after(() => lab?.close());

  function writeInventory(archive: string, agentConfig: object = {}): void {
    const [map, agent] = hosts;
    const children = {
      stayput_mapserver: { hosts: { map: { ansible_host: map.address4 } } },
      stayput_agents: {
        hosts: {
          db: {
            ansible_host: agent.address4,
            stayput_eids: ['10.77.0.5/32'],
            stayput_names: ['db'],
            stayput_agent_config: agentConfig,
          },
        },
      },
    };
    const vars = {
      ansible_user: 'root',
      ansible_python_interpreter: '/usr/bin/python3',
      stayput_package: archive,
      stayput_overlay: ['10.77.0.0/16'],
    };
    writeFileSync(inventory, JSON.stringify({ all: { vars, children } }));
  }

  async function play(...options: readonly string[]): Promise<{ readonly output: string; readonly changed: number }> {
    const home = join(lab.dir, 'home');
    const env = {
      HOME: home,
      LC_ALL: 'C.UTF-8',
      ANSIBLE_LOCAL_TEMP: home,
      ANSIBLE_PIPELINING: 'true',
      ANSIBLE_NOCOLOR: 'true',
      ANSIBLE_SSH_CONTROL_PATH_DIR: home,
      ANSIBLE_SSH_ARGS: [
        ...sshLogin(operator.host).slice(1),
        '-o',
        'ControlMaster=auto',
        '-o',
        'ControlPersist=60',
      ].join(' '),
    };
    const command = ['ansible-playbook', '-i', inventory, ...options, join(ROLE, 'site.yml')];
    const { code, stdout, stderr } = await operator.host.exec(command, { env, timeoutMs: 180_000, anyExit: true });
    assert.equal(code, 0, `${stdout.slice(-4000)}${stderr}`);
    const recap = [...stdout.matchAll(/^(\w+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0 /gm)];
    assert.equal(recap.length, 2, stdout.slice(-2000));
    return { output: stdout + stderr, changed: recap.reduce((sum, line) => sum + Number(line[2]), 0) };
  }

  it('has a role that ansible-lint is content with', () => {
    const env = { ...process.env, HOME: join(lab.dir, 'home'), LC_ALL: 'C.UTF-8' };
    const options = ['--offline', '--nocolor', '-q', '--profile', 'production', 'site.yml', 'roles'];
    execFileSync('ansible-lint', options, { cwd: ROLE, env, stdio: 'pipe' });
  });

  it('in check mode, on hosts without anything, foretells and does nothing', async () => {
    const { changed } = await play('--check');
    assert.ok(changed > 0);
    for (const root of [mapServer, db]) {
      assert.equal(existsSync(root.path('/usr/bin/stayput')), false);
      assert.equal(existsSync(root.path('/var/cache/stayput')), false);
    }
  });

  it('installs, makes the overlay and joins, and shows no token at any verbosity', async () => {
    const { output } = await play('-vvv');
    assert.ok(!output.includes('stp1.'));
    await db.registered(mapServer, '10.77.0.5/32');
    const enabled = await db.exec(['systemctl', 'is-enabled', 'stayput-agent']);
    assert.equal(enabled.stdout.trim(), 'enabled');
  });

  it('changes nothing the second time', async () => {
    assert.equal((await play()).changed, 0);
    const tokens = await mapServer.stayput(['token', 'list', '--json']);
    assert.equal((JSON.parse(tokens.stdout) as unknown[]).length, 1);
  });

  it('restarts the agent when its configuration changes, which keeps its identity', async () => {
    const running = (): Promise<string> => db.exec(['cat', PID]).then(({ stdout }) => stdout);
    const [pid, identity] = [await running(), db.read(IDENTITY)];
    writeInventory(join(lab.dir, 'stayput_0.1.0_all.deb'), { logLevel: 'debug' });
    assert.equal((await play()).changed, 2);
    assert.notEqual(await running(), pid);
    assert.equal(db.read(IDENTITY), identity);
    await db.registered(mapServer, '10.77.0.5/32');
  });
});

/** Of the stand-in of systemctl. */
const PID = '/run/stand-in/stayput-agent.service.pid';
const IDENTITY = '/var/lib/stayput/agent/identity.json';
