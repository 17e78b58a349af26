/** Several starts of one identity: restarts, lost connections, copied disks and copied memory. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CLOSE } from '../../mapserver/core/actions.ts';
import { formatIncarnation, type Incarnation, parseIncarnation } from '../../proto/incarnation.ts';
import { type CoreAgent, CoreWorld } from './core-world.ts';

const EID = '10.77.0.5';
const GRANT = { eids: [`${EID}/32`] };

describe('two agents with one identity', () => {
  test('a restart while the last connection lingers takes its place', () => {
    const { world, agent } = setUp();
    const lingering = opened(world, agent, start(1, 'a'));
    agent.claim(EID);
    assert.ok(opened(world, agent, start(2, 'b')));
    assert.equal(agent.claim(EID, 1)[0]?.generation, 1);
    world.core.handleSessionClosed(lingering!, world.now);
    assert.equal(world.core.state.statistics().sessions, 1);
  });

  test('one process that connects again takes the place of its own connection', () => {
    const { world, agent } = setUp();
    opened(world, agent, start(1, 'a', 1));
    assert.ok(opened(world, agent, start(1, 'a', 2)));
    assert.ok(opened(world, agent, start(1, 'a', 5)));
  });

  // Attack: a connection with a smaller run number, beside the newer one, without it, and after a restart of the
  // server | 3 | refused each time
  test('attack: an older copy of an agent connects', () => {
    const { world, agent } = setUp();
    opened(world, agent, start(7, 'a'));
    refused(world, agent, start(3, 'b'));
    agent.disconnect();
    refused(world, agent, start(3, 'b'));
    const again = world.restarted();
    refused(again, agent, start(3, 'b'));
    assert.equal(again.core.newestRun(agent.xtrId), 7);
    assert.ok(opened(again, agent, start(7, 'a', 2)));
  });

  test('a newer run wins over one that is connected, which is refused from then on', () => {
    const { world, agent } = setUp();
    opened(world, agent, start(3, 'a'));
    assert.ok(opened(world, agent, start(4, 'b')));
    refused(world, agent, start(3, 'a', 2));
  });

  // Attack: a second start with the same run number | 1 | refused; the first goes on
  test('attack: two copies of an agent with one run number', () => {
    const { world, agent } = setUp();
    const first = opened(world, agent, start(5, 'a'));
    refused(world, agent, start(5, 'b'));
    assert.equal(world.core.state.statistics().sessions, 1);
    agent.session = first;
    assert.equal(agent.claim(EID)[0]?.generation, 1);
  });

  // Attack: connections with numbers that were used before | 2 | refused
  test('attack: a copied memory connects again', () => {
    const { world, agent } = setUp();
    opened(world, agent, start(5, 'a', 3));
    assert.ok(opened(world, agent, start(5, 'a', 4)), 'the copy, whose connection did not survive');
    refused(world, agent, start(5, 'a', 4));
    refused(world, agent, start(5, 'a', 3));
  });

  test('an agent that does not say which start it is, is taken as it comes', () => {
    const { world, agent } = setUp();
    opened(world, agent, start(5, 'a'));
    assert.ok(opened(world, agent, null));
  });

  test('a store that fails forgets nothing while the server runs', () => {
    const { world, agent } = setUp();
    world.durable = false;
    opened(world, agent, start(5, 'a'));
    world.release('failed');
    refused(world, agent, start(4, 'b'));
  });

  // Attack: headers that are cut, negative, no numbers or too long | 5 | each refused
  test("attack: a forged header of an agent's start", () => {
    const incarnation = start(12, 'c', 4);
    assert.deepEqual(parseIncarnation(formatIncarnation(incarnation)), incarnation);
    for (const wrong of ['', '1.2.3', '1.00112233445566zz.1', '-1.0011223344556677.1', '1.0011223344556677.1.1']) {
      assert.throws(() => parseIncarnation(wrong), /incarnation/);
    }
  });
});

function setUp(): { world: CoreWorld; agent: CoreAgent } {
  const world = new CoreWorld();
  return { world, agent: world.enrolled('a', GRANT) };
}

function start(run: number, process: string, connection = 1): Incarnation {
  return { run, process: process.repeat(16), connection };
}

function opened(world: CoreWorld, agent: CoreAgent, incarnation: Incarnation | null) {
  world.open(agent, incarnation);
  assert.equal(agent.closed, undefined);
  return agent.session;
}

function refused(world: CoreWorld, agent: CoreAgent, incarnation: Incarnation): void {
  assert.equal(world.core.admits(agent.xtrId, incarnation), 'fenced');
  world.open(agent, incarnation);
  assert.equal(agent.closed, CLOSE.fenced);
}
