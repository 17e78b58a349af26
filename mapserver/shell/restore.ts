/**
 * Puts a backup back (`backup.ts`), for a map server that does not run.
 *
 * Everything is written and checked in a folder beside, then moved into place; what was there before is kept in a folder
 * of its own. The store learns that it was restored, and from which generation on it may give new ones
 * (`core/generations.ts`). The audit log stays as it is: it tells what was done since the backup.
 */
import { chownSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import type { Generation } from '../../proto/mapping.ts';
import type { WallClock } from '../../proto/time.ts';
import { writePrivateFile } from '../../runtime/private-file.ts';
import { RESTORATION_KEY, type RestorationRecord } from '../core/records.ts';
import { SqliteStore } from '../store/sqlite.ts';
import { checkDatabase } from '../store/sqlite-copy.ts';
import type { Entry } from '../store/store.ts';
import { type AuditLine, readAuditLog } from './audit-log.ts';
import { type Backup, BackupError, DATA_FILES, STORE_NAME } from './backup.ts';
import { openOverlay } from './overlay-files.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';

export interface Restored {
  readonly backedUpAt: WallClock;
  /** Where the former content of the data folder is now; null when it was empty. */
  readonly replaced: string | null;
  /** Files outside of the data folder: written since they were missing, and left since they are there. */
  readonly written: readonly string[];
  readonly left: readonly string[];
  /** What the audit log has of the time since the backup: lines, */
  readonly linesSince: number;
  /** agents that joined, which the map server does not know any more, */
  readonly joined: readonly string[];
  /** and agents and tokens that were cut off, and are not any more. */
  readonly agentsToRevoke: readonly string[];
  readonly tokensToRevoke: readonly string[];
}

/** @throws BackupError, StoreError, StateFileError, UsageError; nothing was changed then */
export async function restoreBackup(
  { manifest, contents }: Backup,
  options: { readonly dataDir: string; readonly force: boolean; readonly now: WallClock },
): Promise<Restored> {
  const { dataDir, now } = options;
  if (await isServed(join(dataDir, 'admin.sock'))) {
    throw new BackupError(`the map server of ${dataDir} is running: stop it first`);
  }
  const present = PRESENT.filter((name) => existsSync(join(dataDir, name)));
  if (present.length > 0 && !options.force) {
    throw new BackupError(`${dataDir} has a map server (${present.join(', ')}); --force puts it aside`);
  }
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const staging = mkdtempSync(join(dataDir, '.restore-'));
  const store = join(staging, base(STORE_NAME));
  try {
    const names = [STORE_NAME, ...DATA_FILES.map((name) => `data/${name}`)].filter((name) => contents.has(name));
    for (const name of names) writePrivateFile(join(staging, base(name)), contents.get(name) ?? Buffer.alloc(0));
    checkDatabase(store);
    openOverlay(staging, now);
    const highest = present.includes('store.db') ? await highestGeneration(join(dataDir, 'store.db')) : 0;
    const keys = await noteRestoration(store, { backedUpAt: manifest.createdAt, now, highest });
    const replaced = present.length > 0 ? join(dataDir, `replaced-${new Date(now).toISOString().slice(0, 19)}Z`) : null;
    if (replaced !== null) {
      mkdirSync(replaced, { mode: 0o700 });
      for (const name of present) renameSync(join(dataDir, name), join(replaced, name));
    }
    for (const name of names) {
      belongLike(dataDir, join(staging, base(name)));
      renameSync(join(staging, base(name)), join(dataDir, base(name)));
    }
    const { written, left } = putBackOthers({ manifest, contents });
    return { backedUpAt: manifest.createdAt, replaced, written, left, ...doneSince(dataDir, manifest.createdAt, keys) };
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/** `keys`: of the records that the store has again. */
function doneSince(
  dataDir: string,
  moment: WallClock,
  keys: ReadonlySet<string>,
): Pick<Restored, 'linesSince' | 'joined' | 'agentsToRevoke' | 'tokensToRevoke'> {
  const from = new Date(moment).toISOString();
  const lines = [...readAuditLog(dataDir)].filter(({ time }) => time > from);
  const done = (events: readonly string[], id: (line: AuditLine) => unknown): string[] => [
    ...new Set(
      lines.filter(({ event, result }) => events.includes(event) && result === 'ok').map((line) => `${id(line)}`),
    ),
  ];
  return {
    linesSince: lines.length,
    joined: done(['agent-enrolled'], ({ who }) => who.replace(/^agent /, '')),
    agentsToRevoke: done(['agent-revoked'], ({ what }) => what.xtrId).filter((id) => keys.has(`agent/${id}`)),
    tokensToRevoke: done(['token-revoked', 'token-used-up'], ({ what }) => what.id).filter((id) =>
      keys.has(`token/${id}`),
    ),
  };
}

/** Returns the keys of all records. The store must open with this version, and every record be read. */
async function noteRestoration(
  path: string,
  { backedUpAt, now, highest }: { readonly backedUpAt: WallClock; readonly now: WallClock; readonly highest: number },
): Promise<ReadonlySet<string>> {
  const store = new SqliteStore({ path, clock: Date.now });
  try {
    const { entries } = await store.list('');
    const floor = Math.max(now, highest, highestOf(entries)) as Generation;
    const record: RestorationRecord = { kind: 'restoration', restoredAt: now, backedUpAt, floor };
    const revision = entries.find(({ key }) => key === RESTORATION_KEY)?.revision ?? 0;
    const write = { key: RESTORATION_KEY, value: encodeRecord(record) };
    const { ok } = await store.compareAndSet([{ key: RESTORATION_KEY, revision }], [write]);
    if (!ok) throw new BackupError(`${path} is in use`);
    return new Set(entries.map(({ key }) => key));
  } finally {
    await store.close();
  }
}

/** Of a store that is given up; 0 when it cannot be read, which may be why. */
async function highestGeneration(path: string): Promise<number> {
  try {
    const store = new SqliteStore({ path, clock: Date.now });
    try {
      return highestOf((await store.list('')).entries);
    } finally {
      await store.close();
    }
  } catch {
    return 0;
  }
}

function highestOf(entries: readonly Entry[]): number {
  return entries.reduce((highest, { key, value }) => {
    const record = decodeRecord(key, value);
    if (record?.kind === 'eid') return Math.max(highest, record.generation);
    return record?.kind === 'restoration' ? Math.max(highest, record.floor) : highest;
  }, 0);
}

/** The configuration and key files, where they are missing. */
function putBackOthers({ manifest, contents }: Backup): { readonly written: string[]; readonly left: string[] } {
  const written: string[] = [];
  const left: string[] = [];
  for (const { name, path } of manifest.files) {
    const content = contents.get(name);
    if (path === undefined || content === undefined) continue;
    if (existsSync(path)) {
      left.push(path);
      continue;
    }
    mkdirSync(dirname(path), { recursive: true });
    writePrivateFile(path, content);
    belongLike(dirname(path), path);
    written.push(path);
  }
  return { written, left };
}

/** The map server is another user than who restores. */
function belongLike(folder: string, path: string): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = statSync(folder);
  chownSync(path, uid, gid);
}

function isServed(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    const end = (served: boolean) => () => {
      connection.destroy();
      resolve(served);
    };
    connection.once('connect', end(true));
    connection.once('error', end(false));
  });
}

function base(name: string): string {
  return name.slice(name.indexOf('/') + 1);
}

const PRESENT = ['store.db', 'store.db-wal', 'store.db-shm', ...DATA_FILES];
