/** A map server whose store is damaged does not start, and says what to do about it. */
import assert from 'node:assert/strict';
import { openSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { openSqlite } from '../../mapserver/store/sqlite-database.ts';
import { TestOverlay } from './overlay.ts';

const ADVICE = /restore the data folder from a backup; .* mapserver init/;
let overlay: TestOverlay;
afterEach(() => overlay.remove());

async function stopped(): Promise<string> {
  overlay = new TestOverlay();
  await overlay.start();
  for (let i = 0; i < 50; i++) await overlay.token({ eids: [`10.77.0.${i}/32`] });
  await overlay.stop();
  return join(overlay.dataDir, 'store.db');
}

test('a file that is no database', async () => {
  writeFileSync(await stopped(), 'a'.repeat(8_192));
  await assert.rejects(overlay.start(), {
    code: 'STAYPUT_STORE',
    message: /store\.db: cannot be read .*not a database/,
  });
  await assert.rejects(overlay.start(), ADVICE);
});

test('a database with pages of zeros', async () => {
  const path = await stopped();
  const { size } = statSync(path);
  assert.ok(size > 8_192);
  writeSync(openSync(path, 'r+'), Buffer.alloc(size - 4_096), 0, size - 4_096, 4_096);
  await assert.rejects(overlay.start(), { code: 'STAYPUT_STORE', message: ADVICE });
});

test('a record that is none', async () => {
  const database = openSqlite(await stopped());
  database.exec("INSERT INTO entries (key, value, revision) VALUES ('agent/x', '{}', 1)");
  database.close();
  await assert.rejects(overlay.start(), { code: 'STAYPUT_STORE', message: /record agent\/x cannot be read/ });
  await assert.rejects(overlay.start(), ADVICE);
});
