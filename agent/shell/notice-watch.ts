/**
 * Follows what one platform announces: as often as its notices need it, or when the platform itself says that something
 * has changed. One that cannot be asked is asked less and less often.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { Backoff } from '../../runtime/backoff.ts';
import { type PlatformDriver, PlatformError, type PlatformEvent } from '../platform/platform.ts';

export interface NoticeHandlers {
  onEvents(events: readonly PlatformEvent[]): void;
  /** Something about this instance is not as it was. */
  onChange(): void;
  /** An error of ours. */
  onFault(error: unknown): void;
}

/** How a platform is asked. Both @throws PlatformError. */
export interface NoticeQuestions {
  events(driver: PlatformDriver, givenUp: AbortSignal): Promise<readonly PlatformEvent[]>;
  change(driver: PlatformDriver, mark: string | null, givenUp: AbortSignal): Promise<string>;
}

export class NoticeWatch {
  private readonly handlers: NoticeHandlers;
  private readonly questions: NoticeQuestions;
  private following: { readonly driver: PlatformDriver; readonly end: AbortController } | null = null;

  constructor(handlers: NoticeHandlers, questions: NoticeQuestions = LOADED) {
    this.handlers = handlers;
    this.questions = questions;
  }

  /** From now on that of this driver, and no other. */
  follow(driver: PlatformDriver): void {
    if (this.following?.driver === driver) return;
    this.close();
    const end = new AbortController();
    this.following = { driver, end };
    const run = driver.change !== undefined ? this.awaitChanges(driver, end.signal) : this.poll(driver, end.signal);
    run.catch((error: unknown) => {
      if (end.signal.aborted) return;
      // The next reading begins anew.
      this.following = null;
      this.handlers.onFault(error);
    });
  }

  close(): void {
    this.following?.end.abort();
    this.following = null;
  }

  private async poll(driver: PlatformDriver, end: AbortSignal): Promise<void> {
    const { eventsEveryMs } = driver;
    if (eventsEveryMs === undefined) return;
    const backoff = new Backoff(eventsEveryMs, MOST_MS, Math.random);
    for (let wait = eventsEveryMs; ; ) {
      await pause(wait, undefined, { signal: end, ref: false });
      try {
        const events = await this.questions.events(driver, end);
        if (end.aborted) return;
        this.handlers.onEvents(events);
        backoff.reset();
        wait = eventsEveryMs;
      } catch (error) {
        if (!(error instanceof PlatformError)) throw error;
        wait = Math.max(eventsEveryMs, backoff.next());
      }
    }
  }

  private async awaitChanges(driver: PlatformDriver, end: AbortSignal): Promise<void> {
    const backoff = new Backoff(FIRST_MS, MOST_MS, Math.random);
    // However often a service says that something has changed.
    const pace = new Backoff(BETWEEN_CHANGES_MS, MOST_BETWEEN_CHANGES_MS, Math.random);
    for (let mark: string | null = null; !end.aborted; ) {
      const begin = performance.now();
      let wait = 0;
      try {
        const next = await this.questions.change(driver, mark, end);
        if (end.aborted) return;
        if (performance.now() - begin >= MOST_BETWEEN_CHANGES_MS) pace.reset();
        if (mark !== null && next !== mark) {
          this.handlers.onChange();
          wait = pace.next();
        } else if (mark !== null && performance.now() - begin < FIRST_MS) wait = FIRST_MS;
        mark = next;
        backoff.reset();
      } catch (error) {
        if (!(error instanceof PlatformError)) throw error;
        wait = backoff.next();
      }
      await pause(wait, undefined, { signal: end, ref: false });
    }
  }
}

/** Loaded when the agent is at work already: its start does not wait for the drivers. */
const LOADED: NoticeQuestions = {
  async events(driver, givenUp) {
    const { askEvents } = await import('../platform/examination.ts');
    return await askEvents(driver, givenUp);
  },
  async change(driver, mark, givenUp) {
    const { awaitChange } = await import('../platform/examination.ts');
    return await awaitChange(driver, mark, givenUp);
  },
};

const FIRST_MS = 2000;
const MOST_MS = 60_000;
const BETWEEN_CHANGES_MS = 250;
const MOST_BETWEEN_CHANGES_MS = 10_000;
