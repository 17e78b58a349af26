/**
 * One file of a CD image (ISO 9660, ECMA-119; names by Joliet where there are), read from the device without mounting
 * it: the agent may not mount, but may be in the group that reads the drive.
 *
 * Sector 16 and on hold volume descriptors: type, "CD001", and at 156 the record of the root folder. A record: length
 * (1 octet), extent (4 at 2), size (4 at 10), flags (1 at 25; 2: folder), length of the name (1 at 32), name (at 33).
 */
import { type FileHandle, open } from 'node:fs/promises';
import { PlatformError } from './platform.ts';

/** As text; null when it has no such file. Letters count the same in both cases. @throws PlatformError */
export async function readIsoFile(device: string, path: string): Promise<string | null> {
  let file: FileHandle;
  try {
    file = await open(device, 'r');
  } catch (cause) {
    throw new PlatformError('unreadable', `${device}: ${(cause as Error).message}`, { cause });
  }
  try {
    const volume = await findVolume(file);
    if (volume === undefined) throw new PlatformError('malformed', `${device}: not an ISO 9660 image`);
    let found: Entry | undefined = volume.root;
    for (const name of path.toLowerCase().split('/')) {
      if (found?.folder !== true) return null;
      const entries = await readFolder(file, found, volume.joliet);
      found = entries.find((entry) => entry.name === name);
    }
    if (found === undefined || found.folder) return null;
    if (found.octets > MAX_FILE) throw new PlatformError('too-large', `${device}: ${path} has ${found.octets} octets`);
    return (await readAt(file, found.sector * SECTOR, found.octets)).toString('utf8');
  } catch (cause) {
    if (cause instanceof PlatformError) throw cause;
    throw new PlatformError('unreadable', `${device}: ${(cause as Error).message}`, { cause });
  } finally {
    await file.close();
  }
}

interface Entry {
  readonly name: string;
  readonly sector: number;
  readonly octets: number;
  readonly folder: boolean;
}

interface Volume {
  readonly root: Entry;
  readonly joliet: boolean;
}

/** That of Joliet, which has the names as they were written; else the primary one. */
async function findVolume(file: FileHandle): Promise<Volume | undefined> {
  let primary: Volume | undefined;
  for (let sector = FIRST_DESCRIPTOR; sector < FIRST_DESCRIPTOR + MAX_DESCRIPTORS; sector++) {
    const descriptor = await readAt(file, sector * SECTOR, SECTOR);
    if (descriptor.length < SECTOR || descriptor.toString('latin1', 1, 6) !== 'CD001') break;
    const type = descriptor[0];
    const root = parseEntry(descriptor.subarray(156, 190), false);
    if (type === 2 && /^%\/[@CE]/.test(descriptor.toString('latin1', 88, 91))) return { root, joliet: true };
    if (type === 1) primary ??= { root, joliet: false };
    if (type === 255) break;
  }
  return primary;
}

async function readFolder(file: FileHandle, { sector, octets }: Entry, joliet: boolean): Promise<Entry[]> {
  const bytes = await readAt(file, sector * SECTOR, Math.min(octets, MAX_FOLDER));
  const entries: Entry[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes[at] ?? 0;
    // No record crosses the end of a sector: what is left of it is zero.
    if (length === 0) at = (Math.floor(at / SECTOR) + 1) * SECTOR;
    else {
      if (length > 33 && at + length <= bytes.length) entries.push(parseEntry(bytes.subarray(at, at + length), joliet));
      at += length;
    }
  }
  return entries;
}

function parseEntry(record: Buffer, joliet: boolean): Entry {
  const name = Buffer.from(record.subarray(33, 33 + (record[32] ?? 0)));
  const text = joliet && name.length % 2 === 0 ? name.swap16().toString('utf16le') : name.toString('latin1');
  return {
    name: text.replace(/\.?;\d+$/, '').toLowerCase(),
    sector: record.readUInt32LE(2),
    octets: record.readUInt32LE(10),
    folder: ((record[25] ?? 0) & 2) !== 0,
  };
}

/** Shorter at the end of the image. */
async function readAt(file: FileHandle, position: number, octets: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(octets), 0, octets, position);
  return buffer.subarray(0, bytesRead);
}

const SECTOR = 2048;
const FIRST_DESCRIPTOR = 16;
const MAX_DESCRIPTORS = 16;
const MAX_FOLDER = 64 * 1024;
const MAX_FILE = 1 << 20;
