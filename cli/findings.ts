/** How what `doctor` found is shown. */
import type { Finding } from '../runtime/finding.ts';
import { printJson, printLines } from './output.ts';
import { styleOf } from './style.ts';

/** Exit code 1 when something failed. */
export function printFindings(findings: readonly Finding[], key: string, json: boolean): void {
  if (!json) printFindingLines(findings);
  concludeFindings(findings, key, json);
}

/** When their lines are printed already. Exit code 1 when something failed. */
export function concludeFindings(findings: readonly Finding[], key: string, json: boolean): void {
  const healthy = findings.every(({ level }) => level !== 'fail');
  if (!healthy) process.exitCode = 1;
  if (json) printJson({ healthy, [key]: findings });
}

export function printFindingLines(findings: readonly Finding[]): void {
  const style = styleOf(process.stdout);
  const paint = { ok: style.good, warn: style.bad, fail: style.bad, skipped: style.weak };
  for (const { level, check, found, advice } of findings) {
    printLines(`${paint[level]((level === 'skipped' ? 'skip' : level).padEnd(5))} ${check.padEnd(13)} ${found}`);
    if (advice !== null) printLines(`${' '.repeat(20)}-> ${advice}`);
  }
}
