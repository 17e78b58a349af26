/**
 * Runs compiled test files with node:test: files that need nothing but Node side by side, those that build
 * networks (test/e2e, test/lab) one after the other, and closes with the sums over both in the runner's own words.
 */
import { setMaxListeners } from 'node:events';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { StepFailed } from './steps.ts';

export type Suite = 'unit' | 'e2e';

/** Compiled test files of a suite whose path contains one of `filters` (all, without any). */
export function testFiles(suite: Suite, filters: readonly string[]): string[] {
  const root = join(PROJECT_ROOT, 'dist', 'test');
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.js'))
    .filter((path) => /^(e2e|lab|packaging)\//.test(path) === (suite === 'e2e'))
    .filter(
      (path) => filters.length === 0 || filters.some((filter) => `test/${path}`.includes(filter.replace(/\.ts$/, ''))),
    )
    .map((path) => join(root, path))
    .sort();
}

/** Runs the files and prints the closing lines. @throws StepFailed when there was no test at all */
export async function runTests(
  groups: readonly { readonly suite: Suite; readonly files: readonly string[] }[],
): Promise<void> {
  const sums = new Map<string, number>(CLOSING.map((name) => [name, 0]));
  let failed = false;
  for (const { suite, files } of groups) {
    if (files.length > 0 && !(await runGroup(suite, files, sums))) failed = true;
  }
  console.log('');
  for (const [name, sum] of sums) console.log(`# ${name} ${Math.round(sum)}`);
  if ((sums.get('tests') ?? 0) === 0) throw new StepFailed('no test was run');
  // A file that left something open must not hold the runner: node's own children are gone by now.
  process.exit(failed || (sums.get('fail') ?? 0) + (sums.get('cancelled') ?? 0) > 0 ? 1 : 0);
}

/** Resolves to false when a test failed, a file could not be run, or the group took too long. */
function runGroup(suite: Suite, files: readonly string[], sums: Map<string, number>): Promise<boolean> {
  const signal = AbortSignal.timeout(GROUP_LIMIT_MS[suite]);
  setMaxListeners(0, signal);
  const stream = run({
    files: [...files],
    concurrency: suite === 'e2e' ? 1 : Math.min(4, availableParallelism()),
    timeout: FILE_LIMIT_MS[suite],
    signal,
  });
  let good = true;
  stream.on('test:diagnostic', ({ message, nesting }) => {
    const line = /^(\w+) ([\d.]+)$/.exec(message);
    const sum = sums.get(line?.[1] ?? '');
    if (nesting === 0 && line !== null && sum !== undefined) sums.set(line[1] ?? '', sum + Number(line[2]));
  });
  stream.on('test:fail', ({ todo, skip }) => {
    if (todo === undefined && skip === undefined) good = false;
  });
  return new Promise((resolve, reject) => {
    const report = stream.compose(new spec());
    report.on('end', () => resolve(good));
    report.on('error', reject);
    report.pipe(process.stdout, { end: false });
  });
}

/** A file (Node 20) or test (Node 24) that is still running after this is ended and counts as failed. */
const FILE_LIMIT_MS: Readonly<Record<Suite, number>> = { unit: 300_000, e2e: 600_000 };

/** On Node 24 a file that leaves a handle open would otherwise run for ever. */
const GROUP_LIMIT_MS: Readonly<Record<Suite, number>> = { unit: 1_800_000, e2e: 5_400_000 };

const CLOSING = ['tests', 'suites', 'pass', 'fail', 'cancelled', 'skipped', 'todo', 'duration_ms'] as const;
