import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { SqliteStore } from '../../mapserver/store/sqlite.ts';

const WRITER = fileURLToPath(import.meta.url.replace(/store-crash\.test\.(ts|js)$/, 'store-writer.$1'));

test('nothing that the sqlite store acknowledged is lost when its process is killed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-store-'));
  try {
    let total = 0;
    for (let round = 0; round < 3; round++) {
      const acknowledged = await writeUntilKilled(join(folder, 'store.db'), total + 50 + 37 * round);
      const store = new SqliteStore({ path: join(folder, 'store.db'), clock: Date.now });
      const value = Number((await store.get('counter'))?.value);
      const { entries } = await store.list('item/');
      await store.close();
      assert.ok(value >= acknowledged, `${acknowledged} were acknowledged, ${value} are there`);
      assert.ok(value <= acknowledged + 8, 'no more than those under way');
      assert.equal(entries.length, value, 'each transaction is there whole');
      total = value;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

/** Kills the writer after it acknowledged `count`; returns the last acknowledged number. */
function writeUntilKilled(path: string, count: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const writer = fork(WRITER, [path], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    let last = 0;
    writer.on('message', (acknowledged: number) => {
      last = Math.max(last, acknowledged);
      if (acknowledged >= count) writer.kill('SIGKILL');
    });
    writer.on('error', reject);
    writer.on('exit', (code, signal) => {
      if (signal === 'SIGKILL') resolve(last);
      else reject(new Error(`the writer ended with ${code}`));
    });
  });
}
