/** Who watches what; shared by the drivers that live in one process. */
import type { Revision, StoreChange, Watch } from './store.ts';

interface Watcher {
  readonly prefix: string;
  readonly listener: (changes: readonly StoreChange[]) => void;
  after: Revision;
}

export class Watchers {
  private readonly watchers = new Set<Watcher>();

  /** `backlog` is delivered before anything later. */
  add(
    prefix: string,
    after: Revision,
    backlog: readonly StoreChange[],
    listener: (changes: readonly StoreChange[]) => void,
  ): Watch {
    const watcher: Watcher = { prefix, listener, after };
    this.watchers.add(watcher);
    queueMicrotask(() => this.deliver(watcher, backlog));
    return { close: () => void this.watchers.delete(watcher) };
  }

  /** Later than the answer to the writer, so that it hears of its own write first from the answer. */
  publish(changes: readonly StoreChange[]): void {
    if (this.watchers.size === 0 || changes.length === 0) return;
    setImmediate(() => {
      for (const watcher of this.watchers) this.deliver(watcher, changes);
    });
  }

  private deliver(watcher: Watcher, changes: readonly StoreChange[]): void {
    if (!this.watchers.has(watcher)) return;
    const news = changes.filter(({ key, revision }) => revision > watcher.after && key.startsWith(watcher.prefix));
    const last = changes.at(-1);
    if (last !== undefined) watcher.after = Math.max(watcher.after, last.revision);
    if (news.length > 0) watcher.listener(news);
  }
}
