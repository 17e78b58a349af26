/** Under which licences everything that is built in or used for building may be used: those of an allow-list. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { run, StepFailed } from './steps.ts';

/** SPDX identifiers: licences that ask for no more than a notice. */
export const ALLOWED: ReadonlySet<string> = new Set([
  ...['MIT', 'MIT-0', 'Apache-2.0', 'Apache-2.0 WITH LLVM-exception', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause'],
  ...['0BSD', 'CC0-1.0', 'Unicode-3.0', 'Unlicense', 'NCSA'],
]);

export const NPM_LOCKS = ['package-lock.json', '.ci/second-node/package-lock.json'] as const;
export const CRATES = [
  'dataplane',
  'dataplane/fuzz',
  'bench/blaster',
  'bench/probe',
  'test/lab/delay-link',
  'test/lab/plain-xtr',
] as const;

export interface Dependency {
  readonly name: string;
  /** An SPDX expression, if it has one. */
  readonly licence: string | undefined;
}

/** @throws StepFailed naming what is not allowed */
export function checkLicences(): { readonly npm: number; readonly cargo: number } {
  const npm = NPM_LOCKS.flatMap((lock) => ofPackageLock(readFileSync(join(PROJECT_ROOT, lock), 'utf8')));
  const cargo = CRATES.flatMap(ofCrate);
  const refused = [...npm, ...cargo].filter(({ licence }) => licence === undefined || !isAllowed(licence));
  if (refused.length > 0) {
    const lines = refused.map(({ name, licence }) => `${name}: ${licence ?? 'no licence is stated'}`);
    throw new StepFailed(`licences that are not on the list in scripts/licences.ts:\n${lines.join('\n')}`);
  }
  return { npm: npm.length, cargo: cargo.length };
}

/** True when the expression leaves a choice of allowed licences only. @throws StepFailed when it is not one */
export function isAllowed(expression: string): boolean {
  const tokens = expression.replace(/\//g, ' OR ').match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const word = (expected: string): boolean => {
    if (tokens[at] !== expected) return false;
    at += 1;
    return true;
  };
  const all = (): boolean => {
    let allowed = one();
    while (word('AND')) allowed = one() && allowed;
    return allowed;
  };
  const any = (): boolean => {
    let allowed = all();
    while (word('OR')) allowed = all() || allowed;
    return allowed;
  };
  const one = (): boolean => {
    if (word('(')) {
      const allowed = any();
      if (!word(')')) throw new StepFailed(`"${expression}" is no licence expression`);
      return allowed;
    }
    const licence = tokens[at] ?? '';
    if (!/^[A-Za-z0-9][\w.+-]*$/.test(licence)) throw new StepFailed(`"${expression}" is no licence expression`);
    at += 1;
    if (!word('WITH')) return ALLOWED.has(licence);
    at += 1;
    return ALLOWED.has(`${licence} WITH ${tokens[at - 1]}`);
  };
  const allowed = any();
  if (at !== tokens.length) throw new StepFailed(`"${expression}" is no licence expression`);
  return allowed;
}

export function ofPackageLock(text: string): Dependency[] {
  const { packages } = JSON.parse(text) as { packages: Record<string, { license?: string }> };
  return Object.entries(packages)
    .filter(([path]) => path !== '')
    .map(([path, { license }]) => ({ name: path.replace(/^.*node_modules\//, ''), licence: license }));
}

/** Those of other people that this platform builds. */
function ofCrate(folder: string): Dependency[] {
  const target = /^host: (.*)$/m.exec(run('rustc', ['-vV']))?.[1] ?? '';
  const options = ['--locked', '--format-version', '1', '--filter-platform', target];
  const manifest = join(PROJECT_ROOT, folder, 'Cargo.toml');
  const { packages } = JSON.parse(run('cargo', ['metadata', ...options, '--manifest-path', manifest])) as {
    packages: { name: string; license: string | null; source: string | null }[];
  };
  return packages
    .filter(({ source }) => source !== null)
    .map(({ name, license }) => ({ name, licence: license ?? undefined }));
}
