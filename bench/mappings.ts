/**
 * `stayput bench mappings`: what a packet costs with few and with many mappings and peers in the tables.
 *
 * The model: two hosts with a data plane each and no agents. The receiver has a whole prefix; the sender holds one
 * mapping for each of N addresses in it and sends 64-byte datagrams to all of them in an order that no cache foresees.
 * Beside it both know other peers, each with a mapping, and the receiver looks the sources up in a table that is as
 * large. What differs from row to row is N alone. Every measurement is a fresh pair; the order turns each round.
 */
import { prefixAddress } from '../proto/address.ts';
import { BenchError } from './bench-error.ts';
import { measureUdp } from './blaster.ts';
import { turned } from './dataplane.ts';
import { rounded } from './figures.ts';
import { cpuSeconds, Link } from './link.ts';
import { busyCores, describeHardware, type Hardware } from './machine.ts';
import { LoadedDataplane, SENDING, SERVED } from './mappings/dataplane.ts';
import { median } from './statistics.ts';

export interface MappingsOptions {
  readonly mappings: readonly number[];
  /** Besides the one that is spoken to. */
  readonly peers: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly dataplane: string;
  readonly blaster: string;
}

export interface MappingsRound {
  readonly deliveredKpps: number;
  readonly sentKpps: number;
  /** CPU time of the data plane for each datagram that it handled itself: what others lose is no cost of its own. */
  readonly senderNs: number;
  readonly receiverNs: number;
  readonly senderMB: number;
  readonly receiverMB: number;
  readonly busyCoresBefore: number;
}

/** Medians of the rounds. */
export interface MappingsRow {
  readonly mappings: number;
  readonly deliveredKpps: number;
  readonly senderNs: number;
  readonly receiverNs: number;
  readonly senderMB: number;
  readonly rounds: readonly MappingsRound[];
}

export interface MappingsReport {
  readonly machine: Hardware & { readonly seconds: number; readonly peers: number };
  readonly rows: readonly MappingsRow[];
}

export async function benchMappings(options: MappingsOptions, say: (line: string) => void): Promise<MappingsReport> {
  const machine = { ...describeHardware(), seconds: options.seconds, peers: options.peers };
  const results = new Map<number, MappingsRound[]>(options.mappings.map((count) => [count, []]));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const count of turned(options.mappings, round - 1)) {
      const measured = await measure(count, options);
      results.get(count)?.push(measured);
      const kpps = measured.deliveredKpps.toFixed(0);
      const cpu = `${measured.senderNs.toFixed(0)} and ${measured.receiverNs.toFixed(0)} ns a datagram`;
      say(`round ${round} of ${options.rounds}: ${count} mappings  ${kpps} kpps, ${cpu}`);
    }
  }
  return { machine, rows: [...results].map(([mappings, rounds]) => rowOf(mappings, rounds)) };
}

async function measure(count: number, options: MappingsOptions): Promise<MappingsRound> {
  const busyCoresBefore = rounded(await busyCores());
  const link = await Link.lay();
  const open: LoadedDataplane[] = [];
  try {
    const sender = await LoadedDataplane.start(link.a, options.dataplane, 1);
    open.push(sender);
    const receiver = await LoadedDataplane.start(link.b, options.dataplane, 2);
    open.push(receiver);
    await fill(sender, receiver, count, options.peers);
    await link.a.host.ip([`addr add ${prefixAddress(SENDING)}/32 dev stayput0`]);
    // Everything in it is the receiver's own, without an address for each.
    await link.b.host.ip([`route add local ${SERVED} dev lo`]);
    const target = { host: link.b.host, address: prefixAddress(SERVED), addresses: count };
    await measureUdp(options.blaster, link.a.host, target, WARM_UP_SECONDS);
    const used = async (dataplane: LoadedDataplane, counter: string): Promise<Used> => {
      return { cpu: cpuSeconds(dataplane.process.pid), datagrams: await dataplane.counted(counter) };
    };
    const atBoth = () => Promise.all([used(sender, 'udp_tx_datagrams'), used(receiver, 'udp_rx_datagrams')]);
    const before = await atBoth();
    const result = await measureUdp(options.blaster, link.a.host, target, options.seconds);
    const after = await atBoth();
    return {
      deliveredKpps: rounded(result.deliveredKpps),
      sentKpps: rounded(result.sentKpps),
      senderNs: perDatagram(before[0], after[0]),
      receiverNs: perDatagram(before[1], after[1]),
      senderMB: sender.process.rssMb(),
      receiverMB: receiver.process.rssMb(),
      busyCoresBefore,
    };
  } catch (cause) {
    throw cause instanceof BenchError
      ? cause
      : new BenchError(`${count} mappings: ${(cause as Error).message}`, { cause });
  } finally {
    for (const dataplane of open) dataplane.close();
    await link.close();
  }
}

interface Used {
  readonly cpu: number;
  readonly datagrams: number;
}

function perDatagram(before: Used, after: Used): number {
  return rounded(((after.cpu - before.cpu) * 1e9) / (after.datagrams - before.datagrams));
}

async function fill(sender: LoadedDataplane, receiver: LoadedDataplane, count: number, peers: number): Promise<void> {
  await sender.meets(receiver);
  await receiver.meets(sender);
  await sender.owns(SENDING);
  await receiver.owns(SERVED);
  await sender.meetsOthers(peers);
  await receiver.meetsOthers(peers);
  await sender.maps(SERVED, count, receiver);
  await receiver.maps(SENDING, count, sender);
}

function rowOf(mappings: number, rounds: readonly MappingsRound[]): MappingsRow {
  const of = (name: keyof MappingsRound): number => rounded(median(rounds.map((round) => round[name])));
  return {
    mappings,
    deliveredKpps: of('deliveredKpps'),
    senderNs: of('senderNs'),
    receiverNs: of('receiverNs'),
    senderMB: of('senderMB'),
    rounds,
  };
}

const WARM_UP_SECONDS = 0.5;
