/** A VM that is given deploy/cloud-init/agent.yaml as user data: the real cloud-init, in a root of its own. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { DisposableRoot } from '../lab/disposable-root.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { Overlay } from '../lab/overlay.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a VM with user data for cloud-init', () => {
  let lab: Lab;
  let overlay: Overlay;
  let vm: DisposableRoot;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'cloud-init' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    overlay = await Overlay.start(await internet.attach('mapserver', 'a'), { dataplane });
    vm = await DisposableRoot.mount((await internet.attach('vm', 'a')).host);
    await vm.installBuild(dataplane);
  });
  after(() => lab?.close());

  it('joins at its first boot, and keeps no token outside of what cloud-init keeps for root', async () => {
    const token = await overlay.mapServer.createToken(['10.77.0.5/32'], ['db']);
    const userData = rendered({
      map_server: overlay.mapServer.url,
      token,
      eids: '["10.77.0.5/32"]',
      names: '["db"]',
      package: '',
      package_sha256: '',
    });
    seed(vm, userData);
    const checked = await vm.exec(['cloud-init', 'schema', '--config-file', `${SEED}/user-data`]);
    assert.match(checked.stdout, /^Valid/);

    for (const stage of [['init', '--local'], ['init'], ['modules', '--mode=config'], ['modules', '--mode=final']]) {
      await vm.exec(['cloud-init', ...stage]);
    }
    await vm.registered(overlay.mapServer, '10.77.0.5/32');
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
});

/** As a person or a template engine does: what is in `${…}` replaced. */
function rendered(values: Readonly<Record<string, string>>): string {
  const text = readFileSync(join(PROJECT_ROOT, 'deploy/cloud-init/agent.yaml'), 'utf8');
  const lines = text.split('\n').map((line) => (line.startsWith('#') ? line : line.replace(/\$\{(\w+)\}/g, known)));
  function known(_: string, name: string): string {
    const value = values[name];
    assert.ok(value !== undefined, `agent.yaml wants ${name}`);
    return value;
  }
  return lines.join('\n');
}

function seed(vm: DisposableRoot, userData: string): void {
  mkdirSync(vm.path(SEED), { recursive: true });
  vm.write(`${SEED}/user-data`, userData, 0o600);
  vm.write(`${SEED}/meta-data`, 'instance-id: vm-1\nlocal-hostname: vm\n');
  // The stages of a real boot, with the modules that the user data are about: others would configure this machine's network.
  vm.write('/etc/cloud/cloud.cfg.d/99-test.cfg', MODULES);
}

const SEED = '/var/lib/cloud/seed/nocloud';
const MODULES = `
datasource_list: [ NoCloud ]
network: { config: disabled }
cloud_init_modules: [ write-files ]
cloud_config_modules: [ runcmd ]
cloud_final_modules: [ scripts-user ]
`;
