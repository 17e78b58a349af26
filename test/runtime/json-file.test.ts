import assert from 'node:assert/strict';
import { chownSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { z } from 'zod';
import { readJsonFile, StateFileError, writeJsonFile } from '../../runtime/json-file.ts';
import { temporaryFolder } from './temporary-folder.ts';

const AS_ROOT = { skip: process.getuid?.() === 0 ? false : 'needs root' };
const ANOTHER = 65_534;

test('what is written is read back, in a new folder, readable by the owner only', (t) => {
  const path = join(temporaryFolder(t), 'deep', 'er', 'state.json');
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      writeJsonFile(path, value);
      assert.deepEqual(readJsonFile(path, z.unknown()), JSON.parse(JSON.stringify(value)));
    }),
    { numRuns: 20 },
  );
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(path)).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(dirname(path)), ['state.json']);
});

test('a file that anybody could read becomes private when it is replaced', (t) => {
  const path = join(temporaryFolder(t), 'state.json');
  writeFileSync(path, '{}', { mode: 0o644 });
  writeJsonFile(path, { secret: 1 });
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('when writing fails, the old file is whole and nothing is left behind', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'state.json');
  writeJsonFile(path, { old: true });
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  assert.throws(() => writeJsonFile(path, circular), StateFileError);
  assert.deepEqual(readJsonFile(path, z.unknown()), { old: true });
  assert.deepEqual(readdirSync(folder), ['state.json']);
});

test('a path that cannot be a file is an error that names it', (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'state.json'));
  assert.throws(() => writeJsonFile(join(folder, 'state.json'), {}), /state\.json: cannot be written/);
  assert.throws(() => readJsonFile(join(folder, 'state.json'), z.unknown()), /state\.json: cannot be read/);
});

test('no file is not an error; a corrupt one or one of another form is, and stays as it is', (t) => {
  const path = join(temporaryFolder(t), 'state.json');
  const schema = z.strictObject({ generation: z.number() });
  assert.equal(readJsonFile(path, schema), undefined);
  for (const text of ['', '{"generation": 1', '{"generation": "1"}', '[]', '\u0000']) {
    writeFileSync(path, text);
    assert.throws(() => readJsonFile(path, schema), StateFileError);
    assert.equal(readFileSync(path, 'utf8'), text);
  }
});

test("what root writes into another user's folder belongs to that user", AS_ROOT, (t) => {
  const folder = temporaryFolder(t);
  chownSync(folder, ANOTHER, ANOTHER);
  const path = join(folder, 'state.json');
  writeFileSync(path, '{"of": "root"}', { mode: 0o600 });
  writeJsonFile(path, { secret: 1 });
  assert.deepEqual(owner(path), [ANOTHER, ANOTHER, 0o600]);
  assert.deepEqual(readJsonFile(path, z.unknown()), { secret: 1 });
  assert.deepEqual(readdirSync(folder), ['state.json']);
  writeJsonFile(path, {}, 0o640);
  assert.deepEqual(owner(path), [ANOTHER, ANOTHER, 0o640]);
});

function owner(path: string): [uid: number, gid: number, mode: number] {
  const { uid, gid, mode } = statSync(path);
  return [uid, gid, mode & 0o777];
}
