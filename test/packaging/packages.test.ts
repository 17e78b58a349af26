/**
 * What is in the packages, and that it is all that is needed: the Debian package is only unpacked, and its programs run
 * in hosts without Internet, with a PATH that has no Node in it, watched over by a stand-in for systemd.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { findProgram } from '../../runtime/programs.ts';
import { PROJECT_ROOT, VERSION } from '../../runtime/project-root.ts';
import { run } from '../../scripts/steps.ts';
import { requireLab } from '../e2e/require.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import { Notified } from '../lab/notified.ts';
import { waitFor } from '../lab/wait.ts';

requireLab();

let lab: Lab;
let deb = '';
let tarball = '';
before(async () => {
  await ensureDataplaneBuilt(() => {});
  lab = await Lab.create({ name: 'packages' });
  deb = make('package-deb', 'first');
  tarball = make('package-tarball', 'first');
});
after(() => lab?.close());

describe('the Debian package', () => {
  it('is the same each time it is made', () => {
    assert.equal(digest(make('package-deb', 'second')), digest(deb));
  });

  it('says what it is and what it needs', () => {
    const fields = run('dpkg-deb', ['--field', deb]);
    assert.match(fields, new RegExp(`^Version: ${VERSION}$`, 'm'));
    assert.match(fields, /^Depends: libc6 \(>= [\d.]+\), .*systemd \| systemd-standalone-sysusers \| adduser$/m);
    assert.doesNotMatch(fields, /@[A-Z]|nodejs/);
  });

  it('has the program, its units and pages; no tests, no sources, nothing that others may write', (t) => {
    const lines = run('dpkg-deb', ['--contents', deb]).trim().split('\n');
    const paths = lines.map((line) => line.split(/\s+/)[5] ?? '');
    for (const wanted of WANTED) assert.ok(paths.includes(wanted), wanted);
    assert.deepEqual(
      paths.filter((path) => /\/test\/|\.test\.|\.map$|\.ts$|better-sqlite3|typescript|biome/.test(path)),
      [],
    );
    assert.deepEqual(
      lines.filter((line) => !/^[dl-]rwxr-xr-x root\/root |^-rw-r--r-- root\/root |^l.* root\/root /.test(line)),
      [],
    );
    assert.deepEqual(
      paths.filter((path) => path.startsWith('./etc/') && !path.endsWith('/')),
      ['./etc/stayput/dataplane.env'],
    );
    const installed = Number(/^Installed-Size: (\d+)$/m.exec(run('dpkg-deb', ['--field', deb]))?.[1]) / 1024;
    t.diagnostic(`${(statSync(deb).size / 1e6).toFixed(1)} MB hardly compressed, ${installed.toFixed(0)} MB installed`);
  });

  it('has nothing that lintian minds', () => {
    const { status, stdout } = spawnSync('lintian', ['--fail-on', 'error,warning', deb], { encoding: 'utf8' });
    assert.equal(status, 0, stdout);
  });
});

describe('the tarball', () => {
  it('holds what the Debian package holds', () => {
    const ofTarball = run('tar', ['-tf', tarball])
      .split('\n')
      .map((path) => path.replace(/^[^/]*\//, ''));
    const ofDeb = run('dpkg-deb', ['--contents', deb])
      .split('\n')
      .flatMap((line) => line.split(' ./usr/')[1] ?? [])
      .filter((path) => !/^share\/(lintian|doc\/stayput\/(copyright|changelog))/.test(path));
    assert.deepEqual(
      ofDeb.filter((path) => path !== '' && !ofTarball.includes(path)),
      [],
    );
    assert.ok(ofTarball.includes('install.sh'));
  });

  it('installs, installs again over it, and leaves nothing when it is uninstalled', () => {
    const steps = [
      ['umask 077; /mnt/install.sh agent', /installed in \/usr\/local: stayput .*agent/],
      ['/mnt/install.sh mapserver', /installed in \/usr\/local: stayput .*mapserver/],
      ['grep ^ExecStart= /etc/systemd/system/stayput-agent.service', /=\/usr\/local\/bin\/stayput agent run/],
      ['getent passwd stayput-dataplane', /stayput-dataplane/],
      ['runuser -u stayput -- env -i /usr/local/bin/stayput --version', new RegExp(VERSION)],
      ['sh /mnt/preinst install', /installed from a tarball/],
      ['sh /mnt/postrm purge; getent passwd stayput-mapserver', /kept.*\nstayput-mapserver/],
      ['/mnt/install.sh uninstall', /kept/],
      ['test -d /var/lib/stayput/agent && echo there', /there/],
      ['sh /mnt/preinst install', /^$/],
      ['/mnt/install.sh uninstall --purge', /^$/],
    ] as const;
    const { printed, left } = onCopyOfThisMachine(steps.map(([command]) => command));
    for (const [i, [command, expected]] of steps.entries()) assert.match(printed[i] ?? '', expected, command);
    assert.deepEqual(
      left.filter((path) => /stayput/.test(path)),
      [],
    );
  });

  it('goes where it is told', () => {
    const { printed } = onCopyOfThisMachine([
      '/mnt/install.sh mapserver --prefix /opt/overlay',
      'grep ^ExecStart= /etc/systemd/system/stayput-mapserver.service',
      '/mnt/install.sh uninstall --purge --prefix /opt/overlay; find /opt/overlay -type f',
    ]);
    assert.match(printed[0] ?? '', /installed in \/opt\/overlay/);
    assert.match(printed[1] ?? '', /=\/opt\/overlay\/bin\/stayput mapserver run/);
    assert.equal(printed[2], '');
  });

  it('says what to do where there is no systemd', () => {
    const { printed, left } = onCopyOfThisMachine([
      'mkdir /b && ln -s /bin/sh /usr/bin/id /usr/bin/dirname /b && PATH=/b sh /mnt/install.sh agent',
    ]);
    assert.match(printed[0] ?? '', /no systemd here\. Nothing was changed/);
    assert.deepEqual(
      left.filter((path) => /stayput/.test(path)),
      [],
    );
  });
});

/**
 * Runs commands as root where they may change whatever they like: this machine's files below an overlay that is thrown
 * away, the unpacked tarball and scripts of the Debian package in /mnt, no systemd that runs. Gives what each printed,
 * and what the last one left changed.
 */
function onCopyOfThisMachine(commands: readonly string[]): { printed: readonly string[]; left: readonly string[] } {
  const unpacked = join(lab.dir, 'tarball');
  if (!existsSync(unpacked)) {
    mkdirSync(unpacked);
    run('tar', ['-xzf', tarball, '-C', unpacked, '--strip-components=1']);
    for (const script of ['preinst', 'postrm']) {
      copyFileSync(join(PROJECT_ROOT, 'deploy/debian', script), join(unpacked, script));
    }
  }
  const over = mkdtempSync(join(lab.dir, 'overlay-'));
  const script = [
    `mount -t tmpfs tmpfs ${over} && cd ${over} && mkdir upper work root`,
    `mount -t overlay overlay -o lowerdir=/,upperdir=${over}/upper,workdir=${over}/work root`,
    `mount --bind ${unpacked} root/mnt && mount -o remount,bind,ro root/mnt && mount -t proc proc root/proc && mount --bind /dev root/dev`,
    'mount -t tmpfs tmpfs root/run',
    ...commands.map((command) => `chroot root sh -c '${command}' 2>&1; echo ${END}`),
    'find upper -not -type d',
  ].join('\n');
  const printed = run('unshare', ['--mount', '--net', '--propagation', 'private', 'sh', '-c', script]).split(
    `${END}\n`,
  );
  return { printed: printed.slice(0, -1).map((text) => text.trim()), left: (printed.at(-1) ?? '').split('\n') };
}

describe('the npm package', () => {
  it('has the program and the source of the data plane; no tests, no maps', () => {
    const [{ files }] = JSON.parse(run('npm', ['pack', '--dry-run', '--json'], { cwd: PROJECT_ROOT })) as [
      { files: { path: string }[] },
    ];
    const paths = files.map(({ path }) => path);
    for (const wanted of ['dist/cli/main.js', 'dataplane/Cargo.toml', 'dataplane/src/main.rs', 'deploy/install.sh'])
      assert.ok(paths.includes(wanted), wanted);
    assert.deepEqual(
      paths.filter((path) => /^dist\/(test|bench|scripts)\/|\.map$|tests\.rs$/.test(path)),
      [],
    );
  });
});

describe('the unpacked programs', () => {
  let at: Record<'map' | 'vm', Attachment>;
  let root = '';
  let bare: readonly string[] = [];
  const systemds: Notified[] = [];

  before(async () => {
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    at = { map: await internet.attach('map', 'a'), vm: await internet.attach('vm', 'a') };
    root = join(lab.dir, 'root');
    run('dpkg-deb', ['--extract', deb, root]);
    const path = join(lab.dir, 'path');
    mkdirSync(path);
    for (const name of ['sh', 'systemd-notify']) symlinkSync(findProgram(name) ?? '', join(path, name));
    bare = ['env', '-i', `PATH=${path}`, 'HOME=/nonexistent'];
  });
  after(() => {
    for (const systemd of systemds) systemd.close();
  });

  const stayput = (...args: readonly string[]) => [...bare, join(root, 'usr/bin/stayput'), ...args];

  /** Returns when it has said that it serves, and after how many milliseconds that was. */
  async function start(on: Attachment, name: string, argv: readonly string[]): Promise<[LabProcess, Notified, number]> {
    const systemd = await Notified.listen(join(on.host.dir, `${name}.notify`));
    systemds.push(systemd);
    const [env, ...rest] = argv;
    const begun = performance.now();
    const told = [`NOTIFY_SOCKET=${systemd.socket}`, `WATCHDOG_USEC=${WATCHDOG_USEC}`];
    const process = on.host.spawn(name, [env ?? '', ...rest.slice(0, 3), ...told, ...rest.slice(3)]);
    await process.waitUntil('serving', async () => systemd.ready, START_MS);
    return [process, systemd, Math.round(performance.now() - begun)];
  }

  it('make a map server and a host with an EID, and stay alive', async (t) => {
    const { map, vm } = at;
    const dataDir = join(map.host.dir, 'mapserver');
    const init = ['--data-dir', dataDir, '--host', map.address4, '--overlay', '10.77.0.0/16'];
    await map.host.exec(stayput('mapserver', 'init', ...init));
    const [, server] = await start(map, 'mapserver', stayput('mapserver', 'run', '--data-dir', dataDir));
    const create = stayput('token', 'create', '--eid', '10.77.0.5/32', '--data-dir', dataDir);
    const token = (await map.host.exec(create)).stdout.trim();

    const file = (name: string): string => join(vm.host.dir, name);
    writeFileSync(file('resolv.conf'), '');
    writeFileSync(
      file('agent.json'),
      JSON.stringify({
        stateDir: file('agent'),
        socket: file('agent.sock'),
        dataplaneSocket: file('dataplane.sock'),
        dns: { listen: ['127.0.0.1:53'], resolvConf: file('resolv.conf') },
      }),
    );
    const url = `https://${map.address4}:4342`;
    const wishes = ['--token', token, '--eid', '10.77.0.5/32', '--config', file('agent.json')];
    await vm.host.exec(stayput('agent', 'join', url, ...wishes));
    const dataplane = [...bare, join(root, 'usr/bin/stayput-dataplane'), '--socket', file('dataplane.sock')];
    const [forwarding, forwarder] = await start(vm, 'dataplane', dataplane);
    const [agent, registered, coldStart] = await start(
      vm,
      'agent',
      stayput('agent', 'run', '--config', file('agent.json')),
    );
    const list = stayput('eid', 'list', '--json', '--socket', file('agent.sock'));
    await waitFor('10.77.0.5 is live', async () => /"state": ?"live"/.test((await vm.host.exec(list)).stdout));
    for (const told of [server, forwarder, registered]) await waitFor('three beats', () => told.beats >= 3);

    const together = agent.rssMb() + forwarding.rssMb();
    t.diagnostic(
      `agent serves after ${coldStart} ms; RSS agent ${agent.rssMb()} MB, data plane ${forwarding.rssMb()} MB`,
    );
    assert.ok(together <= MAX_RSS_MB, `${together} MB`);
  });

  it('say so where a command needs the source', async () => {
    for (const command of [['demo'], ['bench', 'dns'], ['dataplane', 'build']]) {
      const { code, stderr } = await at.vm.host.exec(stayput(...command), { anyExit: true });
      assert.equal(code, 2, stderr);
      assert.match(stderr, /source/);
    }
  });
});

/** The package that `npm run SCRIPT` makes, in a folder of its own. */
function make(script: string, to: string): string {
  const program = fileURLToPath(new URL(`../../scripts/${script}.js`, import.meta.url));
  const made = run(process.execPath, [program, '--quick', '--output', join(lab.dir, to)], { cwd: PROJECT_ROOT });
  return made.trim().split('\n').at(-1) ?? '';
}

function digest(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

const END = '-- end of command --';
const START_MS = 30_000;
const WATCHDOG_USEC = 1_500_000;
/** Of agent and data plane together, with one EID. */
const MAX_RSS_MB = 120;

const WANTED = [
  './usr/bin/stayput',
  './usr/bin/stayput-dataplane',
  './usr/lib/stayput/bin/node',
  './usr/lib/stayput/dist/cli/main.js',
  './usr/lib/systemd/system/stayput-agent.service',
  './usr/lib/systemd/system/stayput-dataplane.service',
  './usr/lib/systemd/system/stayput-mapserver.service',
  './usr/lib/sysusers.d/stayput.conf',
  './usr/lib/tmpfiles.d/stayput.conf',
  './usr/share/bash-completion/completions/stayput',
  './usr/share/doc/stayput/copyright',
  './usr/share/doc/stayput/licences/dataplane.gz',
  './usr/share/doc/stayput/licences/node.gz',
  './usr/share/fish/vendor_completions.d/stayput.fish',
  './usr/share/man/man1/stayput-agent.1.gz',
  './usr/share/man/man1/stayput.1.gz',
  './usr/share/stayput/hooks/libvirt/stayput',
  './usr/share/stayput/terraform/examples/ec2/main.tf',
  './usr/share/zsh/vendor-completions/_stayput',
];
