/** The two SQLite bindings behind one face: node:sqlite where this Node has it, else better-sqlite3. */
import { createRequire } from 'node:module';
import { StoreError } from './store.ts';

export type SqliteValue = string | number | null;

export interface SqliteStatement {
  run(...values: SqliteValue[]): unknown;
  get(...values: SqliteValue[]): unknown;
  all(...values: SqliteValue[]): unknown[];
}

export interface SqliteDatabase {
  exec(sql: string): unknown;
  prepare(sql: string): SqliteStatement;
  close(): void;
}

type DatabaseClass = new (path: string) => SqliteDatabase;

/** @throws StoreError when there is no binding or the file cannot be opened */
export function openSqlite(path: string): SqliteDatabase {
  const Database = binding();
  try {
    return new Database(path);
  } catch (cause) {
    throw new StoreError(`${path}: cannot be opened (${(cause as Error).message})`, { cause });
  }
}

function binding(): DatabaseClass {
  const require = createRequire(import.meta.url);
  try {
    return withoutWarning(() => (require('node:sqlite') as { DatabaseSync: DatabaseClass }).DatabaseSync);
  } catch {
    // This Node has none, or only behind a flag.
  }
  try {
    return require('better-sqlite3') as DatabaseClass;
  } catch (cause) {
    throw new StoreError('no SQLite: use Node 22.13 or newer, or install the package better-sqlite3', { cause });
  }
}

/** node:sqlite announces that it is experimental, on stderr, in the middle of what people asked for. */
function withoutWarning<T>(load: () => T): T {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return load();
  } finally {
    process.emitWarning = emitWarning;
  }
}
