/** The laboratory itself: plain routing, no overlay. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { startServer, Traffic } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

describe('the laboratory', () => {
  let lab: Lab;
  let internet: Internet;

  before(async () => {
    lab = await Lab.create({ name: 'lab' });
    internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'] });
  });
  after(() => lab.close());

  it('measures traffic between two clouds without loss, gap or reset', async () => {
    const client = await internet.attach('client', 'a');
    const server = await internet.attach('server', 'b');
    assert.ok((await internet.underlayRttMs(client.host, server)) < 50);
    await client.host.exec(['ping', '-c1', '-W2', server.address6]);
    await startServer(server.host, server.address4);
    const traffic = await Traffic.start(client.host, {
      address: server.address4,
      url: `http://${server.address4}`,
      downloadBytes: 1_000_000,
      downloadRate: 1_000_000,
      datagramsPerSecond: 200,
    });
    const result = await traffic.finish();
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.udpLost, 0);
    assert.ok(result.udpSent > 10 && result.heartbeats > 5);
  });

  it('replugs a host into another cloud: old address gone, new one reachable in both families', async () => {
    const nomad = await internet.attach('nomad', 'a');
    const observer = await internet.attach('observer', 'a');
    const { address4, address6 } = nomad;
    await internet.prepareRoam(nomad, 'b')();
    assert.notEqual(nomad.address4, address4);
    await waitFor('new IPv4 address', async () => await reachable(observer.host, nomad.address4));
    await waitFor('new IPv6 address', async () => await reachable(observer.host, nomad.address6));
    assert.equal(await reachable(observer.host, address4), false);
    assert.equal(await reachable(observer.host, address6), false);
  });

  it('gives a host a second way out, and drops in silence what one of them carries, in one direction or both', async () => {
    const dual = await internet.attach('dual', 'a');
    const uplink = await internet.addUplink(dual, 'b');
    const far = await internet.attach('far', 'c');
    const through = async (source: string): Promise<boolean> => {
      const argv = ['ping', '-q', '-c1', '-W1', '-I', source, far.address4];
      return (await dual.host.exec(argv, { anyExit: true })).code === 0;
    };
    assert.equal(await through(dual.address4), true);
    assert.equal(await through(uplink.address4), true);
    for (const direction of ['in', 'out', 'both'] as const) {
      const silence = internet.prepareSilence(dual.address4, direction);
      await silence.begin();
      assert.equal(await through(dual.address4), false, direction);
      assert.equal(await through(uplink.address4), true, direction);
      await silence.end();
      assert.equal(await through(dual.address4), true, direction);
    }
  });

  it('gives the programs of one host their own resolv.conf', async () => {
    const host = await lab.host('resolver');
    host.nameservers(['127.0.0.1']);
    assert.equal((await host.exec(['cat', '/etc/resolv.conf'])).stdout, 'nameserver 127.0.0.1\n');
    assert.doesNotMatch((await internet.core.exec(['cat', '/etc/resolv.conf'])).stdout, /^nameserver 127\.0\.0\.1\n$/);
  });

  it('removes what a killed run has left behind', async () => {
    const id = `sp99999999-${Math.random().toString(16).slice(2, 8).padEnd(6, '0')}`;
    const dir = join(tmpdir(), `stayput-lab-left-${id}`);
    mkdirSync(dir);
    writeFileSync(join(dir, 'owner.json'), JSON.stringify({ pid: 99999999, startTime: '1', id }));
    spawnSync('ip', ['netns', 'add', `${id}-host`]);
    assert.ok(existsSync(`/run/netns/${id}-host`));
    await (await Lab.create({ name: 'next' })).close();
    assert.equal(existsSync(`/run/netns/${id}-host`), false);
    assert.equal(existsSync(dir), false);
  });

  it('leaves no namespace, file or process when it is closed', async () => {
    const other = await Lab.create({ name: 'brief' });
    const host = await other.host('host');
    const sleeper = host.spawn('sleep', ['sleep', '600']);
    const pid = sleeper.pid;
    await other.close();
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(other.id)),
      [],
    );
    assert.equal(existsSync(other.dir), false);
    assert.equal(existsSync(`/proc/${pid}`), false);
  });
});

async function reachable(from: { exec: Lab['wires']['exec'] }, address: string): Promise<boolean> {
  return (await from.exec(['ping', '-q', '-c1', '-W1', address], { anyExit: true })).code === 0;
}
