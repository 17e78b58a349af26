/** What a run found, as it is stored, signed and shown. */
import type { Level } from '../check.ts';
import { OUTCOMES, type Outcome, type Verdict } from '../engine.ts';

export const REPORT_FORMAT = 'stayput-conformance-1';

export const GRADES = ['full', 'core', 'incomplete', 'failed'] as const;

/**
 * `full`: every check passed. `core`: every MUST passed. `incomplete`: none failed, but there are MUSTs that were not
 * tried. `failed`: a MUST failed or could not be carried out.
 */
export type Grade = (typeof GRADES)[number];

export interface Report {
  readonly format: typeof REPORT_FORMAT;
  /** Who tested: name and version. */
  readonly tool: string;
  readonly role: string;
  readonly target: string;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly endedAt: string;
  /** What the run was given, without secrets. */
  readonly settings: Readonly<Record<string, string>>;
  readonly grade: Grade;
  readonly counts: Readonly<Record<Outcome, number>>;
  /** Datagrams, connections and requests sent. */
  readonly sent: number;
  readonly checks: readonly Verdict[];
}

export type ReportHead = Pick<Report, 'tool' | 'role' | 'target' | 'startedAt' | 'endedAt' | 'settings' | 'sent'>;

export function makeReport(head: ReportHead, checks: readonly Verdict[]): Report {
  const count = (outcome: Outcome): number => checks.filter((check) => check.outcome === outcome).length;
  const counts = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, count(outcome)])) as Record<Outcome, number>;
  return { format: REPORT_FORMAT, ...head, grade: gradeOf(checks), counts, checks };
}

export function passedGrade(grade: Grade): boolean {
  return grade === 'full' || grade === 'core';
}

/** One line for people. */
export function summaryLine({ role, target, grade, counts }: Report): string {
  const parts = OUTCOMES.filter((outcome) => counts[outcome] > 0).map((outcome) => `${counts[outcome]} ${outcome}`);
  return `${target} as ${role}: ${GRADE_TEXT[grade]} (${parts.join(', ')})`;
}

export const GRADE_TEXT: Readonly<Record<Grade, string>> = {
  full: 'full profile passed',
  core: 'core profile passed',
  incomplete: 'incomplete',
  failed: 'failed',
};

/** Checks in groups, by their IDs without the number. */
export function grouped(checks: readonly Verdict[]): ReadonlyMap<string, readonly Verdict[]> {
  const groups = new Map<string, Verdict[]>();
  for (const check of checks) {
    const name = check.id.replace(/-\d+$/, '');
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [check]);
    else group.push(check);
  }
  return groups;
}

function gradeOf(checks: readonly Verdict[]): Grade {
  const some = (level: Level | undefined, ...outcomes: readonly Outcome[]): boolean =>
    checks.some((check) => (level === undefined || check.level === level) && outcomes.includes(check.outcome));
  if (some('MUST', 'failed', 'broken')) return 'failed';
  if (some('MUST', 'not-tried') || !some('MUST', 'passed')) return 'incomplete';
  return some(undefined, 'failed', 'broken', 'not-tried') ? 'core' : 'full';
}
