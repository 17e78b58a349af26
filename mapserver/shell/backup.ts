/**
 * Backups of a map server: all that makes it what it is, in one file.
 *
 * A gzip-compressed tar archive (`runtime/tar.ts`), or that sealed with a passphrase (`runtime/sealed-file.ts`).
 * `manifest.json` comes first and has the digest of everything else: the files of the data folder under `data/`, the
 * configuration and the key files that it names under `files/`, with their paths in the manifest. The audit log is not
 * in it, since it is to tell what happened since the backup.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { z } from 'zod';
import { StayputError } from '../../proto/errors.ts';
import type { WallClock } from '../../proto/time.ts';
import { writePrivateFile } from '../../runtime/private-file.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { isSealed, seal, unseal } from '../../runtime/sealed-file.ts';
import { type ArchivedFile, ArchiveError, packTar, unpackTar } from '../../runtime/tar.ts';
import { copyDatabase } from '../store/sqlite-copy.ts';
import { readOverlay } from './overlay-files.ts';
import { DATA_FILES, finishExchange } from './restore-exchange.ts';
import { makeWorkingFolder } from './working-folder.ts';

export class BackupError extends StayputError {
  constructor(problem: string, options?: ErrorOptions) {
    super('STAYPUT_BACKUP', problem, options);
  }
}

export interface Backup {
  readonly manifest: Manifest;
  /** By their names in the archive. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
}

export type Manifest = z.output<typeof MANIFEST>;

/**
 * Writes a backup of a data folder, whether its map server runs or not. `paths`: the configuration, then what it names.
 *
 * @throws BackupError, UsageError, StoreError, StateFileError
 */
export function writeBackup(options: {
  readonly dataDir: string;
  readonly paths: readonly string[];
  readonly passphrase: string | undefined;
  readonly target: string;
  readonly now: WallClock;
}): Manifest {
  const { dataDir, target, now } = options;
  const files = [...dataFiles(dataDir), ...otherFiles(options.paths)];
  const manifest: Manifest = {
    format: FORMAT,
    version: VERSION,
    createdAt: now,
    files: files.map(({ name, path, content }) => ({
      name,
      ...(path === undefined ? {} : { path }),
      size: content.length,
      sha256: digest(content),
    })),
  };
  const described = { name: MANIFEST_NAME, content: Buffer.from(JSON.stringify(manifest, null, 2)) };
  const archive = gzipSync(packTar([described, ...files], now));
  writePrivateFile(target, options.passphrase === undefined ? archive : seal(archive, options.passphrase));
  return manifest;
}

/** Reads a backup and checks that it is whole. @throws BackupError, SealError */
export function readBackup(path: string, passphrase: string | undefined): Backup {
  let file: Buffer;
  try {
    if (statSync(path).size > LARGEST) throw new BackupError(`${path} is larger than any backup`);
    file = readFileSync(path);
  } catch (cause) {
    if (cause instanceof BackupError) throw cause;
    throw new BackupError(`${path} cannot be read (${(cause as Error).message})`, { cause });
  }
  if (isSealed(file)) {
    if (passphrase === undefined) throw new BackupError(`${path} is encrypted: give its --passphrase-file`);
    file = unseal(file, passphrase);
  }
  const contents = new Map(filesOf(path, file).map(({ name, content }) => [name, content]));
  const manifest = manifestOf(path, contents.get(MANIFEST_NAME));
  for (const { name, size, sha256 } of manifest.files) {
    const content = contents.get(name);
    if (content === undefined || content.length !== size || digest(content) !== sha256) {
      throw new BackupError(`${path} is damaged: ${name} is not as it was written`);
    }
  }
  for (const name of NEEDED) {
    if (!manifest.files.some((each) => each.name === name)) throw new BackupError(`${path} has no ${name}`);
  }
  return { manifest, contents };
}

function filesOf(path: string, file: Buffer): readonly ArchivedFile[] {
  try {
    return unpackTar(gunzipSync(file, { maxOutputLength: LARGEST }));
  } catch (cause) {
    const why = cause instanceof ArchiveError ? cause.message : 'it is no archive, or damaged';
    throw new BackupError(`${path} is no backup of a map server: ${why}`, { cause });
  }
}

function manifestOf(path: string, content: Uint8Array | undefined): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(content ?? []).toString());
  } catch (cause) {
    throw new BackupError(`${path} is no backup of a map server: it has no manifest`, { cause });
  }
  const format = (value as { format?: unknown } | null)?.format;
  if (typeof format === 'number' && format > FORMAT) {
    throw new BackupError(`${path} was made by a newer version of Stayput; upgrade this map server first`);
  }
  const parsed = MANIFEST.safeParse(value);
  if (!parsed.success) throw new BackupError(`${path} is no backup of a map server: its manifest is wrong`);
  return parsed.data;
}

interface BackedUpFile extends ArchivedFile {
  /** Where it belongs, if that is not the data folder. */
  readonly path?: string;
}

/** The authority and the store are of one moment: a roll-over in between is noticed. */
function dataFiles(dataDir: string): BackedUpFile[] {
  finishExchange(dataDir);
  readOverlay(dataDir);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = readFileSync(join(dataDir, 'overlay.json'));
    const store = copyOfStore(dataDir);
    const small = DATA_FILES.filter((name) => existsSync(join(dataDir, name))).map((name) => ({
      name: `data/${name}`,
      content: readFileSync(join(dataDir, name)),
    }));
    const overlay = small.find(({ name }) => name === 'data/overlay.json');
    if (overlay?.content.equals(before)) return [...small, { name: STORE_NAME, content: store }];
  }
  throw new BackupError(`${dataDir} changes all the time; try again`);
}

function copyOfStore(dataDir: string): Buffer {
  const folder = makeWorkingFolder(dataDir, 'backup');
  try {
    const copy = join(folder, 'store.db');
    copyDatabase(join(dataDir, 'store.db'), copy);
    if (statSync(copy).size > LARGEST) throw new BackupError(`${dataDir}/store.db is too large for a backup`);
    return readFileSync(copy);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function otherFiles(paths: readonly string[]): BackedUpFile[] {
  return paths.map((path, at) => {
    try {
      return { name: `files/${at}`, path: resolve(path), content: readFileSync(path) };
    } catch (cause) {
      throw new BackupError(`${path} cannot be read (${(cause as Error).message})`, { cause });
    }
  });
}

function digest(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

export const STORE_NAME = 'data/store.db';
/** The first of `otherFiles`. */
export const CONFIG_NAME = 'files/0';

const MANIFEST_NAME = 'manifest.json';
const FORMAT = 1;
const NEEDED = [STORE_NAME, 'data/overlay.json'];
const MANIFEST = z.object({
  format: z.literal(FORMAT),
  version: z.string(),
  createdAt: z.number(),
  files: z
    .array(
      z.object({
        name: z.string().regex(/^(data|files)\/[a-z0-9][a-z0-9.-]*$/),
        path: z.string().startsWith('/').optional(),
        size: z.int().min(0),
        sha256: z.string().length(64),
      }),
    )
    .max(128),
});
const ATTEMPTS = 5;
/** What fits into memory more than once. */
const LARGEST = 1024 * 1024 * 1024;
