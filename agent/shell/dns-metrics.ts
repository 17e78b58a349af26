/** What the DNS service counts. Label values are bounded: whatever clients ask for, a type is one of a few, or `other`. */
import { Counter, Gauge, type Metric, type Registry } from 'prom-client';
import { RCODE, TYPE } from '../../proto/dns/message.ts';
import type { CacheResult } from '../core/dns-forwarded.ts';
import type { UpstreamHealth } from '../core/dns-upstreams.ts';
import { AnswerTimes } from './dns-answer-times.ts';
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

/** Answers that have all labels in common. */
interface Alike {
  readonly labels: { readonly zone: string; readonly type: string; readonly rcode: string };
  readonly cache: CacheResult | undefined;
  count: number;
}

/**
 * Answers are counted here in plain numbers and put under their labels when somebody asks: that for each answer is more
 * work than all the rest of one that is prepared.
 */
export class DnsMetrics {
  readonly #answers = new Map<number, Alike>();
  readonly #times = new AnswerTimes('stayput_agent_dns_query_seconds', 'Time from a DNS query to its answer');
  readonly #logLost: Counter;
  readonly #faults: Counter;

  constructor(registry: Registry, sources: DnsMetricSources) {
    const registers = [registry];
    const answers = this.#answers;
    new Counter({
      name: 'stayput_agent_dns_queries_total',
      help: 'DNS queries answered, by who knew the answer, type and response code',
      labelNames: ['zone', 'type', 'rcode'],
      registers,
      collect() {
        this.reset();
        for (const { labels, count } of answers.values()) this.inc(labels, count);
      },
    });
    // It is read like one of prom-client's, which its types do not foresee.
    registry.registerMetric(this.#times as unknown as Metric);
    new Counter({
      name: 'stayput_agent_dns_cache_total',
      help: 'Forwarded DNS queries, by what the cache had',
      labelNames: ['result'],
      registers,
      collect() {
        this.reset();
        for (const result of CACHE_RESULTS) if (result !== undefined) this.inc({ result }, 0);
        for (const { cache, count } of answers.values()) if (cache !== undefined) this.inc({ result: cache }, count);
      },
    });
    this.#logLost = new Counter({
      name: 'stayput_agent_dns_query_log_lost_total',
      help: 'Lines that did not get into the DNS query log',
      registers,
    });
    this.#faults = new Counter({
      name: 'stayput_agent_dns_faults_total',
      help: 'DNS questions that failed by an error of the agent',
      registers,
    });
    observeSources(registry, sources);
  }

  count(facts: DnsReplyFacts): void {
    const key = keyOf(facts);
    let alike = this.#answers.get(key);
    if (alike === undefined) {
      const { zone, type, rcode, cache } = facts;
      alike = { labels: { zone, type: typeName(type), rcode: rcodeName(rcode) }, cache, count: 0 };
      this.#answers.set(key, alike);
    }
    alike.count += 1;
    this.#times.observe(facts.zone, facts.elapsed / 1000);
  }

  countFault(): void {
    this.#faults.inc();
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

/** One number for all that is `other`, so there are only as many keys as there are labels. */
function keyOf({ zone, type, rcode, cache }: DnsReplyFacts): number {
  const knownType = type !== undefined && TYPE_NAMES.has(type) ? type : 0;
  const knownRcode = RCODE_NAMES.has(rcode) ? rcode : 0xff;
  const from = CACHE_RESULTS.indexOf(cache) * 2 + (zone === 'overlay' ? 1 : 0);
  return (knownType * 0x100 + knownRcode) * 0x10 + from;
}

function named(codes: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(codes).map(([name, code]) => [code, name.toUpperCase()]));
}

const TYPE_NAMES = named({ ...TYPE, mx: 15, txt: 16, srv: 33, ds: 43, dnskey: 48, svcb: 64, https: 65 });
const RCODE_NAMES = named(RCODE);
const CACHE_RESULTS: readonly (CacheResult | undefined)[] = [undefined, 'hit', 'miss', 'stale', 'failure'];
