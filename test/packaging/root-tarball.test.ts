/** The tarball on a Debian that runs systemd: what an upgrade starts again, and what it leaves alone. */
import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { run } from '../../scripts/steps.ts';
import { requireLab } from '../e2e/require.ts';
import { DebianRoot, missingDebianRoot } from '../lab/debian-root.ts';
import { Lab } from '../lab/lab.ts';

requireLab();

describe('the tarball on a Debian', { skip: missingDebianRoot() ?? false }, () => {
  let lab: Lab;
  let root: DebianRoot;

  before(async () => {
    lab = await Lab.create({ name: 'tarball' });
    const made = run(process.execPath, [SCRIPT, '--quick', '--output', lab.dir], { cwd: PROJECT_ROOT });
    root = await DebianRoot.boot(await lab.host('vm'));
    copyFileSync(made.trim().split('\n').at(-1) ?? '', root.path('/root/stayput.tar.gz'));
    await root.exec('cd /root && tar -xzf stayput.tar.gz && mv stayput-*-linux-* unpacked', PATIENTLY);
  });
  after(() => lab?.close());

  const install = () => root.exec('/root/unpacked/install.sh agent', PATIENTLY);

  it('starts nothing when it is installed', async () => {
    await install();
    assert.equal(await root.isActive('stayput-dataplane'), false);
    assert.equal(await root.isActive('stayput-agent'), false);
  });

  it('leaves a data plane that is the same as before alone, and starts another one again', async () => {
    await root.exec(['systemctl', 'start', 'stayput-dataplane']);
    const pid = await root.property('stayput-dataplane', 'MainPID');
    await install();
    assert.equal(await root.property('stayput-dataplane', 'MainPID'), pid);
    await root.exec('echo next >> /root/unpacked/bin/stayput-dataplane');
    await install();
    assert.notEqual(await root.property('stayput-dataplane', 'MainPID'), pid);
    assert.equal(await root.isActive('stayput-dataplane'), true);
  });

  it('starts a data plane again whose unit is another, under the confinement of that', async () => {
    const pid = await root.property('stayput-dataplane', 'MainPID');
    await root.exec(
      "sed -i 's/^LimitNOFILE=.*/LimitNOFILE=4321/' /root/unpacked/lib/systemd/system/stayput-dataplane.service",
    );
    await install();
    const next = await root.property('stayput-dataplane', 'MainPID');
    assert.notEqual(next, pid);
    assert.match((await root.exec(['cat', `/proc/${next}/limits`])).stdout, /^Max open files +4321 /m);
    await install();
    assert.equal(await root.property('stayput-dataplane', 'MainPID'), next);
  });

  it('leaves no process, unit, user or folder behind when it is purged', async () => {
    await root.exec('/root/unpacked/install.sh uninstall --purge', PATIENTLY);
    const { stdout } = await root.exec(
      `pgrep -l stayput || true
       getent passwd | grep stayput || true
       find /etc /usr /var/lib /run -name '*stayput*'`,
    );
    assert.equal(stdout, '');
  });
});

const SCRIPT = fileURLToPath(new URL('../../scripts/package-tarball.js', import.meta.url));
const PATIENTLY = { timeoutMs: 120_000 } as const;
