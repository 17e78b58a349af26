/** A report as JUnit XML, which CI systems read. Failed SHOULDs and interop checks are skipped tests with a reason. */
import type { Verdict } from '../engine.ts';
import { escaped } from './markup.ts';
import { grouped, type Report } from './report.ts';

export function junitReport(report: Report): string {
  const suites = [...grouped(report.checks)].map(([name, checks]) => suite(`${report.role}.${name}`, report, checks));
  const attributes = `name="${escaped(`stayput conform ${report.target}`)}" ${sums(report.checks)}`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ${attributes}>\n${suites.join('\n')}\n</testsuites>\n`;
}

function suite(name: string, { startedAt }: Report, checks: readonly Verdict[]): string {
  const cases = checks.map((check) => testCase(name, check)).join('\n');
  const timestamp = startedAt.slice(0, 19);
  return `<testsuite name="${escaped(name)}" timestamp="${timestamp}" ${sums(checks)}>\n${cases}\n</testsuite>`;
}

function testCase(suiteName: string, check: Verdict): string {
  const { id, title, source, level, sent, expected, seen, milliseconds } = check;
  const head = `<testcase classname="${escaped(suiteName)}" name="${escaped(`${id} ${title}`)}" time="${milliseconds / 1000}">`;
  const detail = escaped(`${level}, ${source}\nsent: ${sent}\nexpected: ${expected}\nseen: ${seen}`);
  const message = escaped(seen);
  const body = {
    passed: '',
    skipped: `<skipped message="${message}"/>`,
    failures: `<failure message="${message}">${detail}</failure>`,
    errors: `<error message="${message}">${detail}</error>`,
  }[kindOf(check)];
  return `${head}${body}</testcase>`;
}

function kindOf({ outcome, level }: Verdict): 'passed' | 'skipped' | 'failures' | 'errors' {
  if (outcome === 'passed') return 'passed';
  if (outcome === 'broken') return 'errors';
  return outcome === 'failed' && level === 'MUST' ? 'failures' : 'skipped';
}

function sums(checks: readonly Verdict[]): string {
  const count = (kind: ReturnType<typeof kindOf>): number => checks.filter((check) => kindOf(check) === kind).length;
  const time = checks.reduce((sum, { milliseconds }) => sum + milliseconds, 0) / 1000;
  return `tests="${checks.length}" failures="${count('failures')}" errors="${count('errors')}" skipped="${count('skipped')}" time="${time.toFixed(3)}"`;
}
