/**
 * `npm run package:tarball`: what the Debian package has, for other distributions, with an installer. Options as those of
 * package-deb. Prints the path of the tarball.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { packageOptions } from './package-options.ts';
import { copy, packageInputs, settle, writeTree } from './package-tree.ts';
import { run, runScript } from './steps.ts';

await runScript(async () => {
  const options = packageOptions();
  const inputs = await packageInputs(options.version);
  const staging = mkdtempSync(join(tmpdir(), 'stayput-tarball-'));
  try {
    const name = `stayput-${inputs.version}-linux-${inputs.architecture}`;
    const root = join(staging, name);
    writeTree(root, inputs);
    copy(join(PROJECT_ROOT, 'deploy/install.sh'), join(root, 'install.sh'), 0o755);
    copy(join(PROJECT_ROOT, 'LICENSE'), join(root, 'LICENSE'));
    settle(root, inputs.epoch);
    mkdirSync(options.output, { recursive: true });
    const tarball = join(options.output, `${name}.tar.gz`);
    const sameEachTime = ['--sort=name', '--owner=root:0', '--group=root:0', '--format=gnu'];
    const compression = ['-I', `gzip -n -${options.quick ? 1 : 9}`];
    run('tar', [...sameEachTime, ...compression, '-C', staging, '-cf', tarball, name]);
    console.log(tarball);
  } finally {
    rmSync(staging, { recursive: true });
  }
});
