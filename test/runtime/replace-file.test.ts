import assert from 'node:assert/strict';
import {
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { writePrivateFile } from '../../runtime/private-file.ts';
import { type Owner, replaceFile } from '../../runtime/replace-file.ts';
import { temporaryFolder } from './temporary-folder.ts';

const AS_ROOT = { skip: process.getuid?.() === 0 ? false : 'needs root' };
const ANOTHER = 65_534;
const LEFTOVER = `file.${process.pid}.tmp`;

test('a file has the mode that is said, under any umask', (t) => {
  const path = join(temporaryFolder(t), 'file');
  const own = process.umask();
  t.after(() => process.umask(own));
  for (const umask of [0o000, 0o022, 0o077, 0o777]) {
    process.umask(umask);
    for (const mode of [0o600, 0o640, 0o666]) {
      replaceFile(path, 'new', mode);
      assert.equal(statSync(path).mode & 0o777, mode, `umask ${umask.toString(8)}`);
    }
  }
});

test('a link is replaced, not what it leads to', (t) => {
  const folder = temporaryFolder(t);
  const [path, other] = [join(folder, 'file'), join(folder, 'other')];
  writeFileSync(other, 'other');
  symlinkSync(other, path);
  replaceFile(path, Buffer.from('new'), 0o600);
  assert.equal(lstatSync(path).isFile(), true);
  assert.deepEqual([readFileSync(path, 'utf8'), readFileSync(other, 'utf8')], ['new', 'other']);
});

test('a leftover of a crash in the middle of writing does no harm', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'file');
  writeFileSync(join(folder, LEFTOVER), 'more than half of what is new', { mode: 0o644 });
  replaceFile(path, 'new', 0o600);
  assert.deepEqual([readFileSync(path, 'utf8'), statSync(path).mode & 0o777], ['new', 0o600]);
  assert.deepEqual(readdirSync(folder), ['file']);
});

test('when writing fails, the old file is whole and nothing is left behind', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'file');
  replaceFile(path, 'old', 0o600);
  const failing = during(() => {
    throw new Error('no space');
  });
  assert.throws(() => replaceFile(path, 'new', 0o600, failing), /no space/);
  assert.equal(readFileSync(path, 'utf8'), 'old');
  mkdirSync(join(folder, 'folder'));
  assert.throws(() => replaceFile(join(folder, 'folder'), 'new', 0o600), { code: 'EISDIR' });
  assert.deepEqual(readdirSync(folder).sort(), ['file', 'folder']);
});

test("secrets that root writes into another user's folder stay root's, unless said otherwise", AS_ROOT, (t) => {
  const folder = folderOfAnother(t);
  const path = join(folder, 'file');
  writePrivateFile(path, Buffer.from('secret'));
  assert.deepEqual(accessOf(path), [0, 0, 0o600]);
  writePrivateFile(path, Buffer.from('secret'), { uid: 0, gid: ANOTHER, mode: 0o640 });
  assert.deepEqual(accessOf(path), [0, ANOTHER, 0o640]);
});

// Attack: links to files of root, under each name that root is about to write, in the folder of another user, and a folder that becomes a link to one of root's while root writes | 3 | what they lead to keeps its content, owner and mode; nothing is added
test('attack: links where root writes for another user', AS_ROOT, (t) => {
  const folder = folderOfAnother(t);
  const ofRoot = temporaryFolder(t);
  const victim = join(ofRoot, 'victim');
  writeFileSync(victim, 'of root', { mode: 0o600 });
  for (const name of ['file', LEFTOVER]) symlinkSync(victim, join(folder, name));
  replaceFile(join(folder, 'file'), 'new', 0o600, 'folder');
  assert.deepEqual(accessOf(join(folder, 'file')), [ANOTHER, ANOTHER, 0o600]);
  const moving = join(temporaryFolder(t), 'moving');
  symlinkSync(folder, moving);
  const turning = during(() => {
    rmSync(moving);
    symlinkSync(ofRoot, moving);
  });
  replaceFile(join(moving, 'turned'), 'new', 0o600, turning);
  assert.deepEqual(readdirSync(folder).sort(), ['file', 'turned']);
  assert.deepEqual(readdirSync(ofRoot), ['victim']);
  assert.deepEqual([...accessOf(victim), readFileSync(victim, 'utf8')], [0, 0, 0o600, 'of root']);
});

function folderOfAnother(t: TestContext): string {
  const folder = temporaryFolder(t);
  chownSync(folder, ANOTHER, ANOTHER);
  return folder;
}

function accessOf(path: string): [uid: number, gid: number, mode: number] {
  const { uid, gid, mode } = statSync(path);
  return [uid, gid, mode & 0o777];
}

/** Who writes, as an owner: that is read in the middle of writing, when something happens. */
function during(happens: () => void): Owner {
  return {
    get uid() {
      happens();
      return process.getuid?.() ?? 0;
    },
    gid: process.getgid?.() ?? 0,
  };
}
