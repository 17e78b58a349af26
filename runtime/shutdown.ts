/** Clean ends: closers run once, in reverse order of registration, within a time limit. */
import type { Log } from './log.ts';

const LIMIT_MS = 5_000;

export class Shutdown {
  private readonly closers: { readonly what: string; readonly close: () => unknown }[] = [];
  private ending: Promise<void> | undefined;

  add(what: string, close: () => unknown): void {
    this.closers.push({ what, close });
  }

  /** Ends everything that was added. Later calls get the same promise. */
  end(log: Log): Promise<void> {
    this.ending ??= this.run(log);
    return this.ending;
  }

  /** Ends on SIGTERM and SIGINT; resolves when done. */
  onSignals(log: Log): Promise<void> {
    return new Promise((resolve) => {
      for (const signal of ['SIGTERM', 'SIGINT'] as const) {
        process.once(signal, () => {
          log.info({ signal }, 'stopping');
          void this.end(log).then(resolve);
        });
      }
    });
  }

  private async run(log: Log): Promise<void> {
    const limit = setTimeout(() => {
      log.error('stopping took too long');
      process.exit(1);
    }, LIMIT_MS);
    for (const { what, close } of this.closers.reverse()) {
      try {
        await close();
      } catch (error) {
        log.warn({ err: error, what }, 'closing failed');
      }
    }
    clearTimeout(limit);
  }
}
