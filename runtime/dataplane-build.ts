/** Building the data plane's crate from a checkout: once, and again only when its source has changed. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { StayputError } from '../proto/errors.ts';
import { findProgram } from './programs.ts';
import { PROJECT_ROOT } from './project-root.ts';

export class DataplaneBuildError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_DATAPLANE_BUILD', message, options);
  }
}

/** The release binary, if it is there and newer than everything it is made from. */
export function dataplaneBinary(): string | undefined {
  const crate = join(PROJECT_ROOT, 'dataplane');
  const binary = join(crate, 'target', 'release', 'stayput-dataplane');
  const built = modified(binary);
  if (built === undefined) return undefined;
  const sources = [join(crate, 'Cargo.toml'), join(crate, 'Cargo.lock'), ...filesBelow(join(crate, 'src'))];
  return sources.every((source) => (modified(source) ?? 0) <= built) ? binary : undefined;
}

/**
 * Builds the release binary if needed and returns its path. `progress` gets cargo's lines as they come. Two builds at
 * once are kept apart by cargo's own lock on the target folder; the second one then finds nothing to do.
 *
 * @throws DataplaneBuildError with the compiler's last lines
 */
export async function ensureDataplaneBuilt(progress: (line: string) => void): Promise<string> {
  const present = dataplaneBinary();
  if (present !== undefined) return present;
  progress('building the data plane (once; a few minutes on a small machine)');
  await runCargo(['build', '--release', '--locked'], progress);
  const binary = join(PROJECT_ROOT, 'dataplane', 'target', 'release', 'stayput-dataplane');
  if (!existsSync(binary)) throw new DataplaneBuildError(`cargo made no ${binary}`);
  return binary;
}

/** Runs cargo on the crate. @throws DataplaneBuildError with the last lines it printed */
export function runCargo(args: readonly string[], progress: (line: string) => void): Promise<void> {
  const cargo = findProgram('cargo');
  if (cargo === undefined)
    throw new DataplaneBuildError('cargo not found: install Rust with rustup (https://rustup.rs)');
  const child = spawn(cargo, args, {
    cwd: join(PROJECT_ROOT, 'dataplane'),
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
    child.once('error', (cause) => reject(new DataplaneBuildError(`cargo: ${cause.message}`, { cause })));
    child.once('close', (code) => {
      if (code === 0) resolve();
      else reject(new DataplaneBuildError(`cargo ${args.join(' ')} failed:\n${last.join('\n')}`));
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

const LAST_LINES = 30;
