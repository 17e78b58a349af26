/**
 * Reading the configuration again while a daemon runs. A file that is wrong changes nothing. Of what has changed, the
 * keys that can be applied are, and the others are named: they hold after a restart.
 */
import type { Route } from './http-api.ts';
import type { Log } from './log.ts';

export interface Reloaded {
  /** Keys, as in docs/configuration.md. */
  readonly applied: readonly string[];
  readonly needRestart: readonly string[];
}

/** Takes the new value of a key; `next` is the whole new configuration. */
export type Apply<T> = (next: T) => void;

export class Reload<T extends object> {
  private current: T;
  private readonly read: () => T;
  private readonly live: Readonly<Record<string, Apply<T>>>;
  private readonly log: Log;

  /** `live`: by the key, or the start of keys (`dns.zones`, `limits`), that it applies. */
  constructor(current: T, read: () => T, live: Readonly<Record<string, Apply<T>>>, log: Log) {
    this.current = current;
    this.read = read;
    this.live = live;
    this.log = log;
  }

  /** @throws UsageError when the file is wrong; then nothing has changed */
  run(): Reloaded {
    const next = this.read();
    const changed = differences(this.current, next);
    const applied: string[] = [];
    const needRestart: string[] = [];
    const apply = new Set<Apply<T>>();
    for (const key of changed) {
      const found = Object.entries(this.live).find(([live]) => key === live || key.startsWith(`${live}.`));
      if (found === undefined) {
        needRestart.push(key);
      } else {
        applied.push(key);
        apply.add(found[1]);
      }
    }
    for (const each of apply) each(next);
    // What needs a restart is still other than what runs, and named again the next time.
    if (needRestart.length === 0) this.current = next;
    else this.current = merged(this.current, next, applied) as T;
    this.log.info({ applied, needRestart }, 'configuration read again');
    return { applied, needRestart };
  }

  /** On SIGHUP; a file that is wrong is logged. */
  onHangUp(): () => void {
    const handle = (): void => {
      try {
        this.run();
      } catch (error) {
        this.log.error({ err: error }, 'configuration is wrong, going on with the one before');
      }
    };
    process.on('SIGHUP', handle);
    return () => process.off('SIGHUP', handle);
  }
}

export function reloadRoutes<T extends object>(reload: Reload<T>): readonly Route[] {
  return [{ method: 'POST', path: '/v1/reload', handle: () => reload.run() }];
}

/** Keys of the leaves that differ; lists are leaves. */
function differences(a: unknown, b: unknown, path = ''): string[] {
  if (isRecord(a) && isRecord(b)) {
    const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])];
    return keys.flatMap((key) => differences(a[key], b[key], path === '' ? key : `${path}.${key}`));
  }
  return JSON.stringify(a) === JSON.stringify(b) ? [] : [path];
}

/** `a` with the leaves at `keys` from `b`. */
function merged(a: unknown, b: unknown, keys: readonly string[], path = ''): unknown {
  if (keys.includes(path)) return b;
  if (!isRecord(a) || !isRecord(b)) return a;
  const all = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  return Object.fromEntries(
    all.map((key) => [key, merged(a[key], b[key], keys, path === '' ? key : `${path}.${key}`)]),
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
