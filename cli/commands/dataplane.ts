import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { printLines } from '../output.ts';

export function registerDataplaneCommands(program: Command): void {
  const dataplane = program.command('dataplane').description('The program that forwards the packets');
  dataplane
    .command('build')
    .description('Compile it from the source that this installation has, where it came without one (npm)')
    .action(async () => {
      if (!existsSync(join(PROJECT_ROOT, 'dataplane/Cargo.toml'))) {
        throw new UsageError('this installation came with stayput-dataplane, and has no source of it');
      }
      const { ensureDataplaneBuilt } = await import('../../runtime/crate-build.ts');
      const { missingForBuild } = await import('../../runtime/preflight.ts');
      const missing = missingForBuild();
      if (missing.length > 0) throw new UsageError(missing.join('\n'));
      const binary = await ensureDataplaneBuilt((line) => process.stderr.write(`${line}\n`));
      return printLines(binary, `Next: sudo ${join(PROJECT_ROOT, 'deploy/install.sh')} agent`);
    });
}
