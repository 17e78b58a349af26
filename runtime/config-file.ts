/** Configuration files: JSON against a strict zod schema. Wrong ones end in one line that names the key. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { UsageError } from '../proto/errors.ts';
import { firstIssue } from './json-file.ts';
import { lineAt, linesOfValues } from './json-lines.ts';

/**
 * Reads `path` and applies the schema's defaults. A missing file is an error only if `required`; otherwise the
 * defaults are used. Keys in `overrides` (from flags) win over the file; undefined ones are left out.
 *
 * @throws UsageError
 */
export function loadConfig<T extends z.ZodObject>(
  schema: T,
  path: string,
  options: { readonly required: boolean; readonly overrides?: Readonly<Record<string, unknown>> },
): z.output<T> {
  return parseConfig(schema, path, readConfigText(path, options.required), options.overrides);
}

/** The same for the file's text; `path` is for the message. @throws UsageError */
export function parseConfig<T extends z.ZodObject>(
  schema: T,
  path: string,
  text: string,
  wins: Readonly<Record<string, unknown>> = {},
): z.output<T> {
  const fromFile = configObject(path, text);
  const overrides = Object.entries(wins).filter(([, value]) => value !== undefined);
  const { $schema: _ignored, ...values } = { ...fromFile, ...Object.fromEntries(overrides) } as Record<string, unknown>;
  const parsed = schema.safeParse(values);
  if (parsed.success) return parsed.data;
  throw new UsageError(`${path}: ${oneLine(describe(schema, parsed.error))}`);
}

export interface ConfigProblem {
  /** From 1; null when it is not in the file (a key that is missing). */
  readonly line: number | null;
  /** As `dns.zones.0.zone`; empty for the file as a whole. */
  readonly key: string;
  readonly problem: string;
}

/** Everything that is wrong with a configuration file, in the order of its lines. @throws UsageError when it cannot be read */
export function configProblems(schema: z.ZodObject, path: string): readonly ConfigProblem[] {
  const text = readConfigText(path, true);
  let whole: Record<string, unknown>;
  try {
    whole = configObject(path, text);
  } catch (error) {
    const problem = (error as Error).message.slice(`${path}: `.length);
    const at = /at position (\d+)/.exec(problem);
    return [{ line: at === null ? null : lineAt(text, Number(at[1])), key: '', problem }];
  }
  const { $schema: _ignored, ...values } = whole;
  const parsed = schema.safeParse(values);
  const lines = linesOfValues(text);
  const problems = (parsed.error?.issues ?? []).flatMap((issue) => problemsOf(schema, issue));
  return problems
    .map((each) => ({ line: lines.get(each.key) ?? null, ...each }))
    .sort((a, b) => (a.line ?? Number.MAX_SAFE_INTEGER) - (b.line ?? Number.MAX_SAFE_INTEGER));
}

/** The candidate that differs from `word` by the fewest edits, if by at most a third of its length. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const most = Math.max(2, Math.ceil(word.length / 3));
  const ranked = candidates
    // Lengths that differ by so much need as many edits, without counting them.
    .filter((candidate) => Math.abs(candidate.length - word.length) <= most)
    .map((candidate) => ({ candidate, distance: editDistance(word.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  return best !== undefined && best.distance <= most ? best.candidate : undefined;
}

function readConfigText(path: string, required: boolean): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (!required && (cause as NodeJS.ErrnoException).code === 'ENOENT') return '{}';
    throw new UsageError(`${path}: cannot be read (${oneLine((cause as Error).message)})`, { cause });
  }
}

function configObject(path: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UsageError(`${path}: not valid JSON (${oneLine((cause as Error).message)})`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new UsageError(`${path}: the configuration must be one JSON object`);
  }
  return value as Record<string, unknown>;
}

function describe(schema: z.ZodType, error: z.ZodError): string {
  const unknown = error.issues.find((issue) => issue.code === 'unrecognized_keys');
  const [first] = unknown === undefined ? [] : problemsOf(schema, unknown);
  return first?.problem ?? firstIssue(error);
}

function problemsOf(schema: z.ZodType, issue: z.core.$ZodIssue): { readonly key: string; readonly problem: string }[] {
  if (issue.code !== 'unrecognized_keys') return [{ key: issue.path.join('.'), problem: oneLine(issue.message) }];
  const at = (name: string): string => [...issue.path, name].join('.');
  return issue.keys.map((key) => {
    const near = nearest(key, keysAt(schema, issue.path));
    const problem = `unknown key "${at(key)}"${near === undefined ? '' : `; did you mean "${at(near)}"?`}`;
    return { key: at(key), problem: oneLine(problem) };
  });
}

/** The keys that the schema knows for the object at `path`. */
function keysAt(schema: unknown, path: readonly PropertyKey[]): string[] {
  if (schema instanceof z.ZodObject) {
    const [first, ...rest] = path;
    return first === undefined ? Object.keys(schema.shape) : keysAt(schema.shape[String(first)], rest);
  }
  if (schema instanceof z.ZodArray) return keysAt(schema.element, path.slice(1));
  if (schema instanceof z.ZodRecord) return keysAt(schema.valueType, path.slice(1));
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional) {
    return keysAt(schema.unwrap(), path);
  }
  return [];
}

/** Keys and parser messages may quote anything from the file. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ');
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
