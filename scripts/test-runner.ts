/**
 * Runs compiled test files with node:test: files that need nothing but Node side by side, those that build
 * networks (test/e2e, test/lab) one after the other, and closes with the sums over both in the runner's own words.
 */
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
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
    .filter((path) => /^(e2e|lab)\//.test(path) === (suite === 'e2e'))
    .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)))
    .map((path) => join(root, path))
    .sort();
}

/** Runs the files and prints the closing lines. @throws StepFailed when a test failed or there was none */
export async function runTests(groups: readonly { readonly suite: Suite; readonly files: readonly string[] }[]) {
  const sums = new Map<string, number>(CLOSING.map((name) => [name, 0]));
  const failures: string[] = [];
  for (const { suite, files } of groups) {
    if (files.length === 0) continue;
    await runGroup(suite, files, sums, failures);
  }
  if (failures.length > 0) console.log(`\nFailed:\n${failures.map((line) => `  ${line}`).join('\n')}`);
  console.log('');
  for (const [name, sum] of sums) console.log(`# ${name} ${name === 'duration_ms' ? Math.round(sum) : sum}`);
  if ((sums.get('tests') ?? 0) === 0) throw new StepFailed('no test was run');
  const bad = (sums.get('fail') ?? 0) + (sums.get('cancelled') ?? 0) + failures.length;
  if (bad > 0) process.exitCode = 1;
}

function runGroup(suite: Suite, files: readonly string[], sums: Map<string, number>, failures: string[]) {
  const stream = run({
    files: [...files],
    concurrency: suite === 'e2e' ? 1 : Math.min(4, availableParallelism()),
    timeout: FILE_LIMIT_MS[suite],
  });
  stream.on('test:diagnostic', ({ message, nesting }) => {
    const line = /^(\w+) ([\d.]+)$/.exec(message);
    const sum = sums.get(line?.[1] ?? '');
    if (nesting === 0 && line !== null && sum !== undefined) sums.set(line[1] ?? '', sum + Number(line[2]));
  });
  stream.on('test:fail', ({ name, file, details, todo, skip }) => {
    const isSuite = details.type === 'suite' || details.error.cause === undefined;
    if (todo === undefined && skip === undefined && !isSuite) {
      failures.push(`${file === undefined ? '' : `${relative(PROJECT_ROOT, file)}: `}${name}`);
    }
  });
  return new Promise<void>((resolve, reject) => {
    const report = stream.compose(new spec());
    report.on('end', resolve);
    report.on('error', reject);
    report.pipe(process.stdout, { end: false });
  });
}

/** A file that is still running after this is ended and counts as failed. */
const FILE_LIMIT_MS: Readonly<Record<Suite, number>> = { unit: 120_000, e2e: 480_000 };

const CLOSING = ['tests', 'suites', 'pass', 'fail', 'cancelled', 'skipped', 'todo', 'duration_ms'] as const;
