/** Copies of a store as a file, of one moment, while others use it. */
import { existsSync } from 'node:fs';
import { openSqlite } from './sqlite-database.ts';
import { StoreError } from './store.ts';

/** @throws StoreError when there is no store, it is damaged, or the copy cannot be written */
export function copyDatabase(from: string, to: string): void {
  if (!existsSync(from)) throw new StoreError(`${from}: there is no store`);
  const database = openSqlite(from);
  try {
    database.exec('PRAGMA busy_timeout = 5000');
    // One read transaction: writers go on, and what they commit meanwhile is not in it.
    database.exec(`VACUUM INTO '${to.replaceAll("'", "''")}'`);
  } catch (cause) {
    throw new StoreError(`${from}: cannot be copied (${(cause as Error).message})`, { cause });
  } finally {
    database.close();
  }
}

/** @throws StoreError when the file is damaged */
export function checkDatabase(path: string): void {
  const database = openSqlite(path);
  try {
    const { integrity_check: found } = database.prepare('PRAGMA integrity_check(1)').get() as Record<string, unknown>;
    if (found !== 'ok') throw new StoreError(`${path}: is damaged (${String(found)})`);
  } catch (cause) {
    if (cause instanceof StoreError) throw cause;
    throw new StoreError(`${path}: is damaged (${(cause as Error).message})`, { cause });
  } finally {
    database.close();
  }
}
