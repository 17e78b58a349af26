/** One thing that checks side by side have to take turns with, such as a UDP port. */
export class Exclusive {
  private last: Promise<void> = Promise.resolve();

  /** Resolves when it is this caller's turn, which ends when what it gives is called. */
  async take(): Promise<() => void> {
    const before = this.last;
    let end: () => void = () => {};
    this.last = new Promise((resolve) => {
      end = resolve;
    });
    await before;
    return end;
  }
}
