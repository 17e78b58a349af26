/** Every test file is run, and once. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { nodeGroups, PATIENT, testGroups } from '../../scripts/test-runner.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';

const COMPILED = join(PROJECT_ROOT, 'dist', 'test');

test('each test file is in one group of one suite', () => {
  const grouped = [...testGroups('unit', []), ...testGroups('e2e', [])].flatMap(({ files }) => files);
  const all = readdirSync(COMPILED, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.test.js'));
  assert.deepEqual(grouped.toSorted(), all.map((path) => join(COMPILED, path)).sort());
});

test('what may run beside another is there, and what measures is alone', () => {
  for (const path of PATIENT) assert.ok(existsSync(join(PROJECT_ROOT, 'test', `${path}.test.ts`)), path);
  const [beside, alone] = testGroups('e2e', ['test/e2e/bench', 'test/e2e/restore']);
  assert.deepEqual(beside?.files, [join(COMPILED, 'e2e/restore.test.js')]);
  assert.deepEqual([alone?.files, alone?.atOnce], [[join(COMPILED, 'e2e/bench.test.js')], 1]);
});

test('what depends on Node is what reaches sockets, processes or native modules, through whatever it imports', () => {
  const files = nodeGroups([]).flatMap((group) => group.files);
  const depends = (path: string): boolean => files.includes(join(COMPILED, `${path}.test.js`));
  for (const path of ['agent/agent-process', 'mapserver/control-server', 'mapserver/store', 'runtime/http-api']) {
    assert.equal(depends(path), true, path);
  }
  for (const path of ['agent/crowd', 'mapserver/map-server', 'proto/lisp-codec'])
    assert.equal(depends(path), false, path);
});

test('a file that does not come to its end is ended and named, and the run has failed', (t) => {
  const folder = temporaryFolder(t);
  const endless = [
    "test('waits', () => new Promise((resolve) => setTimeout(resolve, 3_600_000)));",
    "test('leaves something open', () => void setInterval(() => {}, 1000));",
    "test('counts', () => { for (;;); });",
    "import { spawn } from 'node:child_process'; spawn('sleep', ['3600'], { stdio: 'inherit' });",
  ];
  const files = endless.map((source, n) => {
    const file = join(folder, `${n}.test.mjs`);
    writeFileSync(file, `import { test } from 'node:test';\n${source}\n`);
    return file;
  });
  const program = join(folder, 'run.mjs');
  const groups = JSON.stringify([{ suite: 'unit', files, atOnce: 2, fileLimitMs: 3_000 }]);
  writeFileSync(
    program,
    `import { runTests } from '${join(PROJECT_ROOT, 'dist/scripts/test-runner.js')}';
     await runTests(${groups}, new AbortController().signal);`,
  );
  // Node runs no tests within tests.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { status, stdout } = spawnSync(process.execPath, [program], { encoding: 'utf8', env });
  for (const file of files) assert.ok(stdout.includes(`# ended, as it still ran after 3 s: ${file}`), stdout);
  assert.equal(status, 1, stdout);
});
