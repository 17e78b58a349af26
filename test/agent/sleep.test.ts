/** An agent whose machine is about to sleep, or has slept, with a data plane that forwards nothing. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { agentProcesses, log, type TestAgent } from './test-agent.ts';

describe('an agent whose machine sleeps', () => {
  const { agent } = agentProcesses();

  const told = ({ dataplane }: TestAgent, type: string): number =>
    dataplane.commands.filter((command) => command.type === type).length;

  test('has the data plane forget its keys, with what it knows on disk', async () => {
    const a = await agent('sleeper', ['10.77.0.30'], '192.0.2.30');
    const b = await agent('other', ['10.77.0.31'], '192.0.2.31');
    await a.until('registered');
    await b.until('registered');
    a.dataplane.results.sleep = { sessions: 2 };
    let cached = 0;
    a.dataplane.onCommand = ({ type }) => {
      if (type === 'sleep') cached = a.folder.cache(Date.now(), log).length;
    };
    await a.call('GET', '/v1/resolve?q=10.77.0.31');
    assert.deepEqual(await a.call('POST', '/v1/sleep'), { sessions: 2 });
    assert.ok(cached > 0, 'the map-cache is written no later than that');
  });

  test('registers at once when the data plane says that the machine is awake', async () => {
    const a = await agent('riser', ['10.77.0.32'], '192.0.2.32');
    await a.until('registered');
    a.dataplane.results.wake = { resumed: true };
    a.dataplane.onCommand = ({ type }) => {
      if (type === 'wake') a.dataplane.emit({ type: 'resumed', from: 'suspend' });
    };
    const registered = confirmedAt(a);
    assert.deepEqual(await a.call('POST', '/v1/wake'), { resumed: true });
    await a.until('registered again', () => confirmedAt(a) > registered);
  });

  test('registers by itself, and says so, if there is no data plane to tell', async () => {
    const a = await agent('alone', ['10.77.0.33'], '192.0.2.33');
    await a.until('registered');
    await a.dataplane.close();
    await a.until('without a data plane', ({ dataplane }) => !dataplane.connected);
    const registered = confirmedAt(a);
    for (const path of ['/v1/sleep', '/v1/wake'])
      await assert.rejects(a.call('POST', path), { status: 503, code: 'STAYPUT_DATAPLANE_AWAY' });
    await a.until('registered again', () => confirmedAt(a) > registered);
  });

  test('says which side is to be upgraded if the data plane knows nothing of sleep', async () => {
    const a = await agent('upgraded', ['10.77.0.34'], '192.0.2.34');
    await a.until('registered');
    for (const type of ['sleep', 'wake'] as const) {
      a.dataplane.unknown.add(type);
      const expected = {
        status: 503,
        code: 'STAYPUT_DATAPLANE_OLD',
        message: /the data plane is older .*: upgrade it/,
      };
      await assert.rejects(a.call('POST', `/v1/${type}`), expected);
      assert.equal(told(a, type), 1);
    }
  });
});

function confirmedAt({ driver }: TestAgent): number {
  return Math.max(...driver.agent.ownEids().map((own) => own.confirmedAt ?? 0));
}
