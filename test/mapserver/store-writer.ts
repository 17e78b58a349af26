/** Increments a counter, eight transactions under way at a time, and says each number that was acknowledged. */
import { SqliteStore } from '../../mapserver/store/sqlite.ts';

const store = new SqliteStore({ path: process.argv[2]!, clock: Date.now });
let counter = Number((await store.get('counter'))?.value ?? 0);

async function write(): Promise<void> {
  for (;;) {
    const value = String(++counter);
    await store.compareAndSet(
      [],
      [
        { key: 'counter', value },
        { key: `item/${value}`, value },
      ],
    );
    process.send?.(Number(value));
  }
}

await Promise.all(Array.from({ length: 8 }, write));
