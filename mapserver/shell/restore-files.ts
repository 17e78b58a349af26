/**
 * The configuration and key files that a restore puts back, and whom they and new folders belong to.
 *
 * Root restores, and the map server is another user: what it needs is readable for that user when it is written, as
 * where it was installed. It may read its configuration and not change it; a key file is its own, since it refuses
 * one that anybody else may read.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  statSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type Access, writePrivateFile } from '../../runtime/private-file.ts';
import { type UserIds, userIds } from '../../runtime/user-ids.ts';
import { type Backup, CONFIG_NAME } from './backup.ts';

/** Files outside of the data folder, by what became of them so far. */
export type Others = { readonly [what in 'written' | 'left' | 'elsewhere']: string[] };

/** Whom the map server of a data folder runs as; of a folder of root's that is `user`, if there is one. */
export function readerOf(dataDir: string, user: string): UserIds {
  const { uid, gid } = statSync(dataDir);
  return (uid === 0 ? userIds(user) : userIds(uid)) ?? { uid, gid };
}

/** Makes a data folder that is missing, `user`'s if there is one. */
export function makeDataFolder(dataDir: string, user: string): void {
  if (!existsSync(dataDir)) makeFolder(dataDir, 0o700, isRoot() ? userIds(user) : undefined);
}

/**
 * The configuration and key files, where they are missing. A backup says where they belong, and root believes it: so only
 * below one folder, or who can write to a backup that is not encrypted could put a file anywhere on this machine.
 */
export function putBackOthers(
  { manifest, contents }: Backup,
  configDir: string,
  reader: UserIds,
  { written, left, elsewhere }: Others,
): void {
  const top = resolve(configDir);
  for (const { name, path } of manifest.files) {
    const content = contents.get(name);
    if (path === undefined || content === undefined) continue;
    if (existsSync(path)) {
      left.push(path);
      continue;
    }
    const folder = dirname(path);
    if (resolve(path) !== path || !path.startsWith(`${top}/`) || hasLink(folder, top)) {
      elsewhere.push(path);
      continue;
    }
    makeFolder(folder, 0o755);
    const access: Access =
      name === CONFIG_NAME ? { uid: statSync(folder).uid, gid: reader.gid, mode: 0o640 } : { ...reader, mode: 0o600 };
    writePrivateFile(path, content, isRoot() ? access : undefined);
    written.push(path);
  }
}

/** Whether a folder below another one is a link, or is reached through one. */
function hasLink(folder: string, top: string): boolean {
  if (folder === top) return false;
  return lstatSync(folder, { throwIfNoEntry: false })?.isSymbolicLink() === true || hasLink(dirname(folder), top);
}

/** If it is missing; with those above it, which are for everybody. Root's belong to `owner`, or to whom the one above does. */
function makeFolder(path: string, mode: number, owner?: UserIds): void {
  if (existsSync(path)) return;
  const above = dirname(path);
  makeFolder(above, 0o755);
  mkdirSync(path, { mode: 0o700 });
  if (!isRoot()) return;
  const { uid, gid } = owner ?? statSync(above);
  // Whoever may write above could have put something else in its place.
  const folder = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    fchownSync(folder, uid, gid);
    // Said once more, whatever the umask of who restores is.
    fchmodSync(folder, mode);
  } finally {
    closeSync(folder);
  }
}

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}
