/**
 * `stayput bench dns`: the agent's DNS service beside dnsmasq and unbound as forwarders.
 *
 * The server has one core for itself and dnsperf the others. Each system is measured once a round, on hosts of its
 * own that are made for it, and the order turns each round. Two thirds of a row are rates with a warm cache; the rest
 * is what happens when the host gets other resolvers, and when the server is killed and started again.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { waitFor } from '../test/lab/wait.ts';
import { BenchError } from './bench-error.ts';
import { turned } from './dataplane.ts';
import type { ChangeResult, ChangeTask, RetryResult, RetryTask } from './dns/asker.ts';
import { dnsperf, dnsperfLatency } from './dns/dnsperf.ts';
import { type DnsSystem, OVERLAY_NAME, type RunningDns, startUpstream } from './dns/servers.ts';
import { rounded } from './figures.ts';
import { Link } from './link.ts';
import { busyCores, describeHardware, type Hardware } from './machine.ts';
import { median } from './statistics.ts';

export const DNS_FIGURES = [
  'overlayQps',
  'cachedQps',
  'p50Us',
  'p99Us',
  'lostAt20k',
  'memoryMB',
  'changeMs',
  'failedAfterKill',
] as const;

export type DnsFigure = (typeof DNS_FIGURES)[number];

export interface DnsRound extends Readonly<Record<DnsFigure, number | null>> {
  readonly round: number;
  readonly busyCoresBefore: number;
  readonly restart: RetryResult;
}

/** Medians of the rounds. */
export interface DnsRow extends Readonly<Record<DnsFigure, number | null>> {
  readonly system: string;
  readonly version: string;
  readonly rounds: readonly DnsRound[];
}

export interface DnsReport {
  readonly machine: Hardware & { readonly seconds: number; readonly names: number };
  readonly rows: readonly DnsRow[];
}

export interface DnsBenchOptions {
  readonly rounds: number;
  readonly seconds: number;
  /** How many the cache is filled with. */
  readonly names: number;
}

export async function benchDns(
  systems: readonly DnsSystem[],
  options: DnsBenchOptions,
  say: (line: string) => void,
): Promise<DnsReport> {
  const machine = { ...describeHardware(), seconds: options.seconds, names: options.names };
  const results = new Map<DnsSystem, DnsRound[]>(systems.map((system) => [system, []]));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const system of turned(systems, round - 1)) {
      const measured = await measure(system, round, options);
      results.get(system)?.push(measured);
      const rates = `${measured.overlayQps} own and ${measured.cachedQps} cached answers a second`;
      say(`round ${round} of ${options.rounds}: ${system.name}  ${rates}, p99 ${measured.p99Us} µs`);
    }
  }
  return {
    machine,
    rows: [...results].map(([{ name, version }, rounds]) => ({ system: name, version, rounds, ...medians(rounds) })),
  };
}

async function measure(system: DnsSystem, round: number, options: DnsBenchOptions): Promise<DnsRound> {
  const busyCoresBefore = rounded(await busyCores());
  const link = await Link.lay();
  try {
    return { round, busyCoresBefore, ...(await figures(system, link, options)) };
  } catch (cause) {
    throw cause instanceof BenchError
      ? cause
      : new BenchError(`${system.name}: ${(cause as Error).message}`, { cause });
  } finally {
    await link.close();
  }
}

type Measured = Omit<DnsRound, 'round' | 'busyCoresBefore'>;

async function figures(system: DnsSystem, link: Link, { seconds, names }: DnsBenchOptions): Promise<Measured> {
  const { host } = link.a;
  await link.b.host.ip([`addr add ${SECOND_UPSTREAM}/24 dev eth0`]);
  startUpstream(link, FIRST_UPSTREAM, '192.0.2.80');
  startUpstream(link, SECOND_UPSTREAM, RIGHT_AFTER_CHANGE);
  const resolvConf = join(host.dir, 'bench-resolv.conf');
  writeFileSync(resolvConf, `nameserver ${FIRST_UPSTREAM}\n`);
  const file = (name: string, lines: readonly string[]): string => {
    const path = join(host.dir, name);
    writeFileSync(path, `${lines.join('\n')}\n`);
    return path;
  };
  const own = file('own.txt', [`${OVERLAY_NAME} A`]);
  const few = file(
    'few.txt',
    Array.from({ length: WARM_NAMES }, (_, i) => `w${i}.bench.example A`),
  );
  const many = file(
    'many.txt',
    Array.from({ length: names }, (_, i) => `n${i}.bench.example A`),
  );

  const setup = { cacheEntries: names + 2 * WARM_NAMES, resolvConf, upstream: FIRST_UPSTREAM };
  let server = await system.start(link, setup);
  await ready(link, OVERLAY_NAME);
  await ready(link, 'w0.bench.example');
  const cpu = availableParallelism() - 1;
  await host.exec(['taskset', '-a', '-c', '-p', String(SERVER_CPU), String(server.process.pid)]);
  await dnsperf(host, { queries: own, seconds: 1, cpu });
  const overlay = await dnsperf(host, { queries: own, seconds, cpu });
  await dnsperf(host, { queries: few, outstanding: 20, cpu });
  await dnsperf(host, { queries: few, seconds: 1, cpu });
  const cached = await dnsperf(host, { queries: few, seconds, cpu });
  const latency = await dnsperfLatency(host, { queries: few, seconds, rate: 10_000, cpu });
  const fast = await dnsperf(host, { queries: few, seconds, rate: 20_000, cpu });
  const memoryBefore = server.process.rssMb();
  const filled = await dnsperf(host, { queries: many, outstanding: 50, cpu });
  if (filled.completed < names) throw new BenchError(`${system.name} left ${filled.lost} names unanswered`);
  const memoryMB = rounded(server.process.rssMb() - memoryBefore);
  const restarted = await restartUnderLoad(link, server, seconds);
  server = restarted.server;
  await ready(link, OVERLAY_NAME);
  const changeMs = system.follows ? await changeResolvers(link, resolvConf) : null;
  return {
    overlayQps: Math.round(overlay.perSecond),
    cachedQps: Math.round(cached.perSecond),
    p50Us: latency.p50,
    p99Us: latency.p99,
    lostAt20k: fast.sent - fast.completed,
    memoryMB,
    changeMs,
    failedAfterKill: restarted.result.asked - restarted.result.answered,
    restart: restarted.result,
  };
}

async function ready(link: Link, name: string): Promise<void> {
  await waitFor(`an answer for ${name}`, async () => {
    const dig = ['dig', '+short', '+tries=1', '+time=1', '@127.0.0.1', name];
    const { stdout } = await link.a.host.exec(dig, { anyExit: true });
    return /^\d/.test(stdout);
  });
}

async function restartUnderLoad(
  link: Link,
  server: RunningDns,
  seconds: number,
): Promise<{ readonly result: RetryResult; readonly server: RunningDns }> {
  const task: RetryTask = {
    kind: 'retry',
    names: [OVERLAY_NAME],
    perSecond: 200,
    seconds: seconds + 2,
    timeoutMs: 5000,
  };
  const asking = asker<RetryResult>(link, task);
  const restarted = server.restart();
  return { result: await asking, server: await restarted };
}

async function changeResolvers(link: Link, resolvConf: string): Promise<number | null> {
  // The former place is out of reach.
  await link.b.host.ip([`addr del ${FIRST_UPSTREAM}/24 dev eth0`, `addr replace ${SECOND_UPSTREAM}/24 dev eth0`]);
  const { firstRightMs } = await asker<ChangeResult>(link, {
    ...{ kind: 'change', file: resolvConf, content: `nameserver ${SECOND_UPSTREAM}\n` },
    ...{ suffix: 'bench.example', right: RIGHT_AFTER_CHANGE },
  });
  return firstRightMs === null ? null : rounded(firstRightMs);
}

async function asker<Result>(link: Link, task: ChangeTask | RetryTask): Promise<Result> {
  const { stdout } = await link.a.host.exec([process.execPath, ASKER, JSON.stringify(task)], { timeoutMs: 60_000 });
  return JSON.parse(stdout) as Result;
}

function medians(rounds: readonly DnsRound[]): Readonly<Record<DnsFigure, number | null>> {
  const of = (name: DnsFigure): number | null => {
    const values = rounds.map((round) => round[name]).filter((value) => value !== null);
    return values.length === 0 ? null : rounded(median(values));
  };
  return Object.fromEntries(DNS_FIGURES.map((name) => [name, of(name)])) as Record<DnsFigure, number | null>;
}

const ASKER = fileURLToPath(new URL('dns/asker.js', import.meta.url));
const FIRST_UPSTREAM = '192.0.2.2';
const SECOND_UPSTREAM = '192.0.2.3';
const RIGHT_AFTER_CHANGE = '192.0.2.81';
const WARM_NAMES = 1000;
const SERVER_CPU = 0;
