/** 64-byte UDP datagrams as fast as they go, by the program in `blaster/`. */
import { ensureCrateBuilt } from '../runtime/crate-build.ts';
import type { Host } from '../test/lab/lab.ts';
import { BenchError } from './bench-error.ts';

export interface UdpResult {
  readonly delivered: number;
  readonly sentKpps: number;
  readonly deliveredKpps: number;
  readonly disordered: number;
}

export interface Target {
  readonly host: Host;
  readonly address: string;
  /** In turn to so many addresses from `address` on; all of them must be the host's. */
  readonly addresses?: number;
}

const PORT = 5202;
const BYTES = 64;
const CRATE = { folder: 'bench/blaster', binary: 'stayput-blaster', what: 'the UDP blaster' };
/** The receiver gives up this long after the sender must have ended. */
const GRACE_SECONDS = 5;

/** Builds the program if it is not there or older than its source, and returns its path. */
export function ensureBlasterBuilt(progress: (line: string) => void): Promise<string> {
  return ensureCrateBuilt(CRATE, progress);
}

export async function measureUdp(blaster: string, from: Host, to: Target, seconds: number): Promise<UdpResult> {
  const target = `${to.address}:${PORT}`;
  const listen = to.addresses === undefined ? target : `0.0.0.0:${PORT}`;
  const spread = to.addresses === undefined ? [] : [String(to.addresses)];
  const run = String(process.pid);
  const limit = String(seconds + GRACE_SECONDS);
  const receiver = to.host.spawn('blaster', [blaster, 'receive', listen, String(BYTES), limit, run]);
  try {
    await receiver.waitUntil('ready', () => receiver.lastReport('ready') !== undefined);
    const { stdout } = await from.exec([blaster, 'send', target, String(BYTES), String(seconds), run, ...spread], {
      timeoutMs: seconds * 1000 + 10_000,
    });
    const received = await receiver.waitUntil(
      'its count',
      () => receiver.lastReport<ReceiverReport>('received'),
      GRACE_SECONDS * 1000 + 2000,
    );
    return udpResult(JSON.parse(stdout) as SenderReport, received);
  } finally {
    await receiver.stop('SIGKILL');
  }
}

export interface SenderReport {
  readonly sent: number;
  readonly seconds: number;
}

export interface ReceiverReport {
  readonly received: number;
  readonly disordered: number;
  readonly seconds: number;
}

/** @throws BenchError when nothing arrived */
export function udpResult(sender: SenderReport, receiver: ReceiverReport): UdpResult {
  if (receiver.received < 2) throw new BenchError('no UDP datagrams arrived');
  // A path that stops delivering half-way must not look fast: at least the time that was sent for counts.
  const seconds = Math.max(receiver.seconds, sender.seconds);
  return {
    delivered: receiver.received,
    sentKpps: sender.sent / sender.seconds / 1000,
    deliveredKpps: receiver.received / seconds / 1000,
    disordered: receiver.disordered,
  };
}
