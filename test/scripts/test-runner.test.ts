/** Every test file is run, and once. */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { nodeGroups, PATIENT, testGroups } from '../../scripts/test-runner.ts';

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
