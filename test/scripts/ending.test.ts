/** Whoever starts tests and is gone leaves nothing running: an npm that was killed, a terminal that was closed. */
import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { waitFor } from '../lab/wait.ts';

describe('a run of tests', () => {
  const started: number[] = [];

  afterEach(() => {
    for (const pid of started.splice(0)) if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
  });

  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) {
    test(`that is told to end by ${signal} ends what it has started`, async () => {
      const run = spawn(process.execPath, RUN, { stdio: ['ignore', 'pipe', 'inherit'], env: OUTSIDE });
      const pids = await firstLine(run);
      process.kill(pids[0] ?? 0, signal);
      await gone(pids);
    });
  }

  test('ends with the npm that started it through a shell, which npm that is killed does not take along', async () => {
    const npm = spawn(process.execPath, ['-e', NPM, '--', ...RUN], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...OUTSIDE, npm_execpath: 'npm' },
    });
    const pids = await firstLine(npm);
    npm.kill('SIGKILL');
    await gone(pids);
  });

  async function firstLine(child: ChildProcess): Promise<number[]> {
    started.push(child.pid ?? 0);
    assert.ok(child.stdout);
    for await (const line of createInterface({ input: child.stdout })) {
      const pids = line.split(' ').map(Number);
      started.push(...pids);
      return pids;
    }
    assert.fail('nothing was started');
  }
});

/** The tests that this one is a part of run under npm themselves. */
const { npm_execpath: _, ...OUTSIDE } = process.env;

/** As a run of tests does: its own process id and those of what it starts, one of which does not end by SIGTERM. */
const RUN = [
  '--input-type=module',
  '-e',
  `import { spawn } from 'node:child_process';
   import { createInterface } from 'node:readline';
   import { endWithCaller } from '${join(PROJECT_ROOT, 'dist/scripts/ending.js')}';
   endWithCaller(200);
   const plain = spawn('sleep', ['300'], { stdio: 'ignore' });
   const stubborn = spawn('sh', ['-c', 'trap "" TERM; echo; while :; do sleep 300; done'], { stdio: ['ignore', 'pipe', 'ignore'] });
   createInterface({ input: stubborn.stdout }).once('line', () => console.log(process.pid, plain.pid, stubborn.pid));`,
];

const NPM = `
  process.title = 'npm test';
  const quoted = process.argv.slice(1).map((arg) => "'" + arg.replaceAll("'", "'\\\\''") + "'");
  require('node:child_process').spawn('sh', ['-c', 'true && "' + process.execPath + '" ' + quoted.join(' ') + '; true'], { stdio: 'inherit' });`;

function gone(pids: readonly number[]): Promise<boolean> {
  assert.equal(pids.length, 3);
  return waitFor('everything to be gone', () => pids.every((pid) => !existsSync(`/proc/${pid}`)));
}
