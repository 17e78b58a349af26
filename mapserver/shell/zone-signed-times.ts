/**
 * Until when each key has signed updates, as it was when the map server started. A recorded update that was answered
 * before is no newer than that, and those that were answered since are remembered one by one (`zone-updates.ts`). On
 * disk before an update is looked at: a write for each second in which a key signs.
 */
import { z } from 'zod';
import type { WallClock } from '../../proto/time.ts';
import { readJsonFile, writeJsonFile } from '../../runtime/json-file.ts';

export class ZoneSignedTimes {
  private readonly path: string;
  private readonly wallClock: () => WallClock;
  private readonly atStart: ReadonlyMap<string, number>;
  private readonly latest: Map<string, number>;

  /** @throws StateFileError */
  constructor(path: string, wallClock: () => WallClock) {
    this.path = path;
    this.wallClock = wallClock;
    this.atStart = new Map(Object.entries(readJsonFile(path, FILE)?.signed ?? {}));
    this.latest = new Map(this.atStart);
  }

  /** Seconds since 1970; 0: it had signed none. */
  beforeStart(key: string): number {
    return this.atStart.get(key) ?? 0;
  }

  /** The latest time of the key. @throws StateFileError, and then it is not noted */
  note(key: string, timeSigned: number): number {
    const latest = this.latest.get(key) ?? 0;
    if (timeSigned <= latest) return latest;
    const old = this.wallClock() / 1000 - FORGOTTEN;
    const signed = [...this.latest, [key, timeSigned] as const].filter(([, time]) => time > old);
    writeJsonFile(this.path, { signed: Object.fromEntries(signed) });
    this.latest.set(key, timeSigned);
    return timeSigned;
  }
}

const FILE = z.strictObject({ signed: z.record(z.string(), z.int().min(0)) });
/** Seconds: what is older is no longer timely anyway. */
const FORGOTTEN = 600;
