/** Whom the files belong to that root puts back, and who may read them: the map server is another user. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, type TestContext, test } from 'node:test';
import { readBackup, writeBackup } from '../../mapserver/shell/backup.ts';
import { type Restored, restoreBackup } from '../../mapserver/shell/restore.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';
import { TestOverlay } from './overlay.ts';

describe('what root puts back', { skip: process.getuid?.() === 0 ? false : 'needs root' }, () => {
  const overlay = new TestOverlay();
  const own = process.umask();
  before(async () => {
    await overlay.start();
    await overlay.stop();
  });
  // The most that an administrator may have taken away.
  beforeEach(() => process.umask(0o077));
  after(async () => {
    process.umask(own);
    await overlay.remove();
  });

  /** A machine with a backup of another one in it, of which nothing else is left. */
  const newMachine = (t: TestContext) => {
    const root = temporaryFolder(t);
    chmodSync(root, 0o755);
    const at = {
      root,
      dataDir: join(root, 'var/mapserver'),
      configDir: join(root, 'etc'),
      config: join(root, 'etc/mapserver.json'),
      key: join(root, 'etc/keys/of/xfr.key'),
      file: join(root, 'backup'),
    };
    mkdirSync(join(root, 'etc/keys/of'), { recursive: true });
    for (const path of [at.config, at.key]) writeFileSync(path, 'x');
    const paths = [at.config, at.key];
    writeBackup({ dataDir: overlay.dataDir, paths, passphrase: undefined, target: at.file, now: Date.now() });
    rmSync(at.configDir, { recursive: true });
    const restore = (force = false): Promise<Restored> =>
      restoreBackup(readBackup(at.file, undefined), { ...at, user: 'nobody', force, now: Date.now() });
    return { ...at, restore };
  };

  test('is read by whom the data folder belongs to, of whatever group that is', async (t) => {
    const { dataDir, config, key, restore } = newMachine(t);
    makeOpen(join(dataDir, '..'));
    mkdirSync(dataDir);
    chownSync(dataDir, BIN.uid, 0);
    const { written } = await restore();
    assert.deepEqual(written, [config, key]);
    assert.equal(owner(config), `0:${BIN.gid} 640`, 'it cannot change its own configuration');
    assert.equal(owner(key), `${BIN.uid}:${BIN.gid} 600`);
    for (const name of readdirSync(dataDir)) assert.equal(owner(join(dataDir, name)), `${BIN.uid}:0 600`, name);
    for (const path of [config, key, join(dataDir, 'store.db')]) execFileSync('cat', [path], BIN);
    const { replaced } = await restore(true);
    assert.equal(owner(replaced ?? ''), `${BIN.uid}:0 700`);
    execFileSync('cat', [join(dataDir, 'store.db'), join(replaced ?? '', 'store.db')], BIN);
  });

  test('is read by the user that an installation makes, where there is no data folder, or one of root', async (t) => {
    for (const isThere of [false, true]) {
      const { dataDir, config, key, restore } = newMachine(t);
      if (isThere) mkdirSync(dataDir, { recursive: true });
      await restore();
      const { uid, gid } = NOBODY;
      assert.equal(owner(dataDir), isThere ? '0:0 700' : `${uid}:${gid} 700`);
      assert.deepEqual([owner(config), owner(key)], [`0:${gid} 640`, `${uid}:${gid} 600`]);
      for (const path of isThere ? [config, key] : [config, key, join(dataDir, 'store.db')])
        execFileSync('cat', [path], NOBODY);
    }
  });

  test('follows no link out of the folder of the configuration', async (t) => {
    const { root, configDir, config, key, restore } = newMachine(t);
    const other = join(root, 'other');
    for (const folder of [join(other, 'of'), configDir]) makeOpen(folder);
    symlinkSync(other, join(configDir, 'keys'));
    symlinkSync(join(other, 'target'), config);
    const { written, elsewhere } = await restore();
    assert.deepEqual([written, elsewhere], [[config], [key]]);
    assert.ok(lstatSync(config).isFile(), 'in the place of the link');
    assert.deepEqual([readdirSync(other), readdirSync(join(other, 'of'))], [['of'], []]);
    assert.equal(owner(other), '0:0 700');
  });
});

function makeOpen(folder: string): void {
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o755);
}

function owner(path: string): string {
  const { uid, gid, mode } = lstatSync(path);
  return `${uid}:${gid} ${(mode & 0o777).toString(8)}`;
}

/** Of every Linux. */
const BIN = { uid: Number(execFileSync('id', ['-u', 'bin'])), gid: Number(execFileSync('id', ['-g', 'bin'])) };
const NOBODY = { uid: Number(execFileSync('id', ['-u', 'nobody'])), gid: Number(execFileSync('id', ['-g', 'nobody'])) };
