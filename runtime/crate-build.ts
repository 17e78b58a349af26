/** Building the crates of a checkout: once, and again only when their source has changed. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { StayputError } from '../proto/errors.ts';
import { findProgram } from './programs.ts';
import { PROJECT_ROOT } from './project-root.ts';

export class CrateBuildError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_CRATE_BUILD', message, options);
  }
}

/** A program made by cargo in this repository. */
export interface Crate {
  /** From the project's root. */
  readonly folder: string;
  readonly binary: string;
  /** What it is, for people who wait for it. */
  readonly what: string;
  /** A build with this feature, in a target folder of its own. */
  readonly feature?: string;
  /** The feature without which this binary is not made; the crate's others are the same with it. */
  readonly addedBy?: string;
}

const DATAPLANE: Crate = {
  folder: 'dataplane',
  binary: 'stayput-dataplane',
  what: 'the data plane (once; a few minutes on a small machine)',
};

/** The data plane's release binary, if it is there and newer than everything it is made from. */
export function dataplaneBinary(): string | undefined {
  return builtBinary(DATAPLANE);
}

/** @throws CrateBuildError with the compiler's last lines */
export function ensureDataplaneBuilt(progress: (line: string) => void): Promise<string> {
  return ensureCrateBuilt(DATAPLANE, progress);
}

/** The data plane that forwards without encryption, which talks to nobody but its like. @throws CrateBuildError */
export function ensurePlaintextDataplaneBuilt(progress: (line: string) => void): Promise<string> {
  const what = 'the data plane without encryption (once; a few minutes on a small machine)';
  return ensureCrateBuilt({ ...DATAPLANE, what, feature: 'bench-plaintext' }, progress);
}

/**
 * Builds the release binary if needed and returns its path. `progress` gets cargo's lines as they come. Two builds at
 * once are kept apart by cargo's own lock on the target folder; the second one then finds nothing to do.
 *
 * @throws CrateBuildError with the compiler's last lines
 */
export async function ensureCrateBuilt(crate: Crate, progress: (line: string) => void): Promise<string> {
  const present = builtBinary(crate);
  if (present !== undefined) return present;
  progress(`building ${crate.what}`);
  const feature = crate.feature === undefined ? [] : ['--features', crate.feature, '--target-dir', targetFolder(crate)];
  const added = crate.addedBy === undefined ? [] : ['--features', crate.addedBy, '--bin', crate.binary];
  await runCargo(['build', '--release', '--locked', ...feature, ...added], progress, crate.folder);
  const binary = binaryPath(crate);
  if (!existsSync(binary)) throw new CrateBuildError(`cargo made no ${binary}`);
  return binary;
}

function builtBinary(crate: Crate): string | undefined {
  const folder = join(PROJECT_ROOT, crate.folder);
  const binary = binaryPath(crate);
  const built = modified(binary);
  if (built === undefined) return undefined;
  const sources = [join(folder, 'Cargo.toml'), join(folder, 'Cargo.lock'), ...filesBelow(join(folder, 'src'))];
  return sources.every((source) => (modified(source) ?? 0) <= built) ? binary : undefined;
}

function binaryPath(crate: Crate): string {
  return join(PROJECT_ROOT, crate.folder, targetFolder(crate), 'release', crate.binary);
}

function targetFolder(crate: Crate): string {
  return crate.feature === undefined ? 'target' : join('target', crate.feature);
}

/**
 * Runs cargo in the folder of a crate, the data plane's unless another is named. @throws CrateBuildError with the last
 * lines it printed
 */
export function runCargo(
  args: readonly string[],
  progress: (line: string) => void,
  folder = DATAPLANE.folder,
): Promise<void> {
  const cargo = findProgram('cargo');
  if (cargo === undefined) throw new CrateBuildError('cargo not found: install Rust with rustup (https://rustup.rs)');
  const child = spawn(cargo, args, {
    cwd: join(PROJECT_ROOT, folder),
    stdio: ['ignore', 'pipe', 'pipe'],
    // rustup's cargo finds rustc through PATH, which need not hold ~/.cargo/bin.
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:${dirname(cargo)}`, CARGO_TARGET_DIR: 'target' },
  });
  const last: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      last.push(line);
      if (last.length > LAST_LINES) last.shift();
      progress(line);
    });
  }
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(new CrateBuildError(`cargo: ${cause.message}`, { cause })));
    child.once('close', (code) => {
      if (code === 0) resolve();
      else reject(new CrateBuildError(`cargo ${args.join(' ')} failed:\n${last.join('\n')}`));
    });
  });
}

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

function modified(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}

const LAST_LINES = 120;
