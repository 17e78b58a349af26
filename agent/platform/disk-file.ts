/**
 * One file of a disk that the platform hands to the guest, read from the device without mounting it: the agent may not
 * mount, but may be in the group that reads the drive. What is on the disk came from outside: sizes are bounded, and
 * nothing is followed for ever.
 */
import { type FileHandle, open } from 'node:fs/promises';
import type { DiskEntry } from './disk-format.ts';
import { openFat } from './fat.ts';
import { openIso } from './iso9660.ts';
import { PlatformError } from './platform.ts';

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

const MAX_FILE = 1 << 20;
