/** Drives the DNS service of agent/core with sockets, the clock, the resolver and the metrics. */
import { randomInt } from 'node:crypto';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { isIpAddress } from '../../proto/address.ts';
import { RCODE } from '../../proto/dns/message.ts';
import { UsageError } from '../../proto/errors.ts';
import { encodeRecord } from '../../runtime/dns-record-codec.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import type { Log } from '../../runtime/log.ts';
import { type DnsAction, DnsService, type LookupId } from '../core/dns-service.ts';
import type { Upstream } from '../core/dns-upstreams.ts';
import { type ResolvConfWatch, watchResolvConf } from './dns-host-resolvers.ts';
import { type DnsClient, type DnsListener, isOwnHost, isWildcard, listenForDns } from './dns-listener.ts';
import { UpstreamSockets } from './dns-upstream.ts';
import type { NameResolver } from './name-resolver.ts';

export interface DnsServerOptions {
  /** `HOST:PORT`, UDP and TCP. */
  readonly listen: readonly string[];
  readonly resolver: NameResolver;
  /** `ADDRESS` or `ADDRESS:PORT`; none: the nameservers of `resolvConf`. */
  readonly upstreams: readonly string[];
  readonly resolvConf: string;
  readonly cacheEntries: number;
  readonly registry: Registry;
  readonly log: Log;
}

export interface DnsServer {
  /** `HOST:PORT` of each listener, with the port that was given for 0. */
  readonly addresses: readonly string[];
  close(): Promise<void>;
}

/** @throws UsageError when an address cannot be listened on or an upstream is not an address */
export async function startDnsServer(options: DnsServerOptions): Promise<DnsServer> {
  const configured = options.upstreams.map(parseUpstream);
  const driver = new DnsDriver(options);
  const listeners: DnsListener[] = [];
  let resolvConf: ResolvConfWatch | undefined;
  const close = async (): Promise<void> => {
    resolvConf?.close();
    driver.close();
    await Promise.all(listeners.map((listener) => listener.close()));
  };
  try {
    for (const listen of options.listen) {
      listeners.push(
        await listenForDns(listen, (client, packet, transport, stranger) =>
          driver.input((service, now) =>
            stranger
              ? service.handleStranger(client, packet, transport, now)
              : service.handlePacket(client, packet, transport, now),
          ),
        ),
      );
    }
  } catch (error) {
    await close();
    throw error;
  }
  const use = (upstreams: readonly Upstream[]): void => driver.useUpstreams(upstreams, listeners);
  if (configured.length > 0) use(configured);
  else resolvConf = watchResolvConf(options.resolvConf, (hosts) => use(hosts.map((host) => ({ host, port: 53 }))));
  const addresses = listeners.map(({ host, port }) => formatHostPort(host, port));
  options.log.info({ listen: addresses, zone: options.resolver.zone }, 'dns server started');
  return { addresses, close };
}

class DnsDriver {
  readonly #resolver: NameResolver;
  readonly #log: Log;
  readonly #metrics: DnsMetrics;
  readonly #service: DnsService<DnsClient>;
  readonly #sockets: UpstreamSockets;
  #zone: { readonly zone: string; readonly overlay: NameResolver['overlay'] } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor({ resolver, registry, log, cacheEntries }: DnsServerOptions) {
    this.#resolver = resolver;
    this.#log = log;
    this.#service = new DnsService({ encodeRecord, randomId: () => randomInt(0x10000), limits: { cacheEntries } });
    this.#metrics = dnsMetrics(registry, () => this.#service.cacheEntries);
    this.#sockets = new UpstreamSockets({
      received: (transmit, packet) => this.input((service, now) => service.handleUpstream(transmit, packet, now)),
      failed: (transmit) => this.input((service, now) => service.handleUpstreamFailed(transmit, now)),
    });
  }

  input(give: (service: DnsService<DnsClient>, now: number) => void): void {
    if (this.#closed) return;
    this.#followZone();
    give(this.#service, performance.now());
    for (let action = this.#service.pollAction(); action !== undefined; action = this.#service.pollAction()) {
      this.#perform(action);
    }
    this.#arm();
  }

  useUpstreams(upstreams: readonly Upstream[], listeners: readonly DnsListener[]): void {
    const others = upstreams.filter((upstream) => !listeners.some((listener) => reaches(upstream, listener)));
    const list = others.map(({ host, port }) => formatHostPort(host, port));
    if (others.length === 0) this.#log.warn('no upstream resolver but this one: only overlay names can be answered');
    else this.#log.info({ upstreams: list }, 'upstream resolvers changed');
    this.input((service, now) => service.setUpstreams(others, now));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#sockets.close();
  }

  #perform(action: DnsAction<DnsClient>): void {
    switch (action.kind) {
      case 'reply':
        action.client.reply(action.packet);
        this.#metrics.queries.inc({ zone: action.zone, rcode: rcodeName(action.rcode) });
        this.#metrics.seconds.observe({ zone: action.zone }, action.elapsed / 1000);
        return;
      case 'ignore':
        action.client.ignore();
        return;
      case 'resolve-name':
        void this.#resolveName(action.lookup, action.name);
        return;
      case 'resolve-pointer':
        void this.#resolvePointer(action.lookup, action.address);
        return;
      case 'send':
        this.#sockets.send(action.transmit, action.upstream, action.transport, action.packet);
        return;
      case 'cancel':
        this.#sockets.cancel(action.transmit);
        return;
      default:
        action satisfies never;
    }
  }

  async #resolveName(lookup: LookupId, name: string): Promise<void> {
    const answer = await this.#guarded(() => this.#resolver.resolveName(name));
    const finding = answer.kind === 'found' ? { ...answer, values: answer.addresses } : answer;
    this.input((service, now) => service.handleName(lookup, finding, now));
  }

  async #resolvePointer(lookup: LookupId, address: Parameters<NameResolver['resolvePointer']>[0]): Promise<void> {
    const answer = await this.#guarded(() => this.#resolver.resolvePointer(address));
    const finding = answer.kind === 'found' ? { ...answer, values: answer.names } : answer;
    this.input((service, now) => service.handlePointer(lookup, finding, now));
  }

  async #guarded<T>(resolve: () => Promise<T>): Promise<T | { readonly kind: 'unavailable' }> {
    try {
      return await resolve();
    } catch (error) {
      this.#log.error({ err: error }, 'name resolution failed');
      return { kind: 'unavailable' };
    }
  }

  /** Both are learnt when the map server says welcome, and may change with a new enrolment. */
  #followZone(): void {
    const { zone, overlay } = this.#resolver;
    if (this.#zone?.zone === zone && this.#zone.overlay === overlay) return;
    this.#zone = { zone, overlay };
    this.#service.setZone(zone, overlay);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const due = this.#service.pollTimeout();
    if (due === undefined) return;
    const delay = Math.max(0, Math.ceil(due - performance.now()));
    this.#timer = setTimeout(() => this.input((service, now) => service.handleTimeout(now)), delay);
  }
}

interface DnsMetrics {
  readonly queries: Counter<'zone' | 'rcode'>;
  readonly seconds: Histogram<'zone'>;
}

function dnsMetrics(registry: Registry, cacheEntries: () => number): DnsMetrics {
  new Gauge({
    name: 'stayput_agent_dns_cache_entries',
    help: 'Answers of upstream resolvers that are cached',
    registers: [registry],
    collect() {
      this.set(cacheEntries());
    },
  });
  return {
    queries: new Counter({
      name: 'stayput_agent_dns_queries_total',
      help: 'DNS queries answered, by who knew the answer and response code',
      labelNames: ['zone', 'rcode'],
      registers: [registry],
    }),
    seconds: new Histogram({
      name: 'stayput_agent_dns_query_seconds',
      help: 'Time from a DNS query to its answer',
      labelNames: ['zone'],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers: [registry],
    }),
  };
}

function parseUpstream(text: string): Upstream {
  const upstream = isLiteral(text) ? { host: text, port: 53 } : parseHostPort(text);
  if (isLiteral(upstream.host) && upstream.port > 0) return upstream;
  throw new UsageError(
    `upstream resolver "${text}" is not ADDRESS or ADDRESS:PORT (a name would have to be resolved first)`,
  );
}

function isLiteral(host: string): boolean {
  return isIpAddress(host.split('%', 1)[0] ?? '');
}

/** A question sent to this upstream would come back to this listener. */
function reaches(upstream: Upstream, listener: DnsListener): boolean {
  if (upstream.port !== listener.port) return false;
  if (isWildcard(listener.host)) return isWildcard(upstream.host) || isOwnHost(upstream.host);
  return upstream.host === listener.host || isWildcard(upstream.host);
}

function rcodeName(rcode: number): string {
  const names: Readonly<Record<number, string>> = {
    [RCODE.noError]: 'NOERROR',
    [RCODE.formErr]: 'FORMERR',
    [RCODE.servFail]: 'SERVFAIL',
    [RCODE.nxDomain]: 'NXDOMAIN',
    [RCODE.notImp]: 'NOTIMP',
    [RCODE.refused]: 'REFUSED',
    [RCODE.badVers]: 'BADVERS',
  };
  return names[rcode] ?? 'other';
}
