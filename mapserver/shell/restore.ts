/**
 * Puts a backup back (`backup.ts`), for a map server that does not run.
 *
 * Everything is written and checked in a folder beside, then moved into place (`restore-exchange.ts`); what was there
 * before is kept in a folder of its own. The store learns that it was restored, and from which generation on it may give new ones
 * (`core/generations.ts`). The audit log stays as it is: it tells what was done since the backup. Who was cut off since
 * then is cut off in what is put back, before the map server runs again and admits anybody.
 */
import { existsSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { basename, join } from 'node:path';
import { StayputError } from '../../proto/errors.ts';
import type { Generation } from '../../proto/mapping.ts';
import type { WallClock } from '../../proto/time.ts';
import { writePrivateFile } from '../../runtime/private-file.ts';
import {
  RESTORATION_KEY,
  type RestorationRecord,
  recordKey,
  type StoreRecord,
  siteKey,
  siteNoncesKey,
} from '../core/records.ts';
import { SqliteStore } from '../store/sqlite.ts';
import { checkDatabase } from '../store/sqlite-copy.ts';
import type { Entry } from '../store/store.ts';
import { type AuditEvent, type AuditLine, readAuditLog } from './audit-log.ts';
import { type Backup, BackupError, STORE_NAME } from './backup.ts';
import { openOverlay } from './overlay-files.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import {
  belongLike,
  DATA_FILES,
  exchange,
  finishExchange,
  isExchanging,
  PRESENT,
  type Rename,
} from './restore-exchange.ts';
import { makeDataFolder, type Others, putBackOthers, readerOf } from './restore-files.ts';
import { makeWorkingFolder } from './working-folder.ts';

export interface Restored {
  readonly backedUpAt: WallClock;
  /** Where the former content of the data folder is now; null when it was empty. */
  readonly replaced: string | null;
  /** Files outside of the data folder: written since they were missing, left since they are there, */
  readonly written: readonly string[];
  readonly left: readonly string[];
  /** and not written since they are not of the configuration's folder. */
  readonly elsewhere: readonly string[];
  /** What the audit log has of the time since the backup: lines, */
  readonly linesSince: number;
  /** agents that joined, which the map server does not know any more, */
  readonly joined: readonly string[];
  /** and agents, tokens, sites of LISP routers and keys of these that the backup has and that were cut off: they are again. */
  readonly agentsRevoked: readonly string[];
  readonly tokensRevoked: readonly string[];
  readonly sitesRemoved: readonly string[];
  readonly siteKeysRemoved: readonly { readonly site: string; readonly keyId: number }[];
}

/** @throws BackupError, StoreError, StateFileError, UsageError; nothing was changed then */
export async function restoreBackup(
  { manifest, contents }: Backup,
  options: {
    readonly dataDir: string;
    /** The folder of the configuration. */
    readonly configDir: string;
    /** Whom the map server runs as where it was installed, on a machine where nothing says it yet. */
    readonly user: string;
    readonly force: boolean;
    readonly now: WallClock;
    readonly rename?: Rename;
  },
): Promise<Restored> {
  const { dataDir, configDir, user, now, rename } = options;
  if (await isServed(join(dataDir, 'admin.sock'))) {
    throw new BackupError(`the map server of ${dataDir} is running: stop it first`);
  }
  const finished = finishExchange(dataDir);
  const present = PRESENT.filter((name) => existsSync(join(dataDir, name)));
  if (present.length > 0 && !options.force) {
    const why = finished ? ' (a restore that was cut off is finished now)' : '';
    throw new BackupError(`${dataDir} has a map server (${present.join(', ')}); --force puts it aside${why}`);
  }
  makeDataFolder(dataDir, user);
  const staging = makeWorkingFolder(dataDir, 'restore');
  const store = join(staging, base(STORE_NAME));
  try {
    const names = [STORE_NAME, ...DATA_FILES.map((name) => `data/${name}`)].filter((name) => contents.has(name));
    for (const name of names) writePrivateFile(join(staging, base(name)), contents.get(name) ?? Buffer.alloc(0));
    checkDatabase(store);
    openOverlay(staging, now);
    const highest = present.includes('store.db') ? await highestGeneration(join(dataDir, 'store.db')) : 0;
    const since = doneSince(dataDir, manifest.createdAt);
    const restored = await noteRestoration(store, { backedUpAt: manifest.createdAt, now, highest, since });
    const replaced = present.length > 0 ? join(dataDir, `replaced-${new Date(now).toISOString()}`) : null;
    for (const name of names) belongLike(dataDir, join(staging, base(name)));
    const others: Others = { written: [], left: [], elsewhere: [] };
    try {
      putBackOthers({ manifest, contents }, configDir, readerOf(dataDir, user), others);
      const places = { staging: basename(staging), replaced: replaced === null ? null : basename(replaced) };
      exchange(dataDir, { ...places, names: names.map(base) }, rename);
    } catch (cause) {
      for (const path of others.written) rmSync(path, { force: true });
      if (cause instanceof StayputError) throw cause;
      throw new BackupError(`${dataDir} cannot be written (${(cause as Error).message})`, { cause });
    }
    return { backedUpAt: manifest.createdAt, replaced, linesSince: since.lines, ...others, ...restored };
  } finally {
    if (!isExchanging(dataDir)) rmSync(staging, { recursive: true, force: true });
  }
}

/** What was done since the backup, as far as the audit log knows: of agents and tokens the ids. */
interface Since {
  readonly lines: number;
  /** Of its last line; 0 when there is none. */
  readonly latest: WallClock;
  /** With the token of each, where the log says it. */
  readonly joined: ReadonlyMap<string, string | undefined>;
  readonly agentsRevoked: ReadonlySet<string>;
  /** Or used up. */
  readonly tokensRevoked: ReadonlySet<string>;
  readonly sitesRemoved: ReadonlySet<string>;
  /** `NAME KEY-ID` */
  readonly siteKeysRemoved: ReadonlySet<string>;
}

function doneSince(dataDir: string, moment: WallClock): Since {
  const from = new Date(moment).toISOString();
  const lines: AuditLine[] = [];
  for (const line of readAuditLog(dataDir)) if (line.time > from) lines.push(line);
  const done = (event: AuditEvent, id: (what: AuditLine['what']) => unknown): string[] =>
    lines.flatMap(({ event: was, result, what }) => {
      const found = was === event && result === 'ok' ? id(what) : undefined;
      return typeof found === 'string' ? [found] : [];
    });
  return {
    lines: lines.length,
    latest: lines.reduce((latest, { time }) => Math.max(latest, Date.parse(time) || 0), 0),
    joined: new Map(
      lines.flatMap(({ event, result, what: { agent, tokenId } }) =>
        event === 'agent-enrolled' && result === 'ok' && typeof agent === 'string'
          ? [[agent, typeof tokenId === 'string' ? tokenId : undefined] as const]
          : [],
      ),
    ),
    agentsRevoked: new Set(done('agent-revoked', ({ xtrId }) => xtrId)),
    tokensRevoked: new Set([
      ...done('token-revoked', ({ id }) => id),
      ...done('token-used-up', ({ id }) => id),
      ...done('agent-revoked', ({ withToken, tokenId }) => (withToken === true ? tokenId : undefined)),
    ]),
    sitesRemoved: new Set(done('site-removed', ({ name }) => name)),
    siteKeysRemoved: new Set(
      done('site-key-removed', ({ name, keyId }) =>
        typeof name === 'string' && typeof keyId === 'string' ? siteKeyName(name, Number(keyId)) : undefined,
      ),
    ),
  };
}

/** Writes it into the store, which must open with this version; every record must be read. */
async function noteRestoration(
  path: string,
  options: {
    readonly backedUpAt: WallClock;
    readonly now: WallClock;
    readonly highest: number;
    readonly since: Since;
  },
): Promise<Pick<Restored, 'joined' | 'agentsRevoked' | 'tokensRevoked' | 'sitesRemoved' | 'siteKeysRemoved'>> {
  const { backedUpAt, now, highest, since } = options;
  const store = new SqliteStore({ path, clock: Date.now });
  try {
    const { entries } = await store.list('');
    // All times that are known: this machine's clock may not be set yet, and a restore before have given generations.
    const floor = Math.max(now, backedUpAt, since.latest, highest, highestOf(entries)) as Generation;
    const records = entries.flatMap(({ key, value }) => decodeRecord(key, value) ?? []);
    const known = new Set<string>(records.flatMap((record) => (record.kind === 'agent' ? record.xtrId : [])));
    const unknown = [...since.joined].filter(([xtrId]) => !known.has(xtrId));
    const revoked = records.flatMap((record) => cutOff(record, since, now) ?? []);
    const spent = records.flatMap((record) =>
      revoked.some((each) => recordKey(each) === recordKey(record)) ? [] : spentBy(record, unknown),
    );
    const sites = records.flatMap((record) => (record.kind === 'site' ? record : []));
    const removed = sites.filter(({ name }) => since.sitesRemoved.has(name));
    const siteKeysRemoved = sites.flatMap(({ name, keys }) => {
      const cut = keys.filter(({ keyId }) => since.siteKeysRemoved.has(siteKeyName(name, keyId)));
      return since.sitesRemoved.has(name) ? [] : cut.map(({ keyId }) => ({ site: name, keyId }));
    });
    const restoration: RestorationRecord = { kind: 'restoration', restoredAt: now, backedUpAt, floor };
    const revision = entries.find(({ key }) => key === RESTORATION_KEY)?.revision ?? 0;
    const { ok } = await store.compareAndSet(
      [{ key: RESTORATION_KEY, revision }],
      [
        ...[...revoked, ...spent, restoration].map((record) => ({
          key: recordKey(record),
          value: encodeRecord(record),
        })),
        ...removed
          .flatMap(({ name }) => [siteKey(name), siteNoncesKey(name)])
          .map((key) => ({ key, value: undefined })),
      ],
    );
    if (!ok) throw new BackupError(`${path} is in use`);
    return {
      joined: unknown.flatMap(([xtrId]) => (since.agentsRevoked.has(xtrId) ? [] : [xtrId])),
      agentsRevoked: revoked.flatMap((record) => (record.kind === 'agent' ? record.xtrId : [])),
      tokensRevoked: revoked.flatMap((record) => (record.kind === 'token' ? record.id : [])),
      sitesRemoved: removed.map(({ name }) => name),
      siteKeysRemoved,
    };
  } finally {
    await store.close();
  }
}

/** The record as it is when what was cut off is; undefined when that does not concern it. */
function cutOff(record: StoreRecord, since: Since, now: WallClock): StoreRecord | undefined {
  switch (record.kind) {
    case 'agent': {
      const concerns = since.agentsRevoked.has(record.xtrId) && record.revokedAt === undefined;
      return concerns ? { ...record, revokedAt: now } : undefined;
    }
    case 'token': {
      const concerns = since.tokensRevoked.has(record.id) && record.revokedAt === undefined;
      return concerns ? { ...record, revokedAt: now } : undefined;
    }
    case 'eid': {
      const concerns = since.agentsRevoked.has(record.owner) && record.state !== 'released';
      return concerns ? { ...record, state: 'released', locators: [], names: [], targets: [] } : undefined;
    }
    case 'site': {
      if (since.sitesRemoved.has(record.name)) return undefined;
      const keys = record.keys.filter(({ keyId }) => !since.siteKeysRemoved.has(siteKeyName(record.name, keyId)));
      return keys.length < record.keys.length ? { ...record, keys } : undefined;
    }
    default:
      return undefined;
  }
}

function siteKeyName(site: string, keyId: number): string {
  return `${site} ${keyId}`;
}

/** The token without the uses that agents have had of it whom the backup does not know. */
function spentBy(record: StoreRecord, joined: readonly (readonly [string, string | undefined])[]): StoreRecord[] {
  if (record.kind !== 'token') return [];
  const uses = joined.filter(([, tokenId]) => tokenId === record.id).length;
  return uses === 0 ? [] : [{ ...record, used: Math.min(record.uses, record.used + uses) }];
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
    const isFloor = record?.kind === 'restoration' || record?.kind === 'forgotten-generations';
    return isFloor ? Math.max(highest, record.floor) : highest;
  }, 0);
}

function isServed(socket: string): Promise<boolean> {
  return new Promise((settle) => {
    const connection = connect(socket);
    const end = (served: boolean) => () => {
      connection.destroy();
      settle(served);
    };
    connection.once('connect', end(true));
    connection.once('error', end(false));
  });
}

function base(name: string): string {
  return name.slice(name.indexOf('/') + 1);
}
