/** The Terraform modules, with the real program and nothing downloaded: user data, and hosts that have nothing but SSH. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { findProgram } from '../../runtime/programs.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { DisposableRoot } from '../lab/disposable-root.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { smallPackage } from '../lab/small-package.ts';
import { sshLogin, startSshd } from '../lab/sshd.ts';
import { requireLab } from './require.ts';

requireLab();

// It is in no Debian package.
const skip =
  findProgram('terraform') === undefined
    ? 'no terraform in the PATH: https://developer.hashicorp.com/terraform/install'
    : false;
const MODULES = join(PROJECT_ROOT, 'deploy/terraform');

describe('Terraform', { skip }, () => {
  let lab: Lab;
  let mapServer: DisposableRoot;
  let db: DisposableRoot;
  let operator: Attachment;
  let addresses: readonly [string, string];

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'terraform' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    operator = await internet.attach('operator', 'a');
    const hosts = [await internet.attach('mapserver', 'a'), await internet.attach('db', 'a')] as const;
    [mapServer, db] = [await DisposableRoot.mount(hosts[0].host), await DisposableRoot.mount(hosts[1].host)];
    for (const [i, root] of [mapServer, db].entries()) {
      await startSshd(root.host, hosts[i]!.address4, operator.host, root);
    }
    addresses = [hosts[0].address4, hosts[1].address4];
    smallPackage(lab.dir, dataplane);
  });
  after(() => lab?.close());

  function terraform(folder: string, ...args: readonly string[]): Promise<{ stdout: string }> {
    const env = { TF_CLI_CONFIG_FILE: '/dev/null', TF_DATA_DIR: join(folder, '.terraform'), CHECKPOINT_DISABLE: '1' };
    return operator.host.exec(['sh', '-c', 'cd "$1" && shift && exec terraform "$@"', 'sh', folder, ...args], {
      env,
      timeoutMs: 180_000,
    });
  }

  it('has modules that are formatted, valid, and render what their own tests expect', async () => {
    execFileSync('terraform', ['fmt', '-check', '-recursive', MODULES], { stdio: 'pipe' });
    const copy = join(lab.dir, 'deploy');
    cpSync(join(PROJECT_ROOT, 'deploy/cloud-init'), join(copy, 'cloud-init'), { recursive: true });
    cpSync(MODULES, join(copy, 'terraform'), { recursive: true });
    for (const module of ['user-data', 'ssh']) {
      const folder = join(copy, 'terraform', module);
      await terraform(folder, 'init', '-backend=false', '-input=false');
      await terraform(folder, 'validate');
    }
    const { stdout } = await terraform(join(copy, 'terraform/user-data'), 'test', '-no-color');
    assert.match(stdout, /5 passed, 0 failed/);
  });

  it('makes an overlay of two hosts over SSH: the EID is registered, and no token is in the state', async () => {
    const folder = join(lab.dir, 'plan');
    mkdirSync(folder);
    const options = sshLogin(operator.host).filter((option) => option !== 'ssh');
    writeFileSync(
      join(folder, 'main.tf'),
      `module "stayput" {
        source      = ${JSON.stringify(join(lab.dir, 'deploy/terraform/ssh'))}
        package     = ${JSON.stringify(join(lab.dir, 'stayput_0.1.0_all.deb'))}
        ssh_options = ${JSON.stringify(options)}
        map_server  = { ssh = "root@${addresses[0]}", hosts = ["${addresses[0]}"], overlay = ["10.77.0.0/16"] }
        agents      = { db = { ssh = "root@${addresses[1]}", eids = ["10.77.0.5/32"], names = ["db"] } }
      }`,
    );
    await terraform(folder, 'init', '-input=false');
    await terraform(folder, 'apply', '-auto-approve', '-input=false', '-no-color');
    await db.registered(mapServer, '10.77.0.5/32');
    assert.ok(!/stp1\./.test(readFileSync(join(folder, 'terraform.tfstate'), 'utf8')));
    const { stdout } = await terraform(folder, 'plan', '-detailed-exitcode', '-input=false', '-no-color');
    assert.match(stdout, /No changes/);
    const tokens = await mapServer.exec(['stayput', 'token', 'list', '--json']);
    assert.deepEqual(
      (JSON.parse(tokens.stdout) as { used: number; uses: number }[]).map(({ used, uses }) => [used, uses]),
      [[1, 1]],
    );
  });
});
