/** What the DNS service counts. Label values are bounded: whatever clients ask for, a type is one of a few, or `other`. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { RCODE, TYPE } from '../../proto/dns/message.ts';
import type { CacheResult } from '../core/dns-forwarder.ts';
import type { UpstreamHealth } from '../core/dns-upstreams.ts';
import { formatUpstream } from './dns-upstream-address.ts';

export interface DnsReplyFacts {
  readonly zone: 'overlay' | 'forward';
  readonly type: number | undefined;
  readonly rcode: number;
  readonly cache: CacheResult | undefined;
  /** Milliseconds. */
  readonly elapsed: number;
}

export interface DnsMetricSources {
  readonly cacheEntries: () => number;
  readonly upstreams: () => readonly UpstreamHealth[];
}

export class DnsMetrics {
  readonly #queries: Counter<'zone' | 'type' | 'rcode'>;
  readonly #seconds: Histogram<'zone'>;
  readonly #cache: Counter<'result'>;
  readonly #logLost: Counter;

  constructor(registry: Registry, sources: DnsMetricSources) {
    const registers = [registry];
    this.#queries = new Counter({
      name: 'stayput_agent_dns_queries_total',
      help: 'DNS queries answered, by who knew the answer, type and response code',
      labelNames: ['zone', 'type', 'rcode'],
      registers,
    });
    this.#seconds = new Histogram({
      name: 'stayput_agent_dns_query_seconds',
      help: 'Time from a DNS query to its answer',
      labelNames: ['zone'],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    });
    this.#cache = new Counter({
      name: 'stayput_agent_dns_cache_total',
      help: 'Forwarded DNS queries, by what the cache had',
      labelNames: ['result'],
      registers,
    });
    this.#logLost = new Counter({
      name: 'stayput_agent_dns_query_log_lost_total',
      help: 'Lines that did not get into the DNS query log',
      registers,
    });
    observeSources(registry, sources);
  }

  count({ zone, type, rcode, cache, elapsed }: DnsReplyFacts): void {
    this.#queries.inc({ zone, type: typeName(type), rcode: rcodeName(rcode) });
    this.#seconds.observe(zone === 'overlay' ? OVERLAY : FORWARD, elapsed / 1000);
    if (cache !== undefined) this.#cache.inc({ result: cache });
  }

  countLost(lines: number): void {
    this.#logLost.inc(lines);
  }
}

function observeSources(registry: Registry, { cacheEntries, upstreams }: DnsMetricSources): void {
  const registers = [registry];
  new Gauge({
    name: 'stayput_agent_dns_cache_entries',
    help: 'Answers of upstream resolvers that are cached',
    registers,
    collect() {
      this.set(cacheEntries());
    },
  });
  new Gauge({
    name: 'stayput_agent_dns_upstream_rtt_seconds',
    help: 'Smoothed time that an upstream resolver takes to answer',
    labelNames: ['upstream'],
    registers,
    collect() {
      this.reset();
      for (const { upstream, roundTrip } of upstreams()) {
        if (roundTrip !== undefined) this.set({ upstream: formatUpstream(upstream) }, roundTrip / 1000);
      }
    },
  });
  new Gauge({
    name: 'stayput_agent_dns_upstream_failures',
    help: 'Questions in a row that an upstream resolver has left unanswered',
    labelNames: ['upstream'],
    registers,
    collect() {
      this.reset();
      for (const { upstream, failures } of upstreams()) this.set({ upstream: formatUpstream(upstream) }, failures);
    },
  });
}

export function typeName(type: number | undefined): string {
  return (type === undefined ? undefined : TYPE_NAMES.get(type)) ?? 'other';
}

export function rcodeName(rcode: number): string {
  return RCODE_NAMES.get(rcode) ?? 'other';
}

function named(codes: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(codes).map(([name, code]) => [code, name.toUpperCase()]));
}

const TYPE_NAMES = named({ ...TYPE, mx: 15, txt: 16, srv: 33, ds: 43, dnskey: 48, svcb: 64, https: 65 });
const RCODE_NAMES = named(RCODE);
const OVERLAY = { zone: 'overlay' };
const FORWARD = { zone: 'forward' };
