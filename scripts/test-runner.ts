/**
 * Runs compiled test files with node:test: files that need nothing but Node side by side, those that build networks one
 * after the other, but for the patient ones of `PATIENT`; closes with the sums over all in the runner's own words.
 */
import { setMaxListeners } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { GRACE_MS } from './ending.ts';
import { dependsOnNode } from './node-dependence.ts';
import { argumentsOf, descendants, endProcesses } from './process-tree.ts';
import { StepFailed } from './steps.ts';

export type Suite = 'unit' | 'e2e';

export interface Group {
  readonly suite: Suite;
  readonly files: readonly string[];
  readonly atOnce: number;
  /** A file that still runs after this is ended and counts as failed. */
  readonly fileLimitMs: number;
}

/** The test files of a suite whose path contains one of `filters` (all, without any), with those that may run together. */
export function testGroups(suite: Suite, filters: readonly string[]): Group[] {
  const files = testFiles(suite, filters);
  const cpus = availableParallelism();
  const fileLimitMs = FILE_LIMIT_MS[suite];
  if (suite === 'unit') return [{ suite, files, atOnce: Math.min(4, cpus), fileLimitMs }];
  const patient = PATIENT.map((path) => join(COMPILED, `${path}.test.js`));
  return [
    { suite, files: patient.filter((path) => files.includes(path)), atOnce: Math.min(2, cpus), fileLimitMs },
    { suite, files: files.filter((path) => !patient.includes(path)), atOnce: 1, fileLimitMs },
  ];
}

/** The unit tests that could come out differently on another version of Node. */
export function nodeGroups(filters: readonly string[]): Group[] {
  return testGroups('unit', filters).map((group) => ({
    ...group,
    files: group.files.filter((file) => dependsOnNode(file)),
  }));
}

function testFiles(suite: Suite, filters: readonly string[]): string[] {
  return readdirSync(COMPILED, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.js'))
    .filter((path) => /^(e2e|lab|packaging)\//.test(path) === (suite === 'e2e'))
    .filter(
      (path) => filters.length === 0 || filters.some((filter) => `test/${path}`.includes(filter.replace(/\.ts$/, ''))),
    )
    .map((path) => join(COMPILED, path))
    .sort();
}

/** Runs the files until `ended`, and prints the closing lines. @throws StepFailed when there was no test at all */
export async function runTests(groups: readonly Group[], ended: AbortSignal): Promise<void> {
  const sums = new Map<string, number>(CLOSING.map((name) => [name, 0]));
  let failed = false;
  for (const group of groups) {
    if (group.files.length === 0 || ended.aborted) continue;
    const passed = (): Promise<boolean> => runGroup(group, sums, ended);
    if (!(await (group.suite === 'unit' ? inOwnFolder(passed) : passed()))) failed = true;
  }
  // Whoever ends it exits when everything has ended.
  if (ended.aborted) return;
  console.log('');
  for (const [name, sum] of sums) console.log(`# ${name} ${Math.round(sum)}`);
  if ((sums.get('tests') ?? 0) === 0) throw new StepFailed('no test was run');
  // A file that left something open must not hold the runner: node's own children are gone by now.
  process.exit(failed || (sums.get('fail') ?? 0) + (sums.get('cancelled') ?? 0) > 0 ? 1 : 0);
}

/**
 * With a folder for temporary files that is removed afterwards, also by the next run if this one is killed. Labs keep
 * theirs where the next one finds their networks as well.
 */
async function inOwnFolder<T>(task: () => Promise<T>): Promise<T> {
  const all = tmpdir();
  for (const name of readdirSync(all)) {
    const pid = /^sp-run-(\d+)-\w+$/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(all, name), { recursive: true, force: true });
  }
  const folder = mkdtempSync(join(all, `sp-run-${process.pid}-`));
  // A test that runs something as another user has that get at a folder of its own in here.
  chmodSync(folder, 0o711);
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  try {
    return await task();
  } finally {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Resolves to false when a test failed, a file could not be run, or it or the group took too long or was ended. */
function runGroup(group: Group, sums: Map<string, number>, ended: AbortSignal): Promise<boolean> {
  const over = new AbortController();
  setMaxListeners(0, over.signal);
  setTimeout(() => over.abort(), GROUP_LIMIT_MS[group.suite]).unref();
  ended.addEventListener('abort', () => over.abort());
  const stream = run({
    files: [...group.files],
    concurrency: group.atOnce,
    // Only if a file has ended and another process holds its output: the rest is ended before, and named.
    timeout: group.fileLimitMs + 4 * GRACE_MS,
    signal: over.signal,
  });
  let good = true;
  const limit = limitFiles(group, (file) => {
    good = false;
    console.log(`# ended, as it still ran after ${group.fileLimitMs / 1000} s: ${file}`);
  });
  stream.on('test:diagnostic', ({ message, nesting }) => {
    const line = /^(\w+) ([\d.]+)$/.exec(message);
    const sum = sums.get(line?.[1] ?? '');
    if (nesting === 0 && line !== null && sum !== undefined) sums.set(line[1] ?? '', sum + Number(line[2]));
  });
  stream.on('test:fail', ({ todo, skip }) => {
    if (todo === undefined && skip === undefined) good = false;
  });
  return new Promise<boolean>((resolve, reject) => {
    const report = stream.compose(new spec());
    report.on('end', () => resolve(good));
    report.on('error', reject);
    report.pipe(process.stdout, { end: false });
  }).finally(() => clearInterval(limit));
}

/**
 * Ends the processes of files that take too long, and tells `late` of them. The runner's own limit is one for a file on
 * Node 20 and one for a test on Node 24, and a file that has left something open runs on with either.
 */
function limitFiles({ files, fileLimitMs }: Group, late: (file: string) => void): NodeJS.Timeout {
  const begun = new Map<string, number>();
  return setInterval(
    () => {
      const now = performance.now();
      for (const started of descendants()) {
        if (started.parent !== process.pid) continue;
        const file = argumentsOf(started.pid).find((argument) => files.includes(argument));
        const key = `${started.pid} ${started.startTime}`;
        const since = begun.get(key) ?? now;
        begun.set(key, since);
        if (file === undefined || now - since < fileLimitMs) continue;
        begun.set(key, Number.POSITIVE_INFINITY);
        late(file);
        const below = descendants(started.pid);
        // One of these may hold the file's output open, for whose end the runner waits.
        void endProcesses([started], GRACE_MS).then(() => endProcesses(below, GRACE_MS));
      }
    },
    Math.min(LOOK_MS, fileLimitMs / 2),
  ).unref();
}

/**
 * End-to-end tests that two may run of at once, the longest first: they wait for other programs most of the time, and
 * hold nothing to a duration that a neighbour could make too long. Whatever measures or floods is not among them.
 */
export const PATIENT: readonly string[] = [
  'packaging/root-install',
  'e2e/containers',
  'packaging/root-docs',
  'e2e/provisioning-ansible',
  'packaging/packages',
  'e2e/doctor',
  'e2e/dashboards',
  'e2e/prometheus',
  'e2e/platform',
  'e2e/restore',
  'e2e/provisioning-terraform',
  'e2e/dns-host-programs',
  'e2e/lisp-conform',
  'e2e/lisp-gateway',
  'e2e/secrets',
  'e2e/provisioning-cloud-init',
  'e2e/copy',
  'e2e/zone-secondary',
  'e2e/underlay',
  'e2e/provisioning-ovf',
  'e2e/lisp-pylisp',
  'e2e/lisp-tshark',
  'e2e/dns-doctor',
  'e2e/dns-programs',
];

const FILE_LIMIT_MS: Readonly<Record<Suite, number>> = { unit: 600_000, e2e: 1_200_000 };

const LOOK_MS = 5_000;

/** Should there be many such files. */
const GROUP_LIMIT_MS: Readonly<Record<Suite, number>> = { unit: 1_800_000, e2e: 5_400_000 };

const COMPILED = join(PROJECT_ROOT, 'dist', 'test');
const CLOSING = ['tests', 'suites', 'pass', 'fail', 'cancelled', 'skipped', 'todo', 'duration_ms'] as const;
