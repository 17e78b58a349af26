/**
 * Serials that only grow (RFC 1982), also over restarts. Some are reserved on disk at a time, so that a change costs no
 * write; after a restart those that were left are skipped. They begin at the seconds since 1970 at least, so that they
 * grow also when the file is lost or comes from a backup: secondaries would take what is served for old otherwise.
 */
import { z } from 'zod';
import type { WallClock } from '../../proto/time.ts';
import { readJsonFile, writeJsonFile } from '../../runtime/json-file.ts';

export class ZoneSerials {
  private readonly path: string;
  private next: number;
  private reserved: number;

  /** @throws StateFileError */
  constructor(path: string, now: WallClock) {
    this.path = path;
    this.next = Math.max(readJsonFile(path, FILE)?.reserved ?? 1, Math.floor(now / 1000) % 2 ** 32);
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
