/** Drives the DNS service of agent/core with sockets, the clock, the resolver and the metrics. */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Registry } from 'prom-client';
import type { DnsTransport } from '../../proto/dns/message.ts';
import { UsageError } from '../../proto/errors.ts';
import { encodeRecord } from '../../runtime/dns-record-codec.ts';
import { Faults } from '../../runtime/faults.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import type { InheritedSockets } from '../../runtime/inherited-sockets.ts';
import type { Log } from '../../runtime/log.ts';
import type { TransmitId } from '../core/dns-forwarder.ts';
import type { LookupId } from '../core/dns-lookups.ts';
import { type DnsAction, DnsService } from '../core/dns-service.ts';
import type { ZoneUpstreams } from '../core/dns-upstream-zones.ts';
import type { Upstream } from '../core/dns-upstreams.ts';
import { type ResolvConfWatch, watchResolvConf } from './dns-host-resolvers.ts';
import { type DnsClient, type DnsListener, isOwnHost, isWildcard, listenForDns } from './dns-listener.ts';
import { DnsMetrics, rcodeName, typeName } from './dns-metrics.ts';
import { DnsQueryLog } from './dns-query-log.ts';
import { UpstreamSockets } from './dns-upstream.ts';
import { formatUpstream, parseUpstream } from './dns-upstream-address.ts';
import type { NameResolver } from './name-resolver.ts';

export interface DnsServerOptions {
  /** `HOST:PORT`, UDP and TCP. */
  readonly listen: readonly string[];
  /** Sockets that are there already; those with a listen address are taken over. */
  readonly inherited: InheritedSockets;
  readonly resolver: NameResolver;
  /** `ADDRESS`, `ADDRESS:PORT` or `tls://ADDRESS[:PORT]#NAME`; none: the nameservers of `resolvConf`. Read when it listens. */
  readonly upstreams: readonly string[];
  /** Zones that are asked of resolvers of their own. Read when it listens. */
  readonly zones: readonly { readonly zone: string; readonly upstreams: readonly string[] }[];
  /** A file of PEM certificates that are trusted for DNS over TLS; null: those that Node trusts. */
  readonly tlsAuthorities: string | null;
  /** A file; null for none. */
  readonly queryLog: string | null;
  /** A host name that is forwarded even if it looks like one of the overlay: without it the overlay is not reached. */
  readonly mapServer: string;
  readonly resolvConf: string;
  readonly cacheEntries: number;
  readonly registry: Registry;
  readonly log: Log;
}

export interface DnsServer {
  /** `HOST:PORT` of each listener, with the port that was given for 0. */
  readonly addresses: readonly string[];
  /** The resolvers that other names are asked of at present, as in `dns.upstreams`. */
  readonly upstreams: readonly string[];
  /** Others from now on; what is under way goes on. @throws UsageError when one is not an address */
  ask(upstreams: DnsServerOptions['upstreams'], zones: DnsServerOptions['zones']): void;
  close(): Promise<void>;
}

/** @throws UsageError when an address cannot be listened on, an upstream is not an address or a file cannot be read */
export async function startDnsServer(options: DnsServerOptions): Promise<DnsServer> {
  const driver = new DnsDriver(options);
  const listeners: DnsListener[] = [];
  let resolvConf: ResolvConfWatch | undefined;
  const close = async (): Promise<void> => {
    resolvConf?.close();
    await Promise.all([driver.close(), ...listeners.map((listener) => listener.close())]);
  };
  try {
    for (const listen of options.listen) {
      listeners.push(
        await listenForDns(listen, options.inherited, (client, packet, transport, stranger) =>
          driver.ask(client, packet, transport, stranger),
        ),
      );
    }
  } catch (error) {
    await close();
    throw error;
  }
  const use = (upstreams: readonly Upstream[]): void => driver.useUpstreams(upstreams, listeners);
  const ask: DnsServer['ask'] = (upstreams, zones) => {
    const configured = upstreams.map(parseUpstream);
    const own = zones.map((each) => ({ zone: each.zone, upstreams: each.upstreams.map(parseUpstream) }));
    resolvConf?.close();
    resolvConf = undefined;
    driver.useZones(own, listeners);
    if (configured.length > 0) use(configured);
    else resolvConf = watchResolvConf(options.resolvConf, (hosts) => use(hosts.map((host) => ({ host, port: 53 }))));
  };
  try {
    ask(options.upstreams, options.zones);
  } catch (error) {
    await close();
    throw error;
  }
  const addresses = listeners.map(({ host, port }) => formatHostPort(host, port));
  options.log.info({ listen: addresses, zone: options.resolver.zone }, 'dns server started');
  return {
    addresses,
    get upstreams() {
      return driver.upstreams;
    },
    ask,
    close,
  };
}

class DnsDriver {
  readonly #resolver: NameResolver;
  readonly #log: Log;
  readonly #metrics: DnsMetrics;
  readonly #faults: Faults;
  readonly #service: DnsService<DnsClient>;
  readonly #sockets: UpstreamSockets;
  readonly #queryLog: DnsQueryLog | undefined;
  #zone: { readonly zone: string; readonly overlay: NameResolver['overlay'] } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #due: number | undefined;
  #closed = false;
  upstreams: readonly string[] = [];

  constructor({ resolver, registry, log, cacheEntries, tlsAuthorities, queryLog, mapServer }: DnsServerOptions) {
    this.#resolver = resolver;
    this.#log = log;
    const limits = { cacheEntries };
    this.#service = new DnsService({
      ...{ encodeRecord, randomId: () => randomInt(0x10000), limits, alwaysForwarded: [mapServer] },
    });
    this.#metrics = new DnsMetrics(registry, {
      cacheEntries: () => this.#service.cacheEntries,
      upstreams: () => this.#service.upstreamHealth,
    });
    this.#faults = new Faults(log, 'an error of the agent at a DNS question', () => this.#metrics.countFault());
    this.#queryLog =
      queryLog === null ? undefined : new DnsQueryLog(queryLog, log, (lines) => this.#metrics.countLost(lines));
    const events = {
      received: (transmit: TransmitId, packet: Uint8Array) =>
        this.input((service, now) => service.handleUpstream(transmit, packet, now)),
      failed: (transmit: TransmitId) => this.input((service, now) => service.handleUpstreamFailed(transmit, now)),
    };
    this.#sockets = new UpstreamSockets(events, tlsAuthorities === null ? undefined : readAuthorities(tlsAuthorities));
  }

  ask(client: DnsClient, packet: Uint8Array, transport: DnsTransport, stranger: boolean): void {
    if (this.#closed) return;
    this.#followZone();
    const now = performance.now();
    if (stranger) this.#service.handleStranger(client, packet, transport, now);
    else this.#service.handlePacket(client, packet, transport, now);
    this.#carryOut();
  }

  input(give: (service: DnsService<DnsClient>, now: number) => void): void {
    if (this.#closed) return;
    this.#followZone();
    try {
      give(this.#service, performance.now());
    } catch (error) {
      this.#faults.note(error);
    }
    this.#carryOut();
  }

  #carryOut(): void {
    for (let action = this.#service.pollAction(); action !== undefined; action = this.#service.pollAction()) {
      try {
        this.#perform(action);
      } catch (error) {
        this.#faults.note(error);
      }
    }
    this.#arm();
  }

  useUpstreams(upstreams: readonly Upstream[], listeners: readonly DnsListener[]): void {
    const others = withoutSelf(upstreams, listeners);
    this.upstreams = others.map(formatUpstream);
    if (others.length === 0) this.#log.warn('no upstream resolver but this one: only overlay names can be answered');
    else this.#log.info({ upstreams: this.upstreams }, 'upstream resolvers changed');
    this.#sockets.renew();
    this.input((service, now) => service.setUpstreams(others, now));
  }

  useZones(zones: readonly ZoneUpstreams[], listeners: readonly DnsListener[]): void {
    const others = zones.map(({ zone, upstreams }) => ({ zone, upstreams: withoutSelf(upstreams, listeners) }));
    this.input((service, now) => service.setZones(others, now));
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#sockets.close();
    await this.#queryLog?.close();
  }

  #perform(action: DnsAction<DnsClient>): void {
    switch (action.kind) {
      case 'reply':
        action.client.reply(action.packet);
        this.#note(action);
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
      case 'fault':
        this.#faults.note(action.error);
        return;
      default:
        action satisfies never;
    }
  }

  #note({ client, zone, question, rcode, cache, elapsed }: Extract<DnsAction<DnsClient>, { kind: 'reply' }>): void {
    this.#metrics.count({ zone, type: question?.type, rcode, cache, elapsed });
    this.#queryLog?.write({
      time: new Date().toISOString(),
      client: client.address,
      name: question?.labels.join('.') ?? '',
      type: typeName(question?.type),
      rcode: rcodeName(rcode),
      zone,
      ...(cache === undefined ? {} : { cache }),
      ms: Math.round(elapsed * 1000) / 1000,
    });
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
      this.#faults.note(error);
      return { kind: 'unavailable' };
    }
  }

  /** Both are learnt when the map server says welcome, and may change with a new enrolment. */
  #followZone(): void {
    const { zone, overlay, version } = this.#resolver;
    this.#service.setVersion(version);
    if (this.#zone?.zone === zone && this.#zone.overlay === overlay) return;
    this.#zone = { zone, overlay };
    this.#service.setZone(zone, overlay);
  }

  #arm(): void {
    const due = this.#service.pollTimeout();
    if (due === this.#due) return;
    this.#due = due;
    clearTimeout(this.#timer);
    if (due === undefined) return;
    const delay = Math.max(0, Math.ceil(due - performance.now()));
    this.#timer = setTimeout(() => {
      this.#due = undefined;
      this.input((service, now) => service.handleTimeout(now));
    }, delay);
  }
}

function withoutSelf(upstreams: readonly Upstream[], listeners: readonly DnsListener[]): Upstream[] {
  return upstreams.filter((upstream) => !listeners.some((listener) => reaches(upstream, listener)));
}

function readAuthorities(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new UsageError(`dns.tlsAuthorities ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** A question sent to this upstream would come back to this listener. */
function reaches(upstream: Upstream, listener: DnsListener): boolean {
  if (upstream.port !== listener.port) return false;
  if (isWildcard(listener.host)) return isWildcard(upstream.host) || isOwnHost(upstream.host);
  return upstream.host === listener.host || isWildcard(upstream.host);
}
