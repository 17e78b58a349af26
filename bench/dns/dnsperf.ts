/** dnsperf (DNS-OARC): the load, and what it says of it. */
import type { Host } from '../../test/lab/lab.ts';
import { BenchError } from '../bench-error.ts';
import { quantile } from '../statistics.ts';

export interface DnsperfRun {
  /** A file of lines `NAME TYPE`. */
  readonly queries: string;
  /** Exactly once through the file when absent. */
  readonly seconds?: number;
  /** Queries per second; as many as are answered when absent. */
  readonly rate?: number;
  /** Unanswered at a time. */
  readonly outstanding?: number;
  readonly cpu: number;
}

export interface DnsperfResult {
  readonly sent: number;
  readonly completed: number;
  readonly lost: number;
  readonly perSecond: number;
  readonly rcodes: Readonly<Record<string, number>>;
}

export async function dnsperf(host: Host, run: DnsperfRun): Promise<DnsperfResult> {
  const { stdout } = await host.exec(command(run), { timeoutMs: TIMEOUT_MS });
  return parseDnsperf(stdout);
}

/** Microseconds of the answers; the lines that say so cost dnsperf time, so this is for moderate rates. */
export async function dnsperfLatency(
  host: Host,
  run: DnsperfRun,
): Promise<{ readonly p50: number; readonly p99: number }> {
  const { stdout } = await host.exec([...command(run), '-v'], { timeoutMs: TIMEOUT_MS });
  const latencies = parseLatencies(stdout);
  return { p50: Math.round(quantile(latencies, 0.5)), p99: Math.round(quantile(latencies, 0.99)) };
}

/** @throws BenchError when it is not what dnsperf prints */
export function parseDnsperf(text: string): DnsperfResult {
  const number = (title: string): number => {
    const value = new RegExp(`^\\s*${title}:\\s+([\\d.]+)`, 'm').exec(text)?.[1];
    if (value === undefined) throw new BenchError(`dnsperf says nothing of "${title}":\n${text.slice(-1000)}`);
    return Number(value);
  };
  const codes = /^\s*Response codes:\s+(.*)$/m.exec(text)?.[1] ?? '';
  return {
    sent: number('Queries sent'),
    completed: number('Queries completed'),
    lost: number('Queries lost'),
    perSecond: number('Queries per second'),
    rcodes: Object.fromEntries(
      [...codes.matchAll(/([A-Z0-9]+) (\d+)/g)].map(([, name, count]) => [name, Number(count)]),
    ),
  };
}

/** Microseconds, from lines like `> NOERROR a.example A 0.000215`. */
export function parseLatencies(text: string): number[] {
  return [...text.matchAll(/^> \S+ \S+ \S+ (\d+\.\d+)$/gm)].map(([, seconds]) => Number(seconds) * 1e6);
}

function command({ queries, seconds, rate, outstanding, cpu }: DnsperfRun): string[] {
  return [
    ...['taskset', '-c', String(cpu), 'dnsperf', '-s', '127.0.0.1', '-p', '53', '-d', queries],
    ...(seconds === undefined ? ['-n', '1'] : ['-l', String(seconds)]),
    ...(rate === undefined ? [] : ['-Q', String(rate)]),
    ...['-q', String(outstanding ?? OUTSTANDING), '-c', '4', '-t', '2'],
  ];
}

const OUTSTANDING = 100;
const TIMEOUT_MS = 300_000;
