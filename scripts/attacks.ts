/**
 * The attacks that tests try, read from their sources: `test('attack: NAME'` or `it('attack: NAME'` in TypeScript,
 * `#[test] fn attack_NAME` in Rust, each below a comment `// Attack: what is sent | how often | what happens`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { StepFailed } from './steps.ts';

export interface Attack {
  readonly name: string;
  /** Relative to the root of the project. */
  readonly file: string;
  readonly sent: string;
  readonly times: string;
  readonly outcome: string;
}

/** By file and place in it. @throws StepFailed naming every test that is not described, and every name used twice */
export function attacks(): Attack[] {
  const wrong: string[] = [];
  const found = SOURCES.flatMap(({ folder, extension }) =>
    readdirSync(join(PROJECT_ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith(extension))
      .sort()
      .flatMap((path) => attacksIn(join(PROJECT_ROOT, folder, path), wrong)),
  );
  const names = found.map(({ name }) => name);
  for (const name of new Set(names.filter((name, at) => names.indexOf(name) !== at))) {
    wrong.push(`two tests try the attack "${name}"`);
  }
  if (wrong.length > 0) throw new StepFailed(wrong.join('\n'));
  return found;
}

/** Rows of Markdown, for a page in docs/. */
export function attackTable(list: readonly Attack[]): string {
  const rows = list.map(
    ({ name, file, sent, times, outcome }) => `| [${name}](../${file}) | ${sent} | ${times} | ${outcome} |`,
  );
  return ['| attack | what is sent | how often | what happens |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

function attacksIn(path: string, wrong: string[]): Attack[] {
  const file = relative(PROJECT_ROOT, path);
  const lines = readFileSync(path, 'utf8').split('\n');
  const described = new Set<number>();
  const found: Attack[] = [];
  for (const [at, line] of lines.entries()) {
    const name = file.endsWith('.rs') ? rustName(lines, at) : typescriptName(line, lines[at + 1] ?? '');
    if (name === undefined) continue;
    const comment = commentAbove(lines, at);
    const [, sent, times, outcome] = DESCRIPTION.exec(comment.text) ?? [];
    if (sent === undefined || times === undefined || outcome === undefined) {
      wrong.push(`${file}:${at + 1}: nothing like "// Attack: what is sent | how often | what happens" above it`);
      continue;
    }
    described.add(comment.first);
    found.push({ name, file, sent, times, outcome });
  }
  for (const [at, line] of lines.entries()) {
    if (/^\s*\/\/+ Attack:/.test(line) && !described.has(at)) wrong.push(`${file}:${at + 1}: no attack follows`);
  }
  return found;
}

function rustName(lines: readonly string[], at: number): string | undefined {
  const name = /^\s*fn attack_(\w+)\(/.exec(lines[at] ?? '')?.[1];
  return /^\s*#\[test\]/.test(lines[at - 1] ?? '') ? name?.replaceAll('_', ' ') : undefined;
}

function typescriptName(line: string, next: string): string | undefined {
  const opening = /^\s*(?:test|it)\((.*)$/.exec(line)?.[1];
  if (opening === undefined) return undefined;
  const [, , name] = /^\s*(['"])attack: (.+?)\1/.exec(opening === '' ? next : opening) ?? [];
  return name;
}

/** The lines of comment that end above line `at` and the attributes of its test, as one text. */
function commentAbove(lines: readonly string[], at: number): { readonly first: number; readonly text: string } {
  let end = at;
  while (/^\s*#\[/.test(lines[end - 1] ?? '')) end -= 1;
  let first = end;
  while (/^\s*\/\//.test(lines[first - 1] ?? '')) first -= 1;
  const text = lines
    .slice(first, end)
    .map((line) => line.replace(/^\s*\/\/+\s*/, ''))
    .join(' ');
  return { first, text };
}

const SOURCES = [
  { folder: 'dataplane/src', extension: '.rs' },
  { folder: 'dataplane/tests', extension: '.rs' },
  { folder: 'test', extension: '.test.ts' },
] as const;

const DESCRIPTION = /^Attack: ([^|]+?) \| ([^|]+?) \| ([^|]+)$/;
