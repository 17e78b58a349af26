/** The level of a daemon's log while it runs: the configured one, or another one for a while. */
import { z } from 'zod';
import type { Route } from './http-api.ts';
import { parseBody } from './http-api.ts';
import { LOG_LEVELS, type Log, type LogLevel } from './log.ts';

export interface LogLevelView {
  readonly level: LogLevel;
  readonly configured: LogLevel;
  /** When the configured level comes back, ISO 8601; null: not by itself. */
  readonly until: string | null;
}

export class LogLevels {
  private readonly log: Log;
  private configured: LogLevel;
  private timer: NodeJS.Timeout | undefined;
  private until: number | undefined;
  private changed = false;

  constructor(log: Log, configured: LogLevel) {
    this.log = log;
    this.configured = configured;
  }

  get view(): LogLevelView {
    const until = this.until === undefined ? null : new Date(this.until).toISOString();
    return { level: this.log.level as LogLevel, configured: this.configured, until };
  }

  /** `forMs`: after that, the configured level again; null: until the next start, or `restore`. */
  set(level: LogLevel, forMs: number | null): void {
    this.forget();
    this.changed = true;
    this.log.level = level;
    if (forMs === null) return;
    this.until = Date.now() + forMs;
    this.timer = setTimeout(() => this.restore(), forMs).unref();
  }

  restore(): void {
    this.forget();
    this.changed = false;
    this.log.level = this.configured;
  }

  /** The configuration was read again; what was set by hand stays. */
  configure(level: LogLevel): void {
    this.configured = level;
    if (!this.changed) this.log.level = level;
  }

  private forget(): void {
    clearTimeout(this.timer);
    this.until = undefined;
  }
}

export function logLevelRoutes(levels: LogLevels): readonly Route[] {
  return [
    { method: 'GET', path: '/v1/log-level', handle: () => levels.view },
    {
      method: 'POST',
      path: '/v1/log-level',
      handle: ({ body }) => {
        const { level, forMs } = parseBody(SET, body);
        if (level === null) levels.restore();
        else levels.set(level, forMs);
        return levels.view;
      },
    },
  ];
}

/** `level` null: the configured one. */
const SET = z.strictObject({
  level: z.enum(LOG_LEVELS).nullable(),
  forMs: z.int().min(1_000).max(2_000_000_000).nullable().default(null),
});
