/**
 * Follows what the platform below this host says: at the start, at each change of the host's addresses, and every
 * minute, since a public address can be given to an instance, and maintenance be announced, at any time.
 *
 * The platform is found anew each time, as the machine may have woken up on another one. Only public addresses are
 * taken over, as candidates that peers probe; those of a snapshot from the boot are not, for they may be of another place.
 */
import type { IpAddress } from '../../proto/address.ts';
import type { Place } from '../../proto/exporter.ts';
import type { Log } from '../../runtime/log.ts';
import type { Examination } from '../platform/examination.ts';

export interface PlatformWatchHandlers {
  /** Whenever the platform was read. */
  onAddresses(addresses: readonly IpAddress[]): void;
  onRead(result: 'read' | 'failed'): void;
  /** After each reading: where this host is, as far as the platform said. */
  onPlace(place: Place): void;
  onAnnounced(): void;
  /** An error of ours. */
  onFault(error: unknown): void;
}

export class PlatformWatch {
  private readonly wanted: string;
  private readonly handlers: PlatformWatchHandlers;
  private readonly log: Log;
  private readonly examine: (wanted: string, givenUp: AbortSignal) => Promise<Examination>;
  private readonly end = new AbortController();
  private timer: NodeJS.Timeout | null = null;
  private reading = false;
  /** Where the host was when a reading began: what it said of the place before counts no more. */
  private place = 0;
  private closed = false;
  private platform = '';
  /** Of which platform the place was told last. */
  private placed = '';
  private failure = '';
  private announced = new Set<string>();

  /** `wanted`: `auto`, or the name of a platform. */
  constructor(
    wanted: string,
    handlers: PlatformWatchHandlers,
    log: Log,
    examine: PlatformWatch['examine'] = examineLoaded,
  ) {
    this.wanted = wanted;
    this.handlers = handlers;
    this.log = log;
    this.examine = examine;
  }

  start(): void {
    void this.read();
  }

  /** The host has other addresses than before. */
  handleMoved(): void {
    this.place++;
    void this.read();
  }

  close(): void {
    this.closed = true;
    this.end.abort();
    if (this.timer !== null) clearTimeout(this.timer);
  }

  private async read(): Promise<void> {
    if (this.reading || this.closed) return;
    this.reading = true;
    if (this.timer !== null) clearTimeout(this.timer);
    const { place } = this;
    try {
      const examination = await this.examine(this.wanted, this.end.signal);
      if (!this.closed && place === this.place) this.take(examination);
    } catch (error) {
      this.handlers.onFault(error);
    }
    this.reading = false;
    if (this.closed) return;
    if (place === this.place) this.timer = setTimeout(() => void this.read(), AGAIN_MS);
    else void this.read();
  }

  private take({ detected, facts, events, problem }: Examination): void {
    const { driver, reason } = detected.chosen;
    if (driver.name !== this.platform) this.log.info({ platform: driver.name, reason }, 'platform recognised');
    this.platform = driver.name;
    const failure = facts === null ? `${driver.name} ${problem?.failure}` : '';
    if (failure !== '' && failure !== this.failure) {
      this.log.warn({ platform: driver.name, reason: problem?.message }, 'the platform cannot be asked');
    }
    this.failure = failure;
    this.handlers.onRead(facts === null ? 'failed' : 'read');
    if (facts !== null || driver.name !== this.placed) {
      this.placed = driver.name;
      const { region = null, zone = null, instanceId = null } = facts?.asOf === 'now' ? facts : {};
      this.handlers.onPlace({ platform: driver.name, region, zone, instanceId });
    }
    if (facts !== null) {
      const usable = facts.asOf === 'now' ? facts.locators.filter(({ scope }) => scope === 'public') : [];
      this.handlers.onAddresses(usable.map(({ address }) => address));
    }
    for (const { id, action, notBefore } of events) {
      if (this.announced.has(id)) continue;
      this.handlers.onAnnounced();
      this.log.warn({ platform: driver.name, action, notBefore }, 'the platform announces maintenance');
    }
    this.announced = new Set(events.map(({ id }) => id));
  }
}

/** Loaded when the agent is at work already: its start does not wait for the drivers. */
async function examineLoaded(wanted: string, givenUp: AbortSignal): Promise<Examination> {
  const { examinePlatform } = await import('../platform/examination.ts');
  return await examinePlatform(wanted, givenUp);
}

const AGAIN_MS = 60_000;
