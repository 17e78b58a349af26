/** The store contract, the same for every driver. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { MemoryStore } from '../../mapserver/store/memory.ts';
import { SqliteStore } from '../../mapserver/store/sqlite.ts';
import { openSqlite } from '../../mapserver/store/sqlite-database.ts';
import { CompactedError, type Store, type StoreChange, StoreError } from '../../mapserver/store/store.ts';

interface Clock {
  now: number;
}

const DRIVERS = {
  memory: (clock: Clock, history?: number): Store =>
    new MemoryStore({ clock: () => clock.now, ...(history === undefined ? {} : { history }) }),
  sqlite: (clock: Clock, history?: number, folder?: string): Store =>
    new SqliteStore({
      path: folder === undefined ? ':memory:' : join(folder, 'store.db'),
      clock: () => clock.now,
      ...(history === undefined ? {} : { history }),
    }),
};

for (const [driver, open] of Object.entries(DRIVERS)) {
  describe(`the ${driver} store`, () => {
    test('returns what was written, with the revision of its transaction', async () => {
      await using(open, async (store) => {
        assert.equal(await store.get('a'), undefined);
        const first = await store.compareAndSet([], [put('a', '1'), put('b', '2')]);
        assert.deepEqual(first, { ok: true, revision: 1 });
        assert.deepEqual(await store.get('a'), { key: 'a', value: '1', revision: 1 });
        assert.deepEqual(await store.compareAndSet([], [put('b', '3')]), { ok: true, revision: 2 });
        assert.deepEqual(await store.get('b'), { key: 'b', value: '3', revision: 2 });
      });
    });

    test('lists by prefix in key order', async () => {
      await using(open, async (store) => {
        await store.compareAndSet([], [put('eid/b', '2'), put('agent/x', '0'), put('eid/a', '1'), put('eie', '9')]);
        const { entries, revision } = await store.list('eid/');
        assert.deepEqual(
          entries.map(({ key, value }) => [key, value]),
          [
            ['eid/a', '1'],
            ['eid/b', '2'],
          ],
        );
        assert.equal(revision, 1);
        assert.equal((await store.list('')).entries.length, 4);
      });
    });

    test('writes all or nothing when one of several conditions does not hold', async () => {
      await using(open, async (store) => {
        await store.compareAndSet([], [put('a', '1')]);
        const refused = await store.compareAndSet([at('a', 1), at('b', 7)], [put('a', '2'), put('c', '3')]);
        assert.deepEqual(refused, { ok: false, current: [{ key: 'a', value: '1', revision: 1 }] });
        assert.equal(await store.get('c'), undefined);
        assert.equal((await store.compareAndSet([at('a', 1), at('b', 0)], [put('b', '2')])).ok, true);
      });
    });

    test('treats a deleted key as absent and counts its deletion', async () => {
      await using(open, async (store) => {
        await store.compareAndSet([], [put('a', '1')]);
        assert.deepEqual(await store.compareAndSet([at('a', 1)], [remove('a')]), { ok: true, revision: 2 });
        assert.equal(await store.get('a'), undefined);
        assert.deepEqual(await store.compareAndSet([at('a', 0)], [put('a', '2')]), { ok: true, revision: 3 });
      });
    });

    test('lets only one of many concurrent writers of a revision win', async () => {
      await using(open, async (store) => {
        await store.compareAndSet([], [put('n', '0')]);
        const increment = async (): Promise<void> => {
          for (;;) {
            const entry = (await store.get('n'))!;
            const next = String(Number(entry.value) + 1);
            if ((await store.compareAndSet([at('n', entry.revision)], [put('n', next)])).ok) return;
          }
        };
        await Promise.all(Array.from({ length: 20 }, increment));
        assert.equal((await store.get('n'))?.value, '20');
      });
    });

    test('tells a watcher every change behind its revision once and in order, old and new', async () => {
      await using(open, async (store) => {
        await store.compareAndSet([], [put('a/1', '1')]);
        await store.compareAndSet([], [put('a/2', '2'), put('b/1', 'x')]);
        const seen: StoreChange[] = [];
        let enough = (): void => {};
        const watch = store.watch('a/', 1, (changes) => {
          seen.push(...changes);
          if (seen.length === 3) enough();
        });
        await store.compareAndSet([], [remove('a/1')]);
        const done = new Promise<void>((resolve) => {
          enough = resolve;
        });
        await store.compareAndSet([], [put('a/3', '3')]);
        await done;
        watch.close();
        assert.deepEqual(seen, [
          { key: 'a/2', value: '2', revision: 2 },
          { key: 'a/1', value: undefined, revision: 3 },
          { key: 'a/3', value: '3', revision: 4 },
        ]);
        await store.compareAndSet([], [put('a/4', '4')]);
        await turn();
        assert.equal(seen.length, 3, 'nothing comes after close');
      });
    });

    test('refuses to watch from a revision that is compacted', async () => {
      await using(
        open,
        async (store) => {
          for (let i = 0; i < 10; i++) await store.compareAndSet([], [put('a', String(i))]);
          assert.throws(() => store.watch('', 2, () => {}), CompactedError);
          store.watch('', 9, () => {}).close();
        },
        3,
      );
    });

    test('drops the keys of a lease that nobody renewed, and refuses to write under it', async () => {
      const clock = { now: 1_000_000 };
      const store = open(clock);
      const lease = await store.lease(3_000);
      await store.compareAndSet([], [{ key: 'server/1', value: 'here', lease }, put('other', '1')]);
      clock.now += 2_000;
      assert.equal(await store.renew(lease), true);
      clock.now += 2_000;
      assert.equal((await store.get('server/1'))?.value, 'here');
      clock.now += 1_000;
      assert.equal(await store.get('server/1'), undefined);
      assert.equal((await store.get('other'))?.value, '1');
      assert.equal(await store.renew(lease), false);
      await assert.rejects(store.compareAndSet([], [{ key: 'server/1', value: 'x', lease }]), StoreError);
      await store.close();
    });

    test('drops the keys of a revoked lease at once', async () => {
      await using(open, async (store) => {
        const lease = await store.lease(3_000);
        await store.compareAndSet([], [{ key: 'server/1', value: 'here', lease }]);
        await store.revoke(lease);
        assert.equal(await store.get('server/1'), undefined);
      });
    });

    test('is of no more use after it was closed', async () => {
      const store = open({ now: 0 });
      await store.close();
      await assert.rejects(store.get('a'), StoreError);
    });
  });
}

test('both drivers answer any sequence of transactions alike', async () => {
  const key = fc.constantFrom('a', 'b', 'c', 'd/1', 'd/2');
  const step = fc.record({
    conditions: fc.array(fc.record({ key, revision: fc.nat(6) }), { maxLength: 2 }),
    writes: fc.array(fc.record({ key, value: fc.option(fc.string({ maxLength: 3 }), { nil: undefined }) }), {
      maxLength: 3,
    }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const clock = { now: 0 };
      const stores = [DRIVERS.memory(clock), DRIVERS.sqlite(clock)];
      for (const { conditions, writes } of steps) {
        const [one, other] = await Promise.all(stores.map((store) => store.compareAndSet(conditions, writes)));
        assert.deepEqual(other, one);
      }
      const [one, other] = await Promise.all(stores.map((store) => store.list('')));
      assert.deepEqual(other, one);
      for (const store of stores) await store.close();
    }),
    { numRuns: 60 },
  );
});

test('the sqlite store finds everything again after it was closed, and its revision goes on', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-store-'));
  try {
    const clock = { now: 0 };
    const store = DRIVERS.sqlite(clock, undefined, folder);
    await store.compareAndSet([], [put('a', '1')]);
    await store.close();
    const again = DRIVERS.sqlite(clock, undefined, folder);
    assert.deepEqual(await again.get('a'), { key: 'a', value: '1', revision: 1 });
    assert.deepEqual(await again.compareAndSet([at('a', 1)], [put('a', '2')]), { ok: true, revision: 2 });
    await again.close();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('the sqlite store refuses a file of a newer schema, and a file that is not a database', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-store-'));
  try {
    const database = openSqlite(join(folder, 'store.db'));
    database.exec('PRAGMA user_version = 99');
    database.close();
    assert.throws(() => DRIVERS.sqlite({ now: 0 }, undefined, folder), /newer version of Stayput/);
    assert.throws(() => DRIVERS.sqlite({ now: 0 }, undefined, join(folder, 'missing')), StoreError);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

async function using(
  open: (clock: Clock, history?: number) => Store,
  body: (store: Store) => Promise<void>,
  history?: number,
): Promise<void> {
  const store = open({ now: 1_000_000 }, history);
  try {
    await body(store);
  } finally {
    await store.close();
  }
}

function put(key: string, value: string) {
  return { key, value };
}

function remove(key: string) {
  return { key, value: undefined };
}

function at(key: string, revision: number) {
  return { key, revision };
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}
