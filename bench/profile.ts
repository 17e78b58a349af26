/** Where the CPU time of the two data planes goes during one TCP stream, sampled by perf. */
import { join } from 'node:path';
import { BenchError } from './bench-error.ts';
import { measureTcp, startIperfServer, warmUp } from './iperf.ts';
import { type Conditions, withSystem } from './measurement.ts';
import type { System } from './systems/system.ts';

export interface Share {
  readonly percent: number;
  /** The program or library, or `kernel`. */
  readonly where: string;
  readonly symbol: string;
}

export interface Profile {
  readonly tcp1Gbps: number;
  readonly sender: readonly Share[];
  readonly receiver: readonly Share[];
}

const TOP = 20;
const HERTZ = '2000';

export function profile(system: System, conditions: Conditions): Promise<Profile> {
  return withSystem(system, async (link, running) => {
    const processes = running.forwarders;
    if (processes === undefined) throw new BenchError(`${system.name} has no process to profile`);
    const server = await startIperfServer(link.b.host);
    await warmUp(link.a.host, running.addressB);
    const data = processes.map((_, i) => join(link.lab.dir, `perf.${i}`));
    const time = String(conditions.seconds + 1);
    const recorders = processes.map(({ pid }, i) =>
      link.a.host.exec(
        [
          ...['perf', 'record', '-q', '-e', 'cpu-clock', '-F', HERTZ, '-p', String(pid), '-o', data[i] ?? ''],
          ...['--', 'sleep', time],
        ],
        { timeoutMs: conditions.seconds * 1000 + 20_000 },
      ),
    );
    const { seconds, congestion } = conditions;
    const [tcp] = await Promise.all([
      measureTcp(link.a.host, { to: running.addressB, seconds: seconds + 1, congestion }),
      ...recorders,
    ]);
    await server.stop('SIGKILL');
    const shares = async (file: string): Promise<readonly Share[]> => {
      const options = ['--stdio', '--no-children', '-F', 'overhead,dso,sym', '-t', '\t'];
      const argv = ['perf', 'report', '-i', file, ...options];
      return parsePerfReport((await link.a.host.exec(argv, { timeoutMs: 120_000 })).stdout).slice(0, TOP);
    };
    return {
      tcp1Gbps: tcp.gbps,
      sender: await shares(data[0] ?? ''),
      receiver: await shares(data[1] ?? ''),
    };
  });
}

export function parsePerfReport(text: string): Share[] {
  return text.split('\n').flatMap((line) => {
    const [percent = '', where = '', symbol = ''] = line.split('\t').map((cell) => cell.trim());
    if (!/^[\d.]+%$/.test(percent)) return [];
    return [
      {
        percent: Number.parseFloat(percent),
        where: symbol.startsWith('[k]') ? 'kernel' : where,
        symbol: symbol.replace(/^\[[.k]\]\s*/, ''),
      },
    ];
  });
}

export function formatProfile({ tcp1Gbps, sender, receiver }: Profile): string {
  const part = (title: string, shares: readonly Share[]): string =>
    `${title}\n${shares.map(({ percent, where, symbol }) => `  ${percent.toFixed(1).padStart(5)} %  ${where}  ${symbol}\n`).join('')}`;
  return (
    `Where the time of the data planes goes (one TCP stream, ${tcp1Gbps.toFixed(2)} Gbit/s while sampling)\n` +
    `${part('sending host', sender)}${part('receiving host', receiver)}`
  );
}
