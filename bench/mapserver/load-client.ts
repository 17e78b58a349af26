/** Keeps the map server busy: so many messages under way, the next as soon as one is answered. */
import { BenchError } from '../bench-error.ts';
import { rounded } from '../figures.ts';
import { cpuSeconds } from '../link.ts';

export type LoadKind = 'register' | 'refresh' | 'request';

export interface LoadClient {
  /** Sends the message for the EID of this number; returns what tells its answer. */
  send(kind: LoadKind, index: number): bigint;
  /** Called with each answer. */
  onAnswer: (nonce: bigint) => void;
  readonly prefixes: number;
  close(): void;
}

export interface Pace {
  readonly answered: number;
  readonly perSecond: number;
  /** CPU time of the map server for each, all threads. */
  readonly cpuUs: number;
  /** Messages that were sent again, as no answer came. */
  readonly lost: number;
}

/** Until `count` were answered, or for `seconds`. @throws BenchError when answers fail to come */
export async function pace(
  client: LoadClient,
  kind: LoadKind,
  pid: number,
  until: { readonly count: number } | { readonly seconds: number },
): Promise<Pace> {
  const waiting = new Map<bigint, { readonly index: number; readonly since: number }>();
  const cpuBefore = cpuSeconds(pid);
  const began = performance.now();
  const count = 'count' in until ? until.count : Number.POSITIVE_INFINITY;
  const end = 'seconds' in until ? began + until.seconds * 1000 : Number.POSITIVE_INFINITY;
  let next = 0;
  let answered = 0;
  let lost = 0;
  let lastAnswer = began;
  const send = (index: number): void => {
    waiting.set(client.send(kind, index % client.prefixes), { index, since: performance.now() });
  };
  await new Promise<void>((resolve, reject) => {
    const repeat = setInterval(() => {
      const now = performance.now();
      if (now - lastAnswer > GIVE_UP) {
        clearInterval(repeat);
        reject(new BenchError(`${kind}: no answer for ${GIVE_UP / 1000} s, after ${answered}`));
      }
      for (const [nonce, { index, since }] of waiting) {
        if (now - since < REPEAT) continue;
        waiting.delete(nonce);
        lost++;
        send(index);
      }
    }, REPEAT / 4);
    client.onAnswer = (nonce) => {
      if (!waiting.delete(nonce)) return;
      answered++;
      lastAnswer = performance.now();
      if (answered >= count || lastAnswer >= end) {
        clearInterval(repeat);
        client.onAnswer = () => {};
        resolve();
      } else if (next < count) send(next++);
    };
    for (; next < Math.min(WINDOW, count); next++) send(next);
  });
  const took = (performance.now() - began) / 1000;
  const cpuUs = ((cpuSeconds(pid) - cpuBefore) * 1e6) / answered;
  return { answered, perSecond: rounded(answered / took), cpuUs: rounded(cpuUs), lost };
}

const WINDOW = 256;
const REPEAT = 1_000;
const GIVE_UP = 10_000;
