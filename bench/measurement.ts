/** One system, once: built, measured, removed. */
import type { LabProcess } from '../test/lab/lab-process.ts';
import { measureUdp } from './blaster.ts';
import { type Round, rounded } from './figures.ts';
import { measureTcp, startIperfServer, type TcpOptions, warmUp } from './iperf.ts';
import { cpuSeconds, Link, mtuOf } from './link.ts';
import { busyCores } from './machine.ts';
import { measurePing, waitForAnswers } from './ping.ts';
import type { Running, System } from './systems/system.ts';

export interface Conditions {
  readonly seconds: number;
  readonly congestion: string | undefined;
  readonly blaster: string;
}

export interface Measured {
  readonly round: Round;
  readonly mtu: number;
}

const PINGS = 1000;
const PINGS_PER_SECOND_OF_RUN = 200;

/** Builds two hosts with the system between them, lets `use` work with it, and removes everything. */
export async function withSystem<T>(system: System, use: (link: Link, running: Running) => Promise<T>): Promise<T> {
  const link = await Link.lay();
  try {
    const running = await system.start(link);
    await waitForAnswers([
      [link.a.host, running.addressB],
      [link.b.host, running.addressA],
    ]);
    return await use(link, running);
  } finally {
    await link.close();
  }
}

export async function measure(system: System, round: number, conditions: Conditions): Promise<Measured> {
  const busyCoresBefore = rounded(await busyCores());
  return await withSystem(system, async (link, running) => {
    const { seconds, congestion } = conditions;
    const server = await startIperfServer(link.b.host);
    const tcp = (options: Partial<TcpOptions>) =>
      measureTcp(link.a.host, { to: running.addressB, seconds, congestion, ...options });
    const pings = Math.min(PINGS, Math.ceil(seconds * PINGS_PER_SECOND_OF_RUN));
    const ping = await measurePing(link.a.host, running.addressB, pings);
    await warmUp(link.a.host, running.addressB);

    const before = [cpuOf(running.processesA), cpuOf(running.processesB)] as const;
    const one = await tcp({});
    const gigabytes = one.bytes / 1e9;
    const sender = perGigabyte(running.processesA, before[0], gigabytes);
    const receiver = perGigabyte(running.processesB, before[1], gigabytes);

    const four = await tcp({ streams: 4 });
    const reverse = await tcp({ reverse: true });
    await server.stop('SIGKILL');
    const receiving = { host: link.b.host, address: running.addressB };
    const udp = await measureUdp(conditions.blaster, link.a.host, receiving, seconds);
    return {
      mtu: await mtuOf(link.a, running.interface),
      round: {
        round,
        busyCoresBefore,
        tcp1Gbps: rounded(one.gbps),
        tcp4Gbps: rounded(four.gbps),
        tcpReverseGbps: rounded(reverse.gbps),
        udp64Kpps: rounded(udp.deliveredKpps),
        pingUsMedian: rounded(ping.medianUs),
        pingUsP99: rounded(ping.p99Us),
        cpuSecondsPerGB: sender === null || receiver === null ? null : rounded(sender + receiver),
        tcpRetransmits: one.retransmits,
        udpSentKpps: rounded(udp.sentKpps),
        udpDisordered: udp.disordered,
        pingLost: ping.lost,
        cpuSecondsPerGBSender: sender,
        cpuSecondsPerGBReceiver: receiver,
      },
    };
  });
}

function cpuOf(processes: readonly LabProcess[]): number {
  return processes.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0);
}

function perGigabyte(processes: readonly LabProcess[], before: number, gigabytes: number): number | null {
  return processes.length === 0 ? null : rounded((cpuOf(processes) - before) / gigabytes);
}
