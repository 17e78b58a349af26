/** A host is told that it is about to sleep, and that it is awake, by the command line. Budget: 60 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

describe('a host that is about to sleep', () => {
  let lab: Lab;
  let overlay: Overlay;
  let sleeper: Agent;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'sleep' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    overlay = await Overlay.start(await internet.attach('mapserver', 'a'), { dataplane });
    const join = async (name: string, eid: string): Promise<Agent> =>
      await overlay.join(await internet.attach(name, 'a'), { eids: [eid], names: [name] });
    sleeper = await join('sleeper', '10.77.0.1');
    await join('other', '10.77.0.2');
  });
  after(() => lab?.close());

  const metric = async (name: string): Promise<number> => {
    const { stdout } = await sleeper.host.exec(['curl', '-s', 'http://127.0.0.1:9341/metrics']);
    return Number(new RegExp(`^stayput_dataplane_${name} (\\d+)$`, 'm').exec(stdout)?.[1]);
  };
  const pings = ['ping', '-q', '-c', '3', '-i', '0.2', '-W', '30', '10.77.0.2'];

  it('has no session meanwhile, and loses nothing that it sends', async () => {
    await sleeper.host.exec(pings);
    assert.equal(await metric('sessions'), 1);
    const { stdout } = await sleeper.stayput(['agent', 'sleep']);
    assert.match(stdout, /^Ready to sleep: the keys of 1 session are forgotten; no others are made for 30\.0 s or/);
    assert.deepEqual(JSON.parse((await sleeper.stayput(['agent', 'sleep', '--json'])).stdout), { sessions: 0 });
    const pinged = sleeper.host.exec(pings);
    await waitFor('all pings are held', async () => (await metric('held_packets')) === 3);
    assert.deepEqual([await metric('sessions'), await metric('sleeps_total')], [0, 1]);
    assert.match((await sleeper.stayput(['agent', 'wake'])).stdout, /^Awake: active peers are spoken to\.$/m);
    assert.match((await pinged).stdout, /3 packets transmitted, 3 received, 0% packet loss/);
    assert.deepEqual(JSON.parse((await sleeper.stayput(['agent', 'wake', '--json'])).stdout), { resumed: false });
    assert.equal(await metric('sessions'), 1);
  });

  it('says so if nobody is there to forget the keys', async () => {
    await sleeper.daemon.stop();
    for (const verb of ['sleep', 'wake']) {
      const { code, stderr } = await sleeper.stayput(['agent', verb], { anyExit: true });
      assert.equal(code, 1, verb);
      assert.match(stderr, /no answer from the agent at .*: is the agent running\?/);
    }
  });
});
