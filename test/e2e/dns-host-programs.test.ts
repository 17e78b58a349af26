/**
 * `stayput dns host` beside the real programs that decide what a host asks for names. Needs
 * scripts/install-dns-tools.sh. Budget of each: 30 s.
 */
import assert from 'node:assert/strict';
import { appendFileSync, rmSync, symlinkSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import type { LabProcess } from '../lab/lab-process.ts';
import { waitFor } from '../lab/wait.ts';
import { missingDnsTools, PLACE_1, PLACE_2, resolvConf, Sandbox, SOCKET } from './dns-host-sandbox.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a host on which another program decides about names', { skip: missingDnsTools() ?? false }, () => {
  test('systemd-resolved asks the agent for the overlay only, also after it was started anew', async (t) => {
    const sandbox = await Sandbox.create('resolved');
    t.after(() => sandbox.close());
    const resolved = await startResolved(sandbox);
    await sandbox.agent('127.0.0.1:5353');
    const host = sandbox.host('auto');
    await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
    await waitFor('it says so', () => /"method":"resolved".*only the stub/.test(host.output()));
    assert.equal(await sandbox.getent('db'), '10.77.0.9', 'short names are completed');
    assert.match(await sandbox.run('getent', 'hosts', '10.77.0.9'), /db\.stayput\.internal/);
    assert.equal(await sandbox.getent('www.example'), PLACE_1);
    assert.match(await agentAnswers(sandbox, 'www.example'), new RegExp(`^${PLACE_1}`), 'behind the stub');
    assert.match(await sandbox.run('resolvectl', 'default-route', 'stayput0'), /: no/);
    assert.match(await sandbox.run('resolvectl', 'domain', 'other'), /: ~\.\s*$/, 'other links are not touched');

    await resolved.kill9();
    rmSync(sandbox.path('/run/systemd/resolve/netif'), { recursive: true, force: true });
    await resolve(sandbox, PLACE_2);
    await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
    assert.equal(await sandbox.getent('other.example'), PLACE_2);
    assert.match(await agentAnswers(sandbox, 'other.example'), new RegExp(`^${PLACE_2}`));

    await host.stop();
    assert.match(await sandbox.run('resolvectl', 'dns', 'stayput0'), /\(stayput0\):\s*$/);
    assert.equal(await sandbox.getent('db.stayput.internal'), '');
    assert.equal(await sandbox.getent('third.example'), PLACE_2);
  });

  test('what a killed process left in systemd-resolved is taken away by hand', async (t) => {
    const sandbox = await Sandbox.create('resolved');
    t.after(() => sandbox.close());
    await startResolved(sandbox);
    await sandbox.agent();
    const host = sandbox.host('resolved');
    await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
    await host.kill9();
    assert.match(await sandbox.stayput('dns', 'restore'), /Put back: resolved/);
    assert.match(await sandbox.run('resolvectl', 'domain', 'stayput0'), /\(stayput0\):\s*$/);
  });

  test('what the tunnel was told is taken back from it also under another name', async (t) => {
    const sandbox = await Sandbox.create('resolved');
    t.after(() => sandbox.close());
    await startResolved(sandbox);
    await sandbox.agent('127.0.0.1:5353');
    const host = sandbox.host('resolved');
    await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
    await sandbox.run('ip', 'link', 'set', 'stayput0', 'down');
    await sandbox.run('ip', 'link', 'set', 'stayput0', 'name', 'overlay0', 'up');
    await waitFor('the new name is known', () => sandbox.read('/run/stayput-dns/link') === 'overlay0\n');
    await host.stop();
    assert.match(await sandbox.run('resolvectl', 'domain', 'overlay0'), /\(overlay0\):\s*$/);
  });

  test('a systemd-resolved that takes nothing is asked less and less, and complained of once', async (t) => {
    const sandbox = await Sandbox.create('resolved');
    t.after(() => sandbox.close());
    sandbox.write(
      '/run/refusing',
      '#!/bin/sh\n[ "$1" = revert ] || date +%s%3N >> /run/attempts\necho no >&2\nexit 1\n',
    );
    await sandbox.run('chmod', '+x', '/run/refusing');
    await sandbox.run('mount', '--bind', '/run/refusing', '/usr/bin/resolvectl');
    await sandbox.agent('127.0.0.1:5353');
    const host = sandbox.host('resolved');
    const attempts = (): number[] => sandbox.read('/run/attempts').trim().split('\n').map(Number);
    const [, , third = 0, fourth = 0] = await waitFor('four attempts', () =>
      attempts().length >= 4 ? attempts() : undefined,
    );
    // From two to four seconds; the clock that is read here is another one.
    assert.ok(fourth - third >= 1900, `the last pause was ${fourth - third} ms`);
    assert.equal(host.output().match(/cannot be made to ask/g)?.length, 1);
  });

  test('NetworkManager is followed through its connections, and gets its resolv.conf back', async (t) => {
    const sandbox = await withNetworkManager(t);
    await sandbox.agent();
    const doctor = await sandbox.stayput('doctor', 'dns', '--socket', SOCKET);
    assert.match(doctor, /^ok +owner +\/etc\/resolv\.conf asks 192\.0\.2\.1; NetworkManager decided/m);
    const host = sandbox.host('auto');
    await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
    await waitFor('it says so', () => /"method":"file".*"owner":"NetworkManager"/.test(host.output()));
    assert.equal(await sandbox.getent('www.example'), PLACE_1);

    await sandbox.run('nmcli', 'connection', 'modify', 'place', 'ipv4.dns', PLACE_2);
    await sandbox.run('nmcli', 'device', 'reapply', 'other');
    await waitFor('the new place', async () => (await sandbox.getent('other.example')) === PLACE_2);
    await finds(sandbox, 'db.stayput.internal', '10.77.0.9');

    await sandbox.run('nmcli', 'connection', 'down', 'place');
    await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
    await sandbox.run('nmcli', 'connection', 'up', 'place');
    await waitFor('the place again', async () => (await sandbox.getent('third.example')) === PLACE_2);
    await host.stop();
    assert.equal(sandbox.read('/etc/resolv.conf'), `# Generated by NetworkManager\n${resolvConf(PLACE_2)}`);
  });

  for (const program of ['resolvconf', 'openresolv'] as const) {
    test(`${program} lets the agent in and out, and the agent asks what the leases say`, async (t) => {
      const sandbox = await withResolvconf(t, program);
      await sandbox.agent();
      const host = sandbox.host('auto');
      await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
      const said = new RegExp(`"method":"resolvconf".*${program === 'openresolv' ? program : 'debian'}`);
      await waitFor('it says so', () => said.test(host.output()));
      assert.equal(await sandbox.getent('db'), '10.77.0.9', 'short names are completed');
      assert.equal(await sandbox.getent('www.example'), PLACE_1);
      await lease(sandbox, PLACE_2);
      await waitFor('the new place', async () => (await sandbox.getent('other.example')) === PLACE_2);
      assert.equal(await sandbox.getent('db.stayput.internal'), '10.77.0.9');
      await host.stop();
      assert.doesNotMatch(sandbox.read('/etc/resolv.conf'), /127\.0\.0\.1|stayput/);
      assert.equal(await sandbox.getent('third.example'), PLACE_2);

      const killed = sandbox.host('auto');
      await finds(sandbox, 'db.stayput.internal', '10.77.0.9');
      await killed.kill9();
      assert.match(await sandbox.stayput('dns', 'restore'), /Put back: resolvconf/);
      assert.doesNotMatch(sandbox.read('/etc/resolv.conf'), /127\.0\.0\.1/);
    });
  }
});

/** A system bus, and users that the packages would have made. */
async function startBus(sandbox: Sandbox): Promise<void> {
  for (const [user, id] of [
    ['messagebus', 990],
    ['systemd-resolve', 991],
  ] as const) {
    const known = (file: string): boolean => new RegExp(`^${user}:`, 'm').test(sandbox.read(file));
    if (!known('/etc/passwd')) appendFileSync(sandbox.path('/etc/passwd'), `${user}:x:${id}:${id}::/:/bin/false\n`);
    if (!known('/etc/group')) appendFileSync(sandbox.path('/etc/group'), `${user}:x:${id}:\n`);
  }
  await sandbox.run('mkdir', '-p', '/run/dbus');
  sandbox.start('bus', ['dbus-daemon', '--system', '--nofork', '--nopidfile']);
  await waitFor('the bus', () => sandbox.exists('/run/dbus/system_bus_socket'));
}

/** With one connection, whose network has a resolver. */
async function withNetworkManager(t: TestContext): Promise<Sandbox> {
  const sandbox = await Sandbox.create('networkmanager');
  t.after(() => sandbox.close());
  // It keeps its state there; and it waits for udev where it could write to /sys.
  await sandbox.run('mount', '-t', 'tmpfs', 'tmpfs', '/var/lib');
  await sandbox.run('mkdir', '-p', '/var/lib/NetworkManager', '/etc/NetworkManager/system-connections');
  await sandbox.run('mount', '-t', 'sysfs', '-o', 'ro', 'sysfs', '/sys');
  sandbox.write(
    '/etc/NetworkManager/NetworkManager.conf',
    '[main]\nplugins=keyfile\ndns=default\nrc-manager=file\nauth-polkit=false\nno-auto-default=*\n' +
      '[keyfile]\nunmanaged-devices=except:interface-name:other\n',
  );
  await startBus(sandbox);
  sandbox.start('networkmanager', ['NetworkManager', '--no-daemon']);
  await waitFor('it manages the link', async () => {
    await sandbox.run('nmcli', 'device', 'set', 'other', 'managed', 'yes');
    return /other +ethernet +disconnected/.test(await sandbox.run('nmcli', 'device'));
  });
  const manual = ['ipv4.method', 'manual', 'ipv4.addresses', '198.51.100.2/24', 'ipv6.method', 'disabled'];
  const connection = ['type', 'ethernet', 'ifname', 'other', 'con-name', 'place', ...manual, 'ipv4.dns', PLACE_1];
  await sandbox.run('nmcli', 'connection', 'add', ...connection);
  await sandbox.run('nmcli', 'connection', 'up', 'place');
  await waitFor('its resolv.conf', () => /by NetworkManager/.test(sandbox.read('/etc/resolv.conf')));
  return sandbox;
}

/** With a bus of its own, and a link whose network has a resolver. */
async function startResolved(sandbox: Sandbox): Promise<LabProcess> {
  await startBus(sandbox);
  await sandbox.run('mkdir', '-p', '/run/systemd/resolve', '/etc/systemd');
  await sandbox.run('chown', 'systemd-resolve:systemd-resolve', '/run/systemd/resolve');
  sandbox.write('/etc/systemd/resolved.conf', '[Resolve]\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\n');
  rmSync(sandbox.path('/etc/resolv.conf'));
  symlinkSync('../run/systemd/resolve/stub-resolv.conf', sandbox.path('/etc/resolv.conf'));
  await sandbox.run('ip', 'address', 'add', '198.51.100.2/24', 'dev', 'other');
  return resolve(sandbox, PLACE_1);
}

/** Starts systemd-resolved; `place` is what the network says. */
async function resolve(sandbox: Sandbox, place: string): Promise<LabProcess> {
  const capabilities = '+net_raw,+net_bind_service,+setpcap';
  const resolved = sandbox.start('resolved', [
    ...['setpriv', '--reuid', 'systemd-resolve', '--regid', 'systemd-resolve', '--clear-groups'],
    ...['--inh-caps', capabilities, '--ambient-caps', capabilities, '/usr/lib/systemd/systemd-resolved'],
  ]);
  await resolved.waitUntil('it answers on the bus', async () =>
    /other/.test(await sandbox.run('resolvectl', 'dns', 'other')),
  );
  await sandbox.run('resolvectl', 'dns', 'other', place);
  await sandbox.run('resolvectl', 'domain', 'other', '~.');
  return resolved;
}

async function withResolvconf(t: TestContext, program: 'resolvconf' | 'openresolv'): Promise<Sandbox> {
  const sandbox = await Sandbox.create(program);
  t.after(() => sandbox.close());
  if (program === 'resolvconf') {
    await sandbox.run('mkdir', '-p', '/run/resolvconf/interface');
    rmSync(sandbox.path('/etc/resolv.conf'));
    symlinkSync('../run/resolvconf/resolv.conf', sandbox.path('/etc/resolv.conf'));
    await sandbox.run('resolvconf', '--enable-updates');
  }
  await lease(sandbox, PLACE_1);
  await waitFor('a resolv.conf with the lease', () => sandbox.read('/etc/resolv.conf').includes(PLACE_1));
  return sandbox;
}

/** As a DHCP client hands one over. */
async function lease(sandbox: Sandbox, place: string): Promise<void> {
  sandbox.write('/run/place/lease', resolvConf(place));
  await sandbox.run('sh', '-c', 'resolvconf -a eth0.dhclient < /run/place/lease');
}

/** What the agent itself says, past the host's resolver. */
function agentAnswers(sandbox: Sandbox, name: string): Promise<string> {
  return sandbox.run('dig', '+short', '-p', '5353', '@127.0.0.1', name);
}

async function finds(sandbox: Sandbox, name: string, address: string): Promise<void> {
  await waitFor(`${name} is ${address}`, async () => (await sandbox.getent(name)) === address);
}
