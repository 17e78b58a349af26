/** Hosts that were copied, carried to another machine or restored from a snapshot, as their agents find out. */
import { strict as assert } from 'node:assert';
import { cpSync } from 'node:fs';
import { describe, test } from 'node:test';
import { NEVER_RUN } from '../../agent/core/incarnation.ts';
import { keepIdentity, resetIdentity } from '../../agent/shell/enrolment.ts';
import { StateFolder } from '../../agent/shell/identity.ts';
import { parseEid } from '../../proto/eid.ts';
import type { FakeDataplane } from './fake-dataplane.ts';
import { agentProcesses, ME, problems, TestAgent } from './test-agent.ts';

describe('a copied host', () => {
  const { agents, agent, token } = agentProcesses();

  // Attack: the same state folder started on two hosts | 1 | the newer goes on; the other registers and forwards
  // nothing and says so
  test('attack: a copied host beside the original', async () => {
    const a = await agent('a6', ['10.77.0.14'], '192.0.2.1');
    await a.until('registered');
    const copied = `${a.path}-copy`;
    cpSync(a.folder.path, copied, { recursive: true });
    const copy = new TestAgent(new StateFolder(copied), `${a.path}-copy`, '192.0.2.9');
    agents.push(copy);
    await copy.start();
    await copy.until('registered');
    await a.until('fenced');
    assert.match(await problems(a), /the newer one \(run 2, here 1\).*reset-identity/);
    assert.match(await a.metrics.registry.metrics(), /^stayput_agent_fenced 1$/m);
    await a.dataplane.until(() => isEmptySync(a.dataplane));
    await assert.rejects(a.call('GET', '/v1/resolve?q=10.77.0.14'), { code: 'STAYPUT_FENCED' });
    assert.equal(copy.driver.fence, null);

    await a.close();
    const restarted = new TestAgent(a.folder, `${a.path}-again`, '192.0.2.1');
    agents.push(restarted);
    await restarted.listen();
    assert.match(await problems(restarted), /the newer one/);
    assert.equal(restarted.driver.mapServer.connected, false);
    await restarted.close();

    keepIdentity(a.folder, ME);
    const kept = new TestAgent(a.folder, `${a.path}-kept`, '192.0.2.1');
    agents.push(kept);
    await kept.start();
    await kept.until('registered');
    await copy.until('fenced');
  });

  // Attack: an agent started with the state of another machine | 1 | does not register, and says what to do
  test('attack: a state folder carried to another machine', async () => {
    const a = await agent('a8', ['10.77.0.17'], '192.0.2.1');
    await a.until('registered');
    await a.close();
    const elsewhere = { ...ME, machineId: 'f'.repeat(32) };
    const moved = new TestAgent(a.folder, `${a.path}-moved`, '192.0.2.9', { machine: elsewhere });
    agents.push(moved);
    await moved.listen();
    assert.match(await problems(moved), /not the machine that joined \(another machine-id\).*reset-identity/);
    await moved.close();
    const accepted = new TestAgent(a.folder, `${a.path}-accepted`, '192.0.2.9', {
      machine: elsewhere,
      identity: { onMachineChange: 'accept' },
    });
    agents.push(accepted);
    await accepted.start();
    await accepted.until('registered');
  });

  test('a fenced agent lets nothing go, and says why', async () => {
    const a = await agent('a21', ['10.77.0.21'], '192.0.2.1');
    await a.until('registered');
    await a.close();
    const machine = { ...ME, machineId: 'f'.repeat(32) };
    const fenced = new TestAgent(a.folder, `${a.path}-moved`, '192.0.2.9', { machine });
    agents.push(fenced);
    await fenced.listen();
    const leaving = { interface: 'veth0', patienceSeconds: 1 };
    for (const call of [
      fenced.call('DELETE', '/v1/eids/10.77.0.21'),
      fenced.call('POST', '/v1/eids/10.77.0.21/leave', leaving),
    ]) {
      await assert.rejects(call, { code: 'STAYPUT_FENCED', status: 409 });
    }
  });

  test('a copy that gets an identity of its own leaves the first one alone', async () => {
    const a = await agent('a9', ['10.77.0.18'], '192.0.2.1');
    await a.until('registered');
    const folder = new StateFolder(`${a.path}-copy`);
    cpSync(a.folder.path, folder.path, { recursive: true });
    const request = { token: token(), eids: ['10.77.0.19'], names: ['other'], software: 'test' };
    const { identity } = await resetIdentity(folder, request);
    folder.writeIncarnation({ ...NEVER_RUN, machine: ME });
    assert.notEqual(identity.xtrId, a.identity.xtrId);
    const copy = new TestAgent(folder, `${a.path}-copy`, '192.0.2.9');
    agents.push(copy);
    await copy.start();
    await copy.until('registered');
    assert.deepEqual(
      copy.driver.agent.ownEids().flatMap(({ eid, kind }) => (kind === 'address' ? [eid] : [])),
      [parseEid('10.77.0.19')],
    );
    await a.until('registered');
  });

  test('a machine that was restored from a snapshot is a new start, in a new session', async () => {
    const a = await agent('a10', ['10.77.0.20'], '192.0.2.1');
    await a.until('registered');
    const before = performance.now();
    a.dataplane.emit({ type: 'resumed', from: 'snapshot' });
    await a.until(
      'in a new session',
      ({ agent, now }) => (agent.snapshot(now()).sessionMs ?? Number.POSITIVE_INFINITY) < performance.now() - before,
    );
    await a.until('registered');
    assert.equal(a.folder.incarnation()?.run, 2);
    assert.equal(a.driver.fence, null);
  });
});

/** The last thing that it was told is that there is nothing. */
function isEmptySync({ commands }: FakeDataplane): boolean {
  const told = commands.map(({ type }) => type).filter((type) => type !== 'stats' && type !== 'peers');
  return told.at(-2) === 'sync-begin' && told.at(-1) === 'sync-end';
}
