/** What a format of disks is to whoever wants a file of one. */
import type { FileHandle } from 'node:fs/promises';

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

/** Shorter at the end of the disk. */
export async function readAt(file: FileHandle, position: number, octets: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(octets), 0, octets, position);
  return buffer.subarray(0, bytesRead);
}

export const MAX_FOLDER = 64 * 1024;
