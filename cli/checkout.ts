/** Commands that are for people who have the source: packages leave out the laboratory that these run in. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { UsageError } from '../proto/errors.ts';

/** Has `command`, and those below it, say so where the laboratory is missing. */
export function needsCheckout(command: Command): void {
  command.hook('preAction', () => {
    if (existsSync(LABORATORY)) return;
    throw new UsageError(`"stayput ${command.name()}" is not in packages: run it in a checkout of the source`);
  });
}

const LABORATORY = fileURLToPath(new URL('../test/lab', import.meta.url));
