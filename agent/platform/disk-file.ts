/**
 * One file of a disk that the platform hands to the guest, read from the device without mounting it: the agent may not
 * mount, but may be in the group that reads the drive. What is on the disk came from outside: sizes are bounded, and
 * nothing is followed for ever.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { openFat } from './fat.ts';
import { openIso } from './iso9660.ts';
import { PlatformError } from './platform.ts';

export interface DiskEntry {
  /** In small letters. */
  readonly name: string;
  /** The first sector or cluster of the content. */
  readonly start: number;
  readonly octets: number;
  readonly folder: boolean;
}

export interface DiskFormat {
  readonly root: DiskEntry;
  list(folder: DiskEntry): Promise<DiskEntry[]>;
  content(file: DiskEntry): Promise<Buffer>;
}

/** As text; null when it has no such file. Letters count the same in both cases. @throws PlatformError */
export async function readDiskFile(device: string, path: string): Promise<string | null> {
  let file: FileHandle;
  try {
    file = await open(device, 'r');
  } catch (cause) {
    throw new PlatformError('unreadable', `${device}: ${(cause as Error).message}`, { cause });
  }
  try {
    const disk = (await openIso(file)) ?? (await openFat(file));
    if (disk === undefined) throw new PlatformError('malformed', `${device}: neither ISO 9660 nor FAT`);
    let found: DiskEntry | undefined = disk.root;
    for (const name of path.toLowerCase().split('/')) {
      if (found?.folder !== true) return null;
      found = (await disk.list(found)).find((entry) => entry.name === name);
    }
    if (found === undefined || found.folder) return null;
    if (found.octets > MAX_FILE) throw new PlatformError('too-large', `${device}: ${path} has ${found.octets} octets`);
    return (await disk.content(found)).toString('utf8');
  } catch (cause) {
    if (cause instanceof PlatformError) throw cause;
    throw new PlatformError('unreadable', `${device}: ${(cause as Error).message}`, { cause });
  } finally {
    await file.close();
  }
}

/** Shorter at the end of the disk. */
export async function readAt(file: FileHandle, position: number, octets: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(octets), 0, octets, position);
  return buffer.subarray(0, bytesRead);
}

export const MAX_FOLDER = 64 * 1024;
const MAX_FILE = 1 << 20;
