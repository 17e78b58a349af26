/** The real systemd-notify, and a socket that stands for systemd. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { findProgram } from '../../runtime/programs.ts';
import { Notified } from '../lab/notified.ts';
import { waitFor } from '../lab/wait.ts';

const LIMIT_MS = 300;
/** Serves, and on SIGUSR2 does nothing else any more. */
const DAEMON = `
  const { notifySystemd } = await import(${JSON.stringify(new URL('../../runtime/watchdog.js', import.meta.url))});
  const { createLog } = await import(${JSON.stringify(new URL('../../runtime/log.js', import.meta.url))});
  process.on('SIGUSR2', () => { for (;;); });
  setInterval(() => {}, 1000);
  notifySystemd(createLog('agent', 'warn'));
`;

describe('a daemon under systemd', () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-notify-'));
  const open: { close(): void }[] = [];

  after(() => {
    for (const each of open) each.close();
    rmSync(folder, { recursive: true });
  });

  const daemon = async (name: string, env: Readonly<Record<string, string>>) => {
    const systemd = await Notified.listen(join(folder, name));
    // What stands still must not do so for ever when this process is killed.
    const program = ['--pdeathsig', 'KILL', process.execPath, '--input-type=module', '-e', DAEMON];
    const child = spawn(findProgram('setpriv') ?? '', program, {
      env: { ...process.env, NOTIFY_SOCKET: systemd.socket, ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    open.push(systemd, { close: () => child.kill('SIGKILL') });
    return { systemd, child };
  };

  test('says that it serves and that it is alive, until its event loop stands still', async () => {
    const { systemd, child } = await daemon('alive', { WATCHDOG_USEC: String(LIMIT_MS * 1000) });
    await waitFor('ready and alive', () => systemd.ready && systemd.beats >= 3);
    child.kill('SIGUSR2');
    await silence(systemd);
    assert.equal(child.exitCode, null, 'it ended instead');
  });

  test('says nothing of being alive when nobody asks this process', async () => {
    const { systemd } = await daemon('unasked', { WATCHDOG_USEC: String(LIMIT_MS * 1000), WATCHDOG_PID: '1' });
    await waitFor('ready', () => systemd.ready);
    await silence(systemd);
    assert.equal(systemd.beats, 0);
  });

  test('goes on, with one line in the log, when systemd cannot be told', async () => {
    const { child } = await daemon('mute', { WATCHDOG_USEC: String(LIMIT_MS * 1000), PATH: '/nowhere' });
    assert.match(await firstLine(child), /systemd cannot be told that this daemon runs/);
    assert.equal(child.exitCode, null);
  });
});

/** A daemon that is alive ends each silence sooner. */
function silence(systemd: Notified): Promise<unknown> {
  let last = { beats: systemd.beats, since: performance.now() };
  return waitFor('no word any more for four times the limit', () => {
    if (systemd.beats !== last.beats) last = { beats: systemd.beats, since: performance.now() };
    return performance.now() - last.since > 4 * LIMIT_MS;
  });
}

function firstLine(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => child.stderr?.once('data', (bytes: Buffer) => resolve(bytes.toString())));
}
