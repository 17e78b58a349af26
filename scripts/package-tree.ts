/**
 * What a package installs, as a folder: the program with the Node that it runs on and nothing else of npm's, the data
 * plane, units, examples and pages, laid out below a prefix (`bin`, `lib`, `share`). The Debian package and the tarball
 * hold the same. Two runs on the same inputs write the same octets: all times are those of SOURCE_DATE_EPOCH, or of the
 * last commit.
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { ensureDataplaneBuilt } from '../runtime/crate-build.ts';
import { PROJECT_ROOT, VERSION } from '../runtime/project-root.ts';
import { crateLicences } from './package-licences.ts';
import { removeStaleOutputs } from './remove-stale.ts';
import { run, StepFailed } from './steps.ts';

export interface PackageInputs {
  /** Of the package; package.json's unless a test wants the next one. */
  readonly version: string;
  /** The name that Debian has for the machine's architecture. */
  readonly architecture: 'amd64' | 'arm64';
  /** All files are from then; seconds. */
  readonly epoch: number;
  readonly node: string;
  readonly dataplane: string;
}

/** @throws StepFailed, CrateBuildError */
export async function packageInputs(version = VERSION): Promise<PackageInputs> {
  if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) throw new StepFailed(`${version} is no version`);
  const architecture = ARCHITECTURES.get(process.arch);
  if (architecture === undefined) throw new StepFailed(`there is no package for ${process.arch}`);
  const dataplane = await ensureDataplaneBuilt((line) => console.error(line));
  return { version, architecture, epoch: sourceDate(), node: packagedNode(), dataplane };
}

/** Writes everything below `prefix`, which must not exist yet. @throws StepFailed */
export function writeTree(prefix: string, inputs: PackageInputs): void {
  removeStaleOutputs();
  const root = (path: string): string => join(PROJECT_ROOT, path);
  const to = (path: string): string => join(prefix, path);

  copy(root('deploy/stayput'), to('bin/stayput'), 0o755);
  copy(inputs.node, to('lib/stayput/bin/node'), 0o755);
  copy(inputs.dataplane, to('bin/stayput-dataplane'), 0o755);
  run('strip', ['--strip-unneeded', to('lib/stayput/bin/node'), to('bin/stayput-dataplane')]);
  for (const part of PROGRAM) copyFolder(root(`dist/${part}`), to(`lib/stayput/dist/${part}`), isCode);
  write(to('lib/stayput/package.json'), `${JSON.stringify(manifest(inputs.version), null, 2)}\n`);
  for (const path of productionPackages()) copyFolder(root(path), to(`lib/stayput/${path}`), isNeeded, NOT_TO_RUN);

  for (const name of readdirSync(root('deploy/systemd'))) {
    const [, kind] = /^stayput\.(sysusers|tmpfiles)\.conf$/.exec(name) ?? [];
    copy(
      root(`deploy/systemd/${name}`),
      to(kind === undefined ? `lib/systemd/system/${name}` : `lib/${kind}.d/stayput.conf`),
    );
  }
  copy(root('deploy/networkmanager/stayput.conf'), to('lib/NetworkManager/conf.d/90-stayput.conf'));
  for (const entry of readdirSync(root('deploy'), { withFileTypes: true })) {
    if (!entry.isDirectory() || NO_EXAMPLES.has(entry.name)) continue;
    copyFolder(root(`deploy/${entry.name}`), to(`share/stayput/${entry.name}`), isExample, OF_TERRAFORM);
  }

  copyFolder(root('docs'), to('share/doc/stayput'), (path) => /\.(md|svg)$/.test(path));
  copy(root('CHANGELOG.md'), to('share/doc/stayput/CHANGELOG.md'));
  write(to('share/doc/stayput/licences/node.gz'), gzip(readFileSync(join(dirname(inputs.node), '../LICENSE'))));
  write(to('share/doc/stayput/licences/dataplane.gz'), gzip(crateLicences('dataplane')));
  writeManPages(to('share/man/man1'));
  for (const [shell, path] of Object.entries(COMPLETIONS)) {
    write(to(path), run(to('bin/stayput'), ['completion', shell]));
  }
}

/** Folders are 0755, and everything is from `epoch`. */
export function settle(folder: string, epoch: number): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) settle(path, epoch);
    else lutimesSync(path, epoch, epoch);
  }
  chmodSync(folder, 0o755);
  lutimesSync(folder, epoch, epoch);
}

export function copy(from: string, to: string, mode = 0o644): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, mode);
}

export function write(path: string, content: string | Uint8Array, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  chmodSync(path, mode);
}

export function gzip(content: string | Uint8Array): Uint8Array {
  return gzipSync(content, { level: 9 });
}

/** The Node that packages carry is the second one that the tests run on. */
function packagedNode(): string {
  const folder = join(PROJECT_ROOT, '.ci/second-node');
  const name = `node_modules/node-linux-${process.arch}`;
  const node = join(folder, name, 'bin/node');
  if (versionOf(join(folder, name, 'package.json')) !== lockedVersion(join(folder, 'package-lock.json'), name)) {
    console.error('fetching the Node that goes into packages');
    run('npm', ['ci', '--prefix', folder, '--no-audit', '--no-fund']);
  }
  if (!existsSync(node)) throw new StepFailed(`${basename(folder)} has no Node for ${process.arch}`);
  return node;
}

function lockedVersion(lock: string, name: string): string | undefined {
  const { packages } = JSON.parse(readFileSync(lock, 'utf8')) as { packages: Record<string, { version?: string }> };
  return packages[name]?.version;
}

/** Undefined when it is not installed. */
function versionOf(manifestPath: string): string | undefined {
  if (!existsSync(manifestPath)) return undefined;
  return (JSON.parse(readFileSync(manifestPath, 'utf8')) as { version?: string }).version;
}

function sourceDate(): number {
  const stated = process.env.SOURCE_DATE_EPOCH;
  const seconds = Number(stated ?? run('git', ['log', '-1', '--format=%ct'], { cwd: PROJECT_ROOT }));
  if (!Number.isSafeInteger(seconds) || seconds <= 0) throw new StepFailed('SOURCE_DATE_EPOCH is no number of seconds');
  // For dpkg-deb and the manual pages.
  process.env.SOURCE_DATE_EPOCH = String(seconds);
  return seconds;
}

function manifest(version: string): object {
  const { name, description, license, type, engines, dependencies } = JSON.parse(
    readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8'),
  ) as Record<string, unknown>;
  return { name, version, description, license, type, private: true, engines, dependencies };
}

/** `node_modules/NAME` of what runs; what is optional is for older Nodes than the packaged one. */
function productionPackages(): string[] {
  const { packages } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean; devOptional?: boolean }>;
  };
  return Object.entries(packages)
    .filter(([path, { dev, optional, devOptional }]) => path !== '' && !(dev || optional || devOptional))
    .map(([path]) => path);
}

function writeManPages(folder: string): void {
  const plain = mkdtempSync(join(tmpdir(), 'stayput-man-'));
  try {
    run(process.execPath, [join(PROJECT_ROOT, 'dist/scripts/man-pages.js'), plain]);
    for (const name of readdirSync(plain)) write(join(folder, `${name}.gz`), gzip(readFileSync(join(plain, name))));
  } finally {
    rmSync(plain, { recursive: true });
  }
}

function copyFolder(
  from: string,
  to: string,
  wanted: (path: string) => boolean,
  leftOut: ReadonlySet<string> = new Set(),
): void {
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const path = join(from, entry.name);
    if (entry.isDirectory()) {
      if (!leftOut.has(entry.name)) copyFolder(path, join(to, entry.name), wanted, leftOut);
    } else if (wanted(path)) {
      copy(path, join(to, entry.name), statSync(path).mode & 0o111 ? 0o755 : 0o644);
    }
  }
}

function isCode(path: string): boolean {
  return path.endsWith('.js');
}

/** Not what somebody left who tried a module or the role in place: state and variables may hold tokens. */
function isExample(path: string): boolean {
  return !/\.(tfstate|tfvars|tfplan)\b|\.terraform\.lock\.hcl$|\.retry$/.test(basename(path));
}

/** What is imported, and the licence; neither types, nor sources of what was compiled, nor programs. */
function isNeeded(path: string): boolean {
  if (basename(path) === 'bin.js') return false;
  return /\.(js|cjs|mjs|json)$/.test(path) || /^(licen[cs]e|notice|copying)/i.test(basename(path));
}

const ARCHITECTURES = new Map<string, PackageInputs['architecture']>([
  ['x64', 'amd64'],
  ['arm64', 'arm64'],
]);

/** The folders of dist/ that the installed program is made of. */
const PROGRAM = ['agent', 'cli', 'conform', 'mapserver', 'proto', 'runtime'] as const;

/** Folders of deploy/ that are installed elsewhere, or for those who build. */
const NO_EXAMPLES: ReadonlySet<string> = new Set(['container', 'debian', 'networkmanager', 'systemd']);

const OF_TERRAFORM: ReadonlySet<string> = new Set(['.terraform']);

/** Folders that npm packages have for those who work on them. */
const NOT_TO_RUN: ReadonlySet<string> = new Set([
  '.bin',
  '.github',
  'bench',
  'benchmarks',
  'docs',
  'examples',
  'node_modules',
  'test',
  'tests',
]);

const COMPLETIONS: Readonly<Record<string, string>> = {
  bash: 'share/bash-completion/completions/stayput',
  zsh: 'share/zsh/vendor-completions/_stayput',
  fish: 'share/fish/vendor_completions.d/stayput.fish',
};
