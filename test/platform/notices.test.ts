/** What platforms and operators announce, and how it is heard. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { askEvents, awaitChange } from '../../agent/platform/examination.ts';
import { GCE } from '../../agent/platform/gce.ts';
import { gateEvents, isImminent } from '../../agent/platform/notices.ts';
import { PlatformError } from '../../agent/platform/platform.ts';
import { platformReport } from '../../agent/platform/report.ts';
import { VSPHERE } from '../../agent/platform/vsphere.ts';
import { XEN } from '../../agent/platform/xen.ts';
import { PlatformEmulator } from './emulator.ts';
import { GCE as GCE_MACHINE, GCE_TREE, marked, OPENSTACK, OPENSTACK_METADATA } from './platforms.ts';

const NEVER = new AbortController().signal;

test('Xen: what the toolstack asks of the domain and what an operator wrote down, and a watch for both', async (t) => {
  let said: Record<string, string> = {};
  let watched: readonly string[] | null = null;
  const { access } = await PlatformEmulator.start(t, {
    programs: {
      'xenstore-read': ([path]) => said[path ?? ''] ?? null,
      'xenstore-watch': (args) => {
        watched = args;
        return 'control/shutdown\n';
      },
    },
  });
  assert.deepEqual(await askEvents(XEN, NEVER, access), []);
  const mark = await awaitChange(XEN, null, NEVER, access);
  assert.equal(watched, null, 'the first mark is that of now');
  assert.notEqual(await awaitChange(XEN, mark, NEVER, access), mark);
  assert.deepEqual(watched, ['-n', '3', 'control/shutdown', 'vm-data/stayput/maintenance']);
  said = { 'control/shutdown': 'suspend\n', 'vm-data/stayput/maintenance': 'evacuation' };
  assert.deepEqual(
    (await askEvents(XEN, NEVER, access)).map(({ action }) => action),
    ['suspend', 'evacuation'],
  );
});

test('Xen without its tools, or without the right to use them, is a failure with a name', async (t) => {
  const { access } = await PlatformEmulator.start(t, {});
  await assert.rejects(awaitChange(XEN, '0', NEVER, access), (error) => {
    return error instanceof PlatformError && error.failure === 'unreadable';
  });
});

test('vSphere: what whoever moves the machine has set', async (t) => {
  for (const [value, actions] of [
    ['vmotion\n', ['vmotion']],
    ['---\n', []],
    [null, []],
  ] as const) {
    const { access } = await PlatformEmulator.start(t, { programs: { 'vmware-rpctool': () => value } });
    const events = await askEvents(VSPHERE, NEVER, access);
    assert.deepEqual(
      events.map(({ action }) => action),
      actions,
    );
  }
});

test('Google: a question that is answered when something has changed, in the words of its documents', async (t) => {
  const wait = `${GCE_TREE}/?recursive=true&alt=json&wait_for_change=true&timeout_sec=50&last_etag=e1`;
  const emulator = await PlatformEmulator.start(t, {
    ...GCE_MACHINE,
    routes: { ...GCE_MACHINE.routes, [wait]: marked('{}') },
  });
  const mark = await awaitChange(GCE, null, NEVER, emulator.access);
  assert.equal(mark, 'e1');
  assert.equal(await awaitChange(GCE, mark, NEVER, emulator.access), 'e1');
  assert.equal(emulator.requests.at(-1), `GET ${wait}`);
});

test('an operator announces it where the platform does not, with a property of the server', async (t) => {
  const { meta, ...rest } = JSON.parse(OPENSTACK_METADATA) as { meta: Record<string, string> };
  const metadata = JSON.stringify({ ...rest, meta: { ...meta, 'stayput-maintenance': 'evacuation' } });
  const routes = { ...OPENSTACK.routes, '/openstack/latest/meta_data.json': metadata };
  const emulator = await PlatformEmulator.start(t, { ...OPENSTACK, routes });
  const { events } = platformReport(await emulator.examine());
  assert.deepEqual(events, [{ id: 'operator evacuation', action: 'evacuation', notBefore: null }]);
});

test('what is announced gets to logs and programs as plain words, and a bounded number of it', () => {
  const event = { id: '\u001b[2J', action: '$(reboot)\n', notBefore: 'x'.repeat(1000) };
  const [gated] = gateEvents([event]);
  assert.deepEqual([gated?.id, gated?.action, gated?.notBefore?.length], ['??2J', '??reboot??', 128]);
  assert.equal(gateEvents(Array.from({ length: 100 }, () => event)).length, 16);
});

test('it is due from ten minutes before its time, and at once where no time is said', () => {
  const due = Date.UTC(2027, 0, 21, 9, 0, 43);
  const scheduled = { id: '1', action: 'system-reboot', notBefore: '21 Jan 2027 09:00:43 GMT' };
  const minute = 60_000;
  for (const [at, imminent] of [
    [due - 11 * minute, false],
    [due - 9 * minute, true],
    [due + 29 * minute, true],
    [due + 31 * minute, false],
  ] as const) {
    assert.equal(isImminent(scheduled, 0, at), imminent);
  }
  for (const notBefore of [null, 'soon']) {
    assert.equal(isImminent({ ...scheduled, notBefore }, due, due), true);
    assert.equal(isImminent({ ...scheduled, notBefore }, due, due + 31 * minute), false);
  }
});
