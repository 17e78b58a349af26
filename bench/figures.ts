/** What is measured of every system, and how the rounds of one system become its row. */
import { median } from './statistics.ts';

export const FIGURE_NAMES = [
  'tcp1Gbps',
  'tcp4Gbps',
  'tcpReverseGbps',
  'udp64Kpps',
  'pingUsMedian',
  'pingUsP99',
  'cpuSecondsPerGB',
] as const;

export type FigureName = (typeof FIGURE_NAMES)[number];

/** null where a system has no such figure: a kernel path has no process whose CPU time could be read. */
export type Figures = Readonly<Record<FigureName, number | null>>;

export interface FigureText {
  readonly title: string;
  readonly heading: string;
  readonly unit: string;
  readonly digits: number;
  readonly better: 'higher' | 'lower';
}

export const FIGURE_TEXTS: Readonly<Record<FigureName, FigureText>> = {
  tcp1Gbps: { title: 'TCP, one stream', heading: 'TCP 1', unit: 'Gbit/s', digits: 2, better: 'higher' },
  tcp4Gbps: { title: 'TCP, four streams', heading: 'TCP 4', unit: 'Gbit/s', digits: 2, better: 'higher' },
  tcpReverseGbps: { title: 'TCP, reverse', heading: 'TCP REV', unit: 'Gbit/s', digits: 2, better: 'higher' },
  udp64Kpps: { title: '64-byte UDP delivered', heading: 'UDP 64', unit: '1000/s', digits: 0, better: 'higher' },
  pingUsMedian: { title: 'Ping, median', heading: 'PING', unit: 'µs', digits: 0, better: 'lower' },
  pingUsP99: { title: 'Ping, 99th percentile', heading: 'PING P99', unit: 'µs', digits: 0, better: 'lower' },
  cpuSecondsPerGB: { title: 'CPU of both ends', heading: 'CPU', unit: 's/GB', digits: 2, better: 'lower' },
};

/** The raw figures of one system in one round. */
export interface Round extends Figures {
  readonly round: number;
  /** Cores that other programs of the machine kept busy just before: above a little, distrust the round. */
  readonly busyCoresBefore: number;
  readonly tcpRetransmits: number;
  readonly udpSentKpps: number;
  readonly udpDisordered: number;
  readonly pingLost: number;
  readonly cpuSecondsPerGBSender: number | null;
  readonly cpuSecondsPerGBReceiver: number | null;
}

export interface Row extends Figures {
  readonly system: string;
  readonly version: string;
  readonly encrypted: boolean;
  /** Of the interface that the traffic enters. */
  readonly mtu: number;
  readonly rounds: readonly Round[];
  /** Why there are fewer rounds than asked for. */
  readonly error?: string;
}

/** The medians of the rounds that there are. */
export function medians(rounds: readonly Round[]): Figures {
  const of = (name: FigureName): number | null => {
    const values = valuesOf(rounds, name);
    return values.length === 0 ? null : rounded(median(values));
  };
  return {
    tcp1Gbps: of('tcp1Gbps'),
    tcp4Gbps: of('tcp4Gbps'),
    tcpReverseGbps: of('tcpReverseGbps'),
    udp64Kpps: of('udp64Kpps'),
    pingUsMedian: of('pingUsMedian'),
    pingUsP99: of('pingUsP99'),
    cpuSecondsPerGB: of('cpuSecondsPerGB'),
  };
}

export function valuesOf(rounds: readonly Round[], name: FigureName): number[] {
  return rounds.map((round) => round[name]).filter((value) => value !== null);
}

/** Three decimals are more than the noise leaves. */
export function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
