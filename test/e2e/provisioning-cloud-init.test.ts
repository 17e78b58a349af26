/** VMs that are given what is in deploy/cloud-init as user data: the real cloud-init, each in a root of its own. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { DisposableRoot } from '../lab/disposable-root.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { smallPackage } from '../lab/small-package.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

describe('VMs with user data for cloud-init', () => {
  let lab: Lab;
  let mapServer: DisposableRoot;
  let vm: DisposableRoot;
  let address: string;
  let deb: string;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'cloud-init' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    const at = await internet.attach('mapserver', 'a');
    address = at.address4;
    mapServer = await DisposableRoot.mount(at.host);
    vm = await DisposableRoot.mount((await internet.attach('vm', 'a')).host);
    deb = smallPackage(lab.dir, dataplane);
  });
  after(() => lab?.close());

  it('make a map server of one, from a Debian package', async () => {
    const init = `--host ${address} --overlay 10.77.0.0/16`;
    await boot(mapServer, rendered('mapserver.yaml', { init_options: init, package: deb, package_sha256: '' }));
    await waitFor('a map server that answers', async () => {
      const { code } = await mapServer.stayput(['agents', 'list'], { anyExit: true });
      if (code === 0) return true;
      throw new Error(await mapServer.journal());
    });
  });

  it('let another join at its first boot, from an archive, and no token is kept outside of what cloud-init keeps for root', async () => {
    const token = (
      await mapServer.stayput(['token', 'create', '--eid', '10.77.0.5/32', '--name', 'db', '--expires', '1h'])
    ).stdout.trim();
    const archive = archiveOf(lab.dir, deb);
    await boot(
      vm,
      rendered('agent.yaml', {
        map_server: `https://${address}`,
        token,
        eids: '["10.77.0.5/32"]',
        names: '["db"]',
        package: archive,
        package_sha256: createHash('sha256').update(readFileSync(archive)).digest('hex'),
      }),
    );
    await vm.registered(mapServer, '10.77.0.5/32');
    const status = await vm.exec(['stayput', 'status', '--json']);
    assert.ok(status.stdout.includes('10.77.0.5'));

    const identity = vm.path('/var/lib/stayput/agent/identity.json');
    const { uid, mode } = statSync(identity);
    assert.notEqual(uid, 0);
    assert.equal(mode & 0o777, 0o600);
    assert.equal(existsSync(vm.path('/etc/stayput/join.json')), false);
    for (const file of [
      '/var/log/cloud-init.log',
      '/var/log/cloud-init-output.log',
      '/var/log/stayput-agent-join.service.log',
    ]) {
      assert.ok(!vm.read(file).includes(token), file);
    }
  });

  it('keeps its identity when the user data changes, at the next boot', async () => {
    const before = vm.read('/var/lib/stayput/agent/identity.json');
    vm.write('/etc/stayput/join.json', '{"mapServer": "https://192.0.2.1", "token": "stp1.other"}', 0o600);
    await vm.exec(['systemctl', 'start', 'stayput-agent-join']);
    await vm.exec(['stayput', 'agent', 'join', '--from', '/etc/stayput/join.json', '--from-platform']);
    assert.equal(vm.read('/var/lib/stayput/agent/identity.json'), before);
  });

  it('is let in again after a revocation by root, whose files its agent can read, once that is stopped', async () => {
    const { stdout: listed } = await mapServer.stayput(['agents', 'list', '--json']);
    const [{ xtrId = '' } = {}] = JSON.parse(listed) as { xtrId?: string }[];
    await mapServer.stayput(['agents', 'revoke', xtrId]);
    const { stdout: token } = await mapServer.stayput(['token', 'create', '--eid', '10.77.0.5/32', '--name', 'db']);
    const again = ['agent', 'join', `https://${address}`, '--eid', '10.77.0.5', '--name', 'db', '--force'];
    const refused = await vm.stayput(again, { input: token, anyExit: true });
    assert.match(refused.stderr, /the agent is running .* stop it/);
    await vm.exec(['systemctl', 'stop', 'stayput-agent']);
    await vm.stayput(again, { input: token });
    await vm.exec(['systemctl', 'start', 'stayput-agent']);
    await vm.registered(mapServer, '10.77.0.5/32');
    assert.notEqual(JSON.parse(vm.read('/var/lib/stayput/agent/identity.json')).xtrId, xtrId);
  });
});

/** Stands for the tarball: the installer in its folder does what the real one does, with the package. */
function archiveOf(folder: string, deb: string): string {
  const file = join(folder, 'stayput-0.1.0-linux-x64.tar.gz');
  mkdirSync(join(folder, 'stayput-0.1.0-linux-x64'));
  const installer = `#!/bin/sh\n[ "$1" = agent ] && exec dpkg -i ${deb}\n`;
  writeFileSync(join(folder, 'stayput-0.1.0-linux-x64/install.sh'), installer, { mode: 0o755 });
  execFileSync('tar', ['-czf', file, '-C', folder, 'stayput-0.1.0-linux-x64']);
  return file;
}

/** As a person or a template engine does: what is in `${…}` replaced. */
function rendered(name: string, values: Readonly<Record<string, string>>): string {
  const text = readFileSync(join(PROJECT_ROOT, 'deploy/cloud-init', name), 'utf8');
  return text.replace(/\$\{(\w+)\}/g, (_, key: string) => {
    const value = values[key];
    assert.ok(value !== undefined, `${name} wants ${key}`);
    return value;
  });
}

/** The stages of a boot, with the modules that the user data are about: others would configure this machine's network. */
async function boot(machine: DisposableRoot, userData: string): Promise<void> {
  mkdirSync(machine.path(SEED), { recursive: true });
  machine.write(`${SEED}/user-data`, userData, 0o600);
  machine.write(`${SEED}/meta-data`, 'instance-id: vm-1\nlocal-hostname: vm\n');
  machine.write('/etc/cloud/cloud.cfg.d/99-test.cfg', MODULES);
  const checked = await machine.exec(['cloud-init', 'schema', '--config-file', `${SEED}/user-data`]);
  assert.match(checked.stdout, /^Valid/);
  for (const stage of [['init', '--local'], ['init'], ['modules', '--mode=config'], ['modules', '--mode=final']]) {
    await machine.exec(['cloud-init', ...stage]);
  }
}

const SEED = '/var/lib/cloud/seed/nocloud';
const MODULES = `
datasource_list: [ NoCloud ]
network: { config: disabled }
cloud_init_modules: [ write-files ]
cloud_config_modules: [ runcmd ]
cloud_final_modules: [ scripts-user ]
`;
