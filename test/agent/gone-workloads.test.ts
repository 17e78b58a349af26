/** What a hypervisor's hook tells: the workload behind an interface has gone, for good or to another host. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { parseIpPrefix } from '../../proto/address.ts';
import { eidKey, parseEid } from '../../proto/eid.ts';
import { type Host, World } from './world.ts';

const A = '10.77.0.5';

describe('a workload that has gone', () => {
  test('keeps its EID for the patience, and is given up after it', () => {
    const { world, host } = guest();
    assert.ok(host.leave(A, 'tap0', 30_000));
    world.advance(29_000);
    assert.equal(host.stateOf(A), 'live@1');
    world.advance(2_000);
    assert.equal(host.stateOf(A), 'none');
    assert.ok(!world.server.mappings.has(eidKey(parseEid(A))), 'the mapping is withdrawn');
  });

  test('that comes back behind the same interface keeps its EID', () => {
    const { world, host } = guest();
    host.leave(A, 'tap0', 30_000);
    world.advance(10_000);
    host.attach(A, { interface: 'tap0' });
    world.advance(60_000);
    assert.equal(host.stateOf(A)?.split('@')[0], 'live');
  });

  test('and is taken over elsewhere meanwhile is redirected there and not withdrawn', () => {
    const { world, host, correspondent } = guest();
    host.leave(A, 'tap0', 5_000);
    correspondent.attach(A);
    assert.equal(host.stateOf(A), 'drain@1');
    world.advance(10_000);
    assert.equal(correspondent.stateOf(A), 'live@2');
    assert.equal(host.dataplane?.redirects.get(parseIpPrefix(A)), correspondent.key);
  });

  test('from another interface than its own changes nothing', () => {
    const { world, host } = guest();
    assert.ok(host.leave(A, 'tap9', 1_000));
    world.advance(10_000);
    assert.equal(host.stateOf(A), 'live@1');
  });

  test('before it ever came is no target any more', () => {
    const { host, correspondent } = guest();
    correspondent.attach(A, { interface: 'tap7' });
    correspondent.event({ type: 'interface', name: 'tap7', up: false });
    assert.equal(correspondent.stateOf(A)?.split('@')[0], 'target');
    correspondent.leave(A, 'tap7', 30_000);
    assert.equal(correspondent.stateOf(A), 'none');
    assert.equal(host.stateOf(A), 'live@1');
  });

  test('without an EID here is not known', () => {
    assert.equal(guest().host.leave('10.77.0.99', 'tap0', 1_000), false);
  });
});

/** A host with a live EID behind tap0, and another host. */
function guest(): { world: World; host: Host; correspondent: Host } {
  const world = new World();
  const host = world.host('host', { address: '192.0.2.1' });
  const correspondent = world.host('correspondent', { address: '192.0.2.2' });
  host.connect();
  correspondent.connect();
  host.attach(A, { interface: 'tap0' });
  host.event({ type: 'interface', name: 'tap0', up: true });
  assert.equal(host.stateOf(A), 'live@1');
  return { world, host, correspondent };
}
