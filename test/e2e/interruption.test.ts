/**
 * What happens to a whole machine, by the real QEMU and a real kernel: it runs on from a snapshot, sleeps, or has its
 * clock put ahead. This kernel sends no uevent of a new vmgenid, but says so in its log. Needs
 * scripts/install-migration-tools.sh. Budget: 180 s.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { DataplaneGuest, telling } from '../lab/dataplane-guest.ts';
import { Lab } from '../lab/lab.ts';
import { missingSnapshotTools } from '../lab/migration-tools.ts';
import { requireLab } from './require.ts';

requireLab();

const INTERRUPTED = 'this machine was interrupted';
const by = (what: string): string => `"by":"${what}","msg":"${INTERRUPTED}"`;
/** The clock of a machine that sleeps counts whole seconds. */
const SLEEP_MS = 3_000;

describe('the data plane in a machine', { skip: missingSnapshotTools() ?? false }, () => {
  let lab: Lab;
  let dataplane: string;

  before(async () => {
    dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'interruption' });
  });
  after(() => lab?.close());

  it('that is saved notices if it goes on as a copy', async () => {
    const guest = await DataplaneGuest.boot(await lab.host('saved'), dataplane);
    const snapshot = await guest.save();
    assert.ok(!(await guest.runsOn(snapshot, 'itself')).includes(INTERRUPTED));
    assert.ok((await guest.runsOn(snapshot, 'copy')).includes(by('Snapshot')));
  });

  it('that sleeps notices when it wakes up', async () => {
    const guest = await DataplaneGuest.boot(await lab.host('asleep'), dataplane, ['echo mem > /sys/power/state']);
    await guest.wakes(SLEEP_MS);
    await guest.says(by('Suspend'));
  });

  it('that is told of its sleep, before and after, wakes up once', async () => {
    const told = [
      telling('sleep'),
      'echo mem > /sys/power/state',
      telling('wake'),
      '/bin/busybox sleep 2',
      'echo ENOUGH',
    ];
    const guest = await DataplaneGuest.boot(await lab.host('told'), dataplane, told);
    await guest.wakes(SLEEP_MS);
    await guest.says('ENOUGH');
    const said = guest.console();
    assert.match(said, /"sessions":0/);
    assert.match(said, /"resumed":(true|false)/);
    assert.equal(said.split(INTERRUPTED).length, 2, said);
  });

  it('whose clock is put ahead notices', async () => {
    const commands = ['/bin/busybox date -s @2000000000'];
    const guest = await DataplaneGuest.boot(await lab.host('late'), dataplane, commands);
    await guest.says(by('ClockAhead'));
  });
});
