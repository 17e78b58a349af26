/** A copy of the compiled program that speaks another capability number: the neighbour of an upgrade. */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CAPABILITY } from '../../proto/capability.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { LabError } from './lab-error.ts';

/** Copies into `folder`, which must not exist yet. Returns the path of its cli/main.js. */
export function otherVersion(folder: string, capability: number): string {
  for (const part of ['agent', 'cli', 'conform', 'proto', 'runtime', 'mapserver']) {
    cpSync(join(PROJECT_ROOT, 'dist', part), join(folder, 'dist', part), { recursive: true });
  }
  cpSync(join(PROJECT_ROOT, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(PROJECT_ROOT, 'node_modules'), join(folder, 'node_modules'));
  const file = join(folder, 'dist/proto/capability.js');
  const text = readFileSync(file, 'utf8');
  const changed = text.replace(/const CAPABILITY = \d+;/, `const CAPABILITY = ${capability};`);
  if (changed === text && capability !== CAPABILITY) throw new LabError(`${file}: no capability number in it`);
  writeFileSync(file, changed);
  return join(folder, 'dist/cli/main.js');
}
