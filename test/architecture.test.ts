/** The rules of ARCHITECTURE.md that a machine can check: who may import whom, and what the cores never touch. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { CAPABILITY } from '../proto/capability.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';

interface Import {
  readonly specifier: string;
  /** Erased by the compiler, so it cannot close a cycle at run time. */
  readonly typeOnly: boolean;
}

interface Source {
  readonly path: string;
  readonly text: string;
  /** Without comments and the contents of strings. */
  readonly code: string;
  readonly imports: readonly Import[];
}

const FOLDERS = ['agent', 'bench', 'cli', 'conform', 'mapserver', 'proto', 'runtime', 'scripts', 'test'];

/** First match wins; `may` lists the layers (and `npm`, `node`) whose modules this layer may import. */
const LAYERS: readonly { readonly name: string; readonly match: RegExp; readonly may: readonly string[] }[] = [
  { name: 'proto', match: /^proto\//, may: ['proto'] },
  { name: 'agent/core', match: /^agent\/core\//, may: ['agent/core', 'proto'] },
  { name: 'mapserver/core', match: /^mapserver\/core\//, may: ['mapserver/core', 'proto'] },
  { name: 'runtime', match: /^runtime\//, may: ['runtime', 'proto', 'npm', 'node'] },
  {
    name: 'mapserver/store',
    match: /^mapserver\/store\//,
    may: ['mapserver/store', 'proto', 'runtime', 'npm', 'node'],
  },
  { name: 'agent/platform', match: /^agent\/platform\//, may: ['agent/platform', 'proto', 'runtime', 'npm', 'node'] },
  {
    name: 'agent/main',
    match: /^agent\/main\.ts$/,
    may: ['agent', 'agent/core', 'agent/platform', 'proto', 'runtime', 'npm', 'node'],
  },
  {
    name: 'mapserver/main',
    match: /^mapserver\/main\.ts$/,
    may: ['mapserver', 'mapserver/core', 'mapserver/store', 'proto', 'runtime', 'npm', 'node'],
  },
  {
    name: 'agent',
    match: /^agent\//,
    may: ['agent', 'agent/core', 'agent/platform', 'proto', 'runtime', 'npm', 'node'],
  },
  {
    name: 'mapserver',
    match: /^mapserver\//,
    may: ['mapserver', 'mapserver/core', 'mapserver/store', 'proto', 'runtime', 'npm', 'node'],
  },
  // These start the daemons and do what needs no running one (join, init, backup).
  {
    name: 'cli: agent',
    match: /^cli\/commands\/(agent|agent-join|bugreport|dns|doctor)\.ts$/,
    may: ['cli', 'cli: agent', 'agent/main', 'agent', 'agent/platform', 'proto', 'runtime', 'npm', 'node'],
  },
  {
    name: 'cli: mapserver',
    match: /^cli\/commands\/(mapserver|policy|audit|backup)\.ts$/,
    may: ['cli', 'mapserver/main', 'mapserver', 'proto', 'runtime', 'npm', 'node'],
  },
  {
    name: 'cli',
    match: /^cli\//,
    may: ['cli', 'cli: agent', 'cli: mapserver', 'bench', 'conform', 'lab', 'proto', 'runtime', 'npm', 'node'],
  },
  { name: 'conform', match: /^conform\//, may: ['conform', 'proto', 'runtime', 'npm', 'node'] },
  { name: 'bench', match: /^bench\//, may: ['bench', 'lab', 'proto', 'runtime', 'npm', 'node'] },
  // Recorded in the laboratory, drawn with what the benchmarks draw with.
  {
    name: 'scripts: pictures',
    match: /^scripts\/(dashboard-pictures|dashboards\/(picture|recording))\.ts$/,
    may: ['scripts: pictures', 'scripts', 'bench', 'lab', 'runtime', 'node'],
  },
  // Removes what the laboratories of tests that had to be killed left behind.
  {
    name: 'scripts: ending',
    match: /^scripts\/(ending|process-tree)\.ts$/,
    may: ['scripts: ending', 'lab', 'node'],
  },
  {
    name: 'scripts',
    match: /^scripts\//,
    may: ['scripts', 'scripts: ending', 'cli', 'proto', 'runtime', 'npm', 'node'],
  },
  { name: 'lab', match: /^test\/lab\/(?!.*\.test\.ts$)/, may: ['lab', 'proto', 'runtime', 'npm', 'node'] },
];

/** Identities and the authentication of messages: where proto needs hashes and ciphers. */
const CRYPTO_IN_PROTO = new Set([
  'proto/identity.ts',
  'proto/lisp/authentication.ts',
  'proto/lisp/lisp-sec.ts',
  'proto/dns/tsig.ts',
]);

/** An address may be an LCAF, and an LCAF holds addresses: the format is recursive, and so are its codecs. */
const RECURSIVE_FORMATS = new Set(['proto/lisp/afi.ts → proto/lisp/lcaf.ts → proto/lisp/afi.ts']);

const IMPURE =
  /\b(Date\.now|Math\.random|performance\.now|new Date\(\s*\)|setTimeout|setInterval|setImmediate|queueMicrotask|process\.|console\.|fetch\()/;

const FILE_LINES = 600;

const sources: readonly Source[] = FOLDERS.flatMap((folder) => filesBelow(folder, '.ts')).map(readSource);

test('imports only go down the layers', () => {
  const wrong: string[] = [];
  for (const { path, imports } of sources) {
    const layer = layerOf(path);
    if (layer === undefined) continue;
    for (const { specifier } of imports) {
      const target = targetOf(path, specifier);
      const allowed = target === layer.name || layer.may.includes(target) || exceptional(path, specifier);
      if (!allowed) wrong.push(`${path} imports ${specifier} (${layer.name} may not import ${target})`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('proto and the cores have no clock, randomness, timer, process or console of their own', () => {
  const wrong = sources
    .filter(({ path }) => isPure(path))
    .flatMap(({ path, code }) =>
      code.split('\n').flatMap((line, i) => (IMPURE.test(line) ? [`${path}:${i + 1}: ${line.trim()}`] : [])),
    );
  assert.deepEqual(wrong, []);
});

test('no module imports itself through others', () => {
  const graph = new Map(
    sources.map(({ path, imports }) => [
      path,
      imports
        .filter(({ specifier, typeOnly }) => specifier.startsWith('.') && !typeOnly)
        .map(({ specifier }) => join(dirname(path), specifier)),
    ]),
  );
  assert.deepEqual(
    cycles(graph).filter((cycle) => !RECURSIVE_FORMATS.has(cycle)),
    [],
  );
});

test('every import of a file of ours names an existing file with its .ts extension', () => {
  const wrong = sources.flatMap(({ path, imports }) =>
    imports
      .filter(({ specifier }) => specifier.startsWith('.'))
      .filter(({ specifier }) => !existsSync(join(PROJECT_ROOT, dirname(path), specifier)))
      .map(({ specifier }) => `${path}: ${specifier}`),
  );
  assert.deepEqual(wrong, []);
});

test('the reader of imports sees every form of them, and nothing else', () => {
  const text = [
    "import a from './a.ts';",
    "import { b,\n  c } from './b.ts';",
    "import type { D } from './d.ts';",
    "export * from './e.ts';",
    "import './f.ts';",
    "// import x from './x.ts';",
    "export const word = 'from';",
    `const g = ${'import'}('./g.ts');`,
  ].join('\n');
  const seen = importsOf(text).map(({ specifier, typeOnly }) => `${specifier}${typeOnly ? ' type' : ''}`);
  assert.deepEqual(seen.sort(), ['./a.ts', './b.ts', './d.ts type', './e.ts', './f.ts', './g.ts']);
});

test('files are named after a noun, in kebab-case', () => {
  const wrong = sources
    .map(({ path }) => path)
    .filter((path) => !/\/[a-z0-9]+(-[a-z0-9]+)*(\.test)?\.ts$/.test(`/${path}`) || FORBIDDEN_NAMES.test(path));
  assert.deepEqual(wrong, []);
});

test('long files are pointed out', (t) => {
  for (const { path, text } of sources) {
    const lines = text.split('\n').length;
    if (lines > FILE_LINES) t.diagnostic(`${path} has ${lines} lines; above ${FILE_LINES} consider splitting it`);
  }
});

test('every package that is imported is a dependency, of the right kind', () => {
  const manifest = readJson('package.json');
  const shipped = { ...manifest.dependencies, ...manifest.optionalDependencies };
  const wrong = sources.flatMap(({ path, imports }) =>
    imports
      .filter(({ specifier }) => !specifier.startsWith('.') && !specifier.startsWith('node:'))
      .map(({ specifier }) => specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/'))
      .filter(
        (name) => !(name in shipped) && !(/^(test|scripts|bench)\//.test(path) && name in manifest.devDependencies),
      )
      .map((name) => `${path}: ${name}`),
  );
  assert.deepEqual(wrong, []);
});

test('lock files and settings name no registry', () => {
  assert.doesNotMatch(read('package-lock.json'), /"resolved"|\.tgz"/);
  assert.doesNotMatch(read('.ci/second-node/package-lock.json'), /"resolved"|\.tgz"/);
  assert.equal(read('.npmrc').trim(), 'omit-lockfile-registry-resolved=true');
  if (!existsSync(join(PROJECT_ROOT, 'dataplane/Cargo.lock'))) return;
  const origins = [...read('dataplane/Cargo.lock').matchAll(/^source = "(.*)"$/gm)].map((match) => match[1]);
  assert.deepEqual([...new Set(origins)], ['registry+https://github.com/rust-lang/crates.io-index']);
});

test('the lock file holds every optional package, for all platforms: npm ci refuses it otherwise', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const wrong = Object.values(packages)
    .flatMap(({ optionalDependencies }) => Object.keys(optionalDependencies ?? {}))
    .filter((name) => !(`node_modules/${name}` in packages));
  assert.deepEqual(wrong, []);
});

test('no package brings a program called node, which npm would run the scripts with', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { bin?: Record<string, string> }>;
  };
  assert.deepEqual(
    Object.keys(packages).filter((name) => packages[name]?.bin?.node !== undefined),
    [],
  );
});

test('the version is the same wherever it is written', () => {
  const { version } = readJson('package.json');
  assert.equal(readJson('package-lock.json').version, version);
  assert.match(read('CHANGELOG.md'), /^## \[Unreleased\]$/m);
  if (!existsSync(join(PROJECT_ROOT, 'dataplane/Cargo.toml'))) return;
  assert.equal(/^version\s*=\s*"(.*)"$/m.exec(read('dataplane/Cargo.toml'))?.[1], version);
});

test('every increment of the capability number has a dated line, and the data plane speaks the same one', () => {
  const history = [...read('proto/capability.ts').matchAll(/^ \* (\d+) {2}(\d{4}-\d\d-\d\d) {2}\S/gm)];
  assert.deepEqual(
    history.map((match) => Number(match[1])),
    Array.from({ length: CAPABILITY }, (_, i) => i + 1),
  );
  const dates = history.map((match) => match[2] ?? '');
  assert.deepEqual(dates, [...dates].sort());
  const rust = filesBelow('dataplane/src', '.rs')
    .map((path) => /\bconst CAPABILITY\s*:\s*\w+\s*=\s*(\d+)/.exec(read(path))?.[1])
    .filter((number) => number !== undefined);
  for (const number of rust) assert.equal(Number(number), CAPABILITY);
});

function layerOf(path: string): (typeof LAYERS)[number] | undefined {
  return LAYERS.find(({ match }) => match.test(path));
}

function targetOf(path: string, specifier: string): string {
  if (specifier.startsWith('node:')) return 'node';
  if (!specifier.startsWith('.')) return 'npm';
  const target = join(dirname(path), specifier);
  return layerOf(target)?.name ?? target.split('/')[0] ?? target;
}

function exceptional(path: string, specifier: string): boolean {
  return CRYPTO_IN_PROTO.has(path) && specifier === 'node:crypto';
}

function isPure(path: string): boolean {
  return /^(proto|agent\/core|mapserver\/core)\//.test(path);
}

/** Each cycle once, as `a → b → a`. */
function cycles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) {
      found.push([...trail.slice(at), path].join(' → '));
      return;
    }
    if (done.has(path)) return;
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path]);
    done.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return found;
}

function readSource(path: string): Source {
  const text = read(path);
  const code = blank(text);
  return { path, text, code, imports: importsOf(text) };
}

function importsOf(text: string): Import[] {
  const bare = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const statics = [
    ...bare.matchAll(/^(?:import|export)\s+(type\s)?[\w*{][^;'"=()]*?\bfrom\s*['"]([^'"]+)['"]/gm),
    ...bare.matchAll(/^import\s+()['"]([^'"]+)['"]/gm),
  ];
  const dynamics = [...bare.matchAll(/\b(?:import|require)\(\s*['"]([^'"]+)['"]\s*\)/g)];
  return [
    ...statics.map((match) => ({ specifier: match[2] ?? '', typeOnly: match[1]?.startsWith('type') ?? false })),
    ...dynamics.map((match) => ({ specifier: match[1] ?? '', typeOnly: false })),
  ];
}

/** Comments and string contents replaced by spaces; lines stay where they are. */
function blank(text: string): string {
  const pattern = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/g;
  return text.replace(pattern, (match) => match.replace(/[^\n]/g, ' '));
}

function filesBelow(folder: string, extension: string): string[] {
  const root = join(PROJECT_ROOT, folder);
  if (!existsSync(root)) return [];
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(extension))
    .map((entry) => relative(PROJECT_ROOT, join(entry.parentPath, entry.name)))
    .sort();
}

function read(path: string): string {
  return readFileSync(join(PROJECT_ROOT, path), 'utf8');
}

function readJson(path: string): Record<'dependencies' | 'devDependencies' | 'optionalDependencies', object> & {
  readonly version: string;
} {
  return JSON.parse(read(path)) as ReturnType<typeof readJson>;
}

const FORBIDDEN_NAMES = /\/(utils?|helpers?|common|misc|[a-z-]*manager)\.ts$/;
