/** A report for a terminal: what did not pass, at length, and the sums of each group. */
import type { Verdict } from '../engine.ts';
import { grouped, type Report, summaryLine } from './report.ts';

export function textReport(report: Report): string[] {
  const groups = [...grouped(report.checks)].map(([name, checks]) => {
    const passed = checks.filter(({ outcome }) => outcome === 'passed').length;
    return `${name.padEnd(12)} ${`${passed}/${checks.length}`.padStart(7)}`;
  });
  const noteworthy = report.checks.filter(({ outcome }) => outcome !== 'passed');
  return [...noteworthy.flatMap(verdictLines), ...groups, summaryLine(report)];
}

function verdictLines({ id, level, source, title, sent, expected, outcome, seen }: Verdict): string[] {
  if (outcome === 'not-tried') return [`${id} not tried (${level}): ${title}`, `  ${seen}`, ''];
  return [
    `${id} ${outcome} (${level}, ${source}): ${title}`,
    `  sent:     ${sent}`,
    `  expected: ${expected}`,
    `  seen:     ${seen}`,
    '',
  ];
}
