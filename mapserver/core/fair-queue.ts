/**
 * A queue in which nobody waits for all that others have asked for.
 *
 * What a sender adds is served in its order; between senders goes first what would be finished first if all of them
 * were served at the same time, each at the same speed (weighted fair queueing, with the start of what is served as the
 * clock). So one small piece of a quiet sender goes ahead of the many or large ones of busy senders, and none of these
 * starves, since who was served falls behind by the size of it.
 */
interface Entry<S, T> {
  readonly sender: S;
  readonly item: T;
  readonly size: number;
  readonly start: number;
  readonly finish: number;
}

export class FairQueue<S, T> {
  /** What is finished first comes first. */
  private entries: Entry<S, T>[] = [];
  /** When what a sender has added would be finished. Only of senders that were served or wait since the queue was empty. */
  private readonly finishes = new Map<S, number>();
  private clock = 0;

  get length(): number {
    return this.entries.length;
  }

  /** `size`: what it costs, relative to others. */
  add(sender: S, item: T, size: number): void {
    const start = Math.max(this.clock, this.finishes.get(sender) ?? 0);
    const finish = start + size;
    this.finishes.set(sender, finish);
    this.entries.splice(this.placeOf(finish), 0, { sender, item, size, start, finish });
  }

  /** The next ones, as many as cost no more than `most` together, but at least one. */
  take(most: number): T[] {
    let cost = 0;
    let count = 0;
    for (const { size } of this.entries) {
      cost += size;
      if (count > 0 && cost > most) break;
      count++;
    }
    const taken = this.entries.splice(0, count);
    for (const { start } of taken) this.clock = Math.max(this.clock, start);
    this.forgetIfEmpty();
    return taken.map(({ item }) => item);
  }

  /** The sender is gone: what it has waiting is not served any more. */
  drop(sender: S): void {
    this.finishes.delete(sender);
    this.entries = this.entries.filter((entry) => entry.sender !== sender);
    this.forgetIfEmpty();
  }

  private forgetIfEmpty(): void {
    if (this.entries.length > 0) return;
    this.finishes.clear();
    this.clock = 0;
  }

  /** Behind those that are finished at the same time. */
  private placeOf(finish: number): number {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.entries[middle]?.finish ?? 0) <= finish) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
