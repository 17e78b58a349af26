/** The zone's name server as it runs: sockets, time, and the core between them. */
import { randomInt } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import type { IpAddress, IpPrefix } from '../../proto/address.ts';
import { ipPrefix } from '../../proto/address.ts';
import { parseDomainName } from '../../proto/dns/name.ts';
import type { TsigKey } from '../../proto/dns/tsig.ts';
import { UsageError } from '../../proto/errors.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { StateFileError } from '../../runtime/json-file.ts';
import type { Log } from '../../runtime/log.ts';
import type { MapServerSettings } from '../config.ts';
import type { NameChange, SeenName } from '../core/name-changes.ts';
import { RateTable } from '../core/rate-table.ts';
import type { ZoneNames } from '../core/zone-content.ts';
import type { Secondary } from '../core/zone-notifier.ts';
import { type ZoneOutput, ZonePrimary, type ZoneRequestKind } from '../core/zone-primary.ts';
import type { SetNames } from '../core/zone-update.ts';
import type { AuditLog } from './audit-log.ts';
import type { Driver } from './driver.ts';
import type { MapServerMetrics } from './metrics.ts';
import { readTsigKeyFile } from './tsig-key-file.ts';
import { listenForZone, type ZoneClient, type ZoneListener } from './zone-listener.ts';
import { ZoneSerials } from './zone-serials.ts';
import { ZoneSignedTimes } from './zone-signed-times.ts';

export interface ZoneServerOptions {
  readonly settings: MapServerSettings['zone'];
  readonly zone: string;
  readonly prefixes: readonly IpPrefix[];
  readonly driver: Pick<Driver, 'operate' | 'onNames'> & { readonly core: ZoneCore };
  readonly audit: Pick<AuditLog, 'write'>;
  /** Where the serials are kept. */
  readonly serialsFile: string;
  /** Where it is kept until when keys have signed updates. */
  readonly signedFile: string;
  readonly metrics: MapServerMetrics;
  readonly log: Log;
}

/** The names of the zone, and what is set there. */
export interface ZoneCore {
  readonly names: ZoneNames;
  readonly state: SetNames;
}

export class ZoneServer {
  private readonly primary: ZonePrimary<ZoneClient>;
  private readonly metrics: MapServerMetrics;
  private readonly log: Log;
  private readonly driver: ZoneServerOptions['driver'];
  private readonly audit: ZoneServerOptions['audit'];
  private readonly listeners: ZoneListener[] = [];
  private readonly notifying = new Map<string, Socket>();
  private readonly rates = new RateTable(REQUESTS_PER_SECOND, 2 * REQUESTS_PER_SECOND, MAX_SOURCES);
  private transfers = 0;
  /** What waits for room on the disk, and was logged. */
  private readonly stuck = new Set<string>();
  private timer: NodeJS.Timeout | undefined;
  private closed = false;

  private constructor(options: ZoneServerOptions) {
    const { settings, zone, prefixes, driver, metrics, log } = options;
    const keys = settings.keyFiles.map(readTsigKeyFile);
    const serials = new ZoneSerials(options.serialsFile, Date.now());
    const signed = new ZoneSignedTimes(options.signedFile, Date.now);
    this.metrics = metrics;
    this.log = log;
    this.driver = driver;
    this.audit = options.audit;
    this.primary = new ZonePrimary(
      {
        names: driver.core.names,
        set: driver.core.state,
        zone,
        prefixes,
        nameServers: settings.nameServers.map(parseDomainName),
        keys,
        transfer: {
          keys: settings.transferKeys.map((name) => keyNamed(keys, name).name),
          addresses: settings.transferAddresses,
        },
        updates: grantsOf(settings, keys),
        secondaries: settings.notify.map((each) => secondary(keys, each)),
        nextSerial: () => this.stored('changes of the zone wait', () => serials.take()),
        signedTimes: {
          beforeStart: (key) => signed.beforeStart(key),
          note: (key, time) => this.stored('updates of the zone wait', () => signed.note(key, time)) !== undefined,
        },
        randomId: () => randomInt(0x10000),
        wallClock: Date.now,
      },
      performance.now(),
    );
    // From when they were read on, for agents register while the sockets are bound.
    driver.onNames((names) => this.input((now) => this.primary.handleNames(names, now)));
    metrics.observeZone(() => this.primary.statistics);
  }

  /** @throws UsageError, StateFileError */
  static async start(options: ZoneServerOptions): Promise<ZoneServer> {
    const server = new ZoneServer(options);
    try {
      for (const listen of options.settings.listen) {
        const take = server.handleRequest.bind(server);
        server.listeners.push(await listenForZone(listen, take));
      }
    } catch (error) {
      await server.close();
      throw error;
    }
    server.input(() => {});
    options.log.info({ listen: server.addresses, zone: options.zone }, 'zone is served');
    return server;
  }

  /** HOST:PORT of each listener. */
  get addresses(): readonly string[] {
    return this.listeners.map(({ address }) => address);
  }

  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.timer);
    for (const socket of this.notifying.values()) socket.close();
    await Promise.all(this.listeners.map((listener) => listener.close()));
  }

  private handleRequest(client: ZoneClient, packet: Uint8Array, transport: 'udp' | 'tcp', from: IpAddress): void {
    const source = from.includes(':') ? ipPrefix(from, 64) : from;
    // Whoever it is has it decoded before its signature is looked at, which takes as long as it is large.
    const weight = Math.max(1, Math.ceil(packet.length / REQUEST_SIZE));
    if (!this.rates.tryTake(source, performance.now(), weight)) {
      this.metrics.zoneRequest('other', 'limited');
      client.ignore();
      return;
    }
    this.input((now) => this.primary.handleRequest(client, packet, transport, from, now));
  }

  private input(feed: (now: number) => void): void {
    if (this.closed) return;
    feed(performance.now());
    for (let output = this.primary.pollOutput(); output !== undefined; output = this.primary.pollOutput()) {
      this.perform(output);
    }
    clearTimeout(this.timer);
    const due = this.primary.pollTimeout();
    if (due === undefined) return;
    const delay = Math.max(0, Math.ceil(due - performance.now()));
    this.timer = setTimeout(() => this.input((now) => this.primary.handleTimeout(now)), delay);
  }

  private perform(output: ZoneOutput<ZoneClient>): void {
    switch (output.kind) {
      case 'answer':
        void this.answer(output.client, output.request, output.messages);
        break;
      case 'ignore':
        output.client.ignore();
        break;
      case 'change':
        void this.change(output.changes, output.unchanged);
        break;
      case 'updated': {
        const { key, from, names, rcode } = output;
        const result = rcode === 0 ? 'ok' : (RCODES[rcode] ?? 'other');
        this.audit.write({
          event: 'zone-updated',
          who: `key ${key}`,
          from,
          what: { names: names.slice(0, 16) },
          result,
        });
        break;
      }
      case 'notify':
        this.notify(output.address, output.packet);
        break;
      case 'notified':
        this.metrics.zoneNotified(output.result);
        if (output.result === 'unanswered') this.log.warn({ address: output.address }, 'secondary does not answer');
        break;
      default:
        output satisfies never;
    }
  }

  /** Undefined without room on the disk: what depends on it waits, and all that was said once is served on. */
  private stored<T>(consequence: string, act: () => T): T | undefined {
    try {
      const result = act();
      this.stuck.delete(consequence);
      return result;
    } catch (error) {
      if (!(error instanceof StateFileError)) throw error;
      if (!this.stuck.has(consequence)) this.log.error({ err: error }, consequence);
      this.stuck.add(consequence);
      return undefined;
    }
  }

  private async change(changes: readonly NameChange[], unchanged: readonly SeenName[]): Promise<void> {
    const result = await this.driver.operate({ kind: 'change-names', changes, unchanged });
    this.input(() => this.primary.handleChanged(result.ok ? null : result.error.code));
  }

  private async answer(
    client: ZoneClient,
    request: ZoneRequestKind,
    messages: IterableIterator<Uint8Array>,
  ): Promise<void> {
    const transfers = request === 'axfr' || request === 'ixfr';
    if (transfers && this.transfers >= MAX_TRANSFERS) {
      this.metrics.zoneRequest(request, 'limited');
      client.ignore();
      return;
    }
    if (transfers) this.transfers++;
    try {
      await client.answer(this.counted(request, messages));
    } finally {
      if (transfers) this.transfers--;
    }
  }

  private *counted(request: ZoneRequestKind, messages: Iterable<Uint8Array>): IterableIterator<Uint8Array> {
    let first = true;
    for (const message of messages) {
      if (first) this.metrics.zoneRequest(request, RCODES[(message[3] ?? 0) & 0xf] ?? 'other');
      first = false;
      yield message;
    }
  }

  private notify(address: string, packet: Uint8Array): void {
    const { host, port } = parseHostPort(address);
    let socket = this.notifying.get(address);
    if (socket === undefined) {
      socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
      // Nobody there: the next try, and in the end the secondary's own, will tell.
      socket.on('error', () => {});
      socket.on('message', (answer, from) => {
        if (from.port === port) this.input(() => this.primary.handleNotifyAnswer(address, answer));
      });
      socket.unref();
      this.notifying.set(address, socket);
    }
    socket.send(packet, port, host, () => {});
  }
}

function secondary(
  keys: readonly TsigKey[],
  { address, key }: { address: string; key?: string | undefined },
): Secondary {
  return { address, key: key === undefined ? undefined : keyNamed(keys, key) };
}

/** A key may be there several times. */
function grantsOf({ updates }: MapServerSettings['zone'], keys: readonly TsigKey[]): ReadonlyMap<string, string[]> {
  const grants = new Map<string, string[]>();
  for (const { key, names } of updates) {
    const { name } = keyNamed(keys, key);
    grants.set(name, [...(grants.get(name) ?? []), ...names]);
  }
  return grants;
}

function keyNamed(keys: readonly TsigKey[], text: string): TsigKey {
  const key = keys.find(({ name }) => name === parseDomainName(text));
  if (key === undefined) throw new UsageError(`zone: no file of zone.keyFiles holds a key named "${text}"`);
  return key;
}

const RCODES: Readonly<Record<number, string>> = {
  0: 'NOERROR',
  1: 'FORMERR',
  2: 'SERVFAIL',
  3: 'NXDOMAIN',
  4: 'NOTIMP',
  5: 'REFUSED',
  6: 'YXDOMAIN',
  7: 'YXRRSET',
  8: 'NXRRSET',
  9: 'NOTAUTH',
  10: 'NOTZONE',
};
/** Of one address (IPv6: /64), twice as many at once, so that one of 64 KiB is taken as well. */
const REQUESTS_PER_SECOND = 100;
/** Octets; a larger one counts as several. */
const REQUEST_SIZE = 512;
const MAX_SOURCES = 10_000;
/** At a time; a secondary that is not served tries again. */
const MAX_TRANSFERS = 8;
