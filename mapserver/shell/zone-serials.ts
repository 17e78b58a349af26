/**
 * Serials that only grow (RFC 1982), also over restarts. Some are reserved on disk at a time, so that a change costs no
 * write; after a restart those that were left are skipped.
 */
import { z } from 'zod';
import { readJsonFile, writeJsonFile } from '../../runtime/json-file.ts';

export class ZoneSerials {
  private readonly path: string;
  private next: number;
  private reserved: number;

  /** @throws StateFileError */
  constructor(path: string) {
    this.path = path;
    this.next = readJsonFile(path, FILE)?.reserved ?? 1;
    this.reserved = this.next;
    this.reserve();
  }

  /** @throws StateFileError, and then none is taken */
  take(): number {
    if (this.next === this.reserved) this.reserve();
    const serial = this.next;
    this.next = (this.next + 1) % 2 ** 32;
    return serial;
  }

  private reserve(): void {
    const reserved = (this.reserved + BLOCK) % 2 ** 32;
    writeJsonFile(this.path, { reserved });
    this.reserved = reserved;
  }
}

const FILE = z.strictObject({ reserved: z.int().min(0).max(0xffff_ffff) });
const BLOCK = 1024;
