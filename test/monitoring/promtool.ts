/** promtool of the Debian package `prometheus`: what it says of metrics, rules and their tests. */
import { spawnSync } from 'node:child_process';
import { findProgram } from '../../runtime/programs.ts';

/** What it complains of; empty when it is content. */
export function promtool(args: readonly string[], input = ''): string {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { input, encoding: 'utf8', timeout: 60_000 });
  if (error !== undefined) throw error;
  return status === 0 ? '' : `promtool ${args.join(' ')} (${status})\n${stdout}${stderr}`;
}

/** Unit tests need no tools: without it (`apt-get install prometheus`) they are left out, and CI has it. */
export const PROMTOOL_MISSING = findProgram('promtool') === undefined ? 'promtool is not installed' : false;
