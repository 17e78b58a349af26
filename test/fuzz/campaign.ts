/** Many executions of one decoder: inputs whose outcome is new join those that are changed further. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { type Decoder, described } from './decoder.ts';
import { Mutator, seeded } from './mutation.ts';

export interface Report {
  readonly decoder: string;
  readonly executions: number;
  readonly outcomes: number;
  /** Of the CPU, so that others on the machine do not count. */
  readonly seconds: number;
  readonly slowestMs: number;
  /** Inputs that had an outcome which neither seeds nor corpus have. */
  readonly found: readonly Uint8Array[];
  readonly failure?: { readonly input: Uint8Array; readonly error: unknown };
}

export function campaign(decoder: Decoder, options: { readonly executions: number; readonly seed: number }): Report {
  const mutator = new Mutator(decoder.form, seeded(options.seed));
  const pool = [...decoder.seeds, ...corpus(decoder)];
  const found: Uint8Array[] = [];
  const outcomes = new Set<string>();
  const started = process.cpuUsage();
  let executions = 0;
  let slowestMs = 0;
  const report = (): Report => ({
    decoder: decoder.name,
    executions,
    outcomes: outcomes.size,
    seconds: process.cpuUsage(started).user / 1e6,
    slowestMs,
    found,
  });
  const execute = (input: Uint8Array): boolean => {
    const before = performance.now();
    const result = decoder.run(input);
    slowestMs = Math.max(slowestMs, performance.now() - before);
    executions++;
    if (outcomes.size >= MAX_OUTCOMES || (executions > ALL_DESCRIBED && executions % DESCRIBED_LATER !== 0))
      return false;
    const { size } = outcomes;
    return outcomes.add(described(result)).size > size;
  };
  // An error costs five times as much with a stack, and nobody reads those of refusals.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  let input: Uint8Array = new Uint8Array(0);
  try {
    for (const seed of [...pool]) {
      input = seed;
      execute(input);
    }
    while (executions < options.executions) {
      input = mutator.next(pool);
      if (!execute(input)) continue;
      const kept = Uint8Array.from(input);
      found.push(kept);
      if (kept.length <= MAX_POOLED_SIZE) pool.push(kept);
    }
    return report();
  } catch (error) {
    return { ...report(), failure: { input: Uint8Array.from(input), error } };
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** One input in base64 for each line; lines with `#` say what comes next. */
export function corpus({ name }: Pick<Decoder, 'name'>): readonly Uint8Array[] {
  const file = corpusFile(name);
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line !== '' && !line.startsWith('#')).map((line) => Buffer.from(line, 'base64'));
}

export function corpusFile(name: string): string {
  return join(PROJECT_ROOT, 'test', 'corpus', 'fuzz', `${name}.txt`);
}

const MAX_OUTCOMES = 3000;
/** New outcomes become rare, and to look for them is dear: later only some executions are asked. */
const ALL_DESCRIBED = 50_000;
const DESCRIBED_LATER = 8;
/** What grows with each change would cost more and more, and find no more than short ones do. */
const MAX_POOLED_SIZE = 512;
