/**
 * A flood of initiations from made-up addresses, by the program in `flood/`. Their first MAC is right, as anybody can
 * make it who knows the receiver's public key; the handshake is random. Every second one claims to have a cookie.
 */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureCrateBuilt } from '../../runtime/crate-build.ts';
import type { Host } from './lab.ts';
import type { LabProcess } from './lab-process.ts';

/** The addresses that the flood comes from; the receiver needs a route to them, or answers nobody. */
export const FLOOD_SOURCES = '198.18.0.0/15';

export interface FloodOptions {
  readonly address: string;
  readonly port: number;
  /** The receiver's tunnel key, in base64. */
  readonly key: string;
  readonly rate: number;
  readonly seconds: number;
}

export interface FloodReport {
  readonly sent: number;
  /** What the flooder's own queue did not take. */
  readonly refused: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

/** Builds the program if it is not there or older than its source, and returns its path. */
export function ensureFloodBuilt(progress: (line: string) => void): Promise<string> {
  return ensureCrateBuilt(CRATE, progress);
}

/** Returns when the flood is over. */
export async function flood(program: string, from: Host, options: FloodOptions): Promise<FloodReport> {
  const running = startFlood(program, from, options);
  const report = await running.waitUntil(
    'end of the flood',
    () => running.lastReport<FloodReport>('flooded'),
    options.seconds * 1000 + 10_000,
  );
  await running.stop();
  return report;
}

export function startFlood(program: string, from: Host, options: FloodOptions): LabProcess {
  const file = join(from.dir, 'initiations');
  writeFileSync(file, initiations(Buffer.from(options.key, 'base64'), DIFFERENT));
  const to = `${options.address}:${options.port}`;
  return from.spawn(`flood-${options.port}`, [
    program,
    to,
    file,
    String(INITIATION),
    String(options.rate),
    String(options.seconds),
  ]);
}

/** As docs/wire-format.md describes them, with random octets where a handshake would be. */
export function initiations(receiver: Uint8Array, count: number): Buffer {
  const key = createHash('sha256').update('stayput mac1').update(receiver).digest();
  return Buffer.concat(
    Array.from({ length: count }, (_, n) => {
      const head = Buffer.from('89000000000000100000000101000000', 'hex');
      randomBytes(2).copy(head, 9);
      const signed = Buffer.concat([head, randomBytes(112)]);
      const mac1 = createHmac('sha256', key).update(signed).digest().subarray(0, 16);
      return Buffer.concat([signed, mac1, n % 2 === 0 ? Buffer.alloc(16) : randomBytes(16)]);
    }),
  );
}

const CRATE = { folder: 'test/lab/flood', binary: 'lab-flood', what: 'the flood' };
const INITIATION = 160;
/** Many more than a receiver remembers. */
const DIFFERENT = 20_000;
