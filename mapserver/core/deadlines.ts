/**
 * When things are due, for many of which most are put off before they are.
 *
 * Putting a deadline off touches only the map; the heap learns of it when the old deadline comes, so a registration that
 * is refreshed every minute costs a step of the heap only every three.
 */
import type { Instant } from '../../proto/time.ts';

interface Item<K> {
  readonly key: K;
  /** Where it is in the heap; not later than `due`. */
  at: Instant;
  due: Instant;
}

export class Deadlines<K> {
  private readonly items = new Map<K, Item<K>>();
  private readonly heap: Item<K>[] = [];

  get size(): number {
    return this.items.size;
  }

  set(key: K, due: Instant): void {
    const known = this.items.get(key);
    if (known !== undefined && known.at <= due) {
      known.due = due;
      return;
    }
    const item = { key, at: due, due };
    this.items.set(key, item);
    this.push(item);
    if (this.heap.length > 2 * this.items.size + SLACK) this.compact();
  }

  delete(key: K): void {
    this.items.delete(key);
  }

  /** Those that are due, each once; they have no deadline any more. */
  take(now: Instant): K[] {
    const taken: K[] = [];
    for (let [top] = this.heap; top !== undefined && top.at <= now; [top] = this.heap) {
      this.pop();
      if (this.items.get(top.key) !== top) continue;
      if (top.due > now) {
        top.at = top.due;
        this.push(top);
        continue;
      }
      this.items.delete(top.key);
      taken.push(top.key);
    }
    return taken;
  }

  /** When to look again; may be too early. */
  next(): Instant | undefined {
    return this.heap[0]?.at;
  }

  /** Without what was deleted or brought forward, which would stay until it is due. */
  private compact(): void {
    const kept = this.heap.filter((item) => this.items.get(item.key) === item);
    this.heap.length = 0;
    for (const item of kept) this.push(item);
  }

  private push(item: Item<K>): void {
    const { heap } = this;
    let at = heap.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || above.at <= item.at) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = item;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      const left = heap[2 * at + 1];
      const right = heap[2 * at + 2];
      const isRight = right !== undefined && left !== undefined && right.at < left.at;
      const child = isRight ? right : left;
      if (child === undefined || child.at >= last.at) break;
      heap[at] = child;
      at = 2 * at + (isRight ? 2 : 1);
    }
    heap[at] = last;
  }
}

const SLACK = 64;
