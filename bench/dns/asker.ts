/**
 * A DNS client that runs on a host of the lab, for what dnsperf cannot do.
 *
 * `change`: replaces a resolv.conf and asks for one name after another that nobody has asked for, until one is
 * answered as only the new resolver answers. `retry`: asks at a steady rate as the C library does, each question from
 * a connected socket of its own, again once after a time-out, an error or SERVFAIL. Prints one JSON object.
 */
import { createSocket } from 'node:dgram';
import { renameSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { decode, encode } from 'dns-packet';

export interface ChangeTask {
  readonly kind: 'change';
  readonly file: string;
  readonly content: string;
  /** Asked as `xN.SUFFIX`. */
  readonly suffix: string;
  readonly right: string;
}

export interface RetryTask {
  readonly kind: 'retry';
  readonly names: readonly string[];
  readonly perSecond: number;
  readonly seconds: number;
  /** Of each of the two attempts, in milliseconds. */
  readonly timeoutMs: number;
}

export interface ChangeResult {
  /** Null: not within ten seconds. */
  readonly firstRightMs: number | null;
}

export interface RetryResult {
  readonly asked: number;
  readonly answered: number;
  /** Of those, by the second attempt. */
  readonly bySecond: number;
  /** Not answered in both attempts, by what the second one got. */
  readonly servFail: number;
  readonly timedOut: number;
  readonly refused: number;
}

type Outcome =
  | { readonly kind: 'answer'; readonly rcode: string; readonly data: readonly string[] }
  | { readonly kind: 'timeout' | 'refused' };

async function change({ file, content, suffix, right }: ChangeTask): Promise<ChangeResult> {
  writeFileSync(`${file}.new`, content);
  const start = performance.now();
  renameSync(`${file}.new`, file);
  let firstRightMs: number | null = null;
  for (let i = 0; firstRightMs === null && performance.now() - start < CHANGE_MS; i++) {
    void ask(`x${i}.${suffix}`, CHANGE_MS).then((outcome) => {
      if (outcome.kind === 'answer' && outcome.data.includes(right)) firstRightMs ??= performance.now() - start;
    });
    await pause(2);
  }
  return { firstRightMs };
}

async function retry({ names, perSecond, seconds, timeoutMs }: RetryTask): Promise<RetryResult> {
  const start = performance.now();
  const asked: Promise<{ readonly outcome: Outcome; readonly second: boolean }>[] = [];
  while (performance.now() - start < seconds * 1000) {
    const due = Math.floor(((performance.now() - start) / 1000) * perSecond);
    while (asked.length < due) asked.push(askTwice(names[asked.length % names.length] ?? '', timeoutMs));
    await pause(1);
  }
  const all = await Promise.all(asked);
  const count = (fits: (one: (typeof all)[number]) => boolean): number => all.filter(fits).length;
  return {
    asked: all.length,
    answered: count(({ outcome }) => right(outcome)),
    bySecond: count(({ outcome, second }) => second && right(outcome)),
    servFail: count(({ outcome }) => outcome.kind === 'answer' && !right(outcome)),
    timedOut: count(({ outcome }) => outcome.kind === 'timeout'),
    refused: count(({ outcome }) => outcome.kind === 'refused'),
  };
}

async function askTwice(
  name: string,
  timeoutMs: number,
): Promise<{ readonly outcome: Outcome; readonly second: boolean }> {
  const first = await ask(name, timeoutMs);
  return right(first) ? { outcome: first, second: false } : { outcome: await ask(name, timeoutMs), second: true };
}

function right(outcome: Outcome): boolean {
  return outcome.kind === 'answer' && outcome.rcode === 'NOERROR' && outcome.data.length > 0;
}

function ask(name: string, timeoutMs: number): Promise<Outcome> {
  return new Promise((resolve) => {
    const socket = createSocket('udp4');
    const timer = setTimeout(() => end({ kind: 'timeout' }), timeoutMs);
    let ended = false;
    const end = (outcome: Outcome): void => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      socket.close();
      resolve(outcome);
    };
    socket.on('error', () => end({ kind: 'refused' }));
    socket.on('message', (packet) => {
      const { answers = [], rcode } = decode(packet) as { answers?: { data?: unknown }[]; rcode?: string };
      end({ kind: 'answer', rcode: rcode ?? '', data: answers.map(({ data }) => String(data)) });
    });
    socket.connect(53, '127.0.0.1', () => {
      if (ended) return;
      const question = { name, type: 'A' as const };
      socket.send(
        encode({ type: 'query', id: Math.floor(Math.random() * 65_536), flags: 0x100, questions: [question] }),
      );
    });
  });
}

const CHANGE_MS = 10_000;

const task = JSON.parse(process.argv[2] ?? '') as ChangeTask | RetryTask;
process.stdout.write(`${JSON.stringify(task.kind === 'change' ? await change(task) : await retry(task))}\n`);
process.exit(0);
