/**
 * `npm run package:deb`: the Debian package, without root and without debhelper.
 * `--version X` makes another version of the same tree, `--quick` hardly compresses, `--output FOLDER` is instead of
 * build/packages. Prints the path of the package.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { type PackageOptions, packageOptions } from './package-options.ts';
import { copy, gzip, type PackageInputs, packageInputs, settle, write, writeTree } from './package-tree.ts';
import { run, runScript } from './steps.ts';

await runScript(async () => {
  const options = packageOptions();
  const inputs = await packageInputs(options.version);
  const staging = mkdtempSync(join(tmpdir(), 'stayput-deb-'));
  try {
    console.log(build(inputs, staging, options));
  } finally {
    rmSync(staging, { recursive: true });
  }
});

function build(inputs: PackageInputs, root: string, { output, quick }: PackageOptions): string {
  const source = (name: string): string => join(PROJECT_ROOT, 'deploy/debian', name);
  const version = inputs.version.replace('-', '~');
  writeTree(join(root, 'usr'), inputs);
  copy(source('copyright'), join(root, 'usr/share/doc/stayput/copyright'));
  write(join(root, 'usr/share/doc/stayput/changelog.gz'), gzip(debianChangelog(version, inputs.epoch)));
  copy(source('lintian-overrides'), join(root, 'usr/share/lintian/overrides/stayput'));
  copy(source('dataplane.env'), join(root, 'etc/stayput/dataplane.env'));

  const files = filesBelow(root);
  const installed = files.filter((path) => !path.startsWith('DEBIAN/'));
  const fields: Readonly<Record<string, string>> = {
    VERSION: version,
    ARCHITECTURE: inputs.architecture,
    SIZE: String(Math.ceil(files.reduce((sum, path) => sum + statSync(join(root, path)).size, 0) / 1024)),
    DEPENDS: sharedLibraries(root),
  };
  const control = readFileSync(source('control'), 'utf8');
  write(
    join(root, 'DEBIAN/control'),
    control.replace(/@([A-Z]+)@/g, (_, name: string) => fields[name] ?? ''),
  );
  write(
    join(root, 'DEBIAN/conffiles'),
    installed
      .filter((path) => path.startsWith('etc/'))
      .map((path) => `/${path}\n`)
      .join(''),
  );
  write(
    join(root, 'DEBIAN/md5sums'),
    installed
      .filter((path) => !path.startsWith('etc/'))
      .map((path) => `${md5(join(root, path))}  ${path}\n`)
      .join(''),
  );
  for (const script of ['preinst', 'postinst', 'prerm', 'postrm'])
    copy(source(script), join(root, 'DEBIAN', script), 0o755);

  settle(root, inputs.epoch);
  mkdirSync(output, { recursive: true });
  const deb = join(output, `stayput_${version}_${inputs.architecture}.deb`);
  const compression = quick ? ['-Zgzip', '-z1'] : ['-Zxz', '-z6'];
  // As a variable: the option is unknown to dpkg before 1.21.9, as Ubuntu 22.04 has it.
  process.env.DPKG_DEB_THREADS_MAX = '2';
  run('dpkg-deb', ['--root-owner-group', ...compression, '--build', root, deb]);
  return deb;
}

/** The packages whose libraries the two programs are linked with, in the versions that they need. */
function sharedLibraries(root: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-shlibs-'));
  try {
    write(join(folder, 'debian/control'), 'Source: stayput\n\nPackage: stayput\nArchitecture: any\n');
    const programs = ['usr/lib/stayput/bin/node', 'usr/bin/stayput-dataplane'].map((path) => join(root, path));
    const printed = run('dpkg-shlibdeps', ['-O', ...programs.map((path) => `-e${path}`)], { cwd: folder });
    return /^shlibs:Depends=(.*)$/m.exec(printed)?.[1] ?? 'libc6';
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function debianChangelog(version: string, epoch: number): string {
  const control = readFileSync(join(PROJECT_ROOT, 'deploy/debian/control'), 'utf8');
  const maintainer = /^Maintainer: (.*)$/m.exec(control)?.[1];
  const date = new Date(epoch * 1000).toUTCString().replace('GMT', '+0000');
  return `stayput (${version}) stable; urgency=medium\n\n  * What is new is in CHANGELOG.md.\n\n -- ${maintainer}  ${date}\n`;
}

function md5(path: string): string {
  return createHash('md5').update(readFileSync(path)).digest('hex');
}

/** Sorted, from `root`. */
function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}
