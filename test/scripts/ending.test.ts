/** Whoever starts tests and is gone leaves nothing running: an npm that was killed, a terminal that was closed. */
import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { waitFor } from '../lab/wait.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';

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

  test('does not begin the files that wait for their turn', async (t) => {
    const folder = temporaryFolder(t);
    const begun = join(folder, 'begun');
    const files = ['first', 'second'].map((name) => join(folder, `${name}.test.mjs`));
    for (const file of files) writeFileSync(file, patientTest(begun));
    const program = join(folder, 'run.mjs');
    writeFileSync(program, runnerOf(files));
    const run = spawn(process.execPath, [program], { stdio: ['ignore', 'ignore', 'inherit'], env: OUTSIDE });
    started.push(run.pid ?? 0);
    await waitFor('the first', () => readFileSync(begun, 'utf8').endsWith('\n'));
    run.kill('SIGTERM');
    await waitFor('everything to be gone', () => !commandLines().some((line) => line.includes(folder)));
    assert.equal(readFileSync(begun, 'utf8'), `${files[0]}\n`);
  });

  async function firstLine(child: ChildProcess): Promise<number[]> {
    started.push(child.pid ?? 0);
    assert.ok(child.stdout);
    for await (const line of createInterface({ input: child.stdout })) {
      const pids = line.split(' ').map(Number);
      started.push(...pids);
      assert.equal(pids.length, 3);
      return pids;
    }
    assert.fail('nothing was started');
  }
});

/** The tests that this one is a part of run under npm themselves, and Node runs no tests within tests. */
const { npm_execpath: _, NODE_TEST_CONTEXT: __, ...OUTSIDE } = process.env;
const ENDING = join(PROJECT_ROOT, 'dist/scripts/ending.js');
const RUNNER = join(PROJECT_ROOT, 'dist/scripts/test-runner.js');

/** As a run of tests does: its own process id and those of what it starts, one of which does not end by SIGTERM. */
const RUN = [
  '--input-type=module',
  '-e',
  `import { spawn } from 'node:child_process';
   import { createInterface } from 'node:readline';
   import { endWithCaller } from '${ENDING}';
   endWithCaller(200);
   const plain = spawn('sleep', ['300'], { stdio: 'ignore' });
   const stubborn = spawn('sh', ['-c', 'trap "" TERM; echo; while :; do sleep 300; done'], { stdio: ['ignore', 'pipe', 'ignore'] });
   createInterface({ input: stubborn.stdout }).once('line', () => console.log(process.pid, plain.pid, stubborn.pid));`,
];

const NPM = `
  process.title = 'npm test';
  const quoted = process.argv.slice(1).map((arg) => "'" + arg.replaceAll("'", "'\\\\''") + "'");
  require('node:child_process').spawn('sh', ['-c', 'true && "' + process.execPath + '" ' + quoted.join(' ') + '; true'], { stdio: 'inherit' });`;

/** A program that runs the files as tests, one after the other. */
function runnerOf(files: readonly string[]): string {
  const groups = JSON.stringify([{ suite: 'e2e', files, atOnce: 1, fileLimitMs: 600_000 }]);
  return [
    `import { endWithCaller } from '${ENDING}';`,
    `import { runTests } from '${RUNNER}';`,
    `await runTests(${groups}, endWithCaller(200));`,
  ].join('\n');
}

/** Says in the file `begun` that it was begun, and goes on for long. */
function patientTest(begun: string): string {
  return `
    import { appendFileSync } from 'node:fs';
    import { test } from 'node:test';
    appendFileSync('${begun}', process.argv[1] + '\\n');
    test('takes long', () => new Promise((resolve) => setTimeout(resolve, 300_000)));`;
}

function commandLines(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      } catch {
        return '';
      }
    });
}

function gone(pids: readonly number[]): Promise<boolean> {
  return waitFor('everything to be gone', () => pids.every((pid) => !existsSync(`/proc/${pid}`)));
}
