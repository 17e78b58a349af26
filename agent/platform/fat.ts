/**
 * FAT12, FAT16 and FAT32 with long names, as config drives and seeds may have (Microsoft, "FAT: General Overview of
 * On-Disk Format", 1.03).
 *
 * Sector 0 says how large the parts are that follow each other: reserved sectors, copies of the table, the root folder
 * (of FAT12 and FAT16), clusters from number 2 on. The number of clusters tells the width of the table's entries; each
 * names the cluster that follows, and what is no cluster ends the chain. A folder is a row of 32 octets each: name
 * (8 + 3), attributes (11), cluster (high half at 20, low at 26), size (28); before them, last piece first, those of the
 * long name, 13 units of UTF-16 in each.
 */
import type { FileHandle } from 'node:fs/promises';
import { type DiskEntry, type DiskFormat, MAX_FOLDER, readAt } from './disk-format.ts';

/** Undefined if it is none. */
export async function openFat(file: FileHandle): Promise<DiskFormat | undefined> {
  const layout = parseLayout(await readAt(file, 0, 512));
  return layout === undefined ? undefined : new Fat(file, layout);
}

/** Places and sizes in octets. */
interface Layout {
  readonly width: 12 | 16 | 32;
  readonly table: number;
  /** Of FAT12 and FAT16. */
  readonly fixedRoot: { readonly position: number; readonly octets: number };
  /** Of FAT32. */
  readonly rootCluster: number;
  readonly data: number;
  readonly clusterOctets: number;
  readonly clusters: number;
}

function parseLayout(boot: Buffer): Layout | undefined {
  if (boot.length < 512 || boot.readUInt16LE(510) !== 0xaa55) return undefined;
  const sector = boot.readUInt16LE(11);
  const clusterOctets = boot.readUInt8(13) * sector;
  const isPowerOfTwo = (n: number): boolean => n > 0 && (n & (n - 1)) === 0;
  if (![512, 1024, 2048, 4096].includes(sector) || !isPowerOfTwo(clusterOctets)) return undefined;
  const table = boot.readUInt16LE(14) * sector;
  const tableOctets = (boot.readUInt16LE(22) || boot.readUInt32LE(36)) * sector;
  const fixedRoot = { position: table + boot.readUInt8(16) * tableOctets, octets: boot.readUInt16LE(17) * ENTRY };
  const data = fixedRoot.position + Math.ceil(fixedRoot.octets / sector) * sector;
  const octets = (boot.readUInt16LE(19) || boot.readUInt32LE(32)) * sector;
  if (table === 0 || tableOctets === 0 || octets <= data) return undefined;
  const clusters = Math.floor((octets - data) / clusterOctets);
  const width = clusters < 4085 ? 12 : clusters < 65_525 ? 16 : 32;
  return { width, table, fixedRoot, rootCluster: boot.readUInt32LE(44), data, clusterOctets, clusters };
}

class Fat implements DiskFormat {
  readonly root: DiskEntry;
  private readonly file: FileHandle;
  private readonly layout: Layout;

  constructor(file: FileHandle, layout: Layout) {
    this.file = file;
    this.layout = layout;
    this.root = { name: '', start: layout.rootCluster, octets: 0, folder: true };
  }

  async list(folder: DiskEntry): Promise<DiskEntry[]> {
    const { width, fixedRoot } = this.layout;
    if (folder !== this.root || width === 32) return parseFolder(await this.chain(folder.start, MAX_FOLDER));
    return parseFolder(await readAt(this.file, fixedRoot.position, Math.min(fixedRoot.octets, MAX_FOLDER)));
  }

  content({ start, octets }: DiskEntry): Promise<Buffer> {
    return this.chain(start, octets);
  }

  /** At most so many octets, also where the chain is a circle. */
  private async chain(start: number, octets: number): Promise<Buffer> {
    const { data, clusterOctets, clusters } = this.layout;
    const parts: Buffer[] = [];
    let left = octets;
    for (let cluster = start; cluster >= 2 && cluster < clusters + 2 && left > 0; cluster = await this.next(cluster)) {
      const part = await readAt(this.file, data + (cluster - 2) * clusterOctets, Math.min(left, clusterOctets));
      if (part.length === 0) break;
      parts.push(part);
      left -= part.length;
    }
    return Buffer.concat(parts);
  }

  /** 0 where the table ends too early. */
  private async next(cluster: number): Promise<number> {
    const { width, table } = this.layout;
    const bit = cluster * width;
    const entry = await readAt(this.file, table + Math.floor(bit / 8), width === 32 ? 4 : 2);
    if (entry.length < (width === 32 ? 4 : 2)) return 0;
    if (width === 32) return entry.readUInt32LE(0) & 0x0fff_ffff;
    return width === 16 ? entry.readUInt16LE(0) : (entry.readUInt16LE(0) >> (bit % 8)) & 0xfff;
  }
}

function parseFolder(bytes: Buffer): DiskEntry[] {
  const entries: DiskEntry[] = [];
  let long = '';
  for (let at = 0; at + ENTRY <= bytes.length; at += ENTRY) {
    const entry = bytes.subarray(at, at + ENTRY);
    const first = entry.readUInt8(0);
    const attributes = entry.readUInt8(11);
    if (first === 0) break;
    if (first !== DELETED && (attributes & LONG_NAME) === LONG_NAME) {
      long = (first & LAST_PIECE) === 0 ? pieceOf(entry) + long : pieceOf(entry);
      continue;
    }
    if (first !== DELETED && (attributes & VOLUME) === 0) {
      entries.push({
        name: (long === '' ? shortName(entry) : long).toLowerCase(),
        start: entry.readUInt16LE(20) * 0x1_0000 + entry.readUInt16LE(26),
        octets: entry.readUInt32LE(28),
        folder: (attributes & FOLDER) !== 0,
      });
    }
    long = '';
  }
  return entries;
}

function pieceOf(entry: Buffer): string {
  const units = Buffer.concat([entry.subarray(1, 11), entry.subarray(14, 26), entry.subarray(28, 32)]);
  return units.toString('utf16le').replace(/\0.*$/s, '');
}

function shortName(entry: Buffer): string {
  const part = (from: number, to: number): string => entry.toString('latin1', from, to).trimEnd();
  const extension = part(8, 11);
  return extension === '' ? part(0, 8) : `${part(0, 8)}.${extension}`;
}

const ENTRY = 32;
const DELETED = 0xe5;
const VOLUME = 0x08;
const FOLDER = 0x10;
const LONG_NAME = 0x0f;
const LAST_PIECE = 0x40;
