/** What came to a port, and waits for more of it. */
export class Inbox<T> {
  private readonly items: T[] = [];
  private readonly waiting = new Set<() => void>();

  /** Oldest first. */
  get all(): readonly T[] {
    return this.items;
  }

  /** What is beyond the bound is dropped. */
  add(item: T): void {
    if (this.items.length >= MAX_ITEMS) return;
    this.items.push(item);
    for (const wake of this.waiting) wake();
  }

  /** The first that `matches`, also of those that came before, from `from` on; undefined when none comes within `ms`. */
  async wait<R>(matches: (item: T) => R | undefined, ms: number, from = 0): Promise<R | undefined> {
    const deadline = performance.now() + ms;
    let at = from;
    for (;;) {
      for (; at < this.items.length; at++) {
        const item = this.items[at];
        const match = item === undefined ? undefined : matches(item);
        if (match !== undefined) return match;
      }
      const left = deadline - performance.now();
      if (left <= 0) return undefined;
      await this.arrival(left);
    }
  }

  private arrival(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.waiting.add(wake);
    });
  }
}

const MAX_ITEMS = 1_000;
