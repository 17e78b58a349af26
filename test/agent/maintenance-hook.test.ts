/** The operator's program for announced maintenance. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { MaintenanceHook } from '../../agent/shell/maintenance-hook.ts';
import { createLog } from '../../runtime/log.ts';
import { waitFor } from '../lab/wait.ts';

const HOOK = import.meta.url.replace(
  /test\/agent\/maintenance-hook\.test\.(ts|js)$/,
  'agent/shell/maintenance-hook.$1',
);

test('it is told what is announced and when that is over, once each, and one after the other', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'maintenance-hook-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const [program, told, gate] = ['hook', 'told', 'gate'].map((name) => join(dir, name)) as [string, string, string];
  const script = [
    '#!/bin/sh',
    `echo "$STAYPUT_MAINTENANCE $STAYPUT_PLATFORM $STAYPUT_ACTION $STAYPUT_SOCKET" >> ${told}`,
    `while [ ! -e ${gate} ]; do sleep 0.01; done`,
  ];
  writeFileSync(program, script.join('\n'));
  chmodSync(program, 0o755);
  const hook = new MaintenanceHook(program, '/run/agent.sock', createLog('agent', 'silent'));
  t.after(() => hook.close());
  const lines = (): string[] => (existsSync(told) ? readFileSync(told, 'utf8').trim().split('\n') : []);
  hook.handle('gce', [{ id: '1', action: 'MIGRATE_ON_HOST_MAINTENANCE', notBefore: null }]);
  await waitFor('the announcement', () => lines().length === 1);
  hook.handle('gce', [{ id: '2', action: 'between', notBefore: null }]);
  hook.handle('gce', []);
  writeFileSync(gate, '');
  await waitFor('the end', () => lines().length === 2);
  assert.deepEqual(lines(), ['announced gce MIGRATE_ON_HOST_MAINTENANCE /run/agent.sock', 'over gce  /run/agent.sock']);
});

test('one that does not end in time is ended whatever it does about that, and the next one runs', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'maintenance-hook-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const [program, told] = ['hook', 'told'].map((name) => join(dir, name)) as [string, string];
  const script = [
    '#!/bin/sh',
    "trap '' TERM",
    `echo "$STAYPUT_MAINTENANCE" >> ${told}`,
    'while :; do sleep 0.01; done',
  ];
  writeFileSync(program, script.join('\n'));
  chmodSync(program, 0o755);
  const hook = new MaintenanceHook(program, '/run/agent.sock', createLog('agent', 'silent'), 500);
  t.after(() => hook.close());
  const lines = (): string[] => (existsSync(told) ? readFileSync(told, 'utf8').trim().split('\n') : []);
  const event = { id: '1', action: 'MIGRATE_ON_HOST_MAINTENANCE', notBefore: null };
  // Said again, as a slow machine may end it before it has begun.
  const runs = (what: string, events: readonly (typeof event)[]): Promise<boolean> =>
    waitFor(`the program's word of ${what}`, () => {
      if (!lines().includes(what)) hook.handle('gce', events);
      return lines().includes(what);
    });
  await runs('announced', [event]);
  await runs('over', []);
});

test('without a file descriptor left it fails, and runs with the next announcement', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'maintenance-hook-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const [program, told] = ['hook', 'told'].map((name) => join(dir, name)) as [string, string];
  writeFileSync(
    program,
    ['#!/bin/sh', `echo "$STAYPUT_MAINTENANCE" > ${told}.new`, `mv ${told}.new ${told}`].join('\n'),
  );
  chmodSync(program, 0o755);
  const script = `
    import { closeSync, existsSync, openSync } from 'node:fs';
    import { MaintenanceHook } from ${JSON.stringify(HOOK)};
    const open = [];
    const log = { error: ({ reason }) => {
      console.log(reason);
      for (const fd of open) closeSync(fd);
      hook.handle('gce', []);
    } };
    const hook = new MaintenanceHook(${JSON.stringify(program)}, '/run/agent.sock', log);
    try {
      for (;;) open.push(openSync('/dev/null'));
    } catch {
      hook.handle('gce', [{ id: '1', action: 'MIGRATE_ON_HOST_MAINTENANCE', notBefore: null }]);
    }
  `;
  const { stdout } = await promisify(execFile)('sh', [
    '-c',
    'ulimit -n 64; exec "$0" --input-type=module -e "$1"',
    process.execPath,
    script,
  ]);
  assert.match(stdout, /^spawn \S+ EMFILE\n$/);
  assert.equal(readFileSync(told, 'utf8'), 'over\n');
});

test('what the program has started ends with it', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'maintenance-hook-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const [program, started] = ['hook', 'started'].map((name) => join(dir, name)) as [string, string];
  writeFileSync(
    program,
    ['#!/bin/sh', 'sleep 600 &', `echo $! > ${started}.new`, `mv ${started}.new ${started}`, 'wait'].join('\n'),
  );
  chmodSync(program, 0o755);
  const hook = new MaintenanceHook(program, '/run/agent.sock', createLog('agent', 'silent'));
  t.after(() => hook.close());
  hook.handle('gce', []);
  await waitFor('the program', () => existsSync(started));
  const isGone = (): boolean => {
    try {
      const status = readFileSync(`/proc/${readFileSync(started, 'utf8').trim()}/status`, 'utf8');
      return /^State:\s+Z/m.test(status);
    } catch {
      return true;
    }
  };
  assert.ok(!isGone());
  hook.close();
  await waitFor('its end', isGone);
});
