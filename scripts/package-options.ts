/** How `npm run package:deb` and `package:tarball` are told what to make. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PROJECT_ROOT } from '../runtime/project-root.ts';

export interface PackageOptions {
  /** Another version of the same tree. */
  readonly version: string | undefined;
  /** The folder that the package is written to. */
  readonly output: string;
  /** Hardly compressed. */
  readonly quick: boolean;
}

export function packageOptions(): PackageOptions {
  const { values } = parseArgs({
    options: {
      version: { type: 'string' },
      output: { type: 'string', default: join(PROJECT_ROOT, 'build/packages') },
      quick: { type: 'boolean', default: false },
    },
  });
  return { version: values.version, output: values.output, quick: values.quick };
}
