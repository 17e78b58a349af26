/** `stayput doctor` and `stayput status` on hosts of a whole overlay that is broken in one thing after the other. Budget: 60 s. */
import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { waitFor } from '../lab/wait.ts';
import { CLIENT_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

interface Finding {
  readonly check: string;
  readonly level: string;
  readonly found: string;
  readonly advice: string | null;
}

describe('a host on which something is wrong', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'ill', internet: { roundTripMs: 1 }, agentConfig: { platform: 'off' } });
    await world.vm.stayput(['ping', CLIENT_EID, '-c', '1']);
  });
  after(() => world?.close());

  const doctor = async (...checks: string[]): Promise<readonly Finding[]> => {
    const { stdout } = await world.vm.stayput(
      ['doctor', ...checks, '--config', `${world.vm.host.dir}/agent.json`, '--json'],
      {
        anyExit: true,
      },
    );
    return (JSON.parse(stdout) as { findings: readonly Finding[] }).findings;
  };
  const wrong = async (check: string, found: RegExp, advice: RegExp, level = 'fail'): Promise<void> => {
    const findings = await doctor(check);
    const finding = findings.find((each) => each.level === level);
    assert.ok(finding !== undefined, JSON.stringify(findings));
    assert.match(finding.found, found);
    assert.match(finding.advice ?? '', advice);
  };
  const well = async (check: string): Promise<void> => {
    const findings = await doctor(check);
    assert.ok(
      findings.every(({ level }) => level === 'ok'),
      JSON.stringify(findings),
    );
  };

  it('has nothing wrong before, and says who reaches it', async () => {
    const findings = await doctor();
    const bad = findings.filter(({ level }) => level === 'fail');
    assert.deepEqual(bad, []);
    for (const check of ['identity', 'map-server', 'clock', 'agent', 'versions', 'tunnel', 'mtu', 'udp', 'overlap'])
      await well(check);
    const { stdout, code } = await world.vm.stayput(['status'], { anyExit: true });
    assert.equal(code, 0, stdout);
    assert.match(stdout, /^Healthy/);
    assert.match(stdout, /^Reached by {3}yes everybody in 10\.77\.0\.0\/16/m);
    assert.match(stdout, new RegExp(`^${CLIENT_EID}/32 +\\S+ +up +.* ago +[\\d.]+ ms`, 'm'));
  });

  it('has a route into the overlay', async () => {
    await world.vm.host.ip(['route add 10.77.9.0/24 dev eth0']);
    await wrong('overlap', /10\.77\.9\.0\/24 on eth0 is in the overlay/, /remove the route/);
    await world.vm.host.ip(['route del 10.77.9.0/24 dev eth0']);
    await well('overlap');
  });

  it('has too small an MTU', async () => {
    await world.vm.host.ip(['link set eth0 mtu 1300']);
    await wrong('mtu', /packets of 1300 octets/, /at least 1340/);
    await world.vm.host.ip(['link set eth0 mtu 1400']);
    await wrong('mtu', /packets of 1400 octets/, /"mtu": 1340/, 'warn');
    await world.vm.host.ip(['link set eth0 mtu 1500']);
  });

  it('has no way for UDP to its peer', async () => {
    const peer = world.client.at.address4;
    await world.vm.host.ip([`route add blackhole ${peer}`]);
    await wrong('udp', new RegExp(`${CLIENT_EID}/32 at .* does not answer`), /UDP 4341 open both ways/);
    await world.vm.host.ip([`route del blackhole ${peer}`]);
    await waitFor('an answer', async () => (await doctor('udp')).every(({ level }) => level === 'ok'));
  });

  it('has lost the address of its tunnel', async () => {
    await world.vm.host.exec(['ip', '-6', 'addr', 'flush', 'dev', 'stayput0']);
    await wrong('tunnel', /does not have the agent's address/, /restart stayput-dataplane/);
  });

  it('has a state folder that is open to others', async () => {
    chmodSync(world.vm.stateDir, 0o755);
    await wrong('state', /open to others/, /chmod 700/);
    chmodSync(world.vm.stateDir, 0o700);
    assert.equal((await doctor('state'))[0]?.level, 'ok');
  });

  it('has no data plane, and says so in its status', async () => {
    await world.vm.dataplane.kill9();
    await waitFor('it is missed', async () =>
      (await doctor('agent')).some(({ found }) => /data plane is not attached/.test(found)),
    );
    const { stdout, code } = await world.vm.stayput(['status'], { anyExit: true });
    assert.equal(code, 1);
    assert.match(stdout, /^NOT healthy: see below\n! the data plane is not attached/);
    world.vm.startDataplane();
    await world.vm.ready();
  });

  it('has no map server', async () => {
    await world.overlay.mapServer.daemon.kill9();
    await wrong('map-server', /nobody listens there/, /is it running/);
    world.overlay.mapServer.daemon.start();
    await world.overlay.mapServer.ready();
    await well('map-server');
  });

  it('takes other locators when its configuration is read again, and loses nothing', async () => {
    const { stdout } = await world.vm.stayput(['agent', 'reload', '--json']);
    assert.deepEqual(JSON.parse(stdout), { applied: [], needRestart: [] });
    await world.vm.stayput(['agent', 'log-level', 'debug', '--for', '10m']);
    const level = JSON.parse((await world.vm.stayput(['agent', 'log-level', '--json'])).stdout) as { level: string };
    assert.equal(level.level, 'debug');
    world.vm.configure({ locators: [{ address: '198.51.100.77' }], mtu: 1400 });
    const reloaded = JSON.parse((await world.vm.stayput(['agent', 'reload', '--json'])).stdout) as unknown;
    assert.deepEqual(reloaded, { applied: ['locators'], needRestart: ['mtu'] });
    await waitFor('the map server knows', async () => {
      const { stdout: eids } = await world.overlay.mapServer.stayput(['mapserver', 'eids', '--json']);
      return eids.includes('198.51.100.77');
    });
  });

  it('has no agent', async () => {
    await world.vm.daemon.kill9();
    await wrong('agent', /no answer/, /systemctl start/);
    const { stdout, code } = await world.vm.stayput(['status'], { anyExit: true });
    assert.equal(code, 1);
    assert.match(stdout, /the interface stayput0 is there: if stayput-dataplane runs, it forwards/);
  });
});
