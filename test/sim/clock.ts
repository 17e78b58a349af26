/** Virtual time and the chance of a simulated world. Both follow from the seed, so every run can be repeated. */
import type { Instant, Millis } from '../../proto/time.ts';

interface Appointment {
  readonly at: Instant;
  /** Appointments of the same instant are kept in the order in which they were made. */
  readonly order: number;
  readonly act: () => void;
}

/** What is to happen when: a binary heap. */
export class Clock {
  now: Instant = 1000;
  private readonly heap: Appointment[] = [];
  private made = 0;

  after(delay: Millis, act: () => void): void {
    this.heap.push({ at: this.now + Math.max(0, delay), order: this.made++, act });
    for (let i = this.heap.length - 1; i > 0; ) {
      const parent = (i - 1) >> 1;
      if (!this.swapIfEarlier(i, parent)) break;
      i = parent;
    }
  }

  next(): Instant {
    return this.heap[0]?.at ?? Number.POSITIVE_INFINITY;
  }

  /** Goes to the next appointment and keeps it. */
  keepNext(): void {
    const [first] = this.heap;
    if (first === undefined) return;
    const last = this.heap.pop()!;
    if (this.heap.length > 0) {
      this.heap[0] = last;
      this.sink();
    }
    this.now = Math.max(this.now, first.at);
    first.act();
  }

  get pending(): number {
    return this.heap.length;
  }

  private sink(): void {
    for (let i = 0; ; ) {
      const left = 2 * i + 1;
      const child = left + 1 < this.heap.length && this.earlier(left + 1, left) ? left + 1 : left;
      if (child >= this.heap.length || !this.swapIfEarlier(child, i)) return;
      i = child;
    }
  }

  private swapIfEarlier(a: number, b: number): boolean {
    if (!this.earlier(a, b)) return false;
    const { heap } = this;
    [heap[a], heap[b]] = [heap[b]!, heap[a]!];
    return true;
  }

  private earlier(a: number, b: number): boolean {
    const [one, other] = [this.heap[a]!, this.heap[b]!];
    return one.at < other.at || (one.at === other.at && one.order < other.order);
  }
}

/** mulberry32. */
export class Chance {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** From 0 up to, not including, 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = this.state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** True in `share` of the cases. */
  takes(share: number): boolean {
    return share > 0 && this.next() < share;
  }

  between(low: number, high: number): number {
    return low + this.next() * (high - low);
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.next() * items.length)]!;
  }
}
