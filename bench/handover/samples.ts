/** What the probe programs have written down, in milliseconds since a moment of the run. */

/** Name → which way, for people. */
export const PROBES = {
  'udp-echo': 'UDP 1000/s, request and reply',
  'udp-in': 'UDP 1000/s one way, to the mover',
  'udp-out': 'UDP 1000/s one way, from the mover',
  'tcp-echo': 'TCP echo 100/s',
  'tcp-bulk': 'TCP 5 MB/s from the mover, SHA-256',
} as const;

export type ProbeName = keyof typeof PROBES;

export const PROBE_NAMES = Object.keys(PROBES) as ProbeName[];

/** 1,000 peers that ask the mover something once a second each, in the events that are about them. */
export const CROWD = 'correspondents';

export interface Item {
  readonly number: number;
  readonly atMs: number;
}

export interface Samples {
  readonly probe: ProbeName;
  /** In the order of sending; for bulk the octets written until then. */
  readonly sent: readonly Item[];
  /** In the order of arrival; for bulk the octets read until then. */
  readonly received: readonly Item[];
  readonly resets: number;
  /** Of bulk: whether both ends hashed the same octets, all of them. */
  readonly sha256Match: boolean | null;
}

const RECORD = 16;

/** Records of number and nanoseconds, 64 bits each, little-endian. */
export function parseItems(bytes: Buffer, origin: bigint): Item[] {
  const items: Item[] = [];
  for (let at = 0; at + RECORD <= bytes.length; at += RECORD) {
    const atMs = millisecondsSince(origin, bytes.readBigUInt64LE(at + 8));
    items.push({ number: Number(bytes.readBigUInt64LE(at)), atMs });
  }
  return items;
}

/** Microseconds are kept. */
export function millisecondsSince(origin: bigint, moment: bigint): number {
  return Number((moment - origin) / 1000n) / 1000;
}
