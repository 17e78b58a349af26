/**
 * Follows what the platform below this host says: at the start, at each change of the host's addresses, and every
 * minute, since a public address can be given to an instance at any time; and what it announces, as that needs.
 *
 * The platform is found anew each time, as the machine may have woken up on another one. After a change of addresses the
 * firmware tables are not enough for that, since a machine that was moved alive keeps them: the services of all platforms
 * are asked whose they are, until one has been heard. Only public addresses are taken over, as candidates that peers
 * probe; those of a snapshot from the boot are not, for they may be of another place.
 */
import type { IpAddress } from '../../proto/address.ts';
import type { Place } from '../../proto/exporter.ts';
import type { Log } from '../../runtime/log.ts';
import { TokenBucket } from '../core/token-bucket.ts';
import type { Examination, ExaminationOptions } from '../platform/examination.ts';
import { isImminent, operatorsEvents } from '../platform/notices.ts';
import type { PlatformEvent, PlatformFacts, PlatformName } from '../platform/platform.ts';
import { type NoticeQuestions, NoticeWatch } from './notice-watch.ts';

export interface PlatformWatchHandlers {
  /** Whenever the platform was read. */
  onAddresses(addresses: readonly IpAddress[]): void;
  onRead(result: 'read' | 'failed'): void;
  /** After each reading: where this host is, as far as the platform said. */
  onPlace(place: Place): void;
  /** This host is on another platform than before. */
  onChanged(): void;
  onAnnounced(): void;
  /** It is time to prepare: maintenance was announced, or is due, or still goes on. */
  onPrepare(): void;
  /** What is announced by now, whenever that has changed; nothing: it is over. */
  onStanding(platform: PlatformName, events: readonly PlatformEvent[]): void;
  /** An error of ours. */
  onFault(error: unknown): void;
}

/** For the operator. */
export interface PlatformState {
  readonly name: PlatformName;
  readonly title: string;
  /** How it was recognised. */
  readonly reason: string;
  readonly instance: string | null;
  readonly zone: string | null;
  readonly region: string | null;
  readonly asOf: PlatformFacts['asOf'] | null;
  /** Why it cannot be asked. */
  readonly problem: string | null;
  readonly maintenance: readonly { readonly action: string; readonly notBefore: string | null }[];
}

/** How the platform is asked; injected by tests. */
export interface PlatformQuestions {
  examine(wanted: string, options: ExaminationOptions): Promise<Examination>;
  readonly notices?: NoticeQuestions;
}

export class PlatformWatch {
  private readonly wanted: string;
  private readonly handlers: PlatformWatchHandlers;
  private readonly log: Log;
  private readonly questions: PlatformQuestions;
  private readonly notices: NoticeWatch;
  private readonly end = new AbortController();
  private timer: NodeJS.Timeout | null = null;
  private reading = false;
  /** Counts the places; what was read at an earlier one is ignored. */
  private place = 0;
  /** Readings that still ask all services which platform this is. */
  private doubts = 0;
  /** That whose service was heard at this place. */
  private heard: PlatformName | null = null;
  private again = false;
  private closed = false;
  private last: Examination | null = null;
  private facts: PlatformFacts | null = null;
  private failure = '';
  /** Of which platform the place was told last. */
  private placed = '';
  private announced: readonly PlatformEvent[] = [];
  /** As the last reading that succeeded had it. */
  private byOperator: readonly PlatformEvent[] = [];
  /** However often a platform announces something new: what is more is heard later, if it stands by then. */
  private readonly hearing = new TokenBucket(NEWS_AT_ONCE, NEWS_PER_SECOND, performance.now());
  /** What stands, by its identifier, and since when by the wall clock. */
  private standing = new Map<string, { readonly event: PlatformEvent; readonly since: number }>();
  private preparedAt = Number.NEGATIVE_INFINITY;

  /** `wanted`: `auto`, or the name of a platform. */
  constructor(wanted: string, handlers: PlatformWatchHandlers, log: Log, questions: PlatformQuestions = LOADED) {
    this.wanted = wanted;
    this.handlers = handlers;
    this.log = log;
    this.questions = questions;
    this.notices = new NoticeWatch(
      {
        onEvents: (events) => this.handleEvents(events),
        onChange: () => this.readSoon(),
        onFault: (error) => handlers.onFault(error),
      },
      questions.notices,
    );
  }

  start(): void {
    void this.read();
  }

  /** The host has other addresses than before, or has slept. */
  handleMoved(): void {
    this.place++;
    this.heard = null;
    this.doubts = DOUBTS;
    if (this.reading || this.closed) return;
    // Registering and hearing peers from the new place comes first, and uses the same thread.
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.read(), SETTLE_MS);
  }

  close(): void {
    this.closed = true;
    this.end.abort();
    this.notices.close();
    if (this.timer !== null) clearTimeout(this.timer);
  }

  /** Null before the first reading. */
  get state(): PlatformState | null {
    if (this.last === null) return null;
    const { detected, problem } = this.last;
    const { driver, reason } = detected.chosen;
    return {
      name: driver.name,
      title: driver.title,
      reason,
      instance: this.facts?.instanceId ?? null,
      zone: this.facts?.zone ?? null,
      region: this.facts?.region ?? null,
      asOf: this.facts?.asOf ?? null,
      problem: problem?.message ?? null,
      maintenance: [...this.standing.values()].map(({ event: { action, notBefore } }) => ({ action, notBefore })),
    };
  }

  private readSoon(): void {
    this.again = true;
    void this.read();
  }

  private async read(): Promise<void> {
    if (this.reading || this.closed) return;
    this.reading = true;
    this.again = false;
    if (this.timer !== null) clearTimeout(this.timer);
    const { place } = this;
    try {
      const wanted = this.wanted === 'auto' ? (this.heard ?? 'auto') : this.wanted;
      const examination = await this.questions.examine(wanted, { givenUp: this.end.signal, moved: this.doubts > 0 });
      if (!this.closed && place === this.place) this.take(examination);
    } catch (error) {
      this.handlers.onFault(error);
    }
    this.reading = false;
    if (this.closed) return;
    if (place !== this.place || this.again) void this.read();
    else this.timer = setTimeout(() => void this.read(), this.pause());
  }

  private pause(): number {
    if (this.doubts > PATIENT_DOUBTS) return DOUBT_MS;
    return this.isNear() ? NEAR_MS : AGAIN_MS;
  }

  private take(examination: Examination): void {
    const { detected, facts, events, problem } = examination;
    const { driver, reason } = detected.chosen;
    const before = this.last?.detected.chosen.driver.name;
    if (driver.name !== before) {
      this.log.info({ platform: driver.name, reason }, 'platform recognised');
      if (before !== undefined) this.handlers.onChanged();
    }
    // A name that was heard says nothing of why.
    const known = this.heard !== null && before === driver.name ? this.last?.detected : undefined;
    this.last = { ...examination, detected: known ?? detected };
    this.facts = facts;
    this.judge(examination);
    // What another platform announced is over: this host has left it.
    if (driver.name !== before) [this.announced, this.byOperator] = [[], []];
    if (facts !== null) this.byOperator = operatorsEvents(facts);
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
    this.notices.follow(driver);
    this.handleEvents(events ?? this.announced);
  }

  /** Whether the next reading asks all services. */
  private judge({ detected, facts, recognised }: Examination): void {
    if (recognised) {
      this.heard = detected.chosen.driver.name;
      this.doubts = 0;
    } else if (this.heard !== null && facts === null) {
      // It has been heard here and is silent now: the machine may have been moved with its addresses.
      this.heard = null;
      this.doubts = DOUBTS;
    } else if (this.doubts > 0) this.doubts--;
  }

  private handleEvents(events: readonly PlatformEvent[]): void {
    const platform = this.last?.detected.chosen.driver.name;
    if (platform === undefined) return;
    this.announced = events;
    const now = Date.now();
    const before = this.standing;
    this.standing = new Map();
    for (const event of [...events, ...this.byOperator]) {
      const known = before.get(event.id);
      if (known === undefined && !this.hearing.take(performance.now())) continue;
      this.standing.set(event.id, { event, since: known?.since ?? now });
    }
    const news = [...this.standing.values()].filter(({ event: { id } }) => !before.has(id));
    for (const { event } of news) {
      this.handlers.onAnnounced();
      this.log.warn(
        { platform, action: event.action, notBefore: event.notBefore },
        'the platform announces maintenance',
      );
    }
    const over = [...before.keys()].some((id) => !this.standing.has(id));
    if (over && this.standing.size === 0) this.log.info({ platform }, 'the announced maintenance is over');
    if (news.length > 0 || over) {
      this.handlers.onStanding(
        platform,
        [...this.standing.values()].map(({ event }) => event),
      );
    }
    const repeat = this.isNear() && now - this.preparedAt >= PREPARE_MS;
    if (news.length === 0 && !repeat) return;
    this.preparedAt = now;
    this.handlers.onPrepare();
  }

  private isNear(): boolean {
    const now = Date.now();
    return [...this.standing.values()].some(({ event, since }) => isImminent(event, since, now));
  }
}

/** Loaded when the agent is at work already: its start does not wait for the drivers. */
const LOADED: PlatformQuestions = {
  async examine(wanted, options) {
    const { examinePlatform } = await import('../platform/examination.ts');
    return await examinePlatform(wanted, options);
  },
};

const AGAIN_MS = 60_000;
/** After a move. */
const SETTLE_MS = 200;
/** While maintenance is due. */
const NEAR_MS = 5000;
/** At a new place, where the network may not be ready yet. */
const DOUBT_MS = 2000;
const DOUBTS = 15;
/**
 * The last of them come as seldom as other readings: a service may need minutes, and the firmware still names the
 * platform before.
 */
const PATIENT_DOUBTS = 10;
/** Sessions stay warm for longer. */
const PREPARE_MS = 45_000;
const NEWS_AT_ONCE = 32;
const NEWS_PER_SECOND = 1 / 60;
