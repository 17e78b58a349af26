/**
 * From a disk image to a registered EID by OVF: the package is made of a real VMDK, a hypervisor's part is played by
 * `deploy` (properties to OVF environment) and xorriso (its CD), and the machine is a root of its own that starts the
 * unit. That a hypervisor accepts the descriptor is not shown by this.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { DisposableRoot } from '../lab/disposable-root.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { Overlay } from '../lab/overlay.ts';
import { deploy } from '../provisioning/ovf-environment.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a machine that is deployed from an OVF package', () => {
  let lab: Lab;
  let overlay: Overlay;
  let vm: DisposableRoot;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'ovf' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    overlay = await Overlay.start(await internet.attach('mapserver', 'a'), { dataplane });
    vm = await DisposableRoot.mount((await internet.attach('vm', 'a')).host);
    await vm.installBuild(dataplane);
  });
  after(() => lab?.close());

  it('joins with the properties that were filled in', async () => {
    const disk = join(lab.dir, 'disk.vmdk');
    const format = ['-f', 'vmdk', '-o', 'subformat=streamOptimized'];
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', join(lab.dir, 'disk.qcow2'), '3G']);
    execFileSync('qemu-img', ['convert', '-O', ...format.slice(1), join(lab.dir, 'disk.qcow2'), disk]);
    const ova = join(lab.dir, 'machine.ova');
    await overlay.mapServer.stayput(['ovf', 'create', disk, '--out', ova, '--map-server', overlay.mapServer.url]);
    execFileSync('tar', ['-xf', ova, '-C', lab.dir]);
    const descriptor = readFileSync(join(lab.dir, 'machine.ovf'), 'utf8');
    assert.match(descriptor, new RegExp(`ovf:capacity="${3 * 2 ** 30}"`));

    const token = await overlay.mapServer.createToken(['10.77.0.7/32'], ['appliance']);
    const filledIn = { 'stayput.token': token, 'stayput.eid': '10.77.0.7/32', 'stayput.name': 'appliance' };
    writeFileSync(join(lab.dir, 'ovf-env.xml'), deploy(descriptor, filledIn));
    const cd = join(lab.dir, 'environment.iso');
    const files = ['-J', '-r', '-V', 'OVF ENV', join(lab.dir, 'ovf-env.xml')];
    execFileSync('xorriso', ['-as', 'mkisofs', '-quiet', '-o', cd, ...files]);
    await vm.disk('OVF\\x20ENV', cd);

    const report = JSON.parse((await vm.exec(['stayput', 'doctor', 'platform', '--json'])).stdout) as {
      readonly facts: { readonly provisioning: Readonly<Record<string, string>> };
    };
    assert.equal(report.facts.provisioning.eid, '10.77.0.7/32');
    await vm.exec(['systemctl', 'enable', '--now', 'stayput-agent-join']);
    await vm.registered(overlay.mapServer, '10.77.0.7/32');
    assert.ok(!vm.read('/var/log/stayput-agent-join.service.log').includes(token));
  });
});
