/** The level of a daemon's log while it runs, or of a part of it: the configured one, or another one for a while. */
import { z } from 'zod';
import type { Route } from './http-api.ts';
import { ApiError, parseBody } from './http-api.ts';
import { LOG_LEVELS, type Log, type LogLevel, type LogModule, moduleLogs } from './log.ts';

export interface LogLevelView {
  readonly level: LogLevel;
  readonly configured: LogLevel;
  /** When the configured level comes back, ISO 8601; null: not by itself. */
  readonly until: string | null;
  /** By name. `own`: set for it alone, and until when. */
  readonly modules: readonly {
    readonly module: LogModule;
    readonly level: LogLevel;
    readonly own: boolean;
    readonly until: string | null;
  }[];
}

interface Setting {
  readonly level: LogLevel;
  readonly until: string | null;
  readonly timer: NodeJS.Timeout | undefined;
}

export class LogLevels {
  private readonly log: Log;
  private configured: LogLevel;
  /** Set by hand: for all, or for one part. */
  private readonly settings = new Map<LogModule | 'all', Setting>();

  constructor(log: Log, configured: LogLevel) {
    this.log = log;
    this.configured = configured;
  }

  get view(): LogLevelView {
    const modules = [...moduleLogs(this.log)].map(([module, { level }]) => {
      const own = this.settings.get(module);
      return { module, level: level as LogLevel, own: own !== undefined, until: own?.until ?? null };
    });
    return {
      level: this.log.level as LogLevel,
      configured: this.configured,
      until: this.settings.get('all')?.until ?? null,
      modules: modules.sort((one, other) => (one.module < other.module ? -1 : 1)),
    };
  }

  /** `forMs`: after that, as it was before; null: until the next start, or `restore`. @throws ApiError */
  set(level: LogLevel, forMs: number | null, module?: string): void {
    const what = this.known(module);
    clearTimeout(this.settings.get(what)?.timer);
    this.settings.set(what, {
      level,
      until: forMs === null ? null : new Date(Date.now() + forMs).toISOString(),
      timer: forMs === null ? undefined : setTimeout(() => this.forget(what), forMs).unref(),
    });
    this.apply();
  }

  /** What was set by hand for a part, or without one for all and each, holds no more. @throws ApiError */
  restore(module?: string): void {
    if (module !== undefined) this.forget(this.known(module));
    else for (const what of [...this.settings.keys()]) this.forget(what);
  }

  /** The configuration was read again; what was set by hand stays. */
  configure(level: LogLevel): void {
    this.configured = level;
    this.apply();
  }

  private forget(what: LogModule | 'all'): void {
    clearTimeout(this.settings.get(what)?.timer);
    this.settings.delete(what);
    this.apply();
  }

  private apply(): void {
    const level = this.settings.get('all')?.level ?? this.configured;
    this.log.level = level;
    for (const [module, log] of moduleLogs(this.log)) log.level = this.settings.get(module)?.level ?? level;
  }

  private known(module: string | undefined): LogModule | 'all' {
    if (module === undefined) return 'all';
    const names = [...moduleLogs(this.log).keys()];
    const found = names.find((name) => name === module);
    if (found !== undefined) return found;
    throw new ApiError(
      400,
      'STAYPUT_LOG_MODULE',
      `there is no module "${module}" here; there are ${names.sort().join(', ')}`,
    );
  }
}

export function logLevelRoutes(levels: LogLevels): readonly Route[] {
  return [
    { method: 'GET', path: '/v1/log-level', handle: () => levels.view },
    {
      method: 'POST',
      path: '/v1/log-level',
      handle: ({ body }) => {
        const { level, forMs, module } = parseBody(SET, body);
        if (level === null) levels.restore(module ?? undefined);
        else levels.set(level, forMs, module ?? undefined);
        return levels.view;
      },
    },
  ];
}

/** `level` null: the configured one. */
const SET = z.strictObject({
  level: z.enum(LOG_LEVELS).nullable(),
  /** Null: all. */
  module: z.string().max(32).nullable().default(null),
  forMs: z.int().min(1_000).max(2_000_000_000).nullable().default(null),
});
