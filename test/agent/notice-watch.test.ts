/** Announcements of the platform: asked for as often as they need it, or awaited. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NONE } from '../../agent/platform/none.ts';
import { type PlatformDriver, PlatformError, type PlatformEvent } from '../../agent/platform/platform.ts';
import { NoticeWatch } from '../../agent/shell/notice-watch.ts';
import { waitFor } from '../lab/wait.ts';

const FREEZE: PlatformEvent = { id: '1', action: 'Freeze', notBefore: null };

test('a platform whose notices are short is asked again and again, also after it could not be', async (t) => {
  let asked = 0;
  const told: number[] = [];
  const driver: PlatformDriver = { ...NONE, events: () => Promise.resolve([]), eventsEveryMs: 1 };
  const watch = new NoticeWatch(handlers({ onEvents: (events) => told.push(events.length) }), {
    events() {
      asked += 1;
      if (asked === 2) return Promise.reject(new PlatformError('timeout', 'no answer'));
      return Promise.resolve(asked === 1 ? [] : [FREEZE]);
    },
    change: () => Promise.reject(new Error('not asked')),
  });
  t.after(() => watch.close());
  watch.follow(driver);
  await waitFor('the notice', () => told.includes(1));
  assert.deepEqual(told.slice(0, 2), [0, 1]);
});

test('one that says when something has changed is waited for, with the mark that it gave', async (t) => {
  const marks: (string | null)[] = [];
  const answers: ((mark: string) => void)[] = [];
  let changes = 0;
  const driver: PlatformDriver = { ...NONE, events: () => Promise.resolve([]), change: () => Promise.resolve('') };
  const watch = new NoticeWatch(handlers({ onChange: () => changes++ }), {
    events: () => Promise.reject(new Error('not asked')),
    change(_, mark) {
      marks.push(mark);
      return new Promise((resolve) => answers.push(resolve));
    },
  });
  t.after(() => watch.close());
  watch.follow(driver);
  const answer = async (mark: string): Promise<void> => {
    const { length } = marks;
    answers.at(-1)?.(mark);
    await waitFor('the next question', () => marks.length > length);
  };
  await answer('a');
  assert.equal(changes, 0, 'the first mark is that of now');
  await answer('b');
  assert.equal(changes, 1);
  assert.deepEqual(marks, [null, 'a', 'b']);
});

test('one that says at every question that something has changed is asked less and less often', async (t) => {
  const times: number[] = [];
  const watch = new NoticeWatch(handlers({ onChange: () => times.push(performance.now()) }), {
    events: () => Promise.reject(new Error('not asked')),
    change: (_, mark) => Promise.resolve(`${Number(mark ?? 0) + 1}`),
  });
  t.after(() => watch.close());
  watch.follow({ ...NONE, change: () => Promise.resolve('') });
  await waitFor('changes', () => times.length >= 5);
  const [first = 0, , , fourth = 0, fifth = 0] = times;
  assert.ok(fourth - first >= 860 && fifth - fourth >= 990, times.map(Math.round).join(' '));
});

test('an error of ours ends the questions until the platform is followed again', async (t) => {
  const told: string[] = [];
  let asked = 0;
  const watch = new NoticeWatch(
    handlers({ onEvents: () => told.push('events'), onFault: (error) => told.push((error as Error).message) }),
    {
      events: () => (++asked === 1 ? Promise.reject(new TypeError('ours')) : Promise.resolve([])),
      change: () => Promise.reject(new Error('not asked')),
    },
  );
  t.after(() => watch.close());
  const driver: PlatformDriver = { ...NONE, events: () => Promise.resolve([]), eventsEveryMs: 1 };
  watch.follow(driver);
  await waitFor('the error', () => told.includes('ours'));
  watch.follow(driver);
  await waitFor('the answer', () => told.includes('events'));
});

test('another platform ends the questions to the one before', async (t) => {
  let given: AbortSignal | undefined;
  const watch = new NoticeWatch(handlers({}), {
    events: () => Promise.resolve([]),
    change(_, __, givenUp) {
      given = givenUp;
      return new Promise((_resolve, reject) => {
        givenUp.addEventListener('abort', () => reject(new PlatformError('unreachable', 'given up')));
      });
    },
  });
  t.after(() => watch.close());
  watch.follow({ ...NONE, change: () => Promise.resolve('') });
  await waitFor('the question', () => given !== undefined);
  watch.follow(NONE);
  assert.equal(given?.aborted, true);
});

function handlers(some: Partial<ConstructorParameters<typeof NoticeWatch>[0]>) {
  return {
    onEvents: () => undefined,
    onChange: () => undefined,
    onFault: (error: unknown) => {
      throw error;
    },
    ...some,
  };
}
