/** Many executions of one decoder: inputs whose outcome is new join those that are changed further. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import type { Decoder } from './decoder.ts';
import { mutated, seeded } from './mutation.ts';

export interface Report {
  readonly decoder: string;
  readonly executions: number;
  readonly outcomes: number;
  readonly seconds: number;
  readonly slowestMs: number;
  /** Inputs that had an outcome which neither seeds nor corpus have. */
  readonly found: readonly Uint8Array[];
  readonly failure?: { readonly input: Uint8Array; readonly error: unknown };
}

export function campaign(decoder: Decoder, options: { readonly executions: number; readonly seed: number }): Report {
  const random = seeded(options.seed);
  const pool = [...decoder.seeds, ...corpus(decoder)];
  const found: Uint8Array[] = [];
  const outcomes = new Set<string>();
  const started = performance.now();
  let executions = 0;
  let slowestMs = 0;
  const report = (): Report => ({
    decoder: decoder.name,
    executions,
    outcomes: outcomes.size,
    seconds: (performance.now() - started) / 1000,
    slowestMs,
    found,
  });
  const execute = (input: Uint8Array): boolean => {
    const before = performance.now();
    const result = decoder.run(input);
    slowestMs = Math.max(slowestMs, performance.now() - before);
    executions++;
    if (outcomes.has(result) || outcomes.size >= MAX_OUTCOMES) return false;
    outcomes.add(result);
    return true;
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
      input = mutated(pool, decoder.form, random);
      if (!execute(input)) continue;
      found.push(input);
      if (input.length <= MAX_POOLED_SIZE) pool.push(input);
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
/** What grows with each change would cost more and more, and find no more than short ones do. */
const MAX_POOLED_SIZE = 512;
