/** Rounds and reports to try the output on. */
import type { Report } from '../../bench/dataplane.ts';
import { medians, type Round, type Row } from '../../bench/figures.ts';

export function round(figures: Partial<Round> = {}): Round {
  return {
    round: 1,
    busyCoresBefore: 0,
    tcp1Gbps: 8,
    tcp4Gbps: 7.5,
    tcpReverseGbps: 7.9,
    udp64Kpps: 300,
    pingUsMedian: 90,
    pingUsP99: 210,
    cpuSecondsPerGB: 1,
    tcpRetransmits: 0,
    udpSentKpps: 400,
    udpDisordered: 0,
    pingLost: 0,
    cpuSecondsPerGBSender: 0.6,
    cpuSecondsPerGBReceiver: 0.4,
    ...figures,
  };
}

export function row(system: string, rounds: readonly Round[], more: Partial<Row> = {}): Row {
  return { system, version: '1', encrypted: true, mtu: 1420, ...medians(rounds), rounds, ...more };
}

export function report(rows: readonly Row[]): Report {
  return {
    machine: {
      date: '2026-01-02T03:04:05.000Z',
      kernel: '6.18.0',
      cpu: 'A <fast> & "quoted" CPU',
      cores: 2,
      memoryGB: 8,
      load: 0.1,
      congestionControl: 'cubic',
      defaultCongestionControl: 'bbr',
      linkMtu: 1500,
      innerMtu: 1420,
      rounds: 3,
      seconds: 5,
      commit: '0123456789',
      versions: { raw: 'veth', stayput: '1', iperf3: '3.12' },
    },
    rows,
  };
}
