/** A VM changes clouds under the eyes of ordinary programs. Budgets: download 20 s, ssh 20 s, world 30 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { LabProcess } from '../lab/lab-process.ts';
import { play } from '../lab/scenes.ts';
import { startSshd } from '../lab/sshd.ts';
import { startServer } from '../lab/traffic.ts';
import { VM_EID, World } from '../lab/world.ts';
import { MUTE, showFigures } from './figures.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a VM that roams to another cloud', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'roam', internet: { roundTripMs: 1 } });
  });
  after(() => world?.close());

  it('keeps a curl download, a TCP heartbeat and datagrams going, with the right SHA-256', async (t) => {
    const result = await play('roam', world, MUTE);
    showFigures(t, result);
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    assert.equal(result.ok, true, 'a gap of more than 2 s');
    assert.equal(result.udpDuplicated, 0);
  });

  it('keeps an ssh session that is in the middle of its work', async () => {
    const login = await startSshd(world.vm.host, VM_EID, world.client.host);
    const work = 'for i in $(seq 40); do echo tick $i; sleep 0.1; done; echo done';
    const session = world.client.host.spawn('ssh', [...login, work]);
    const ticks = (): number => session.output().match(/^tick /gm)?.length ?? 0;
    await session.waitUntil('10 ticks', () => ticks() >= 10);
    await world.prepareRoam()();
    const exit = await within(20_000, session);
    assert.equal(exit.code, 0, session.output());
    assert.equal(ticks(), 40);
    assert.match(session.output(), /^done$/m);
  });

  it('is found by its name at the same address before and after', async () => {
    const { host } = world.client;
    const server = await startServer(world.vm.host, VM_EID);
    const name = `vm.${world.overlay.zone}`;
    const ask = async (): Promise<void> => {
      assert.equal((await host.exec(['dig', '+short', '+time=2', name, 'A'])).stdout.trim(), VM_EID);
      assert.equal((await host.exec(['dig', '+short', '+time=2', '+tcp', name, 'A'])).stdout.trim(), VM_EID);
      assert.match(
        (await host.exec(['dig', '+short', '+time=2', '-x', VM_EID])).stdout,
        new RegExp(`^${name}\\.$`, 'm'),
      );
      assert.match((await host.exec(['getent', 'ahostsv4', name])).stdout, new RegExp(`^${VM_EID}\\s`));
      assert.match(
        (await host.exec(['curl', '-sS', '--max-time', '30', `http://${name}/hello`])).stdout,
        /^hello from/,
      );
    };
    await ask();
    await world.prepareRoam()();
    await ask();
    await server.stop();
  });

  it('is followed when its workload only listens', async (t) => {
    const receiving = `const socket = require('node:dgram').createSocket('udp4');
      socket.on('message', (text) => console.log('got ' + text));
      socket.bind(${PORT}, '${VM_EID}', () => console.log('listening'));`;
    const sending = `const socket = require('node:dgram').createSocket('udp4');
      let number = 0;
      setInterval(() => socket.send(String(number++), ${PORT}, '${VM_EID}'), 10);`;
    const receiver = world.vm.host.spawn('receiver', [process.execPath, '-e', receiving]);
    await receiver.waitUntil('listening', () => receiver.output().includes('listening'));
    const sender = world.client.host.spawn('sender', [process.execPath, '-e', sending]);
    const got = (): number[] => [...receiver.output().matchAll(/^got (\d+)$/gm)].map(([, number]) => Number(number));
    await receiver.waitUntil('50 datagrams', () => got().length >= 50);
    await world.prepareRoam()();
    const since = got().length;
    await receiver.waitUntil('100 more', () => got().length >= since + 100);
    await sender.stop();
    await receiver.stop();
    const numbers = got();
    const once = new Set(numbers);
    assert.equal(once.size, numbers.length, 'each once');
    t.diagnostic(`lost ${Math.max(...numbers) - Math.min(...numbers) + 1 - once.size} of ${numbers.length}`);
  });

  it('moves an iperf3 stream through the tunnel', async (t) => {
    const server = world.vm.host.spawn('iperf3', ['iperf3', '-s', '-1', '-B', VM_EID, '--forceflush']);
    await server.waitUntil('listening', () => server.output().includes('Server listening'));
    const { stdout } = await world.client.host.exec([
      'iperf3',
      '-c',
      VM_EID,
      '-t',
      '3',
      '-J',
      '--connect-timeout',
      '3000',
    ]);
    const report = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number; bytes: number } } };
    const megabits = report.end.sum_received.bits_per_second / 1e6;
    t.diagnostic(`iperf3: ${megabits.toFixed(0)} Mbit/s over one TCP stream`);
    assert.ok(megabits > 50, `only ${megabits.toFixed(1)} Mbit/s`);
  });
});

const PORT = 9000;

async function within(ms: number, process: LabProcess): ReturnType<LabProcess['stop']> {
  const limit = setTimeout(() => process.signal('SIGKILL'), ms);
  const exit = await process.exited;
  clearTimeout(limit);
  return exit;
}
