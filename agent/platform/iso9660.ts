/**
 * CD images (ISO 9660, ECMA-119; names by Joliet where there are).
 *
 * Sector 16 and on hold volume descriptors: type, "CD001", and at 156 the record of the root folder. A record: length
 * (1 octet), extent (4 at 2), size (4 at 10), flags (1 at 25; 2: folder), length of the name (1 at 32), name (at 33).
 */
import type { FileHandle } from 'node:fs/promises';
import { type DiskEntry, type DiskFormat, MAX_FOLDER, readAt } from './disk-format.ts';

/** Undefined if it is none. */
export async function openIso(file: FileHandle): Promise<DiskFormat | undefined> {
  const volume = await findVolume(file);
  if (volume === undefined) return undefined;
  return {
    root: volume.root,
    list: (folder) => readFolder(file, folder, volume.joliet),
    content: ({ start, octets }) => readAt(file, start * SECTOR, octets),
  };
}

interface Volume {
  readonly root: DiskEntry;
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

async function readFolder(file: FileHandle, { start, octets }: DiskEntry, joliet: boolean): Promise<DiskEntry[]> {
  const bytes = await readAt(file, start * SECTOR, Math.min(octets, MAX_FOLDER));
  const entries: DiskEntry[] = [];
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

function parseEntry(record: Buffer, joliet: boolean): DiskEntry {
  const name = Buffer.from(record.subarray(33, 33 + (record[32] ?? 0)));
  const text = joliet && name.length % 2 === 0 ? name.swap16().toString('utf16le') : name.toString('latin1');
  return {
    name: text.replace(/\.?;\d+$/, '').toLowerCase(),
    start: record.readUInt32LE(2),
    octets: record.readUInt32LE(10),
    folder: ((record[25] ?? 0) & 2) !== 0,
  };
}

const SECTOR = 2048;
const FIRST_DESCRIPTOR = 16;
const MAX_DESCRIPTORS = 16;
