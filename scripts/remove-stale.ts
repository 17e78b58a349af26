/** tsc never removes what it once wrote: outputs whose source is gone would still be run as tests. */
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';

/** Returns the removed outputs, relative to dist/. */
export function removeStaleOutputs(): string[] {
  const dist = join(PROJECT_ROOT, 'dist');
  return sweep(dist).map((path) => relative(dist, path));

  function sweep(folder: string): string[] {
    const removed: string[] = [];
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        removed.push(...sweep(path));
        if (readdirSync(path).length === 0) rmdirSync(path);
        continue;
      }
      const output = /^(.*)\.js(\.map)?$/.exec(relative(dist, path));
      if (output === null || existsSync(join(PROJECT_ROOT, `${output[1]}.ts`))) continue;
      rmSync(path, { force: true });
      removed.push(path);
    }
    return removed;
  }
}
