/** TCP throughput by iperf3. */
import type { Host } from '../test/lab/lab.ts';
import type { LabProcess } from '../test/lab/lab-process.ts';
import { BenchError } from './bench-error.ts';

export interface TcpOptions {
  readonly to: string;
  readonly seconds: number;
  readonly streams?: number;
  readonly reverse?: boolean;
  /** undefined: the default of the machine. */
  readonly congestion: string | undefined;
}

export interface TcpResult {
  readonly gbps: number;
  /** Bytes that the receiver got. */
  readonly bytes: number;
  readonly retransmits: number;
}

/** What is over the time asked for: connecting, and the exchange of results. */
const GRACE_MS = 15_000;

export async function startIperfServer(host: Host): Promise<LabProcess> {
  const server = host.spawn('iperf3', ['iperf3', '-s', '--forceflush']);
  await server.waitUntil('listening', () => server.output().includes('Server listening'));
  return server;
}

export async function measureTcp(from: Host, options: TcpOptions): Promise<TcpResult> {
  const argv = ['iperf3', '-J', '-c', options.to, '-t', String(options.seconds), '-P', String(options.streams ?? 1)];
  if (options.reverse === true) argv.push('-R');
  if (options.congestion !== undefined) argv.push('-C', options.congestion);
  argv.push('--connect-timeout', '5000');
  const { stdout } = await from.exec(argv, { anyExit: true, timeoutMs: options.seconds * 1000 + GRACE_MS });
  return parseIperf(stdout);
}

/** Moves a little data, so that no measurement pays for path discovery and first-time allocations. */
export async function warmUp(from: Host, to: string): Promise<void> {
  await from.exec(['iperf3', '-J', '-c', to, '-n', '50M', '--connect-timeout', '5000'], { timeoutMs: 30_000 });
}

/** Whether a program of `host` may choose this congestion control. */
export async function mayUseCongestion(host: Host, name: string): Promise<boolean> {
  const server = await startIperfServer(host);
  try {
    const argv = ['iperf3', '-J', '-c', '127.0.0.1', '-n', '64K', '-C', name];
    const { code } = await host.exec(argv, { anyExit: true, timeoutMs: GRACE_MS });
    return code === 0;
  } finally {
    await server.stop('SIGKILL');
  }
}

/** @throws BenchError with what iperf3 said */
export function parseIperf(json: string): TcpResult {
  let report: IperfReport | null;
  try {
    report = JSON.parse(json) as IperfReport | null;
  } catch (cause) {
    throw new BenchError(`iperf3 printed no JSON: ${json.slice(0, 200).trim() || 'nothing'}`, { cause });
  }
  if (report?.error !== undefined) throw new BenchError(`iperf3: ${report.error}`);
  const received = report?.end?.sum_received;
  const { bits_per_second: speed, bytes } = received ?? {};
  if (typeof speed !== 'number' || typeof bytes !== 'number' || bytes <= 0) {
    throw new BenchError('iperf3 reported no received bytes');
  }
  return { gbps: speed / 1e9, bytes, retransmits: report?.end?.sum_sent?.retransmits ?? 0 };
}

interface IperfReport {
  readonly error?: string;
  readonly end?: {
    readonly sum_received?: { readonly bits_per_second?: number; readonly bytes?: number };
    readonly sum_sent?: { readonly retransmits?: number };
  };
}
