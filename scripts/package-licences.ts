/** The licences of the crates that are linked into a program, in full, as those who distribute it have to pass them on. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { run } from './steps.ts';

export function crateLicences(folder: string): string {
  const target = /^host: (.*)$/m.exec(run('rustc', ['-vV']))?.[1] ?? '';
  const manifest = join(PROJECT_ROOT, folder, 'Cargo.toml');
  const options = ['--locked', '--format-version', '1', '--filter-platform', target, '--manifest-path', manifest];
  const { packages, resolve } = JSON.parse(run('cargo', ['metadata', ...options])) as CargoMetadata;
  const edges = new Map(resolve.nodes.map(({ id, deps }) => [id, deps]));
  const linked = new Set<string>([resolve.root]);
  for (const id of linked) {
    for (const { pkg, dep_kinds } of edges.get(id) ?? []) {
      if (dep_kinds.some(({ kind }) => kind === null)) linked.add(pkg);
    }
  }
  return packages
    .filter(({ id, source }) => source !== null && linked.has(id))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((each) => `== ${each.name} ${each.version}: ${each.license ?? ''}\n\n${texts(dirname(each.manifest_path))}`)
    .join('\n');
}

function texts(folder: string): string {
  if (!existsSync(folder)) return '';
  return readdirSync(folder)
    .filter((name) => /^(licen[cs]e|notice|copying|copyright)/i.test(name) && !/\.(rs|html)$/.test(name))
    .sort()
    .map((name) => join(folder, name))
    .filter((path) => !path.endsWith('.d'))
    .map((path) => `${readFileSync(path, 'utf8').trim()}\n`)
    .join('\n');
}

interface CargoMetadata {
  readonly packages: readonly {
    readonly id: string;
    readonly name: string;
    readonly version: string;
    readonly license: string | null;
    readonly source: string | null;
    readonly manifest_path: string;
  }[];
  readonly resolve: {
    readonly root: string;
    readonly nodes: readonly {
      readonly id: string;
      readonly deps: readonly {
        readonly pkg: string;
        readonly dep_kinds: readonly { readonly kind: string | null }[];
      }[];
    }[];
  };
}
