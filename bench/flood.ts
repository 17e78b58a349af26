/**
 * `stayput bench flood`: what a flood of initiations costs the sessions that a host has.
 *
 * Flooder, both ends and the traffic share the machine, and sending the flood and taking it off the cable cost CPU
 * whatever listens. So each round measures three times: without a flood, with the same flood to a port where nobody
 * listens, and with the flood to the data plane. The last divided by the second is what the data plane loses by it.
 */
import { ensureFloodBuilt, FLOOD_SOURCES, type FloodReport, flood } from '../test/lab/flood.ts';
import { increase } from '../test/lab/overlay.ts';
import { rounded } from './figures.ts';
import { measureTcp, startIperfServer, warmUp } from './iperf.ts';
import { cpuSeconds, Link } from './link.ts';
import { busyCores, describeMachine, type Machine } from './machine.ts';
import { waitForAnswers } from './ping.ts';
import { median } from './statistics.ts';
import { joinBoth, stayput } from './systems/stayput.ts';

export interface FloodOptions {
  readonly rounds: number;
  readonly seconds: number;
  /** Initiations per second. */
  readonly rate: number;
  readonly dataplane: string;
}

export interface FloodRound {
  readonly round: number;
  readonly busyCoresBefore: number;
  readonly quietGbps: number;
  readonly closedPortGbps: number;
  readonly floodedGbps: number;
  /** What the flooder really sent. */
  readonly initiationsPerSecond: number;
  /** Of one core, while it sent. */
  readonly flooderCpu: number;
  readonly cookiesPerSecond: number;
  /** Of one core, of the data plane that is flooded, while the flood and the traffic went on. */
  readonly dataplaneCpu: number;
  readonly rssBeforeMb: number;
  readonly rssAfterMb: number;
}

export interface FloodReportOfAll {
  readonly machine: Machine;
  /** Medians of floodedGbps divided by closedPortGbps, and by quietGbps. */
  readonly keptOfClosedPort: number;
  readonly keptOfQuiet: number;
  readonly rounds: readonly FloodRound[];
}

export async function benchFlood(options: FloodOptions, say: (line: string) => void): Promise<FloodReportOfAll> {
  const program = await ensureFloodBuilt(say);
  const { rounds: count, seconds } = options;
  const machine = describeMachine([stayput(options.dataplane)], { congestion: undefined, rounds: count, seconds });
  const rounds: FloodRound[] = [];
  for (let round = 1; round <= count; round += 1) {
    const measured = await measureRound(program, round, options);
    rounds.push(measured);
    const speeds = [measured.quietGbps, measured.closedPortGbps, measured.floodedGbps].map((gbps) => gbps.toFixed(2));
    say(`round ${round} of ${count}: ${speeds.join(' / ')} Gbit/s quiet / closed port / flooded`);
  }
  const kept = (of: 'quietGbps' | 'closedPortGbps'): number =>
    rounded(median(rounds.map((round) => round.floodedGbps / round[of])));
  return { machine, keptOfClosedPort: kept('closedPortGbps'), keptOfQuiet: kept('quietGbps'), rounds };
}

async function measureRound(program: string, round: number, options: FloodOptions): Promise<FloodRound> {
  const busyCoresBefore = rounded(await busyCores());
  const link = await Link.lay();
  try {
    const { a, b } = await joinBoth(link, options.dataplane);
    await waitForAnswers([[link.a.host, link.b.inner]]);
    await link.b.host.ip([`route add ${FLOOD_SOURCES} via ${link.a.address}`]);
    const { tunnelKey } = JSON.parse((await b.stayput(['status', '--json'])).stdout) as { tunnelKey: string };
    const server = await startIperfServer(link.b.host);
    await warmUp(a.host, link.b.inner);
    const tcp = async (): Promise<number> => {
      const { gbps } = await measureTcp(a.host, { to: link.b.inner, seconds: options.seconds, congestion: undefined });
      return rounded(gbps);
    };
    const whileFlooding = async (port: number): Promise<{ readonly gbps: number; readonly report: FloodReport }> => {
      const target = { address: link.b.address, port, key: tunnelKey };
      const flooding = flood(program, a.host, { ...target, rate: options.rate, seconds: options.seconds + HEAD_START });
      const gbps = await tcp();
      return { gbps, report: await flooding };
    };
    const quietGbps = await tcp();
    const closed = await whileFlooding(CLOSED_PORT);
    const pid = b.dataplane.process.pid;
    const before = { metrics: await b.metrics(), rssMb: b.dataplane.rssMb(), cpu: cpuSeconds(pid) };
    const flooded = await whileFlooding(DATA_PORT);
    const after = { metrics: await b.metrics(), rssMb: b.dataplane.rssMb(), cpu: cpuSeconds(pid) };
    await server.stop('SIGKILL');
    const { report } = flooded;
    return {
      round,
      busyCoresBefore,
      quietGbps,
      closedPortGbps: closed.gbps,
      floodedGbps: flooded.gbps,
      initiationsPerSecond: Math.round(report.sent / report.seconds),
      flooderCpu: rounded(report.cpuSeconds / report.seconds),
      cookiesPerSecond: Math.round(increase(before.metrics, after.metrics, COOKIES) / report.seconds),
      dataplaneCpu: rounded((after.cpu - before.cpu) / report.seconds),
      rssBeforeMb: before.rssMb,
      rssAfterMb: after.rssMb,
    };
  } finally {
    await link.close();
  }
}

export function floodLines({ keptOfClosedPort, keptOfQuiet, rounds }: FloodReportOfAll): string[] {
  const lines = rounds.map((round) => {
    const speeds = `${round.quietGbps} Gbit/s quiet, ${round.closedPortGbps} with the flood to a closed port`;
    const cost = `${round.cookiesPerSecond} cookies/s, ${round.rssBeforeMb} to ${round.rssAfterMb} MB`;
    return `${speeds}, ${round.floodedGbps} flooded by ${round.initiationsPerSecond}/s (${cost})`;
  });
  const percent = (share: number): string => `${Math.round(share * 100)} %`;
  return [
    ...lines,
    `kept: ${percent(keptOfClosedPort)} of the closed port's, ${percent(keptOfQuiet)} of the quiet one's`,
  ];
}

const DATA_PORT = 4341;
const CLOSED_PORT = 4399;
/** Seconds that the flood lasts longer than the traffic, which connects and exchanges results. */
const HEAD_START = 2;
const COOKIES = /cookies_sent_total/;
