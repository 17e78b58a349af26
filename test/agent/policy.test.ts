/** The policy that an agent has enforced: what the map server said last and as a whole, whoever is away. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { parseIpPrefix } from '../../proto/address.ts';
import { type AgentPolicy, STAND_IN_VERSION, VERSION_STEP } from '../../proto/policy.ts';
import { World } from './world.ts';
import { FakeDataplaneState } from './world-dataplane.ts';

function connected() {
  const world = new World();
  const host = world.host('a', { eids: ['10.77.0.5'], address: '192.0.2.1' });
  host.connect();
  const { dataplane } = host;
  assert.ok(dataplane);
  return { world, host, dataplane };
}

describe('the policy of an agent', () => {
  test('goes to the data plane as soon as it is whole', () => {
    const { host, dataplane } = connected();
    const policy = policyOf(3, 2000);
    host.say(policy, (frames) => {
      assert.ok(frames.length > 1);
      return frames.slice(0, -1);
    });
    assert.equal(dataplane.policy, null);
    host.say(policy);
    assert.deepEqual(dataplane.policy, policy);
    assert.deepEqual(host.saved.policy, policy);
  });

  test('is told once however often it is said', () => {
    const { host, dataplane } = connected();
    for (let time = 0; time < 3; time++) host.say(policyOf(3));
    assert.equal(dataplane.types().filter((type) => type === 'policy-set').length, 1);
    assert.equal(host.notes.filter(({ type }) => type === 'policy').length, 1);
  });

  test('is in the full state before anything that it is about', () => {
    const { host } = connected();
    host.say(policyOf(3));
    host.loseDataplane();
    const restarted = host.attachDataplane(new FakeDataplaneState('two'));
    assert.deepEqual(restarted.policy, policyOf(3));
    assert.equal(restarted.types().indexOf('policy-set'), restarted.types().indexOf('sync-begin') + 1);
  });

  test('holds when the agent starts again without a map server', () => {
    const { host } = connected();
    host.say(policyOf(3));
    host.disconnect();
    host.restart();
    assert.deepEqual(host.attachDataplane(new FakeDataplaneState('two')).policy, policyOf(3));
  });

  test('never goes back within a session, but to whatever the next one says', () => {
    const { host, dataplane } = connected();
    host.say(policyOf(3));
    host.say(policyOf(2));
    assert.equal(dataplane.policy?.version, 3);
    assert.match(host.agent.snapshot(0).policyProblem ?? '', /version 2 is older than 3/);
    host.disconnect();
    host.connect();
    host.say(policyOf(2));
    assert.equal(dataplane.policy?.version, 2);
    assert.equal(host.agent.snapshot(0).policyProblem, null);
    host.connect();
    host.say(policyOf(0));
    assert.equal(dataplane.policy?.version, 0);
  });

  test('stays when the one of the map server is too large, and nothing passes when there is none', () => {
    const standIn: AgentPolicy = { version: STAND_IN_VERSION, default: 'deny', rules: [] };
    const { host, dataplane } = connected();
    host.say(standIn);
    assert.deepEqual(dataplane.policy, standIn);
    const policy = policyOf(3 * VERSION_STEP);
    host.say(policy);
    host.disconnect();
    host.connect();
    host.say(standIn);
    assert.deepEqual(dataplane.policy, policy);
    assert.deepEqual(host.saved.policy, policy);
    assert.match(host.agent.snapshot(0).policyProblem ?? '', /too large; the one before is kept/);
    host.say(policyOf(4 * VERSION_STEP));
    assert.equal(dataplane.policy?.version, 4 * VERSION_STEP);
    assert.equal(host.agent.snapshot(0).policyProblem, null);
  });

  test('stays when the next one is not understood, and is replaced by the one after', () => {
    const { host, dataplane } = connected();
    host.say(policyOf(3));
    for (const frame of [{}, { type: 'policy', version: 4 }, { ...frameOf(4), rules: [{ action: 'maybe' }] }]) {
      host.agent.handlePolicyFrame(frame);
      assert.notEqual(host.agent.snapshot(0).policyProblem, null);
    }
    host.say(policyOf(5, 2000), (frames) => frames.slice(1));
    assert.equal(dataplane.policy?.version, 3);
    assert.ok(host.notes.some(({ type }) => type === 'policy-refused'));
    host.say(policyOf(6));
    assert.equal(dataplane.policy?.version, 6);
    assert.equal(host.agent.snapshot(0).policyProblem, null);
  });

  test('is not put together from two sessions', () => {
    const { host, dataplane } = connected();
    const policy = policyOf(3, 2000);
    host.say(policy, (frames) => frames.slice(0, 1));
    host.connect();
    host.say(policy, (frames) => frames.slice(1));
    assert.equal(dataplane.policy, null);
  });

  test('is not sent to a data plane that does not know it, which the operator is told', () => {
    const { host } = connected();
    host.say(policyOf(3));
    const old = new FakeDataplaneState('old');
    old.capability = 1;
    host.attachDataplane(old);
    host.say(policyOf(4));
    assert.ok(!old.types().includes('policy-set'));
    assert.equal(host.agent.snapshot(0).enforcesPolicy, false);
  });
});

function policyOf(version: number, rules = 1): AgentPolicy {
  const one = {
    action: 'allow',
    source: [parseIpPrefix('10.77.0.0/16')],
    destination: [parseIpPrefix('10.77.0.5')],
    protocol: 6,
    ports: [[80, 80]],
  } as const;
  return { version, default: 'deny', rules: Array.from({ length: rules }, () => one) };
}

function frameOf(version: number): object {
  return { type: 'policy', ...policyOf(version), part: 0, parts: 1 };
}
