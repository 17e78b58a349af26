/**
 * The store contract on one SQLite file: the default, for one map server.
 *
 * WAL with synchronous=FULL, so a commit is on the disk when it returns. Transactions that arrive in the same turn of
 * the event loop share one commit, since its cost is one fsync however many there are; each is still judged on its
 * own, in order, and answered only after the commit. Reads wait for the transactions before them.
 */
import type { Millis } from '../../proto/time.ts';
import { openSqlite, type SqliteDatabase, type SqliteStatement } from './sqlite-database.ts';
import {
  type CommitResult,
  CompactedError,
  type Condition,
  type Entry,
  type LeaseId,
  RESTORE,
  type Revision,
  type Store,
  type StoreChange,
  StoreError,
  type Watch,
  type Write,
} from './store.ts';
import { Watchers } from './watchers.ts';

export interface SqliteStoreOptions {
  readonly path: string;
  /** Milliseconds since the epoch. */
  readonly clock: () => number;
  /** Transactions kept for watchers. */
  readonly history?: number;
  /** Seconds that each commit took. */
  readonly onCommit?: (seconds: number) => void;
}

interface Job {
  /** Runs inside the transaction; what it returns is answered after the commit. */
  readonly run: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class SqliteStore implements Store {
  private readonly path: string;
  private readonly database: SqliteDatabase;
  private readonly statements: Statements;
  private readonly clock: () => number;
  private readonly history: number;
  private readonly onCommit: (seconds: number) => void;
  private readonly watchers = new Watchers();
  private jobs: Job[] = [];
  private revision: Revision;
  private batch: StoreChange[][] = [];
  private closed = false;

  /** @throws StoreError when the file cannot be opened or was written by a newer version */
  constructor(options: SqliteStoreOptions) {
    this.path = options.path;
    this.clock = options.clock;
    this.history = options.history ?? 1000;
    this.onCommit = options.onCommit ?? (() => {});
    this.database = openSqlite(options.path);
    try {
      prepareSchema(this.database, options.path);
      this.statements = prepareStatements(this.database);
      this.revision = revisionOf(this.statements);
    } catch (cause) {
      this.database.close();
      throw cause instanceof StoreError ? cause : this.failure('cannot be read', cause);
    }
  }

  get(key: string): Promise<Entry | undefined> {
    return this.enqueue(() => this.read(key));
  }

  list(prefix: string): Promise<{ readonly entries: readonly Entry[]; readonly revision: Revision }> {
    return this.enqueue(() => ({
      entries: (this.statements.list.all(prefix, `${prefix}\u{10ffff}`) as Entry[]).map(plain),
      revision: this.revision,
    }));
  }

  compareAndSet(conditions: readonly Condition[], writes: readonly Write[]): Promise<CommitResult> {
    return this.enqueue((): CommitResult => {
      for (const { lease } of writes) {
        if (lease !== undefined && this.statements.getLease.get(lease) === undefined) {
          throw new StoreError(`lease ${lease} is over`);
        }
      }
      const current = conditions.map(({ key }) => this.read(key));
      if (conditions.some(({ revision }, i) => (current[i]?.revision ?? 0) !== revision)) {
        return { ok: false, current: current.filter((entry) => entry !== undefined) };
      }
      this.write(writes);
      return { ok: true, revision: this.revision };
    });
  }

  watch(prefix: string, after: Revision, listener: (changes: readonly StoreChange[]) => void): Watch {
    const oldest = (this.statements.oldestChange.get() as { oldest: number | null }).oldest ?? this.revision + 1;
    if (after < oldest - 1) throw new CompactedError(after, oldest);
    const rows = this.statements.changesAfter.all(after) as { key: string; value: string | null; revision: number }[];
    const backlog = rows.map(({ key, value, revision }) => ({ key, value: value ?? undefined, revision }));
    return this.watchers.add(prefix, after, backlog, listener);
  }

  lease(ttl: Millis): Promise<LeaseId> {
    return this.enqueue(
      () =>
        (this.statements.addLease.get(Math.ceil(ttl), Math.ceil(this.clock() + ttl)) as { id: number }).id as LeaseId,
    );
  }

  renew(id: LeaseId): Promise<boolean> {
    return this.enqueue(() => {
      const lease = this.statements.getLease.get(id) as { ttl: number } | undefined;
      if (lease !== undefined) this.statements.renewLease.run(this.clock() + lease.ttl, id);
      return lease !== undefined;
    });
  }

  revoke(id: LeaseId): Promise<void> {
    return this.enqueue(() => this.end([id]));
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.commit();
    this.closed = true;
    this.database.close();
  }

  private enqueue<T>(run: () => T): Promise<T> {
    if (this.closed) return Promise.reject(new StoreError('the store is closed'));
    return new Promise((resolve, reject) => {
      this.jobs.push({ run, resolve: resolve as (value: unknown) => void, reject });
      if (this.jobs.length === 1) setImmediate(() => this.commit());
    });
  }

  private commit(): void {
    const jobs = this.jobs;
    if (jobs.length === 0) return;
    this.jobs = [];
    const before = this.revision;
    const started = performance.now();
    const answers: (() => void)[] = [];
    try {
      this.database.exec('BEGIN IMMEDIATE');
      this.revision = revisionOf(this.statements);
      const found = this.revision;
      this.expire();
      for (const { run, resolve, reject } of jobs) {
        try {
          const value = run();
          answers.push(() => resolve(value));
        } catch (error) {
          if (!(error instanceof StoreError)) throw error;
          answers.push(() => reject(error));
        }
      }
      if (this.revision > found) {
        this.statements.setRevision.run(this.revision);
        this.statements.compact.run(this.revision - this.history);
      }
      this.database.exec('COMMIT');
    } catch (cause) {
      this.abandon(before);
      const error = this.failure('the store cannot commit', cause);
      for (const { reject } of jobs) reject(error);
      return;
    }
    if (this.batch.length > 0) this.onCommit((performance.now() - started) / 1000);
    for (const answer of answers) answer();
    for (const changes of this.batch) this.watchers.publish(changes);
    this.batch = [];
  }

  private failure(what: string, cause: unknown): StoreError {
    const { message } = cause as Error;
    const advice = DAMAGED.test(message) ? `: ${RESTORE}` : '';
    return new StoreError(`${this.path}: ${what} (${message})${advice}`, { cause });
  }

  private abandon(revision: Revision): void {
    this.revision = revision;
    this.batch = [];
    try {
      this.database.exec('ROLLBACK');
    } catch {
      // There was no transaction left to roll back.
    }
  }

  private read(key: string): Entry | undefined {
    const row = this.statements.get.get(key) as Entry | undefined;
    return row === undefined ? undefined : plain(row);
  }

  private write(writes: readonly Write[]): void {
    if (writes.length === 0) return;
    const revision = ++this.revision;
    for (const { key, value, lease } of writes) {
      if (value === undefined) this.statements.remove.run(key);
      else this.statements.put.run(key, value, revision, lease ?? null);
      this.statements.log.run(revision, key, value ?? null);
    }
    this.batch.push(writes.map(({ key, value }) => ({ key, value, revision })));
  }

  private expire(): void {
    const ended = this.statements.endedLeases.all(this.clock()) as { id: number }[];
    this.end(ended.map(({ id }) => id as LeaseId));
  }

  private end(ids: readonly LeaseId[]): void {
    const keys = ids.flatMap((id) => {
      this.statements.removeLease.run(id);
      return this.statements.keysOfLease.all(id) as { key: string }[];
    });
    this.write(keys.map(({ key }) => ({ key, value: undefined })));
  }
}

function plain({ key, value, revision }: Entry): Entry {
  return { key, value, revision };
}

function prepareSchema(database: SqliteDatabase, path: string): void {
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;');
  const found = (database.prepare('PRAGMA user_version').get() as { user_version: number }).user_version;
  if (found > SCHEMA_VERSION) {
    throw new StoreError(`${path}: written by a newer version of Stayput (schema ${found}); upgrade this map server`);
  }
  if (found === 0) database.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT;`);
}

type Statements = ReturnType<typeof prepareStatements>;

function prepareStatements(database: SqliteDatabase) {
  const prepare = (sql: string): SqliteStatement => database.prepare(sql);
  return {
    get: prepare('SELECT key, value, revision FROM entries WHERE key = ?'),
    list: prepare('SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key'),
    put: prepare('INSERT OR REPLACE INTO entries (key, value, revision, lease) VALUES (?, ?, ?, ?)'),
    remove: prepare('DELETE FROM entries WHERE key = ?'),
    log: prepare('INSERT OR REPLACE INTO changes (revision, key, value) VALUES (?, ?, ?)'),
    changesAfter: prepare('SELECT key, value, revision FROM changes WHERE revision > ? ORDER BY revision'),
    oldestChange: prepare('SELECT min(revision) AS oldest FROM changes'),
    compact: prepare('DELETE FROM changes WHERE revision <= ?'),
    getRevision: prepare("SELECT value FROM meta WHERE name = 'revision'"),
    setRevision: prepare("UPDATE meta SET value = ? WHERE name = 'revision'"),
    getLease: prepare('SELECT ttl FROM leases WHERE id = ?'),
    addLease: prepare('INSERT INTO leases (ttl, expires_at) VALUES (?, ?) RETURNING id'),
    renewLease: prepare('UPDATE leases SET expires_at = ? WHERE id = ?'),
    removeLease: prepare('DELETE FROM leases WHERE id = ?'),
    endedLeases: prepare('SELECT id FROM leases WHERE expires_at <= ?'),
    keysOfLease: prepare('SELECT key FROM entries WHERE lease = ?'),
  };
}

function revisionOf(statements: Statements): Revision {
  return (statements.getRevision.get() as { value: number }).value;
}

/** What SQLite says of a file that is not one of its own, or not any more. */
const DAMAGED = /not a database|malformed/;

const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
  INSERT INTO meta VALUES ('revision', 0);
  CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL, lease INTEGER) STRICT;
  CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
  CREATE TABLE changes (revision INTEGER NOT NULL, key TEXT NOT NULL, value TEXT, PRIMARY KEY (revision, key)) STRICT;
  CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl INTEGER NOT NULL, expires_at INTEGER NOT NULL) STRICT;
`;
