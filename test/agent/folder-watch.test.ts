import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { FolderWatch } from '../../agent/shell/folder-watch.ts';
import { waitFor } from '../lab/wait.ts';

test('a folder that was removed and made again is watched as before', async (t) => {
  const { folder, watch, seen } = watched(t);
  mkdirSync(folder);
  watch.follow([folder]);
  rmSync(folder, { recursive: true });
  await waitFor('its end is noticed', () => seen.length > 0);
  mkdirSync(folder);
  watch.follow([folder]);
  seen.length = 0;
  writeFileSync(join(folder, 'one'), '');
  await waitFor('the file in the new one', () => seen.includes('one'));
});

test('a folder that another took the place of is watched as before', async (t) => {
  const { folder, watch, seen } = watched(t);
  mkdirSync(folder);
  mkdirSync(`${folder}.new`);
  watch.follow([folder]);
  renameSync(folder, `${folder}.old`);
  renameSync(`${folder}.new`, folder);
  watch.follow([folder]);
  seen.length = 0;
  writeFileSync(join(folder, 'one'), '');
  await waitFor('the file in the new one', () => seen.includes('one'));
});

test('that a folder comes is noticed, and files beside it are nobody’s business', async (t) => {
  const { folder, watch, seen } = watched(t);
  watch.follow([folder]);
  writeFileSync(join(folder, '..', 'other'), '');
  mkdirSync(folder);
  await waitFor('the folder', () => seen.length > 0);
  watch.follow([folder]);
  writeFileSync(join(folder, 'one'), '');
  await waitFor('the file in it', () => seen.includes('one'));
  assert.ok(!seen.includes('other'));
});

function watched(t: TestContext): { folder: string; watch: FolderWatch; seen: (string | null)[] } {
  const top = mkdtempSync(join(tmpdir(), 'stayput-folder-'));
  const seen: (string | null)[] = [];
  const watch = new FolderWatch((_, name) => seen.push(name));
  t.after(() => {
    watch.close();
    rmSync(top, { recursive: true });
  });
  return { folder: join(top, 'folder'), watch, seen };
}
