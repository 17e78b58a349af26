/** Round-trip times by ping, at 200 a second. */
import type { Host } from '../test/lab/lab.ts';
import { waitFor } from '../test/lab/wait.ts';
import { BenchError } from './bench-error.ts';
import { median, quantile } from './statistics.ts';

export interface PingResult {
  readonly medianUs: number;
  readonly p99Us: number;
  readonly lost: number;
}

const PER_SECOND = 200;
const READY_MS = 20_000;

export async function measurePing(from: Host, to: string, count: number): Promise<PingResult> {
  const argv = ['ping', '-n', '-c', String(count), '-i', String(1 / PER_SECOND), '-W', '1', to];
  const timeoutMs = (count / PER_SECOND) * 2000 + 10_000;
  const { stdout } = await from.exec(argv, { anyExit: true, timeoutMs, env: { LC_ALL: 'C' } });
  return parsePing(stdout, count);
}

/** Waits until there is an answer in both directions. */
export async function waitForAnswers(hosts: readonly (readonly [from: Host, to: string])[]): Promise<void> {
  for (const [from, to] of hosts) {
    await waitFor(
      `an answer to a ping from host ${from.name}`,
      async () => (await from.exec(['ping', '-n', '-q', '-c', '1', '-W', '1', to], { anyExit: true })).code === 0,
      { timeoutMs: READY_MS, intervalMs: 100 },
    );
  }
}

/** @throws BenchError when nothing was answered */
export function parsePing(output: string, sent: number): PingResult {
  const times = [...output.matchAll(/\btime=([\d.]+) ms/g)].map((match) => Number(match[1]) * 1000);
  if (times.length === 0) throw new BenchError('ping got no answer');
  return { medianUs: median(times), p99Us: quantile(times, 0.99), lost: Math.max(0, sent - times.length) };
}
