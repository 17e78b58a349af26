import { strict as assert } from 'node:assert';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { begin, describeFence, keep, type Machine, NEVER_RUN } from '../../agent/core/incarnation.ts';
import { readMachine } from '../../agent/shell/machine.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';

const HERE: Machine = { machineId: 'a'.repeat(32), productUuid: '11111111-2222-3333-4444-555555555555' };
const JOINED = { ...NEVER_RUN, machine: HERE };

describe('a start of the agent', () => {
  test('counts one run more on the machine that joined', () => {
    const first = begin(JOINED, HERE, 'refuse');
    assert.deepEqual(first, { next: { ...JOINED, run: 1 }, fence: null });
    assert.equal(begin(first.next, HERE, 'refuse').next.run, 2);
  });

  test('on another machine is refused and changes nothing, or is accepted and makes it the machine', () => {
    const there = { ...HERE, productUuid: '66666666-2222-3333-4444-555555555555' };
    const { next, fence } = begin(JOINED, there, 'refuse');
    assert.deepEqual([next, fence], [JOINED, { kind: 'machine', changed: ['product UUID'] }]);
    assert.match(describeFence(fence!), /another product UUID.*reset-identity --token.*reset-identity --keep/);
    const accepted = begin(JOINED, there, 'accept');
    assert.deepEqual([accepted.fence, accepted.next.machine], [null, there]);
  });

  test('compares only what is known, and keeps what was known', () => {
    const blind: Machine = { machineId: HERE.machineId, productUuid: null };
    const { next, fence } = begin(JOINED, blind, 'refuse');
    assert.deepEqual([fence, next.machine], [null, HERE]);
    assert.deepEqual(begin(NEVER_RUN, HERE, 'refuse').next.machine, HERE, 'trusted at its first use');
  });

  test('stays refused once the map server has refused it, until somebody keeps the identity here', () => {
    const fenced = { ...JOINED, run: 4, fencedBy: 9 };
    assert.deepEqual(begin(fenced, HERE, 'accept'), { next: fenced, fence: { kind: 'copy', run: 4, newestRun: 9 } });
    const kept = keep(fenced, HERE);
    assert.deepEqual(begin(kept, HERE, 'refuse').next.run, 10);
  });
});

test('a machine is known by its machine-id and its product UUID, as far as they can be read', (t) => {
  const root = temporaryFolder(t);
  assert.deepEqual(readMachine(root), { machineId: null, productUuid: null });
  mkdirSync(join(root, 'etc'));
  writeFileSync(join(root, 'etc/machine-id'), 'uninitialized\n');
  assert.equal(readMachine(root).machineId, null);
  writeFileSync(join(root, 'etc/machine-id'), `${'A1'.repeat(16)}\n`);
  mkdirSync(join(root, 'run/stayput'), { recursive: true });
  writeFileSync(join(root, 'run/stayput/product-uuid'), `${HERE.productUuid}\n`);
  assert.deepEqual(readMachine(root), { machineId: 'a1'.repeat(16), productUuid: HERE.productUuid });
});
