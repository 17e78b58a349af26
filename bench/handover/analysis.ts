/**
 * What one event did to one probe.
 *
 * A *silence* is the time between two arrivals that follow one another. `outageMs` is the longest silence that ends
 * after the event began, all of it. `gapMs` is the longest part of a silence that lies after the moment from which the
 * gap counts; after a roam or a move it is also no shorter than the time from that moment to the first arrival of
 * something that was sent after the event began, since what was on its way before may arrive as if nothing were wrong.
 * A silence that lasts until the end of the watch counts until there, and the result is said to be cut off.
 *
 * Lost is what was sent from the warm-up's end on and never arrived; what the kernel refused to send is part of it.
 * `lostWhileAway` is the part of it that the mover sent while its own cable was away, so that no system saw it.
 */
import type { Samples } from './samples.ts';

export interface Watch {
  /** From here on what is sent is counted. */
  readonly fromMs: number;
  readonly begunMs: number;
  readonly countedMs: number;
  /** The mover's own cable carries again. */
  readonly carriedMs: number;
  /** The watch ended; sending went on until here. */
  readonly endMs: number;
  readonly interrupted: boolean;
}

export interface Outcome {
  readonly gapMs: number;
  readonly outageMs: number;
  /** When the longest silence began and ended. */
  readonly outage: readonly [fromMs: number, toMs: number];
  /** Nothing more arrived before the end of the watch. */
  readonly cutOff: boolean;
  /** Packets or requests; of bulk, octets. */
  readonly sent: number;
  readonly lost: number;
  readonly lostWhileAway: number;
  readonly duplicated: number;
  readonly resets: number;
  readonly sha256Match: boolean | null;
}

/** Silences shorter than this at the end of the watch are the pace of the probe. */
const PACE_MS = 200;

/** What the event of this watch did to one probe. Times in `samples` are milliseconds since the origin of the watch. */
export function analyse(samples: Samples, watch: Watch): Outcome {
  const arrivals = samples.received.map(({ atMs }) => atMs).filter((at) => at <= watch.endMs);
  const last = arrivals.at(-1) ?? watch.fromMs;
  const cutOff = watch.endMs - last > PACE_MS;
  if (cutOff) arrivals.push(watch.endMs);
  let gapMs = 0;
  let outage: readonly [number, number] = [watch.begunMs, watch.begunMs];
  let before = watch.fromMs;
  for (const at of arrivals) {
    if (at > watch.begunMs) {
      if (at - before > outage[1] - outage[0]) outage = [before, at];
      gapMs = Math.max(gapMs, at - Math.max(before, watch.countedMs));
    }
    before = Math.max(before, at);
  }
  if (watch.interrupted) gapMs = Math.max(gapMs, firstThrough(samples, watch) - watch.countedMs);
  return {
    gapMs,
    outageMs: outage[1] - outage[0],
    outage,
    cutOff,
    ...delivery(samples, watch),
    resets: samples.resets,
    sha256Match: samples.sha256Match,
  };
}

/** When the first of what was sent after the event began arrived; -Infinity if that cannot be told. */
function firstThrough(samples: Samples, watch: Watch): number {
  if (samples.probe === 'tcp-bulk') return Number.NEGATIVE_INFINITY;
  const sentAt = new Map(samples.sent.map(({ number, atMs }) => [number, atMs]));
  const through = samples.received.find(({ number }) => (sentAt.get(number) ?? -1) >= watch.begunMs);
  return Math.min(through?.atMs ?? watch.endMs, watch.endMs);
}

function delivery(samples: Samples, watch: Watch): Pick<Outcome, 'sent' | 'lost' | 'lostWhileAway' | 'duplicated'> {
  if (samples.probe === 'tcp-bulk') {
    // A stream of octets is whole or it is not, as its hash says.
    return { sent: samples.sent.at(-1)?.number ?? 0, lost: 0, lostWhileAway: 0, duplicated: 0 };
  }
  const counted = new Set(samples.sent.filter(({ atMs }) => atMs >= watch.fromMs).map(({ number }) => number));
  const seen = new Set<number>();
  let duplicated = 0;
  for (const { number } of samples.received) {
    if (!counted.has(number)) continue;
    if (seen.has(number)) duplicated += 1;
    seen.add(number);
  }
  const away = samples.sent.filter(
    ({ number, atMs }) => atMs >= watch.begunMs && atMs < watch.carriedMs && !seen.has(number),
  );
  const lostWhileAway = samples.probe === 'udp-out' ? away.length : 0;
  return { sent: counted.size, lost: counted.size - seen.size, lostWhileAway, duplicated };
}
