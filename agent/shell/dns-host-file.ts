/**
 * resolv.conf as a plain file: ours takes the place of the one that is there, which is kept beside it, with all that
 * belongs to a file (owner, mode, label, or that it is a link), as it is only given another name. Putting it back is
 * giving it its name again. At each moment there is a whole resolv.conf, and whenever ours is there the former one
 * lies beside it, so a crash leaves nothing that cannot be put back.
 */
import {
  copyFileSync,
  linkSync,
  lstatSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { StayputError } from '../../proto/errors.ts';
import { formerPath, isOwnResolvConf, ownResolvConf, parseNameservers } from '../core/dns-resolv-conf.ts';
import { readResolvConf } from './dns-host-facts.ts';

export type FileChange =
  /** `replaced`: a file of another program. `renewed`: an older one of ours. */
  'replaced' | 'renewed' | 'none';

/** @throws StayputError when the file cannot be written */
export function takeResolvConf(path: string, nameservers: readonly string[], zone: string): FileChange {
  return guarded(path, () => {
    const present = readResolvConf(path);
    const former = readResolvConf(formerPath(path));
    if (present !== null && isOwnResolvConf(present.text)) {
      const text = ownResolvConf(path, nameservers, zone, former?.text ?? '');
      if (text === present.text) return 'none';
      replaceText(path, text);
      return 'renewed';
    }
    const empty = present === null || parseNameservers(present.text).length === 0;
    // Who rewrites a file in place empties it first. Ours does not come before a nameserver is in it.
    if (present !== null && empty && isBeingWritten(path)) return 'none';
    const keeps = empty && former !== null ? former : present;
    if (present !== null && keeps === present) keep(path, formerPath(path));
    replaceText(path, ownResolvConf(path, nameservers, zone, keeps?.text ?? ''));
    return 'replaced';
  });
}

/** True when ours was there. @throws StayputError when the file cannot be put back */
export function giveResolvConfBack(path: string): boolean {
  return guarded(path, () => {
    const text = readResolvConf(path)?.text ?? '';
    const former = formerPath(path);
    const kept = readResolvConf(former) !== null;
    if (isOwnResolvConf(text)) {
      if (kept) putInPlace(former, path);
      else removeFile(path);
      return true;
    }
    // Broken off while ours was written in place.
    if (kept && text === '') {
      putInPlace(former, path);
      return true;
    }
    // Another program has put its own there since: newer than what was kept.
    rmSync(former, { force: true });
    return false;
  });
}

/** Under both names, until the new file takes the first one. */
function keep(path: string, former: string): void {
  rmSync(former, { force: true });
  try {
    linkSync(path, former);
  } catch (error) {
    // Mounted over (EXDEV), or a file system without hard links.
    if (!['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP'].includes(codeOf(error))) throw error;
    copyFileSync(path, former);
  }
}

function replaceText(path: string, text: string): void {
  const temporary = `${path}.stayput-new`;
  // A leftover of a crash may be anything.
  rmSync(temporary, { force: true });
  writeFileSync(temporary, text, { mode: 0o644, flag: 'wx' });
  putInPlace(temporary, path);
}

/** Atomic, except where something is mounted on the file, as in containers: there only the contents can change. */
function putInPlace(from: string, path: string): void {
  try {
    renameSync(from, path);
  } catch (error) {
    if (codeOf(error) !== 'EBUSY') throw error;
    writeFileSync(path, readFileSync(from));
    rmSync(from);
  }
}

function removeFile(path: string): void {
  try {
    rmSync(path);
  } catch (error) {
    if (codeOf(error) !== 'EBUSY') throw error;
    truncateSync(path);
  }
}

function isBeingWritten(path: string): boolean {
  return Math.abs(Date.now() - lstatSync(path).mtimeMs) < WRITING_TIME;
}

function guarded<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    const { message } = cause as Error;
    throw new StayputError('STAYPUT_RESOLV_CONF', `${path} cannot be replaced (${message})`, { cause });
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? '';
}

/** Milliseconds. */
const WRITING_TIME = 1000;
