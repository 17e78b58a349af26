/**
 * A Debian package as small as can be in the place of the real one, which takes minutes to make: units, users and the
 * package's own scripts, and programs that run this build.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';

/** Its path, in `folder`. */
export function smallPackage(folder: string, dataplane: string, version = '0.1.0'): string {
  const tree = mkdtempSync(join(folder, 'package-'));
  chmodSync(tree, 0o755);
  for (const each of [
    'DEBIAN',
    'usr/bin',
    'usr/lib/systemd/system',
    'usr/lib/sysusers.d',
    'usr/lib/tmpfiles.d',
    'etc/stayput',
  ]) {
    mkdirSync(join(tree, each), { recursive: true });
  }
  const program = `#!/bin/sh\nexec ${process.execPath} ${join(PROJECT_ROOT, 'dist/cli/main.js')} "$@"\n`;
  writeFileSync(join(tree, 'usr/bin/stayput'), program, { mode: 0o755 });
  copyFileSync(dataplane, join(tree, 'usr/bin/stayput-dataplane'));
  const deploy = join(PROJECT_ROOT, 'deploy');
  for (const unit of readdirSync(join(deploy, 'systemd')).filter((name) => /\.(service|socket)$/.test(name))) {
    cpSync(join(deploy, 'systemd', unit), join(tree, 'usr/lib/systemd/system', unit));
  }
  cpSync(join(deploy, 'systemd/stayput.sysusers.conf'), join(tree, 'usr/lib/sysusers.d/stayput.conf'));
  cpSync(join(deploy, 'systemd/stayput.tmpfiles.conf'), join(tree, 'usr/lib/tmpfiles.d/stayput.conf'));
  cpSync(join(deploy, 'debian/dataplane.env'), join(tree, 'etc/stayput/dataplane.env'));
  for (const script of ['preinst', 'postinst', 'prerm', 'postrm']) {
    copyFileSync(join(deploy, 'debian', script), join(tree, 'DEBIAN', script));
    chmodSync(join(tree, 'DEBIAN', script), 0o755);
  }
  writeFileSync(
    join(tree, 'DEBIAN/control'),
    `Package: stayput\nVersion: ${version}\nArchitecture: all\nMaintainer: tests\nDescription: Stayput as built here\n`,
  );
  const file = join(folder, `stayput_${version}_all.deb`);
  execFileSync('dpkg-deb', ['--root-owner-group', '-Zgzip', '-z1', '--build', tree, file], { stdio: 'ignore' });
  return file;
}
