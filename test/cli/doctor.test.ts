/** `stayput doctor` has options, and so have its subcommands, by the same names. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const STAYPUT = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

test('an option behind a subcommand is that of the subcommand', async () => {
  const report = JSON.parse(await stayput('doctor', 'platform', '--json', '--platform', 'none')) as object;
  assert.equal((report as { platform?: unknown }).platform, 'none');
  const dns = JSON.parse(await stayput('doctor', 'dns', '--json', '--socket', '/nowhere')) as object;
  assert.ok('diagnoses' in dns);
});

/** What it prints, whatever its exit code. */
function stayput(...args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile(process.execPath, [STAYPUT, ...args], (_, stdout) => resolve(stdout));
  });
}
